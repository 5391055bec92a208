//! What a file looks like from outside: enough to notice that somebody wrote to it.
//!
//! It is taken after our own last write. A write that leaves size and time as they were is not noticed; the pieces'
//! digests at the receiver are the last word.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::error::SourceChange;

/// Size, time of modification and identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// In bytes.
    pub length: u64,
    /// Time of modification: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// Number of the inode.
    pub inode: u64,
    /// The filesystem it is on.
    pub device: u64,
}

impl Fingerprint {
    /// Of an open file.
    ///
    /// # Errors
    /// The system's.
    pub fn of(file: &File) -> io::Result<Fingerprint> {
        file.metadata().map(|metadata| Fingerprint::from(&metadata))
    }

    /// Of what a path leads to now.
    ///
    /// # Errors
    /// The system's; `NotFound` when it leads nowhere.
    pub fn at(path: &Path) -> io::Result<Fingerprint> {
        std::fs::metadata(path).map(|metadata| Fingerprint::from(&metadata))
    }

    /// How `now` differs from this; `None` when it does not.
    #[must_use]
    pub fn difference_to(&self, now: &Fingerprint) -> Option<SourceChange> {
        if (self.inode, self.device) != (now.inode, now.device) {
            Some(SourceChange::Replaced)
        } else if now.length < self.length {
            Some(SourceChange::Truncated)
        } else {
            (self != now).then_some(SourceChange::Modified)
        }
    }

    /// As [`Fingerprint::difference_to`], for one that was written down: the number of the filesystem is good only until that is
    /// mounted again (tmpfs, overlay, btrfs and NFS get whichever is free), so it does not count.
    #[must_use]
    pub fn difference_ignoring_device(&self, now: &Fingerprint) -> Option<SourceChange> {
        self.difference_to(&Fingerprint { device: self.device, ..*now })
    }
}

/// Not the text of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a fingerprint: length, seconds, nanoseconds, inode and device are wanted, with `:` between them"
)]
pub struct NotAFingerprint;

impl fmt::Display for Fingerprint {
    /// `length:seconds:nanoseconds:inode:device`, in decimal digits; [`Fingerprint::from_str`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fingerprint { length, modified: (seconds, nanoseconds), inode, device } = self;
        write!(f, "{length}:{seconds}:{nanoseconds}:{inode}:{device}")
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, NotAFingerprint> {
        fn number<'a, N: FromStr>(parts: &mut impl Iterator<Item = &'a str>) -> Result<N, NotAFingerprint> {
            parts.next().and_then(|part| part.parse().ok()).ok_or(NotAFingerprint)
        }
        let parts = &mut text.split(':');
        let length = number(parts)?;
        let modified = (number(parts)?, number(parts)?);
        let (inode, device) = (number(parts)?, number(parts)?);
        match parts.next() {
            None => Ok(Fingerprint { length, modified, inode, device }),
            Some(_) => Err(NotAFingerprint),
        }
    }
}

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Fingerprint {
        Fingerprint {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn its_text_reads_back(length: u64, seconds: i64, nanoseconds: i64, inode: u64, device: u64) {
            let fingerprint = Fingerprint { length, modified: (seconds, nanoseconds), inode, device };
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn on_record_the_filesystems_number_does_not_count_and_all_else_does() {
        let kept = Fingerprint { length: 5, modified: (1, 2), inode: 3, device: 4 };
        let mounted_again = Fingerprint { device: 9, ..kept };
        assert_eq!(kept.difference_to(&mounted_again), Some(SourceChange::Replaced));
        assert_eq!(kept.difference_ignoring_device(&mounted_again), None);
        for (other, change) in [
            (Fingerprint { inode: 4, ..mounted_again }, SourceChange::Replaced),
            (Fingerprint { length: 4, ..mounted_again }, SourceChange::Truncated),
            (Fingerprint { modified: (1, 3), ..mounted_again }, SourceChange::Modified),
        ] {
            assert_eq!(kept.difference_ignoring_device(&other), Some(change));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in ["", "1:2:3:4", "1:2:3:4:5:6", "-1:2:3:4:5", "1:2:3:4:x"] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NotAFingerprint), "{wrong}");
        }
    }
}
