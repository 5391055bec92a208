//! Warms up memory before each run: the first use of memory that a virtual machine has never touched takes seconds.
//!
//! File pages and anonymous pages come from separate pools, in blocks of up to 2 MiB, so both are touched. A guest that
//! reports free memory loses such blocks to its host within seconds, so file pages are touched directly before the run, by
//! writing and deleting a file of the same length. Without that, the same transfer took up to five times as long.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::host::HostDescription;
use crate::limits::{WARM_EXTRA_BYTES, WARM_MAX_PERCENT, WARM_WRITE_BYTES};

/// Touches every page of `bytes` plus [`WARM_EXTRA_BYTES`] of anonymous memory, and frees it. Touches at most
/// [`WARM_MAX_PERCENT`] of the available memory.
pub(crate) fn touch_memory(bytes: u64) {
    let available = HostDescription::memory_available().unwrap_or(0);
    let length = bytes_to_touch(bytes, available);
    let page = rustix::param::page_size();
    let mut memory: Vec<u8> = Vec::new();
    // If the memory cannot be reserved, the run starts without the warm-up.
    if memory.try_reserve_exact(length).is_ok() {
        memory.resize(length, 0);
        for offset in (0..length).step_by(page) {
            memory[offset] = 1;
        }
    }
    std::hint::black_box(&memory);
}

/// Writes and deletes a file of `bytes` in `folder`, or of [`WARM_MAX_PERCENT`] of the available memory if that is less.
/// Call it directly before the run.
pub(crate) fn touch_files(folder: &Path, bytes: u64) {
    let path = folder.join("warm");
    let max_bytes = HostDescription::memory_available().unwrap_or(0) / 100 * WARM_MAX_PERCENT;
    let block = vec![1; WARM_WRITE_BYTES];
    if let Ok(mut file) = File::create(&path) {
        // A full disk ends the loop. The pages written until then are warm.
        let _ = (0..bytes.min(max_bytes)).step_by(WARM_WRITE_BYTES).try_for_each(|_| file.write_all(&block));
    }
    // If this fails, the file is removed with its folder.
    let _ = std::fs::remove_file(&path);
}

fn bytes_to_touch(bytes: u64, available: u64) -> usize {
    let max_bytes = available / 100 * WARM_MAX_PERCENT;
    usize::try_from(bytes.saturating_add(WARM_EXTRA_BYTES).min(max_bytes)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_is_bounded_by_the_available_memory() {
        assert_eq!(bytes_to_touch(1 << 30, 1_000), 600);
        assert_eq!(bytes_to_touch(10, 100 << 30) as u64, 10 + WARM_EXTRA_BYTES);
        touch_memory(1 << 20);
        let folder = tempfile::tempdir().unwrap();
        touch_files(folder.path(), 3 << 20);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
