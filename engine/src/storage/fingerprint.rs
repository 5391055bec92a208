//! What a file looks like from outside: enough to notice that somebody wrote to it.
//!
//! It is taken after our own last write. A write that leaves size and time as they were is not noticed; the pieces'
//! digests at the receiver are the last word.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::Change;

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
    pub fn change(&self, now: &Fingerprint) -> Option<Change> {
        if (self.inode, self.device) != (now.inode, now.device) {
            Some(Change::Replaced)
        } else if now.length < self.length {
            Some(Change::Truncated)
        } else {
            (self != now).then_some(Change::Modified)
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
