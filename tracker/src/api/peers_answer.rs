//! The answer to `get_peers`, written by hand because it is the most frequent one: serde would visit 50 peers field by
//! field and check each hex digit for escapes.
//!
//! Invariant: the output equals what serde writes for a [`PeersAnswer`]. The client reads it by serde.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::proto::hex::HexDigits;
use engine::proto::ticket::Ticket;
use serde::Serialize;

use super::answers::{PeerEntry, PeersAnswer};

/// Most bytes of one peer in JSON: 64 for its key, at most 39 for its address, and the field names. Sizes a buffer.
const PEER_BYTES: usize = 160;

/// Most bytes of the other fields except the ticket. Sizes a buffer.
const REST_BYTES: usize = 64;

/// Upper bound of the length of the answer's fields in JSON, in bytes.
pub(super) fn room_bytes(answer: &PeersAnswer) -> usize {
    let ticket_bytes = answer.ticket.as_ref().map_or(0, base64_bytes);
    PEER_BYTES * answer.peers.len() + ticket_bytes + REST_BYTES
}

/// Appends the answer's fields, each after a comma, to a JSON object that has at least one field. Does not write the
/// object's closing brace.
pub(super) fn append_peers(answer: &PeersAnswer, json: &mut Vec<u8>) {
    let PeersAnswer { peers, ticket, server_time } = answer;
    let max_length = json.len() + room_bytes(answer);
    json.extend_from_slice(b",\"peers\":[");
    for (index, peer) in peers.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        append_peer(peer, json);
    }
    json.push(b']');
    if let Some(ticket) = ticket {
        append_ticket(ticket, json);
    }
    json.extend_from_slice(b",\"server_time\":");
    append_value(server_time, json);
    assert!(json.len() <= max_length, "room_bytes is an upper bound");
}

fn append_peer(peer: &PeerEntry, json: &mut Vec<u8>) {
    let PeerEntry { ip, port, peer_key, complete } = peer;
    json.extend_from_slice(b"{\"ip\":");
    append_value(ip, json);
    json.extend_from_slice(b",\"port\":");
    append_value(port, json);
    match peer_key {
        Some(key) => {
            json.extend_from_slice(b",\"peer_key\":\"");
            json.extend_from_slice(HexDigits::of(&key.0).as_str().as_bytes());
            json.extend_from_slice(b"\",\"complete\":");
        }
        None => json.extend_from_slice(b",\"peer_key\":null,\"complete\":"),
    }
    json.extend_from_slice(if *complete { b"true}" } else { b"false}" });
}

fn append_ticket(ticket: &Ticket, json: &mut Vec<u8>) {
    json.extend_from_slice(b",\"ticket\":\"");
    let start = json.len();
    json.resize(start + base64_bytes(ticket), 0);
    let written = BASE64.encode_slice(&ticket.0, &mut json[start..]);
    assert_eq!(written, Ok(json.len() - start), "base64 takes four bytes for three, rounded up");
    json.push(b'"');
}

fn base64_bytes(ticket: &Ticket) -> usize {
    ticket.0.len().div_ceil(3) * 4
}

fn append_value(value: &impl Serialize, json: &mut Vec<u8>) {
    serde_json::to_writer(json, value).expect("writing a number or an address to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use engine::proto::ticket::PeerKey;
    use proptest::prelude::*;

    use super::*;

    fn peer() -> impl Strategy<Value = PeerEntry> {
        any::<(IpAddr, u16, Option<[u8; 32]>, bool)>().prop_map(|(ip, port, key, complete)| PeerEntry {
            ip,
            port,
            peer_key: key.map(PeerKey),
            complete,
        })
    }

    proptest! {
        #[test]
        fn peers_written_by_hand_equal_what_serde_writes(
            peers in proptest::collection::vec(peer(), 0..60),
            ticket: Option<Vec<u8>>,
            server_time: u64,
        ) {
            let answer = PeersAnswer { peers, ticket: ticket.map(Ticket), server_time };
            let mut by_hand = Vec::new();
            append_peers(&answer, &mut by_hand);
            by_hand.push(b'}');
            // The first byte is the comma after earlier fields, of which there are none here.
            by_hand[0] = b'{';
            prop_assert_eq!(String::from_utf8(by_hand), Ok(serde_json::to_string(&answer).unwrap()));
        }
    }
}
