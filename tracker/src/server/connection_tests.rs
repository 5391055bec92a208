//! Tests of what one connection keeps, over a pair of real sockets.

use std::net::{TcpListener, TcpStream as Peer};

use super::super::slots::Slots;
use super::*;

const NOW_MS: u64 = 1_000;

/// A connection whose socket blocks, and its client.
fn pair() -> (Connection, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Peer::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    let token = Slots::new().insert(|token| token);
    let caller = Caller::new(token, address.ip());
    (Connection::new(TcpStream::from_std(socket), caller, NOW_MS), client)
}

/// Has the connection read all that the client sends; how many whole messages that were.
fn receive(connection: &mut Connection, client: &mut Peer, bytes: &[u8]) -> usize {
    let mut scratch = vec![0; 64 * 1024];
    let mut messages = 0;
    for part in bytes.chunks(32 * 1024) {
        client.write_all(part).unwrap();
        let mut missing = part.len();
        while missing > 0 {
            let before = connection.incoming.buffered_bytes();
            assert_eq!(connection.read(&mut scratch, NOW_MS).unwrap(), Reading::Bytes);
            missing -= connection.incoming.buffered_bytes() - before;
        }
        while connection.next_message().unwrap().is_some() {
            messages += 1;
        }
    }
    messages
}

#[test]
fn blanks_leave_nothing_behind() {
    let (mut connection, mut client) = pair();
    assert_eq!(receive(&mut connection, &mut client, &[b' '; 65_000]), 0);
    assert_eq!(connection.held().input_bytes, 0);
    assert!(connection.incoming.held_bytes() <= KEPT_BUFFER_BYTES);
}

#[test]
fn a_request_leaves_no_buffer_while_it_is_carried_out() {
    let (mut connection, mut client) = pair();
    let request = format!("{{\"command\":\"ping\",\"filler\":\"{}\"}}", "x".repeat(60_000));
    assert_eq!(receive(&mut connection, &mut client, request.as_bytes()), 1);
    connection.work = Some(Work::new(0, NOW_MS));
    assert_eq!(connection.held().input_bytes, 0);
    assert!(connection.incoming.held_bytes() <= KEPT_BUFFER_BYTES);
    // What is half there is kept, and counted.
    assert_eq!(receive(&mut connection, &mut client, &request.as_bytes()[..30_000]), 0);
    assert!(connection.held().input_bytes >= 30_000);
    // And dropped when nobody will ask for it.
    connection.end();
    assert_eq!((connection.held().input_bytes, connection.incoming.held_bytes()), (0, 0));
    assert_eq!(connection.incoming.form(), Some(Form::Stream), "answers keep their form");
}

#[test]
fn few_answers_wait_for_a_stranger() {
    let (mut connection, _client) = pair();
    connection.answer(&[b'x'; STRANGERS_PAUSE_BYTES - 2], &mut Vec::new(), NOW_MS);
    assert!(connection.takes_messages(false) && !connection.takes_messages(true));
    connection.answer(b"x", &mut Vec::new(), NOW_MS);
    assert!(!connection.takes_messages(false));
}

#[test]
fn of_much_a_client_takes_much_while_others_wait() {
    /// Far more than four times what the kernel takes of it.
    const ANSWER_BYTES: usize = 256 << 20;
    let (mut connection, _client) = pair();
    let socket = socket2::SockRef::from(&connection.socket);
    socket.set_nonblocking(true).unwrap();
    connection.answer(&vec![b'x'; ANSWER_BYTES], &mut Vec::new(), NOW_MS);
    connection.flush(&mut Vec::new(), NOW_MS).unwrap();
    let taken = connection.window_bytes;
    assert!((DRAIN_WINDOW_BYTES..ANSWER_BYTES as u64 / DRAIN_WINDOWS).contains(&taken), "{taken} bytes went");
    assert_eq!(connection.stall(true), Some((Stall::Answer, NOW_MS + DRAIN_WINDOW_MS)));
    assert_eq!(connection.stall(false), Some((Stall::Answer, NOW_MS + ANSWER_STALL_MS)));
}
