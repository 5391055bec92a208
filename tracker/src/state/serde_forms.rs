//! Serde forms of the engine's values in rows and log entries.
//!
//! Invariant: every value has one form, so equal states are equal bytes.

/// Bytes of a fixed length, as lower-case hex digits.
pub(super) mod hex_bytes {
    use std::fmt;

    use engine::proto::hex::{self, HexDigits};
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(in crate::state) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(HexDigits::of(bytes).as_str())
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        from.deserialize_str(HexVisitor)
    }

    /// Parses digits without copying them: every request reads rows, and rows have many of them.
    struct HexVisitor<const N: usize>;

    impl<const N: usize> Visitor<'_> for HexVisitor<N> {
        type Value = [u8; N];

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(to, "{} hex digits", 2 * N)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
            hex::parse_hex(text).ok_or_else(|| E::custom(format_args!("{} hex digits are wanted", 2 * N)))
        }
    }
}

/// An optional content id, as the digits of `fileSha`.
pub(super) mod content {
    use engine::proto::units::Digest;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct ContentForm(#[serde(with = "super::hex_bytes")] [u8; 20]);

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(in crate::state) fn serialize<S: Serializer>(
        content: &Option<Digest>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        content.map(|content| ContentForm(content.0)).serialize(to)
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Digest>, D::Error> {
        Ok(Option::<ContentForm>::deserialize(from)?.map(|form| Digest(form.0)))
    }
}

/// An optional peer key.
pub(super) mod peer_key {
    use engine::proto::ticket::PeerKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct KeyForm(#[serde(with = "super::hex_bytes")] [u8; 32]);

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(in crate::state) fn serialize<S: Serializer>(
        key: &Option<PeerKey>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        key.map(|key| KeyForm(key.0)).serialize(to)
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PeerKey>, D::Error> {
        Ok(Option::<KeyForm>::deserialize(from)?.map(|form| PeerKey(form.0)))
    }
}

/// A file name, checked again when read.
pub(super) mod file_name {
    use engine::proto::manifest::FileName;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::state) fn serialize<S: Serializer>(name: &FileName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FileName, D::Error> {
        FileName::new(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The proof of a file: `whole` or `pieces_only`, with the digest in hex.
pub(super) mod proof {
    use engine::proto::manifest::FileProof;
    use engine::proto::units::Digest;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum ProofForm {
        Whole(#[serde(with = "super::hex_bytes")] [u8; 20]),
        PiecesOnly(#[serde(with = "super::hex_bytes")] [u8; 20]),
    }

    pub(in crate::state) fn serialize<S: Serializer>(proof: &FileProof, to: S) -> Result<S::Ok, S::Error> {
        match proof {
            FileProof::Whole(digest) => ProofForm::Whole(digest.0),
            FileProof::PiecesOnly(digest) => ProofForm::PiecesOnly(digest.0),
        }
        .serialize(to)
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FileProof, D::Error> {
        Ok(match ProofForm::deserialize(from)? {
            ProofForm::Whole(digest) => FileProof::Whole(Digest(digest)),
            ProofForm::PiecesOnly(digest) => FileProof::PiecesOnly(Digest(digest)),
        })
    }
}

/// A list of 20-byte values, joined, in base64.
pub(super) mod joined {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::state) fn serialize<S: Serializer>(values: &[[u8; 20]], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(values.as_flattened()))
    }

    pub(in crate::state) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<[u8; 20]>, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        let (values, rest) = bytes.as_chunks::<20>();
        if rest.is_empty() {
            Ok(values.to_vec())
        } else {
            Err(D::Error::custom("joined values have 20 bytes each"))
        }
    }
}
