//! Serde forms of the engine's values in answers: names as text, keys as hex, tickets as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::proto::hex::{self, HexDigits};
use engine::proto::manifest::FileName;
use engine::proto::ticket::{PeerKey, Ticket, TrackerKey};
use engine::proto::units::Digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

use super::limits::TICKET_MAX_BYTES;

/// Makes a module for serde's `with` from two functions: value to text, and text to value or error text.
macro_rules! as_text {
    ($module:ident, $type:ty, $to:expr, $from:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::api) fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> _ = $to;
                to.serialize_str(text(value).as_str())
            }

            pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let value: fn(&str) -> Result<$type, String> = $from;
                value(&String::deserialize(from)?).map_err(D::Error::custom)
            }
        }
    };
}

/// The same for an optional value.
macro_rules! as_optional_text {
    ($module:ident, $type:ty, $to:expr, $from:expr) => {
        pub(super) mod $module {
            use super::*;

            #[expect(clippy::ref_option, reason = "the signature that serde calls")]
            pub(in crate::api) fn serialize<S: Serializer>(
                value: &Option<$type>,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                let text: fn(&$type) -> _ = $to;
                match value {
                    Some(value) => to.serialize_some(text(value).as_str()),
                    None => to.serialize_none(),
                }
            }

            pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<Option<$type>, D::Error> {
                let value: fn(&str) -> Result<$type, String> = $from;
                let text = Option::<String>::deserialize(from)?;
                text.map(|text| value(&text).map_err(D::Error::custom)).transpose()
            }
        }
    };
}

fn parse_key(text: &str) -> Result<[u8; 32], String> {
    hex::parse_hex(text).ok_or_else(|| "a key is 64 hex digits".to_owned())
}

as_text!(file_name, FileName, |name| name.as_str().to_owned(), |text| FileName::new(text)
    .map_err(|bad| bad.to_string()));
as_text!(digest, Digest, |digest| HexDigits::of(&digest.0), |text| text
    .parse::<Digest>()
    .map_err(|bad| bad.to_string()));
as_text!(tracker_key, TrackerKey, |key| HexDigits::of(&key.0), |text| parse_key(text).map(TrackerKey));
as_optional_text!(peer_key, PeerKey, |key| HexDigits::of(&key.0), |text| parse_key(text).map(PeerKey));
as_optional_text!(ticket, Ticket, |ticket| BASE64.encode(&ticket.0), parse_ticket);

fn parse_ticket(text: &str) -> Result<Ticket, String> {
    if text.len() > TICKET_MAX_BYTES {
        return Err(format!(
            "a ticket has at most {TICKET_MAX_BYTES} base64 digits, this one {}",
            text.len()
        ));
    }
    BASE64.decode(text).map(Ticket).map_err(|bad| bad.to_string())
}

/// A list of file names.
pub(super) mod file_names {
    use super::*;

    pub(in crate::api) fn serialize<S: Serializer>(names: &[FileName], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(names.iter().map(FileName::as_str))
    }

    pub(in crate::api) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FileName>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names.iter().map(|name| FileName::new(name).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::PeersAnswer;
    use super::*;

    fn read(ticket: &str) -> Result<PeersAnswer, serde_json::Error> {
        serde_json::from_str(&format!(r#"{{"peers": [], "server_time": 1, "ticket": "{ticket}"}}"#))
    }

    #[test]
    fn a_ticket_that_is_too_long_is_refused() {
        assert!(read(&"A".repeat(TICKET_MAX_BYTES)).is_ok());
        assert!(read(&"A".repeat(TICKET_MAX_BYTES + 4)).is_err());
        assert!(read("*").is_err());
    }
}
