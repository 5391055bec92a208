//! The witness: a small file beside the log that says which change was acknowledged last.
//!
//! After a crash the database falls back to the commit before a torn one. That is right for a commit that nobody was told
//! of, and wrong for one that was acknowledged and damaged later; from inside, the two look alike. So after each durable commit its
//! number is written here, and a log that ends below it is refused.
//!
//! Invariants: the witness is written after the sync of what it vouches for, so it is never ahead of a sound log; it is not synced
//! itself, so after a loss of power it may lag or be missing, which only makes it silent. The number stands with its
//! complement: a torn or flipped witness is known as such, and silent too.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::fault::Fault;

/// The number of the last acknowledged change.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    file: File,
    written: Mutex<u64>,
}

impl Witness {
    /// Opens the witness at `path`, or makes a silent one.
    ///
    /// # Errors
    /// [`Fault::Io`] when the file cannot be opened or read.
    pub fn open(path: &Path) -> Result<Witness, Fault> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|source| Fault::io(path, "open the witness", source))?;
        let mut bytes = [0; 16];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => parse(bytes),
            Err(_) => None,
        };
        Ok(Witness { path: path.to_owned(), file, written: Mutex::new(number.unwrap_or(0)) })
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last acknowledged change; 0 when it is silent.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        *self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes a change that is durable. A failure is no fault: the witness is then silent about it.
    pub(super) fn note(&self, change: u64) {
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if change <= *written {
            return;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&change.to_be_bytes());
        bytes[8..].copy_from_slice(&(!change).to_be_bytes());
        match self.file.write_all_at(&bytes, 0) {
            Ok(()) => *written = change,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "the witness was not written"),
        }
    }
}

fn parse(bytes: [u8; 16]) -> Option<u64> {
    let (number, complement) = bytes.split_at(8);
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let complement = u64::from_be_bytes(complement.try_into().ok()?);
    (number == !complement).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_the_highest_change_noted_and_says_nothing_once_a_bit_is_flipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let witness = Witness::open(&path).unwrap();
        assert_eq!(witness.acknowledged(), 0);
        for change in [3, 9, 7] {
            witness.note(change);
        }
        assert_eq!(Witness::open(&path).unwrap().acknowledged(), 9);
        let sound = std::fs::read(&path).unwrap();
        for bit in 0..128 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Witness::open(&path).unwrap().acknowledged(), 0, "bit {bit}");
        }
    }
}
