//! Bytes at rest: a name of the form, a length, a body, and SHA-256 over all of it.
//!
//! Invariant: what [`open_sealed`] returns is, byte for byte, what [`seal_body`] was given under the same name.

use std::ops::Range;

use sha2::Digest as _;

use super::hashes::BackingBytes;

/// Names a form and its version: eight bytes at its start.
pub type FormatMagic = [u8; 8];

/// Bytes before the body: the name of the form, and the body's length.
const OPENING_BYTES: usize = size_of::<FormatMagic>() + size_of::<u64>();

/// Bytes of the checksum behind the body.
pub const SUM_BYTES: usize = 32;

/// A body is read over in blocks of so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// Why bytes at rest are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// They begin otherwise: another thing, or another version of it.
    #[error("it does not begin as such a file of this version does")]
    WrongFormat,
    /// They end too early.
    #[error("its end is missing")]
    Truncated,
    /// The checksum is another.
    #[error("its checksum does not fit")]
    Checksum,
    /// They are whole, and yet make no sense.
    #[error("its parts contradict each other")]
    Inconsistent,
}

/// Seals a body that comes block by block, and so need not be in memory.
#[derive(Debug)]
pub struct SealWriter {
    sum: sha2::Sha256,
    left: u64,
}

impl SealWriter {
    /// For a body of `length` bytes; with what goes before it.
    #[must_use]
    pub fn new(magic: FormatMagic, length: u64) -> (SealWriter, Vec<u8>) {
        let opening = [&magic[..], &length.to_le_bytes()].concat();
        let mut sum = sha2::Sha256::new();
        sum.update(&opening);
        (SealWriter { sum, left: length }, opening)
    }

    /// The next block of the body.
    ///
    /// # Panics
    /// When the body is longer than was said.
    pub fn add(&mut self, block: &[u8]) {
        self.left = self.left.checked_sub(block.len() as u64).expect("a body as long as was said");
        self.sum.update(block);
    }

    /// What goes behind the body.
    ///
    /// # Panics
    /// When the body was shorter than was said.
    #[must_use]
    pub fn finish(self) -> [u8; SUM_BYTES] {
        assert_eq!(self.left, 0, "a body as long as was said");
        self.sum.finalize().into()
    }
}

/// Wraps a body.
#[must_use]
pub fn seal_body(magic: FormatMagic, body: &[u8]) -> Vec<u8> {
    let (mut sealer, mut sealed) = SealWriter::new(magic, body.len() as u64);
    sealer.add(body);
    sealed.extend_from_slice(body);
    sealed.extend_from_slice(&sealer.finish());
    sealed
}

/// The body, and whatever follows the checksum.
///
/// # Errors
/// [`SealError`].
pub fn open_sealed(magic: FormatMagic, bytes: &[u8]) -> Result<(&[u8], &[u8]), SealError> {
    let body = check_seal(magic, &bytes)?;
    let rest = &bytes[body.end + SUM_BYTES..];
    Ok((&bytes[body], rest))
}

/// Where in `bytes` the body is, which is read over block by block. Its checksum of [`SUM_BYTES`] follows.
///
/// # Errors
/// [`SealError`].
pub fn check_seal(magic: FormatMagic, bytes: &dyn BackingBytes) -> Result<Range<usize>, SealError> {
    let mut opening = [0; OPENING_BYTES];
    let here = bytes.length().min(OPENING_BYTES);
    bytes.copy(0, &mut opening[..here]);
    let mut parts = FieldReader::of(&opening[..here]);
    if parts.array().ok_or(SealError::Truncated)? != magic {
        return Err(SealError::WrongFormat);
    }
    let length = parts.u64().and_then(|length| usize::try_from(length).ok()).ok_or(SealError::Truncated)?;
    let end = OPENING_BYTES.checked_add(length).ok_or(SealError::Truncated)?;
    if bytes.length().checked_sub(SUM_BYTES).is_none_or(|last| last < end) {
        return Err(SealError::Truncated);
    }
    let (mut sealer, _) = SealWriter::new(magic, length as u64);
    let mut block = vec![0; length.min(BLOCK_BYTES)];
    for start in (OPENING_BYTES..end).step_by(BLOCK_BYTES) {
        let block = &mut block[..(end - start).min(BLOCK_BYTES)];
        bytes.copy(start, block);
        sealer.add(block);
    }
    let mut sum = [0; SUM_BYTES];
    bytes.copy(end, &mut sum);
    if sealer.finish() == sum { Ok(OPENING_BYTES..end) } else { Err(SealError::Checksum) }
}

/// Takes bytes apart from their start; `None` wherever they end too early. Numbers are little-endian.
#[derive(Clone, Copy, Debug)]
pub struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> FieldReader<'a> {
        FieldReader { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte and a value that counts only where the byte is 1: an optional value in a fixed place.
    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let is_there = self.u8()?;
        let value = value(self)?;
        Some((is_there == 1).then_some(value))
    }

    /// What was not taken.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// The form that [`Parts::optional`] reads: a byte that says whether it is there, and the value or as many zeros.
pub fn put_optional<const N: usize>(body: &mut Vec<u8>, value: Option<[u8; N]>) {
    body.push(u8::from(value.is_some()));
    body.extend_from_slice(&value.unwrap_or([0; N]));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: FormatMagic = *b"a form 1";

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = seal_body(MAGIC, b"the body");
        assert_eq!(open_sealed(MAGIC, &sealed), Ok((&b"the body"[..], &b""[..])));
        assert_eq!(
            open_sealed(MAGIC, &[&sealed[..], b"tail"].concat()),
            Ok((&b"the body"[..], &b"tail"[..]))
        );
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_sealed(MAGIC, &flipped).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert_eq!(open_sealed(MAGIC, &sealed[..end]), Err(SealError::Truncated), "cut at {end}");
        }
        assert_eq!(open_sealed(*b"a form 2", &sealed), Err(SealError::WrongFormat));
    }

    #[test]
    fn optional_values_keep_their_place() {
        let mut body = Vec::new();
        put_optional(&mut body, Some([7; 3]));
        put_optional::<3>(&mut body, None);
        body.push(9);
        let mut parts = FieldReader::of(&body);
        assert_eq!(parts.optional(FieldReader::array::<3>), Some(Some([7; 3])));
        assert_eq!(parts.optional(FieldReader::array::<3>), Some(None));
        assert_eq!((parts.u8(), parts.u8()), (Some(9), None));
    }
}
