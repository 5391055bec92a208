//! A storage seen through a sheet of memory: what is written stays on the sheet.
//!
//! The database repairs a file as soon as it opens it. Opened through an overlay it can be checked, or looked at, and the file
//! stays as it was found. Invariant: nothing here writes to, syncs or unlocks what is below.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes of a block of the sheet: the database's page.
const BLOCK_BYTES: usize = 4_096;

/// The sheet over a storage.
pub(super) struct Overlay<B> {
    below: Arc<B>,
    sheet: Mutex<WrittenBlocks>,
}

struct WrittenBlocks {
    blocks: BTreeMap<u64, Box<[u8]>>,
    length: u64,
    /// Beyond this, what is below no longer shows: the storage was cut here at some time.
    visible: u64,
}

impl<B: StorageBackend> Overlay<B> {
    /// An empty sheet over a storage.
    pub(super) fn new(below: Arc<B>) -> io::Result<Overlay<B>> {
        let length = below.len()?;
        Ok(Overlay {
            below,
            sheet: Mutex::new(WrittenBlocks { blocks: BTreeMap::new(), length, visible: length }),
        })
    }

    fn sheet(&self) -> MutexGuard<'_, WrittenBlocks> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One piece of a range: a block, where in it, and where in the range.
fn block_parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let block = at / BLOCK_BYTES as u64;
        let within = usize::try_from(at % BLOCK_BYTES as u64).expect("below a block's size");
        let count = (BLOCK_BYTES - within).min(length - done);
        let range = done..done + count;
        done += count;
        Some((block, within, range))
    })
}

/// Reads what is below; zeros where nothing shows.
fn read_below(below: &impl StorageBackend, visible: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
    out.fill(0);
    let shown = visible.saturating_sub(offset).min(out.len() as u64);
    let shown = usize::try_from(shown).expect("at most the buffer's length");
    if shown == 0 { Ok(()) } else { below.read(offset, &mut out[..shown]) }
}

impl<B> fmt::Debug for Overlay<B> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Overlay")
    }
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sheet().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let sheet = self.sheet();
        if offset + out.len() as u64 > sheet.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if sheet.blocks.is_empty() {
            return read_below(&*self.below, sheet.visible, offset, out);
        }
        for (block, within, range) in block_parts(offset, out.len()) {
            let at = block * BLOCK_BYTES as u64 + within as u64;
            let part = &mut out[range];
            match sheet.blocks.get(&block) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + part.len()]),
                None => read_below(&*self.below, sheet.visible, at, part)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sheet = self.sheet();
        sheet.visible = sheet.visible.min(len);
        sheet.length = len;
        let kept = len.div_ceil(BLOCK_BYTES as u64);
        sheet.blocks.split_off(&kept);
        if let Some(last) = sheet.blocks.get_mut(&(len / BLOCK_BYTES as u64)) {
            let within = usize::try_from(len % BLOCK_BYTES as u64).expect("below a block's size");
            last[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut sheet = self.sheet();
        let visible = sheet.visible;
        for (block, within, range) in block_parts(offset, bytes.len()) {
            let part = &bytes[range];
            let held = match sheet.blocks.entry(block) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => {
                    let mut fresh = vec![0; BLOCK_BYTES].into_boxed_slice();
                    read_below(&*self.below, visible, block * BLOCK_BYTES as u64, &mut fresh)?;
                    place.insert(fresh)
                }
            };
            held[within..within + part.len()].copy_from_slice(part);
        }
        sheet.length = sheet.length.max(offset + bytes.len() as u64);
        Ok(())
    }
}

/// A storage that several own: the check's overlay, then the database.
pub(super) struct SharedStorage<B>(pub(super) Arc<B>);

impl<B: fmt::Debug> fmt::Debug for SharedStorage<B> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(to)
    }
}

impl<B: StorageBackend> StorageBackend for SharedStorage<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Resize(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000u64, proptest::collection::vec(1..=255u8, 1..6_000))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..26_000u64).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_like_the_storage_itself_and_leaves_it_alone(steps in proptest::collection::vec(step(), 1..12)) {
            let original: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
            let below = InMemoryBackend::new();
            below.set_len(original.len() as u64).unwrap();
            below.write(0, &original).unwrap();
            let below = Arc::new(below);
            let overlay = Overlay::new(Arc::clone(&below)).unwrap();
            let mut expected = original.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        let at = at.min(expected.len() as u64);
                        let start = usize::try_from(at).unwrap();
                        expected.resize(expected.len().max(start + bytes.len()), 0);
                        expected[start..start + bytes.len()].copy_from_slice(&bytes);
                        overlay.write(at, &bytes).unwrap();
                    }
                    Step::Resize(length) => {
                        expected.resize(usize::try_from(length).unwrap(), 0);
                        overlay.set_len(length).unwrap();
                    }
                }
            }
            let mut seen = vec![0; usize::try_from(overlay.len().unwrap()).unwrap()];
            overlay.read(0, &mut seen).unwrap();
            prop_assert_eq!(seen, expected);
            let mut kept = vec![0; original.len()];
            below.read(0, &mut kept).unwrap();
            prop_assert_eq!(kept, original);
        }
    }
}
