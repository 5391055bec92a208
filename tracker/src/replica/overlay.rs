//! A storage with a layer of memory over it that takes all writes.
//!
//! The database repairs a file when it opens it. Through an overlay a file can be checked or read without being changed.
//! Invariant: the storage below is never written, synced or unlocked.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::CountedStorage;
use super::limits::BLOCK_BYTES;

/// A storage below, and the blocks written over it.
pub(super) struct Overlay {
    below: CountedStorage,
    layer: Mutex<WrittenBlocks>,
}

struct WrittenBlocks {
    blocks: BTreeMap<u64, Box<[u8]>>,
    length: u64,
    /// Length of the part of the storage below that is still visible, in bytes: the least length set so far.
    visible: u64,
}

impl Overlay {
    /// An overlay without written blocks.
    pub(super) fn new(below: CountedStorage) -> io::Result<Overlay> {
        let length = below.len()?;
        Ok(Overlay {
            below,
            layer: Mutex::new(WrittenBlocks { blocks: BTreeMap::new(), length, visible: length }),
        })
    }

    fn layer(&self) -> MutexGuard<'_, WrittenBlocks> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Splits a range into parts of single blocks: block number, offset in the block, range in the buffer.
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

/// Reads the storage below, and zeros beyond its visible part.
fn read_below(below: &CountedStorage, visible: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
    out.fill(0);
    let shown = visible.saturating_sub(offset).min(out.len() as u64);
    let shown = usize::try_from(shown).expect("at most the buffer's length");
    if shown == 0 { Ok(()) } else { below.read(offset, &mut out[..shown]) }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Overlay")
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.layer().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let layer = self.layer();
        if offset + out.len() as u64 > layer.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if layer.blocks.is_empty() {
            return read_below(&self.below, layer.visible, offset, out);
        }
        for (block, within, range) in block_parts(offset, out.len()) {
            let at = block * BLOCK_BYTES as u64 + within as u64;
            let part = &mut out[range];
            match layer.blocks.get(&block) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + part.len()]),
                None => read_below(&self.below, layer.visible, at, part)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut layer = self.layer();
        layer.visible = layer.visible.min(len);
        layer.length = len;
        let kept = len.div_ceil(BLOCK_BYTES as u64);
        layer.blocks.split_off(&kept);
        if let Some(last) = layer.blocks.get_mut(&(len / BLOCK_BYTES as u64)) {
            let within = usize::try_from(len % BLOCK_BYTES as u64).expect("below a block's size");
            last[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut layer = self.layer();
        let visible = layer.visible;
        for (block, within, range) in block_parts(offset, bytes.len()) {
            let part = &bytes[range];
            let held = match layer.blocks.entry(block) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => {
                    let mut fresh = vec![0; BLOCK_BYTES].into_boxed_slice();
                    read_below(&self.below, visible, block * BLOCK_BYTES as u64, &mut fresh)?;
                    place.insert(fresh)
                }
            };
            held[within..within + part.len()].copy_from_slice(part);
        }
        layer.length = layer.length.max(offset + bytes.len() as u64);
        Ok(())
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
        fn it_reads_like_the_storage_and_leaves_it_unchanged(steps in proptest::collection::vec(step(), 1..12)) {
            let original: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
            let below = CountedStorage::new(InMemoryBackend::new());
            below.set_len(original.len() as u64).unwrap();
            below.write(0, &original).unwrap();
            let overlay = Overlay::new(below.clone()).unwrap();
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
