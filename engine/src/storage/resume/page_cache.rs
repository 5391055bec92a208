//! Which page cache a file is written through: that of one boot, by one mount.
//!
//! A killed process loses nothing that it wrote, since the kernel has it. Whoever finds the same page cache again may
//! count on that. A machine that crashed has another boot; a disk that was pulled out has another mount.
//!
//! What the kernel could not write to the disk meanwhile shows in the next flush: Linux from 4.17 on reports an error that
//! nobody has seen to a file that is opened later, too. It forgets one if it drops the file from memory before that, as it
//! may under pressure when nobody has the file open. That is what trusting a page cache leaves to chance: a disk that fails
//! between a kill and the restart.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags};

/// Where Linux names its boot: an UUID, random at each.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// Digits of an UUID.
const BOOT_ID_DIGITS: usize = 32;

/// Asks for a mount's number that is not used again (Linux 6.8); without it one may be, and a pulled disk goes unnoticed.
const MOUNT_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Bytes of a page cache's name.
const ID_BYTES: usize = size_of::<u128>() + size_of::<u64>();

/// A page cache's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageCacheId(pub(super) [u8; ID_BYTES]);

impl PageCacheId {
    /// That which a directory's files are written through; `None` where the system does not tell.
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
    fn one_directory_is_always_behind_the_same_page_cache() {
        let open = || std::fs::File::open(std::env::temp_dir()).unwrap();
        let found = PageCacheId::of(open());
        assert!(found.is_some());
        assert_eq!(found, PageCacheId::of(open()));
        assert_ne!(found, PageCacheId::of(std::fs::File::open("/proc").unwrap()), "another mount");
    }

    #[test]
    fn what_is_no_boot_id_is_not_taken_for_one() {
        assert_eq!(parse_boot_id("00000000-0000-0000-0000-00000000002a\n"), Some(42));
        for text in ["", "\n", "2a", "00000000-0000-0000-0000-00000000002g"] {
            assert_eq!(parse_boot_id(text), None, "{text:?}");
        }
    }
}
