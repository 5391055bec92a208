//! A simulated disk that records what was synced. A crash keeps that, and any part of what was written later.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use tracker::replica::{LOG_FILE, LogLocation, ReplicaFault, ReplicaStore, WITNESS_FILE, Witness};

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

struct State {
    /// Content that reads see.
    now: Vec<u8>,
    /// Content that a crash keeps.
    synced: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<Step>,
    /// Whether a sync has an effect.
    honest: bool,
    /// Whether writes fail because the disk is full.
    full: bool,
}

#[derive(Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Resize(u64),
}

impl Step {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Step::Write(at, written) => {
                let at = usize::try_from(*at).unwrap();
                bytes.resize(bytes.len().max(at + written.len()), 0);
                bytes[at..at + written.len()].copy_from_slice(written);
            }
            Step::Resize(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

impl CrashDisk {
    pub(crate) fn holding(bytes: Vec<u8>, honest: bool) -> CrashDisk {
        let state = State { now: bytes.clone(), synced: bytes, unsynced: Vec::new(), honest, full: false };
        CrashDisk(Arc::new(Mutex::new(state)))
    }

    /// What a loss of power leaves; `seed` selects the unsynced steps that reached the disk.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Vec<u8> {
        let state = self.state();
        let mut bytes = state.synced.clone();
        let mut random = seed | 1;
        for step in &state.unsynced {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(2) {
                step.apply(&mut bytes);
            }
        }
        bytes
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Blocks reads and writes until the returned value is dropped.
    pub(crate) fn stand_still(&self) -> impl Sized + '_ {
        self.state()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn step(&self, step: Step) -> io::Result<()> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        step.apply(&mut state.now);
        state.unsynced.push(step);
        Ok(())
    }
}

impl fmt::Debug for CrashDisk {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("CrashDisk")
    }
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let bytes = state.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(Step::Resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.honest {
            let steps = std::mem::take(&mut state.unsynced);
            for step in steps {
                step.apply(&mut state.synced);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Write(offset, bytes.to_vec()))
    }
}

/// A log on such a disk, with its witness in a real directory.
pub(crate) struct CrashHome {
    pub(crate) disk: CrashDisk,
    pub(crate) dir: PathBuf,
    /// Free space that it reports, in bytes.
    pub(crate) free_bytes: Arc<Mutex<u64>>,
}

impl CrashHome {
    /// An empty log, created in `dir` and copied from there.
    pub(crate) fn fresh(dir: PathBuf, honest: bool) -> CrashHome {
        ReplicaStore::create(&dir).unwrap();
        let bytes = std::fs::read(dir.join(LOG_FILE)).unwrap();
        CrashHome::holding(bytes, dir, honest)
    }

    pub(crate) fn holding(bytes: Vec<u8>, dir: PathBuf, honest: bool) -> CrashHome {
        CrashHome { disk: CrashDisk::holding(bytes, honest), dir, free_bytes: Arc::new(Mutex::new(u64::MAX)) }
    }

    fn witness(&self) -> Witness {
        Witness::open(&self.dir.join(WITNESS_FILE))
    }
}

impl LogLocation for CrashHome {
    fn open(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open_on(self.disk.clone(), &self.dir.join(LOG_FILE), self.witness())
    }

    fn open_overlaid(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open_overlaid_on(self.disk.clone(), &self.dir.join(LOG_FILE), self.witness())
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(*self.free_bytes.lock().unwrap())
    }

    fn name(&self) -> String {
        "a disk in memory".to_owned()
    }
}
