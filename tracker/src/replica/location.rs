//! The place where a log is stored: opening it, and the free space there.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::fault::ReplicaFault;
use super::store::{LOG_FILE, ReplicaStore};

/// The place of a log. Tests implement it with storage that fails.
pub trait LogLocation: Send + 'static {
    /// Opens the log.
    ///
    /// # Errors
    /// [`ReplicaFault`].
    fn open(&mut self) -> Result<ReplicaStore, ReplicaFault>;

    /// Opens the log through an overlay: writes stay in memory, and the file is not changed.
    ///
    /// # Errors
    /// [`ReplicaFault`].
    fn open_overlaid(&mut self) -> Result<ReplicaStore, ReplicaFault>;

    /// Free space for this user, in bytes; `None` if unknown.
    fn free_bytes(&self) -> Option<u64>;

    /// The file that the log's name leads to now.
    fn log_file(&self) -> NamedFile {
        NamedFile::Unknown
    }

    /// Name of the place, for messages.
    fn name(&self) -> String;
}

/// The file that a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedFile {
    /// Its device and inode.
    Inode(u64, u64),
    /// There is no file of that name.
    Missing,
    /// It could not be looked at.
    Unknown,
}

/// The directory of one tracker.
#[derive(Clone, Debug)]
pub struct LogDirectory(pub PathBuf);

impl LogLocation for LogDirectory {
    fn open(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open(&self.0)
    }

    fn open_overlaid(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open_overlaid(&self.0)
    }

    fn free_bytes(&self) -> Option<u64> {
        let known = rustix::fs::statvfs(&self.0).ok()?;
        Some(known.f_bavail.saturating_mul(known.f_frsize))
    }

    fn log_file(&self) -> NamedFile {
        match std::fs::metadata(self.0.join(LOG_FILE)) {
            Ok(file) => NamedFile::Inode(file.dev(), file.ino()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => NamedFile::Missing,
            Err(_) => NamedFile::Unknown,
        }
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}
