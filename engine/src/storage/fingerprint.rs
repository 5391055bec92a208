//! Fingerprint of a file: enough metadata to notice that its content was written to.
//!
//! It is taken after this program's own last write. A write that leaves size and modification time unchanged
//! goes unnoticed; the receiver's piece digests still catch it.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use super::error::SourceChange;

/// Size, modification time and identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Length in bytes.
    pub length: u64,
    /// Modification time: seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// Inode number.
    pub inode: u64,
    /// Device number of its filesystem.
    pub device: u64,
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

    /// How `now` differs from this fingerprint; `None` when they are equal.
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

    /// As [`Fingerprint::difference_to`], for a fingerprint read from disk. Ignores the device number, which
    /// may change with each mount (tmpfs, overlay, btrfs, NFS).
    #[must_use]
    pub fn difference_ignoring_device(&self, now: &Fingerprint) -> Option<SourceChange> {
        self.difference_to(&Fingerprint { device: self.device, ..*now })
    }
}

/// The text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: expected `length:seconds:nanoseconds:inode:device`")]
pub struct NotAFingerprint;

impl fmt::Display for Fingerprint {
    /// `length:seconds:nanoseconds:inode:device`, decimal; [`Fingerprint::from_str`] reads it.
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
        fn the_text_form_reads_back(length: u64, seconds: i64, nanoseconds: i64, inode: u64, device: u64) {
            let fingerprint = Fingerprint { length, modified: (seconds, nanoseconds), inode, device };
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn a_stored_fingerprint_ignores_only_the_device() {
        let stored = Fingerprint { length: 5, modified: (1, 2), inode: 3, device: 4 };
        let mounted_again = Fingerprint { device: 9, ..stored };
        assert_eq!(stored.difference_to(&mounted_again), Some(SourceChange::Replaced));
        assert_eq!(stored.difference_ignoring_device(&mounted_again), None);
        for (other, change) in [
            (Fingerprint { inode: 4, ..mounted_again }, SourceChange::Replaced),
            (Fingerprint { length: 4, ..mounted_again }, SourceChange::Truncated),
            (Fingerprint { modified: (1, 3), ..mounted_again }, SourceChange::Modified),
        ] {
            assert_eq!(stored.difference_ignoring_device(&other), Some(change));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in ["", "1:2:3:4", "1:2:3:4:5:6", "-1:2:3:4:5", "1:2:3:4:x"] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NotAFingerprint), "{wrong}");
        }
    }
}
