//! Identifies the page cache that a file is written through: one boot of the machine and one mount.
//!
//! A killed process loses nothing that it wrote, since the kernel has it. A later process may rely on that if
//! it finds the same page cache. A machine that crashed has another boot id; a disk that was removed has
//! another mount id.
//!
//! If the kernel could not write a page meanwhile, the next flush fails: since Linux 4.17 an unreported error
//! is also reported to a file that is opened later. The kernel forgets it if it evicts the inode first, which
//! it may do under memory pressure while no process has the file open. So a disk that fails between a kill
//! and the restart can go unnoticed.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags};

/// Linux's boot id: a UUID, random at each boot.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Hex digits of a UUID.
const BOOT_ID_DIGITS: usize = 32;

/// Requests a mount id that is never reused (Linux 6.8). Without it an id may be reused, and a replaced disk
/// goes unnoticed.
const MOUNT_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Length of the encoded id: boot id, then mount id.
const ID_BYTES: usize = size_of::<u128>() + size_of::<u64>();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageCacheId(pub(super) [u8; ID_BYTES]);

impl PageCacheId {
    /// The page cache of a directory's files; `None` where the system does not tell.
    pub(super) fn of(directory: impl AsFd) -> Option<PageCacheId> {
        let boot = parse_boot_id(&std::fs::read_to_string(BOOT_ID_PATH).ok()?)?;
        let wanted = MOUNT_UNIQUE | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, wanted).ok()?;
        if stat.stx_mask & wanted.bits() == 0 {
            return None;
        }
        let mut name = [0; ID_BYTES];
        let (first, rest) = name.split_at_mut(size_of::<u128>());
        first.copy_from_slice(&boot.to_le_bytes());
        rest.copy_from_slice(&stat.stx_mnt_id.to_le_bytes());
        Some(PageCacheId(name))
    }
}

fn parse_boot_id(text: &str) -> Option<u128> {
    let digits: String = text.trim().split('-').collect();
    (digits.len() == BOOT_ID_DIGITS).then(|| u128::from_str_radix(&digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_page_cache() {
        let open = || std::fs::File::open(std::env::temp_dir()).unwrap();
        let found = PageCacheId::of(open());
        assert!(found.is_some());
        assert_eq!(found, PageCacheId::of(open()));
        assert_ne!(found, PageCacheId::of(std::fs::File::open("/proc").unwrap()), "another mount");
    }

    #[test]
    fn malformed_boot_ids_are_refused() {
        assert_eq!(parse_boot_id("00000000-0000-0000-0000-00000000002a\n"), Some(42));
        for text in ["", "\n", "2a", "00000000-0000-0000-0000-00000000002g"] {
            assert_eq!(parse_boot_id(text), None, "{text:?}");
        }
    }
}
