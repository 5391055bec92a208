//! The witness: a small file beside the log with the number of the last acknowledged change.
//!
//! After a crash the database falls back to the commit before a torn one. That is right for a commit that was never
//! acknowledged, and wrong for an acknowledged one that was damaged later; the log's file alone cannot tell them apart. So
//! the number of each durable commit is written here, and a log that ends before it is refused.
//!
//! Invariants: the witness is written after the sync of its change, so it is never ahead of a sound log. It is not synced
//! itself: after a loss of power it may lag or be missing, and then refuses less. The number stands with its complement; a
//! torn or flipped witness counts as missing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of the last acknowledged change, and its file.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    said: Mutex<WitnessState>,
}

#[derive(Debug, Default)]
struct WitnessState {
    change: u64,
    /// Open since the first recorded change.
    file: Option<File>,
}

impl Witness {
    /// Reads the witness at `path`. A missing or unreadable one has number 0. Nothing is written yet.
    #[must_use]
    pub fn open(path: &Path) -> Witness {
        let change = match std::fs::read(path) {
            Ok(bytes) => parse_witness(&bytes),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "there is no witness");
                None
            }
        };
        let said = WitnessState { change: change.unwrap_or(0), file: None };
        Witness { path: path.to_owned(), said: Mutex::new(said) }
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the last acknowledged change; 0 when unknown.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.said().change
    }

    /// Records a durable change. A failure is logged and not reported: the witness then lags.
    pub(super) fn record_change(&self, change: u64) {
        let mut said = self.said();
        if change <= said.change {
            return;
        }
        match said.write(&self.path, change) {
            Ok(()) => said.change = change,
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "the witness was not written"),
        }
    }

    fn said(&self) -> MutexGuard<'_, WitnessState> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WitnessState {
    fn write(&mut self, path: &Path, change: u64) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&change.to_be_bytes());
        bytes[8..].copy_from_slice(&(!change).to_be_bytes());
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().write(true).create(true).truncate(false).open(path)?,
        };
        let written = file.write_all_at(&bytes, 0);
        self.file = Some(file);
        written
    }
}

fn parse_witness(bytes: &[u8]) -> Option<u64> {
    let (number, complement) = bytes.split_at_checked(8)?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let complement = u64::from_be_bytes(complement.try_into().ok()?);
    (number == !complement).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_highest_recorded_change_and_none_once_a_bit_is_flipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let witness = Witness::open(&path);
        assert_eq!(witness.acknowledged(), 0);
        for change in [3, 9, 7] {
            witness.record_change(change);
        }
        assert_eq!(Witness::open(&path).acknowledged(), 9);
        let sound = std::fs::read(&path).unwrap();
        for bit in 0..128 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Witness::open(&path).acknowledged(), 0, "bit {bit}");
        }
    }
}
