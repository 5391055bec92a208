//! Warms up memory before each run: the first use of memory that a virtual machine has never touched takes seconds.
//!
//! Pages of files and anonymous pages come from separate pools, in blocks of up to 2 MiB, and a guest that reports
//! free memory loses such blocks to its host within seconds. So a file of the same length is written and deleted right
//! before the run. Without it the same transfer took up to five times as long.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::host::HostDescription;
use crate::limits::{WARM_EXTRA_BYTES, WARM_MAX_PERCENT, WARM_WRITE_BYTES};

/// Touches every page of `bytes` and [`WARM_EXTRA_BYTES`] of anonymous memory, and frees it.
pub(crate) fn touch_memory(bytes: u64) {
    let available = HostDescription::memory_available().unwrap_or(0);
    let length = bytes_to_touch(bytes, available);
    let page = rustix::param::page_size();
    let mut memory: Vec<u8> = Vec::new();
    // Without enough memory the run goes on unwarmed.
    if memory.try_reserve_exact(length).is_ok() {
        memory.resize(length, 0);
        for at in (0..length).step_by(page) {
            memory[at] = 1;
        }
    }
    std::hint::black_box(&memory);
}

/// Writes and deletes a file of `bytes` in `folder`. Call it directly before the run.
pub(crate) fn touch_files(folder: &Path, bytes: u64) {
    let path = folder.join("warm");
    let most = HostDescription::memory_available().unwrap_or(0) / 100 * WARM_MAX_PERCENT;
    let block = vec![1; WARM_WRITE_BYTES];
    if let Ok(mut file) = File::create(&path) {
        // A full disk ends the loop; what was written is warm.
        let _ = (0..bytes.min(most)).step_by(WARM_WRITE_BYTES).try_for_each(|_| file.write_all(&block));
    }
    // If this fails, the file is removed with its folder.
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
    fn warm_up_is_bounded_by_the_available_memory() {
        assert_eq!(bytes_to_touch(1 << 30, 1_000), 600);
        assert_eq!(bytes_to_touch(10, 100 << 30) as u64, 10 + WARM_EXTRA_BYTES);
        touch_memory(1 << 20);
        let folder = tempfile::tempdir().unwrap();
        touch_files(folder.path(), 3 << 20);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
