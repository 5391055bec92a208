//! Sealed bytes at rest: a format name, a length, a body, and SHA-256 over all of it.
//!
//! [`open_sealed`] returns exactly the bytes that [`seal_body`] was given under the same format name.

use std::ops::Range;

use sha2::Digest as _;

use super::hashes::BackingBytes;

/// Name and version of a format: the first eight bytes.
pub type FormatMagic = [u8; 8];

/// Bytes before the body: format name and body length.
const OPENING_BYTES: usize = size_of::<FormatMagic>() + size_of::<u64>();

/// Bytes of the checksum after the body.
pub const SUM_BYTES: usize = 32;

/// A body is checked in blocks of this length.
const BLOCK_BYTES: usize = 64 * 1024;

/// Why sealed bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// They begin with the name of another format or version.
    #[error("it does not begin as such a file of this version does")]
    WrongFormat,
    /// They end too early.
    #[error("its end is missing")]
    Truncated,
    /// The checksum does not match.
    #[error("its checksum does not fit")]
    Checksum,
    /// The checksum matches, but the fields contradict each other.
    #[error("its parts contradict each other")]
    Inconsistent,
}

/// Seals a body that is written in blocks, and so need not be in memory.
#[derive(Debug)]
pub struct SealWriter {
    sum: sha2::Sha256,
    left: u64,
}

impl SealWriter {
    /// Starts a body of `length` bytes. Also returns the bytes that go before the body.
    #[must_use]
    pub fn new(magic: FormatMagic, length: u64) -> (SealWriter, Vec<u8>) {
        let opening = [&magic[..], &length.to_le_bytes()].concat();
        let mut sum = sha2::Sha256::new();
        sum.update(&opening);
        (SealWriter { sum, left: length }, opening)
    }

    /// Adds the next block of the body.
    ///
    /// # Panics
    /// When the body gets longer than announced.
    pub fn add(&mut self, block: &[u8]) {
        self.left = self.left.checked_sub(block.len() as u64).expect("the body is as long as announced");
        self.sum.update(block);
    }

    /// The checksum that goes after the body.
    ///
    /// # Panics
    /// When the body is shorter than announced.
    #[must_use]
    pub fn finish(self) -> [u8; SUM_BYTES] {
        assert_eq!(self.left, 0, "the body is as long as announced");
        self.sum.finalize().into()
    }
}

/// Seals a body in memory.
#[must_use]
pub fn seal_body(magic: FormatMagic, body: &[u8]) -> Vec<u8> {
    let (mut sealer, mut sealed) = SealWriter::new(magic, body.len() as u64);
    sealer.add(body);
    sealed.extend_from_slice(body);
    sealed.extend_from_slice(&sealer.finish());
    sealed
}

/// The body, and the bytes that follow the checksum.
///
/// # Errors
/// [`SealError`].
pub fn open_sealed(magic: FormatMagic, bytes: &[u8]) -> Result<(&[u8], &[u8]), SealError> {
    let body = check_seal(magic, &bytes)?;
    let rest = &bytes[body.end + SUM_BYTES..];
    Ok((&bytes[body], rest))
}

/// Checks the seal in blocks, and returns where in `bytes` the body is. Its checksum of [`SUM_BYTES`] follows.
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

/// Reads fields one after the other; `None` when the bytes end too early. Numbers are little-endian.
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

    /// The next four bytes, as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes, as a number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// An optional value in a field of fixed length: the value counts when the byte before it is 1.
    pub fn optional<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let is_there = self.u8()?;
        let value = value(self)?;
        Some((is_there == 1).then_some(value))
    }

    /// The bytes that were not read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Writes what [`FieldReader::optional`] reads: 1 and the value, or only zeros.
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
    fn optional_values_have_a_fixed_length() {
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
