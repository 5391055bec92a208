//! Identity of a file, independent of its name and content: a copy has another identity.
//!
//! The inode number distinguishes files of one filesystem. It survives a remount, unlike the device number
//! ([`Fingerprint::compare_ignoring_device`]). The birth time distinguishes files where an inode number is
//! reused, and where two filesystems have the same one; no program can set it (statx(2)), so a copy never has
//! it. On a filesystem without birth times the inode number alone decides. Where inode numbers are not stable, a
//! known file looks like another one and is hashed again; nothing worse happens.
//!
//! [`Fingerprint::compare_ignoring_device`]: super::fingerprint::Fingerprint::compare_ignoring_device

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use crate::proto::sealed::{FieldReader, put_optional};

/// Encoded length of a birth time: seconds, then nanoseconds.
const BIRTH_BYTES: usize = size_of::<i64>() + size_of::<u32>();

/// Inode number and birth time of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    inode: u64,
    /// Birth time; `None` where the system has none.
    birth: Option<[u8; BIRTH_BYTES]>,
}

impl FileIdentity {
    pub(super) fn of(file: impl AsFd) -> io::Result<FileIdentity> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let stat = match rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, wanted) {
            Ok(stat) => stat,
            // Older containers forbid the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                return Ok(FileIdentity { inode: rustix::fs::fstat(&file)?.st_ino, birth: None });
            }
            Err(errno) => return Err(errno.into()),
        };
        let born = (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| {
            let mut birth = [0; BIRTH_BYTES];
            let (seconds, nanoseconds) = birth.split_at_mut(size_of::<i64>());
            seconds.copy_from_slice(&stat.stx_btime.tv_sec.to_le_bytes());
            nanoseconds.copy_from_slice(&stat.stx_btime.tv_nsec.to_le_bytes());
            birth
        });
        Ok(FileIdentity { inode: stat.stx_ino, birth: born })
    }

    /// Appends the on-disk form.
    pub(super) fn write_to(self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.inode.to_le_bytes());
        put_optional(body, self.birth);
    }

    /// Reads what [`FileIdentity::write_to`] wrote.
    pub(super) fn read_from(parts: &mut FieldReader<'_>) -> Option<FileIdentity> {
        Some(FileIdentity { inode: parts.u64()?, birth: parts.optional(FieldReader::array)? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_keeps_its_identity_and_a_copy_has_another() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let of = |name: &str| FileIdentity::of(File::open(place(name)).unwrap()).unwrap();
        std::fs::write(place("a"), "1").unwrap();
        let origin = of("a");
        std::fs::write(place("a"), "other bytes").unwrap();
        std::fs::rename(place("a"), place("b")).unwrap();
        assert_eq!(of("b"), origin);
        std::fs::copy(place("b"), place("a")).unwrap();
        assert_ne!(of("a"), origin);
    }

    #[test]
    fn a_reused_inode_is_another_file() {
        let origin = FileIdentity { inode: 7, birth: Some([1; BIRTH_BYTES]) };
        for other in
            [FileIdentity { birth: Some([2; BIRTH_BYTES]), ..origin }, FileIdentity { birth: None, ..origin }]
        {
            assert_ne!(other, origin);
        }
    }

    #[test]
    fn the_on_disk_form_reads_back() {
        for born in [None, Some([3; BIRTH_BYTES])] {
            let (origin, mut body) = (FileIdentity { inode: u64::MAX - 1, birth: born }, Vec::new());
            origin.write_to(&mut body);
            assert_eq!(FileIdentity::read_from(&mut FieldReader::of(&body)), Some(origin));
            assert_eq!(FileIdentity::read_from(&mut FieldReader::of(&body[..body.len() - 1])), None, "cut");
        }
    }
}
