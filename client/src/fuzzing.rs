//! The parsers of all input from peers, clients, trackers, users and disks: one list for the fuzz targets in `fuzz/`
//! and for the test that replays their corpora.
//!
//! Each entry takes bytes and says whether its parser accepted them. It panics if an accepted value does not survive
//! encoding and parsing. `control_line`, `ticket` and `tracker_file` do not encode what they accept.

use engine::proto::codec::{LENGTH_BYTES, decode_message, encode_message, frame_len};
use engine::proto::limits::OPENED_MAX_BYTES;
use engine::proto::manifest::Manifest;
use engine::proto::sealed::{SUM_BYTES, seal_body};
use engine::proto::ticket::{Ticket, TrackerKey};
use tracker::api::cluster_file::parse_cluster_file;
use tracker::api::codec::MessageReader;
use tracker::api::limits::REQUEST_MAX_BYTES;
use tracker::api::request::Request;
use tracker::api::response::ReceivedAnswer;

use crate::node;

/// The name of a target, which is also that of its corpus, and its parser.
pub type FuzzTarget = (&'static str, fn(&[u8]) -> bool);

/// Every target.
pub const TARGETS: [FuzzTarget; 8] = [
    ("control_line", control_line),
    ("download_record", node::accepts_download_record),
    ("manifest", manifest),
    ("peer_frame", peer_frame),
    ("resume_record", resume_record),
    ("share_record", node::accepts_share_record),
    ("ticket", ticket),
    ("tracker_file", tracker_file),
];

/// Runs the parser of a target.
///
/// # Panics
/// If there is no target of this name, or its parser is wrong.
pub fn run_target(name: &str, bytes: &[u8]) -> bool {
    let target = TARGETS.iter().find(|(found, _)| *found == name);
    (target.expect("the fuzz targets name entries of this list").1)(bytes)
}

/// Frames of the peer protocol, one after the other.
fn peer_frame(mut bytes: &[u8]) -> bool {
    while let Some((head, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        let Ok(length) = frame_len(*head, OPENED_MAX_BYTES) else { return false };
        let Some((body, rest)) = rest.split_at_checked(length) else { return false };
        let Ok(message) = decode_message(body) else { return false };
        let frame = encode_message(&message);
        assert_eq!(decode_message(&frame[LENGTH_BYTES..]), Ok(message));
        bytes = rest;
    }
    bytes.is_empty()
}

/// A manifest beside a share's record.
fn manifest(bytes: &[u8]) -> bool {
    let accepts = |bytes: &[u8]| match Manifest::from_bytes(bytes) {
        Ok(manifest) => {
            assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
            true
        }
        Err(_) => false,
    };
    accepts(bytes) | repair_seal(bytes).is_some_and(|bytes| accepts(&bytes))
}

/// The record beside a partial file, with the notes of pieces begun and written since.
fn resume_record(bytes: &[u8]) -> bool {
    let accepts = engine::storage::resume::accepts_record;
    accepts(bytes) | repair_seal(bytes).is_some_and(|bytes| accepts(&bytes))
}

/// The same sealed bytes with a valid length and checksum: no mutation would find one by chance.
fn repair_seal(bytes: &[u8]) -> Option<Vec<u8>> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let room = rest.len().checked_sub(SUM_BYTES)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_or(room, |length| length.min(room));
    let (body, rest) = rest.split_at(length);
    Some([&seal_body(*magic, body), &rest[SUM_BYTES..]].concat())
}

/// A signed ticket.
fn ticket(bytes: &[u8]) -> bool {
    let ticket = Ticket(bytes.to_vec());
    // A random ticket has no valid signature, so the grant is also parsed without it.
    let verified = ticket.verify(TrackerKey([0; 32])).is_ok();
    let parsed = ticket.unverified_grant().is_ok();
    assert!(parsed || !verified);
    parsed
}

/// A connection's bytes: JSON objects, or frames with an 8-byte length, each a request to a tracker or an answer of one.
/// The messages must not depend on how the bytes are cut.
fn control_line(bytes: &[u8]) -> bool {
    let (whole, accepted) = read_messages([bytes]);
    let (cut, _) = read_messages(bytes.chunks(7));
    assert_eq!(whole, cut);
    accepted
}

/// The messages of a connection, up to the first that ends it, and whether all of them are requests or answers.
fn read_messages<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let mut reader = MessageReader::new();
    let (mut messages, mut accepted) = (Vec::new(), true);
    for part in parts {
        reader.extend(part);
        loop {
            match reader.next_message(REQUEST_MAX_BYTES) {
                Ok(Some(message)) => {
                    accepted &= Request::parse(message).is_ok() | ReceivedAnswer::parse(message).is_ok();
                    messages.push(message.to_vec());
                }
                Ok(None) => break,
                Err(fault) if fault.ends_connection() => return (messages, false),
                Err(_) => accepted = false,
            }
        }
    }
    accepted &= !messages.is_empty() && !reader.is_inside_message();
    (messages, accepted)
}

/// `tracker_info.txt`.
fn tracker_file(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| parse_cluster_file(text).is_ok())
}
