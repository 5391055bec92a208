//! Lists of SHA-1 values, one a piece: in memory where they are short, and somewhere else where they are not.
//!
//! A file of 1 TiB has 2,097,152 pieces, hence 40 MiB of digests and 40 MiB of chain: too much for the memory of a process
//! that promises to stay small. So a list may lie in bytes that its owner only lends by copies, 20 bytes at a time; what these
//! bytes are (a mapped file) is no concern of this module.
//!
//! Invariants: a list never changes its length, and its values lie whole within its bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::units::{ChainState, Digest};

/// Length of one value, in bytes.
pub const HASH_BYTES: usize = 20;

/// Bytes that somebody keeps, and that others read by copies: nobody gets a reference to them.
pub trait Kept: fmt::Debug + Send + Sync {
    /// How many there are.
    fn length(&self) -> usize;

    /// Copies those from `at` on.
    ///
    /// # Panics
    /// When there are fewer.
    fn copy(&self, at: usize, into: &mut [u8]);

    /// Where they are kept, when some could not be read any more: then what was copied may be wrong. Never again `None`.
    fn lost(&self) -> Option<String>;
}

/// Bytes in memory are never lost.
macro_rules! kept_in_memory {
    ($type:ty) => {
        impl Kept for $type {
            fn length(&self) -> usize {
                self.len()
            }

            fn copy(&self, at: usize, into: &mut [u8]) {
                into.copy_from_slice(&self[at..at + into.len()]);
            }

            fn lost(&self) -> Option<String> {
                None
            }
        }
    };
}

kept_in_memory!(Vec<u8>);
kept_in_memory!(&[u8]);

/// What such lists are made of: [`Digest`] and [`ChainState`].
pub trait Hash20: Copy + Eq + fmt::Debug {
    /// From its bytes.
    fn from_array(bytes: [u8; HASH_BYTES]) -> Self;

    /// Its bytes.
    fn to_array(self) -> [u8; HASH_BYTES];
}

impl Hash20 for Digest {
    fn from_array(bytes: [u8; HASH_BYTES]) -> Digest {
        Digest(bytes)
    }

    fn to_array(self) -> [u8; HASH_BYTES] {
        self.0
    }
}

impl Hash20 for ChainState {
    fn from_array(bytes: [u8; HASH_BYTES]) -> ChainState {
        ChainState(bytes)
    }

    fn to_array(self) -> [u8; HASH_BYTES] {
        self.0
    }
}

/// A list. Cheap to clone: all clones are the same list.
#[derive(Clone)]
pub struct Hashes<T> {
    bytes: Arc<dyn Kept>,
    start: usize,
    count: usize,
    of: PhantomData<T>,
}

impl<T: Hash20> Hashes<T> {
    /// The list of `count` values that begin at byte `start`; `None` when the bytes end before it does.
    #[must_use]
    pub fn kept(bytes: Arc<dyn Kept>, start: usize, count: usize) -> Option<Hashes<T>> {
        let end = count.checked_mul(HASH_BYTES)?.checked_add(start)?;
        (end <= bytes.length()).then_some(Hashes { bytes, start, count, of: PhantomData })
    }

    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        (index < self.count).then(|| {
            let mut value = [0; HASH_BYTES];
            self.bytes.copy(self.start + index * HASH_BYTES, &mut value);
            T::from_array(value)
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + Clone + '_ {
        (0..self.count).map(|index| self.get(index).expect("an index below the count"))
    }

    /// Those of `range`, which is cut to what there is.
    #[must_use]
    pub fn range(&self, range: Range<usize>) -> Vec<T> {
        range.filter_map(|index| self.get(index)).collect()
    }

    /// All of them, in memory.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }

    /// See [`Kept::lost`].
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        self.bytes.lost()
    }
}

impl<T: Hash20> From<Vec<T>> for Hashes<T> {
    fn from(values: Vec<T>) -> Hashes<T> {
        let count = values.len();
        Hashes { bytes: Arc::new(joined(&values)), start: 0, count, of: PhantomData }
    }
}

/// The bytes of the values, one after the other.
#[must_use]
pub fn joined<T: Hash20>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * HASH_BYTES);
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_array()));
    bytes
}

impl<T: Hash20> PartialEq for Hashes<T> {
    fn eq(&self, other: &Hashes<T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Hash20> Eq for Hashes<T> {}

impl<T: Hash20> PartialEq<[T]> for Hashes<T> {
    fn eq(&self, other: &[T]) -> bool {
        self.iter().eq(other.iter().copied())
    }
}

impl<T> fmt::Debug for Hashes<T> {
    /// Says how many: millions of values help nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hashes({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lies_anywhere_in_its_bytes_and_ends_within_them() {
        let values: Vec<Digest> = (0..4).map(|byte| Digest([byte; 20])).collect();
        let bytes = [vec![9; 7], joined(&values)].concat();
        let list = Hashes::<Digest>::kept(Arc::new(bytes.clone()), 7, 4).unwrap();
        assert_eq!(list, Hashes::from(values.clone()));
        assert_eq!(list, values[..]);
        assert_eq!((list.get(3), list.get(4)), (Some(values[3]), None));
        assert_eq!(list.range(2..99), values[2..]);
        assert!(Hashes::<Digest>::kept(Arc::new(bytes.clone()), 8, 4).is_none());
        assert!(Hashes::<Digest>::kept(Arc::new(bytes), 7, usize::MAX).is_none());
        assert_ne!(list, Hashes::from(vec![values[0]]));
    }
}
