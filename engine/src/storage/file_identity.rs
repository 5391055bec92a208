//! Which file it is, whatever its name and its bytes: a copy of it is another.
//!
//! The number of an inode tells files of one filesystem apart; it stays when that is mounted again, while the number of the
//! filesystem does not ([`Fingerprint::difference_ignoring_device`]). The moment of birth tells them apart where a number is used
//! again, and where another filesystem has the same one: nobody can set it (statx(2)), and so no copy has it. Where a
//! filesystem keeps no birth the number alone has to do; where its numbers do not last, every look finds another file, which
//! costs hashing and no more.
//!
//! [`Fingerprint::difference_ignoring_device`]: super::fingerprint::Fingerprint::change_on_record

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use crate::proto::sealed::{FieldReader, put_optional};

/// Bytes of a birth: its seconds, and nanoseconds.
const BIRTH_BYTES: usize = size_of::<i64>() + size_of::<u32>();

/// Of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    /// Number of the inode.
    inode: u64,
    /// When it was made; `None` where the system does not tell.
    birth: Option<[u8; BIRTH_BYTES]>,
}

impl FileIdentity {
    /// Of an open file.
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

    /// Appends its form at rest.
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
    fn a_file_keeps_its_origin_and_a_copy_has_another() {
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
    fn a_number_that_is_used_again_is_another_file() {
        let origin = FileIdentity { inode: 7, birth: Some([1; BIRTH_BYTES]) };
        for other in
            [FileIdentity { birth: Some([2; BIRTH_BYTES]), ..origin }, FileIdentity { birth: None, ..origin }]
        {
            assert_ne!(other, origin);
        }
    }

    #[test]
    fn its_form_reads_back() {
        for born in [None, Some([3; BIRTH_BYTES])] {
            let (origin, mut body) = (FileIdentity { inode: u64::MAX - 1, birth: born }, Vec::new());
            origin.write_to(&mut body);
            assert_eq!(FileIdentity::read_from(&mut FieldReader::of(&body)), Some(origin));
            assert_eq!(FileIdentity::read_from(&mut FieldReader::of(&body[..body.len() - 1])), None, "cut");
        }
    }
}
