//! The worked bytes of docs/protocol.md equal the bytes that the code writes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fmt::Write as _;

use engine::proto::codec::encode_message;
use engine::proto::frame::{Message, PROTOCOL_VERSION, RejectCode, WireRange};
use engine::proto::ticket::{
    Grant, Nonce, SecretKey, Ticket, UnixSeconds, sign_address, sign_open, sign_opened,
};
use engine::proto::units::{Digest, PieceCount, PieceIndex};

/// Bytes in one line of the page.
const LINE_BYTES: usize = 32;

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap()
}

/// Bytes in the form of the page, indented below their name.
fn block(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("{name}\n");
    for line in bytes.chunks(LINE_BYTES) {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "  {}", line.join(" ")).unwrap();
    }
    text
}

#[test]
fn frames_are_written_as_the_page_has_them() {
    let (index, ranges) =
        (PieceIndex(300), vec![WireRange { first: 0, last: 9 }, WireRange { first: 300, last: 300 }]);
    let page = page();
    for (name, message) in [
        ("Request: first 0, count 64", Message::Request { first: PieceIndex(0), count: PieceCount(64) }),
        ("Piece: index 300, length 524,288; its bytes follow", Message::Piece { index, length: 524_288 }),
        ("Reject: index 300, code busy", Message::Reject { index, code: RejectCode::Busy }),
        ("Have: 0 to 9, 300 to 300", Message::Have { ranges }),
    ] {
        let wanted = block(name, &encode_message(&message));
        assert!(page.contains(&wanted), "the page lacks:\n{wanted}");
    }
}

#[test]
fn a_ticket_and_an_opening_are_signed_as_the_page_has_them() {
    let [tracker, consumer, provider] = [1, 2, 3].map(|seed| SecretKey::from_seed(&[seed; 32]));
    let grant = Grant {
        user: "alice".into(),
        group: "g".into(),
        file_name: "f".into(),
        file_id: Digest([7; 20]),
        peer_key: consumer.peer_key(),
        expires: UnixSeconds(2_000_000_000),
    };
    let ticket = Ticket::sign(grant, &tracker);
    let (provider_nonce, consumer_nonce) = (Nonce([4; 32]), Nonce([5; 32]));
    let signature = sign_open(&consumer, provider_nonce, &ticket, provider.peer_key());
    let greeting =
        Message::Greeting { version: PROTOCOL_VERSION, nonce: provider_nonce, peer_key: provider.peer_key() };
    let open = Message::Open { ticket: ticket.clone(), nonce: consumer_nonce, signature };
    let signature = sign_opened(&provider, consumer_nonce);
    let opened = Message::Opened { length: 1_000_000, bitfield: vec![0b11], signature };
    let (nonce, address) = (Nonce([6; 32]), "10.0.0.5:40603");
    let prove = Message::Prove { nonce, address: address.into() };
    let proof = Message::Proof { signature: sign_address(&provider, nonce, address) };
    let page = page();
    for (name, bytes) in [
        ("Tracker's public key", tracker.tracker_key().0.to_vec()),
        ("Consumer's public key", consumer.peer_key().0.to_vec()),
        ("Provider's public key", provider.peer_key().0.to_vec()),
        ("Ticket", ticket.0),
        ("Greeting", encode_message(&greeting)),
        ("Open", encode_message(&open)),
        ("Opened: length 1,000,000, both pieces", encode_message(&opened)),
        ("Prove: nonce 32 bytes of 06, address 10.0.0.5:40603", encode_message(&prove)),
        ("Proof", encode_message(&proof)),
    ] {
        let wanted = block(name, &bytes);
        assert!(page.contains(&wanted), "the page lacks:\n{wanted}");
    }
}
