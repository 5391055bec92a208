//! Memory that a virtual machine never touched costs seconds at its first use: as much as a run will need is touched and
//! given back before each.

use super::limits::{WARM_EXTRA_BYTES, WARM_MAX_PERCENT};
use crate::host::Host;

/// Touches one byte a page of as much anonymous memory as `bytes` of pages and the programs will need, and frees it.
pub(crate) fn touch(bytes: u64) {
    let available = Host::memory_available().unwrap_or(0);
    let length = wanted(bytes, available);
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

fn wanted(bytes: u64, available: u64) -> usize {
    let most = available / 100 * WARM_MAX_PERCENT;
    usize::try_from(bytes.saturating_add(WARM_EXTRA_BYTES).min(most)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_fits_what_is_free() {
        assert_eq!(wanted(1 << 30, 1_000), 600);
        assert_eq!(wanted(10, 100 << 30) as u64, 10 + WARM_EXTRA_BYTES);
        touch(1 << 20);
    }
}
