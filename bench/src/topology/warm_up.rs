//! Memory that a virtual machine never touched costs seconds at its first use: as much as a run will need is touched and
//! given back before each.
//!
//! Pages of files are taken from another place than those of programs, in blocks of up to 2 MiB, and a guest that reports its
//! free memory loses blocks of that size to the host within seconds. So a file of the same length warms what a file will
//! need, and is deleted at the last moment: without it the same transfer took one to five times as long.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::limits::{WARM_EXTRA_BYTES, WARM_MAX_PERCENT, WARM_WRITE_BYTES};
use crate::host::HostDescription;

/// Touches one byte a page of as much anonymous memory as `bytes` of pages and the programs will need, and frees it.
pub(crate) fn touch_memory(bytes: u64) {
    let available = HostDescription::memory_available().unwrap_or(0);
    let length = bytes_to_touch(bytes, available);
    let page = rustix::param::page_size();
    let mut memory: Vec<u8> = Vec::new();
    // Whoever cannot have it measures without.
    if memory.try_reserve_exact(length).is_ok() {
        memory.resize(length, 0);
        for at in (0..length).step_by(page) {
            memory[at] = 1;
        }
    }
    std::hint::black_box(&memory);
}

/// Touches as many pages of files as `bytes` in `folder` will need, and frees them. Whoever calls this starts the run at once.
pub(crate) fn touch_files(folder: &Path, bytes: u64) {
    let path = folder.join("warm");
    let most = HostDescription::memory_available().unwrap_or(0) / 100 * WARM_MAX_PERCENT;
    let block = vec![1; WARM_WRITE_BYTES];
    if let Ok(mut file) = File::create(&path) {
        // A disk that is full warms what it has taken.
        let _ = (0..bytes.min(most)).step_by(WARM_WRITE_BYTES).try_for_each(|_| file.write_all(&block));
    }
    // If it was made, it goes with the folder at the latest.
    let _ = std::fs::remove_file(&path);
}

fn bytes_to_touch(bytes: u64, available: u64) -> usize {
    let most = available / 100 * WARM_MAX_PERCENT;
    usize::try_from(bytes.saturating_add(WARM_EXTRA_BYTES).min(most)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_fits_what_is_free() {
        assert_eq!(bytes_to_touch(1 << 30, 1_000), 600);
        assert_eq!(bytes_to_touch(10, 100 << 30) as u64, 10 + WARM_EXTRA_BYTES);
        touch_memory(1 << 20);
        let folder = tempfile::tempdir().unwrap();
        touch_files(folder.path(), 3 << 20);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
