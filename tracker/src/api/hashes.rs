//! Lists of 20-byte values in their two JSON forms: an array of hex strings, or one base64 string of the joined values.

use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::proto::hex::HexDigits;
use engine::proto::units::{ChainState, Digest};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::HEX_LIST_MAX;

/// A 20-byte value that can stand in such a list: [`Digest`] or [`ChainState`].
pub trait HashValue: Copy + std::fmt::Display + std::str::FromStr<Err: std::fmt::Display> {
    /// The value with these bytes.
    fn from_bytes(bytes: [u8; 20]) -> Self;

    /// The value's bytes.
    fn bytes(&self) -> &[u8; 20];
}

impl HashValue for Digest {
    fn from_bytes(bytes: [u8; 20]) -> Digest {
        Digest(bytes)
    }

    fn bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl HashValue for ChainState {
    fn from_bytes(bytes: [u8; 20]) -> ChainState {
        ChainState(bytes)
    }

    fn bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

/// The JSON form in which a list is written. Reading accepts both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashForm {
    /// An array of strings of 40 hex digits.
    Hex,
    /// One base64 string.
    Base64,
}

impl HashForm {
    /// The form in which a client sends a list of `values` values.
    #[must_use]
    pub fn for_len(values: usize) -> HashForm {
        if values <= HEX_LIST_MAX { HashForm::Hex } else { HashForm::Base64 }
    }
}

/// The text is not one base64 string of joined 20-byte values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one base64 string of joined 20-byte values")]
pub struct BadBase64;

/// Reads a list in base64.
///
/// # Errors
/// [`BadBase64`] when the text is not base64, or its length in bytes is not a multiple of 20.
pub fn from_base64<T: HashValue>(text: &str) -> Result<Vec<T>, BadBase64> {
    let bytes = BASE64.decode(text).map_err(|_| BadBase64)?;
    let (values, rest) = bytes.as_chunks::<20>();
    if rest.is_empty() {
        Ok(values.iter().map(|value| T::from_bytes(*value)).collect())
    } else {
        Err(BadBase64)
    }
}

/// The hex digits of all values in one string: the original client's `file_sha` of a file whose own SHA-1 is
/// not known.
#[must_use]
pub fn joined_hex<T: HashValue>(values: &[T]) -> String {
    let mut joined = String::with_capacity(40 * values.len());
    values.iter().for_each(|value| joined.push_str(HexDigits::of(value.bytes()).as_str()));
    assert_eq!(joined.len(), 40 * values.len(), "40 digits a value");
    joined
}

/// A list, and the form in which it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashList<T> {
    /// Form for writing.
    pub form: HashForm,
    /// The values, in order.
    pub values: Vec<T>,
}

impl<T: HashValue> Serialize for HashList<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form {
            HashForm::Base64 => {
                let joined: Vec<u8> = self.values.iter().flat_map(|value| *value.bytes()).collect();
                serializer.serialize_str(&BASE64.encode(joined))
            }
            HashForm::Hex => {
                let mut list = serializer.serialize_seq(Some(self.values.len()))?;
                self.values
                    .iter()
                    .try_for_each(|value| list.serialize_element(HexDigits::of(value.bytes()).as_str()))?;
                list.end()
            }
        }
    }
}

impl<'de, T: HashValue> Deserialize<'de> for HashList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HashList<T>, D::Error> {
        deserializer.deserialize_any(HashListVisitor(PhantomData))
    }
}

struct HashListVisitor<T>(PhantomData<T>);

impl<'de, T: HashValue> Visitor<'de> for HashListVisitor<T> {
    type Value = HashList<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of hex strings or one base64 string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HashList<T>, E> {
        let values = from_base64(text).map_err(E::custom)?;
        Ok(HashList { form: HashForm::Base64, values })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HashList<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            values.push(text.parse().map_err(A::Error::custom)?);
        }
        Ok(HashList { form: HashForm::Hex, values })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_come_back_in_both_forms(bytes: Vec<[u8; 20]>) {
            for form in [HashForm::Hex, HashForm::Base64] {
                let list = HashList { form, values: bytes.iter().map(|bytes| Digest(*bytes)).collect() };
                let json = serde_json::to_string(&list).unwrap();
                prop_assert_eq!(serde_json::from_str::<HashList<Digest>>(&json).unwrap(), list);
            }
        }
    }

    #[test]
    fn broken_lists_are_refused() {
        for json in ["\"AAAA\"", "\"*\"", "[\"ab\"]", "[1]", "{}", "7"] {
            assert!(serde_json::from_str::<HashList<Digest>>(json).is_err(), "{json}");
        }
    }
}
