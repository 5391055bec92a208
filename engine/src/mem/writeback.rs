//! Early write-back: asks the kernel to start writing a range of a file to the disk, without waiting.
//!
//! It makes nothing durable; only an fsync does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Starts to write the dirty pages of `len` bytes from `offset` to the disk. Does nothing on filesystems that
/// cannot.
///
/// # Errors
/// The disk fails or is full.
pub fn start_writeback(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let len = i64::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the call takes only numbers: the descriptor is open while it is borrowed, and no memory is
    // passed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn writeback_takes_files_and_refuses_pipes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        start_writeback(file.as_fd(), 0, 10_000).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(start_writeback(reader.as_fd(), 0, 1).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
    }
}
