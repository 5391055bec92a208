//! The record of one download.

use std::path::PathBuf;

use engine::proto::units::Digest;
use serde::{Deserialize, Serialize};
use tracker::api::FileKey;

use super::share::key_of;
use crate::exit::Fault;

/// One wanted file: what it takes to go on with it. What the file is, the trackers say again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(in crate::node) struct Wanted {
    /// Which file.
    pub(in crate::node) key: FileKey,
    /// By whom.
    pub(in crate::node) user: String,
    /// Where to, as it was asked for, absolute.
    pub(in crate::node) destination: PathBuf,
    /// Replace a file that differs.
    pub(in crate::node) overwrite: bool,
    /// What named its content when it was begun: under the same name there may be another file by now.
    pub(in crate::node) content: Digest,
    /// Its length in bytes, for people.
    pub(in crate::node) total_bytes: u64,
    /// Whether its user paused it.
    pub(in crate::node) paused: bool,
    /// Why it cannot succeed, when that is known.
    pub(in crate::node) failed: Option<Fault>,
    /// What was on record before, as long as this one has not begun.
    pub(in crate::node) former: Option<Box<Wanted>>,
}

/// The form at rest.
#[derive(Serialize, Deserialize)]
struct Written {
    group: String,
    file: String,
    user: String,
    destination: PathBuf,
    overwrite: bool,
    content: String,
    total_bytes: u64,
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Fault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Box<Wanted>>,
}

impl From<Wanted> for Written {
    fn from(wanted: Wanted) -> Written {
        Written {
            group: wanted.key.group.to_string(),
            file: wanted.key.name.to_string(),
            user: wanted.user,
            destination: wanted.destination,
            overwrite: wanted.overwrite,
            content: wanted.content.to_string(),
            total_bytes: wanted.total_bytes,
            paused: wanted.paused,
            failed: wanted.failed,
            former: wanted.former,
        }
    }
}

impl TryFrom<Written> for Wanted {
    type Error = String;

    fn try_from(written: Written) -> Result<Wanted, String> {
        if !written.destination.is_absolute() {
            return Err("its destination is no absolute path".into());
        }
        Ok(Wanted {
            key: key_of(&written.group, &written.file)?,
            user: written.user,
            destination: written.destination,
            overwrite: written.overwrite,
            content: written.content.parse().map_err(|bad| format!("{bad}"))?,
            total_bytes: written.total_bytes,
            paused: written.paused,
            failed: written.failed,
            former: written.former,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_record_reads_back_and_one_that_makes_no_sense_does_not() {
        let wanted = Wanted {
            key: key_of("g", "f").unwrap(),
            user: "u".into(),
            destination: "/to/".into(),
            overwrite: true,
            content: Digest([3; 20]),
            total_bytes: 9,
            paused: true,
            failed: Some(Fault::new(Exit::Exists, "why").fix("what")),
            former: None,
        };
        let former = Some(Box::new(Wanted { destination: "/before/".into(), ..wanted.clone() }));
        let wanted = Wanted { former, ..wanted };
        let text = serde_json::to_string(&wanted).unwrap();
        let back: Wanted = serde_json::from_str(&text).unwrap();
        assert_eq!(back, wanted);
        // A final slash says that a directory is meant; paths compare equal without it.
        assert!(back.destination.as_os_str().to_str().is_some_and(|path| path.ends_with('/')));
        assert!(serde_json::from_str::<Wanted>(&text.replacen("/to/", "to", 1)).is_err());
    }
}
