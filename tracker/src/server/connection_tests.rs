//! Tests of what one connection holds, over a pair of real sockets.

use std::net::{TcpListener, TcpStream as Peer};

use super::super::slots::SlotMap;
use super::*;

const NOW_MS: u64 = 1_000;

/// A connection whose socket blocks, and its client.
fn pair() -> (ClientConnection, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Peer::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    let token = SlotMap::new().insert(|token| token);
    let caller = Caller::new(token, address.ip());
    (ClientConnection::new(TcpStream::from_std(socket), caller, NOW_MS), client)
}

/// Sends bytes from the client and has the connection read them all; gives the number of complete messages.
fn receive(connection: &mut ClientConnection, client: &mut Peer, bytes: &[u8]) -> usize {
    let mut scratch = vec![0; 64 * 1024];
    let mut messages = 0;
    for part in bytes.chunks(32 * 1024) {
        client.write_all(part).unwrap();
        let mut missing = part.len();
        while missing > 0 {
            let before = connection.incoming.buffered_bytes();
            assert_eq!(connection.read(&mut scratch, NOW_MS).unwrap(), ReadOutcome::Bytes);
            missing -= connection.incoming.buffered_bytes() - before;
        }
        while connection.next_message().unwrap().is_some() {
            messages += 1;
        }
    }
    messages
}

#[test]
fn white_space_holds_no_memory() {
    let (mut connection, mut client) = pair();
    assert_eq!(receive(&mut connection, &mut client, &[b' '; 65_000]), 0);
    assert_eq!(connection.measure_held().input_bytes, 0);
    assert!(connection.incoming.held_bytes() <= KEPT_BUFFER_BYTES);
}

#[test]
fn an_active_request_holds_no_input_buffer() {
    let (mut connection, mut client) = pair();
    let request = format!("{{\"command\":\"ping\",\"filler\":\"{}\"}}", "x".repeat(60_000));
    assert_eq!(receive(&mut connection, &mut client, request.as_bytes()), 1);
    connection.request = Some(ActiveRequest::new(0));
    assert_eq!(connection.measure_held().input_bytes, 0);
    assert!(connection.incoming.held_bytes() <= KEPT_BUFFER_BYTES);
    // A partial request is kept, and counted.
    assert_eq!(receive(&mut connection, &mut client, &request.as_bytes()[..30_000]), 0);
    assert!(connection.measure_held().input_bytes >= 30_000);
    // And dropped when the connection is to be closed.
    connection.begin_close();
    assert_eq!((connection.measure_held().input_bytes, connection.incoming.held_bytes()), (0, 0));
    assert_eq!(
        connection.incoming.form(),
        Some(MessageForm::Stream),
        "answers keep the form of the requests"
    );
}

#[test]
fn few_answers_are_held_for_an_anonymous_client() {
    let (mut connection, _client) = pair();
    connection.append_answer(&[b'x'; ANONYMOUS_PAUSE_BYTES - 2], &mut Vec::new(), NOW_MS);
    assert!(connection.takes_messages(false) && !connection.takes_messages(true));
    connection.append_answer(b"x", &mut Vec::new(), NOW_MS);
    assert!(!connection.takes_messages(false));
}

#[test]
fn a_client_must_take_a_share_of_a_long_answer_while_the_tracker_is_crowded() {
    /// Far more than four times what the kernel buffers.
    const ANSWER_BYTES: usize = 256 << 20;
    let (mut connection, _client) = pair();
    let socket = socket2::SockRef::from(&connection.socket);
    socket.set_nonblocking(true).unwrap();
    connection.append_answer(&vec![b'x'; ANSWER_BYTES], &mut Vec::new(), NOW_MS);
    connection.flush(&mut Vec::new(), NOW_MS).unwrap();
    let taken = connection.window_bytes;
    assert!((DRAIN_WINDOW_BYTES..ANSWER_BYTES as u64 / DRAIN_WINDOWS).contains(&taken), "{taken} bytes sent");
    assert_eq!(connection.stall_deadline(true), Some((StallKind::Answer, NOW_MS + DRAIN_WINDOW_MS)));
    assert_eq!(connection.stall_deadline(false), Some((StallKind::Answer, NOW_MS + ANSWER_STALL_MS)));
}
