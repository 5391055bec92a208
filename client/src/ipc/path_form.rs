//! A local path in JSON: text, or `{"bytes": "<hex>"}` when it is not UTF-8, as names on Linux need not be.
//!
//! Used with serde's `with`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { bytes: String },
}

pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    let form = path.to_str().map_or_else(
        || {
            let digits = path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}"));
            PathForm::Bytes { bytes: digits.collect() }
        },
        |text| PathForm::Text(text.to_owned()),
    );
    form.serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    match PathForm::deserialize(from)? {
        PathForm::Text(text) => Ok(text.into()),
        PathForm::Bytes { bytes } => parse_hex_bytes(&bytes)
            .map(|bytes| OsString::from_vec(bytes).into())
            .ok_or_else(|| D::Error::custom("the bytes of a path are pairs of hex digits")),
    }
}

fn parse_hex_bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}
