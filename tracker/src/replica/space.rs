//! Free space: whether the filesystem has room for what a write may need, asked before the write begins.
//!
//! A database that met a full disk half-way has to be opened anew; one that is never asked to write on a full disk goes on
//! reading, and goes on writing as soon as there is space.

use std::io;
use std::path::Path;

/// Free bytes of the filesystem of a directory, as far as this user may fill them.
///
/// # Errors
/// The system's, when the directory cannot be asked.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let known = rustix::fs::statvfs(dir)?;
    Ok(known.f_bavail.saturating_mul(known.f_frsize))
}
