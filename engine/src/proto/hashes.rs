//! Lists of SHA-1 values, one a piece: short lists in memory, long ones in a file.
//!
//! A file of 1 TiB has 2,097,152 pieces, and so 40 MiB of digests and 40 MiB of chain: too much for a process that promises
//! to stay small. A list therefore reads from [`BackingBytes`], 20 bytes at a time, and does not know what they are.
//!
//! A list never changes its length, and all its values are within its bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::units::{ChainState, Digest};

/// Length of one value, in bytes.
pub const HASH_BYTES: usize = 20;

/// Bytes that are read by copying only: a mapped file cannot lend a reference that stays valid.
pub trait BackingBytes: fmt::Debug + Send + Sync {
    /// Number of bytes.
    fn length(&self) -> usize;

    /// Copies the bytes from `at` on until `into` is full.
    ///
    /// # Panics
    /// When there are fewer.
    fn copy(&self, at: usize, into: &mut [u8]);

    /// The path of the bytes once some of them could not be read, and `None` before. Copies may be wrong from then on.
    fn unreadable_at(&self) -> Option<String>;
}

/// Bytes in memory can always be read.
macro_rules! kept_in_memory {
    ($type:ty) => {
        impl BackingBytes for $type {
            fn length(&self) -> usize {
                self.len()
            }

            fn copy(&self, at: usize, into: &mut [u8]) {
                into.copy_from_slice(&self[at..at + into.len()]);
            }

            fn unreadable_at(&self) -> Option<String> {
                None
            }
        }
    };
}

kept_in_memory!(Vec<u8>);
kept_in_memory!(&[u8]);

/// A value of such a list: [`Digest`] or [`ChainState`].
pub trait Sha1Value: Copy + Eq + fmt::Debug {
    /// The value of these bytes.
    fn from_array(bytes: [u8; HASH_BYTES]) -> Self;

    /// The bytes of the value.
    fn to_array(self) -> [u8; HASH_BYTES];
}

impl Sha1Value for Digest {
    fn from_array(bytes: [u8; HASH_BYTES]) -> Digest {
        Digest(bytes)
    }

    fn to_array(self) -> [u8; HASH_BYTES] {
        self.0
    }
}

impl Sha1Value for ChainState {
    fn from_array(bytes: [u8; HASH_BYTES]) -> ChainState {
        ChainState(bytes)
    }

    fn to_array(self) -> [u8; HASH_BYTES] {
        self.0
    }
}

/// A list of SHA-1 values. Cheap to clone: all clones share the same bytes.
#[derive(Clone)]
pub struct Sha1List<T> {
    bytes: Arc<dyn BackingBytes>,
    start: usize,
    count: usize,
    of: PhantomData<T>,
}

impl<T: Sha1Value> Sha1List<T> {
    /// The list of `count` values from byte `start` on; `None` when the bytes end too early.
    #[must_use]
    pub fn from_backing(bytes: Arc<dyn BackingBytes>, start: usize, count: usize) -> Option<Sha1List<T>> {
        let end = count.checked_mul(HASH_BYTES)?.checked_add(start)?;
        (end <= bytes.length()).then_some(Sha1List { bytes, start, count, of: PhantomData })
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the list has no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value at `index`; `None` past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        (index < self.count).then(|| {
            let mut value = [0; HASH_BYTES];
            self.bytes.copy(self.start + index * HASH_BYTES, &mut value);
            T::from_array(value)
        })
    }

    /// All values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + Clone + '_ {
        (0..self.count).map(|index| self.get(index).expect("an index below the count"))
    }

    /// The values of `range`, as far as it is within the list.
    #[must_use]
    pub fn range(&self, range: Range<usize>) -> Vec<T> {
        range.filter_map(|index| self.get(index)).collect()
    }

    /// All values, in memory.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }

    /// See [`BackingBytes::unreadable_at`].
    #[must_use]
    pub fn unreadable_at(&self) -> Option<String> {
        self.bytes.unreadable_at()
    }
}

impl<T: Sha1Value> From<Vec<T>> for Sha1List<T> {
    fn from(values: Vec<T>) -> Sha1List<T> {
        let count = values.len();
        Sha1List { bytes: Arc::new(join_values(&values)), start: 0, count, of: PhantomData }
    }
}

/// The bytes of the values, joined.
#[must_use]
pub fn join_values<T: Sha1Value>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * HASH_BYTES);
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_array()));
    bytes
}

impl<T: Sha1Value> PartialEq for Sha1List<T> {
    fn eq(&self, other: &Sha1List<T>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Sha1Value> Eq for Sha1List<T> {}

impl<T: Sha1Value> PartialEq<[T]> for Sha1List<T> {
    fn eq(&self, other: &[T]) -> bool {
        self.iter().eq(other.iter().copied())
    }
}

impl<T> fmt::Debug for Sha1List<T> {
    /// Shows the number of values only: there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hashes({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_starts_anywhere_in_its_bytes_and_ends_within_them() {
        let values: Vec<Digest> = (0..4).map(|byte| Digest([byte; 20])).collect();
        let bytes = [vec![9; 7], join_values(&values)].concat();
        let list = Sha1List::<Digest>::from_backing(Arc::new(bytes.clone()), 7, 4).unwrap();
        assert_eq!(list, Sha1List::from(values.clone()));
        assert_eq!(list, values[..]);
        assert_eq!((list.get(3), list.get(4)), (Some(values[3]), None));
        assert_eq!(list.range(2..99), values[2..]);
        assert!(Sha1List::<Digest>::from_backing(Arc::new(bytes.clone()), 8, 4).is_none());
        assert!(Sha1List::<Digest>::from_backing(Arc::new(bytes), 7, usize::MAX).is_none());
        assert_ne!(list, Sha1List::from(vec![values[0]]));
    }
}
