//! Fingerprint of a file: enough metadata to notice that its content was written to.
//!
//! It is taken after this program's own last write. Programs can set a file's modification time, so size and
//! modification time alone prove nothing. No program can set the time of the last status change, which also
//! moves with every write; but it moves with a change of the mode or of the links too, so the file then has
//! to be hashed again before it counts as changed or unchanged.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::error::SourceChange;

/// Seconds and nanoseconds since 1970.
type FileTime = (i64, i64);

/// Size, times and identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Length in bytes.
    pub length: u64,
    /// Time of the last modification of its content. Programs can set it.
    pub modified: FileTime,
    /// Time of the last change of its content, mode, owner or links (ctime). `None` in texts of older
    /// programs, which did not have it.
    pub status_changed: Option<FileTime>,
    /// Inode number.
    pub inode: u64,
    /// Device number of its filesystem.
    pub device: u64,
}

/// What a later fingerprint of a file says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintMatch {
    /// The content is the same.
    Same,
    /// Only the time of the last status change differs, or is not known: the content may be the same (another mode or
    /// link) or not (written, and the modification time set back). Hash the file before it counts.
    AttributesOnly,
    /// The content or the file is another.
    Changed(SourceChange),
}

impl FingerprintMatch {
    /// The change; `None` unless the content is certainly another.
    #[must_use]
    pub fn change(self) -> Option<SourceChange> {
        match self {
            FingerprintMatch::Changed(change) => Some(change),
            FingerprintMatch::Same | FingerprintMatch::AttributesOnly => None,
        }
    }
}

impl Fingerprint {
    /// Of an open file.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn of(file: &File) -> io::Result<Fingerprint> {
        file.metadata().map(|metadata| Fingerprint::from(&metadata))
    }

    /// Of the file that a path leads to.
    ///
    /// # Errors
    /// Any error of the system; `NotFound` when there is no such file.
    pub fn at(path: &Path) -> io::Result<Fingerprint> {
        std::fs::metadata(path).map(|metadata| Fingerprint::from(&metadata))
    }

    /// Compares this fingerprint with that of a later moment.
    #[must_use]
    pub fn compare(&self, now: &Fingerprint) -> FingerprintMatch {
        if (self.inode, self.device) != (now.inode, now.device) {
            FingerprintMatch::Changed(SourceChange::Replaced)
        } else if now.length < self.length {
            FingerprintMatch::Changed(SourceChange::Truncated)
        } else if (self.length, self.modified) != (now.length, now.modified) {
            FingerprintMatch::Changed(SourceChange::Modified)
        } else if self.status_changed.is_some() && self.status_changed == now.status_changed {
            FingerprintMatch::Same
        } else {
            FingerprintMatch::AttributesOnly
        }
    }

    /// As [`Fingerprint::compare`], for a fingerprint read from disk. Ignores the device number, which
    /// may change with each mount (tmpfs, overlay, btrfs, NFS).
    #[must_use]
    pub fn compare_ignoring_device(&self, now: &Fingerprint) -> FingerprintMatch {
        self.compare(&Fingerprint { device: self.device, ..*now })
    }
}

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a fingerprint: expected `length:modified:status changed:inode:device`, times as `seconds:nanoseconds`"
)]
pub struct NotAFingerprint;

impl fmt::Display for Fingerprint {
    /// Decimal numbers, joined by colons: length, modification time, time of the last status change if it is
    /// known, inode, device. A time is seconds and nanoseconds. [`Fingerprint::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fingerprint { length, modified: (seconds, nanoseconds), status_changed, inode, device } = self;
        write!(f, "{length}:{seconds}:{nanoseconds}:")?;
        if let Some((seconds, nanoseconds)) = status_changed {
            write!(f, "{seconds}:{nanoseconds}:")?;
        }
        write!(f, "{inode}:{device}")
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, NotAFingerprint> {
        fn number<N: FromStr>(part: &str) -> Result<N, NotAFingerprint> {
            part.parse().map_err(|_| NotAFingerprint)
        }
        let time = |seconds, nanoseconds| Ok((number(seconds)?, number(nanoseconds)?));
        let parts: Vec<&str> = text.splitn(NUMBERS_MAX + 1, ':').collect();
        let (length, modified, status_changed, inode, device) = match parts[..] {
            [length, s, ns, inode, device] => (length, time(s, ns)?, None, inode, device),
            [length, s, ns, changed_s, changed_ns, inode, device] => {
                (length, time(s, ns)?, Some(time(changed_s, changed_ns)?), inode, device)
            }
            _ => return Err(NotAFingerprint),
        };
        Ok(Fingerprint {
            length: number(length)?,
            modified,
            status_changed,
            inode: number(inode)?,
            device: number(device)?,
        })
    }
}

/// Numbers in the text form.
const NUMBERS_MAX: usize = 7;

impl From<&Metadata> for Fingerprint {
    fn from(metadata: &Metadata) -> Fingerprint {
        Fingerprint {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            status_changed: Some((metadata.ctime(), metadata.ctime_nsec())),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORED: Fingerprint =
        Fingerprint { length: 5, modified: (1, 2), status_changed: Some((6, 7)), inode: 3, device: 4 };

    proptest! {
        #[test]
        fn the_text_form_reads_back(
            length: u64,
            modified: FileTime,
            status_changed: Option<FileTime>,
            inode: u64,
            device: u64,
        ) {
            let fingerprint = Fingerprint { length, modified, status_changed, inode, device };
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn a_stored_fingerprint_ignores_only_the_device() {
        let mounted_again = Fingerprint { device: 9, ..STORED };
        assert_eq!(STORED.compare(&mounted_again).change(), Some(SourceChange::Replaced));
        assert_eq!(STORED.compare_ignoring_device(&mounted_again), FingerprintMatch::Same);
        for (other, change) in [
            (Fingerprint { inode: 4, ..mounted_again }, SourceChange::Replaced),
            (Fingerprint { length: 4, ..mounted_again }, SourceChange::Truncated),
            (Fingerprint { length: 6, ..mounted_again }, SourceChange::Modified),
            (Fingerprint { modified: (1, 3), ..mounted_again }, SourceChange::Modified),
        ] {
            assert_eq!(STORED.compare_ignoring_device(&other), FingerprintMatch::Changed(change));
        }
    }

    #[test]
    fn a_status_change_alone_says_that_only_hashing_can_tell() {
        let later = Fingerprint { status_changed: Some((6, 8)), ..STORED };
        let old_text = Fingerprint { status_changed: None, ..STORED };
        for (then, now) in [(STORED, later), (old_text, STORED), (old_text, old_text)] {
            assert_eq!(then.compare(&now), FingerprintMatch::AttributesOnly);
        }
        assert_eq!("5:1:2:3:4".parse(), Ok(old_text));
    }

    #[test]
    fn an_edit_is_seen_although_its_modification_time_was_set_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of = || Fingerprint::at(file.path()).unwrap();
        let before = of();
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        // Repeated for filesystems with coarse times.
        while of().status_changed == before.status_changed {
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"", 0).unwrap();
            file.as_file().set_times(std::fs::FileTimes::new().set_modified(modified)).unwrap();
        }
        assert_eq!(of().modified, before.modified);
        assert_eq!(before.compare(&of()), FingerprintMatch::AttributesOnly);
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in
            ["", "1:2:3:4", "1:2:3:4:5:6", "-1:2:3:4:5", "1:2:3:4:x", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:"]
        {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NotAFingerprint), "{wrong}");
        }
    }
}
