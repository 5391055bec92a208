//! Bytes at rest: a name of the form, a length, a body, and SHA-256 over all of it.
//!
//! Invariant: what [`open`] returns is, byte for byte, what [`seal`] was given under the same name.

use sha2::Digest as _;

/// Names a form and its version: eight bytes at its start.
pub type Magic = [u8; 8];

const LENGTH_BYTES: usize = size_of::<u64>();
const SUM_BYTES: usize = 32;

/// Why bytes at rest are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// They begin otherwise: another thing, or another version of it.
    #[error("it does not begin as such a file of this version does")]
    Form,
    /// They end too early.
    #[error("its end is missing")]
    Short,
    /// The checksum is another.
    #[error("its checksum does not fit")]
    Checksum,
    /// They are whole, and yet make no sense.
    #[error("its parts contradict each other")]
    Parts,
}

/// Wraps a body.
#[must_use]
pub fn seal(magic: Magic, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(magic.len() + LENGTH_BYTES + body.len() + SUM_BYTES);
    sealed.extend_from_slice(&magic);
    sealed.extend_from_slice(&(body.len() as u64).to_le_bytes());
    sealed.extend_from_slice(body);
    let sum = sha2::Sha256::digest(&sealed);
    sealed.extend_from_slice(&sum);
    sealed
}

/// The body, and whatever follows the checksum.
///
/// # Errors
/// [`Damaged`].
pub fn open(magic: Magic, bytes: &[u8]) -> Result<(&[u8], &[u8]), Damaged> {
    let mut parts = Parts::of(bytes);
    if parts.array().ok_or(Damaged::Short)? != magic {
        return Err(Damaged::Form);
    }
    let length = parts.u64().and_then(|length| usize::try_from(length).ok()).ok_or(Damaged::Short)?;
    let body = parts.take(length).ok_or(Damaged::Short)?;
    let sum: [u8; SUM_BYTES] = parts.array().ok_or(Damaged::Short)?;
    let covered = &bytes[..magic.len() + LENGTH_BYTES + body.len()];
    if sha2::Sha256::digest(covered)[..] != sum {
        return Err(Damaged::Checksum);
    }
    Ok((body, parts.rest()))
}

/// Takes bytes apart from their start; `None` wherever they end too early. Numbers are little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Parts<'a> {
        Parts { rest: bytes }
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

    const MAGIC: Magic = *b"a form 1";

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealed = seal(MAGIC, b"the body");
        assert_eq!(open(MAGIC, &sealed), Ok((&b"the body"[..], &b""[..])));
        assert_eq!(open(MAGIC, &[&sealed[..], b"tail"].concat()), Ok((&b"the body"[..], &b"tail"[..])));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(MAGIC, &flipped).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert_eq!(open(MAGIC, &sealed[..end]), Err(Damaged::Short), "cut at {end}");
        }
        assert_eq!(open(*b"a form 2", &sealed), Err(Damaged::Form));
    }

    #[test]
    fn optional_values_keep_their_place() {
        let mut body = Vec::new();
        put_optional(&mut body, Some([7; 3]));
        put_optional::<3>(&mut body, None);
        body.push(9);
        let mut parts = Parts::of(&body);
        assert_eq!(parts.optional(Parts::array::<3>), Some(Some([7; 3])));
        assert_eq!(parts.optional(Parts::array::<3>), Some(None));
        assert_eq!((parts.u8(), parts.u8()), (Some(9), None));
    }
}
