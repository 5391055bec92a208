//! `check_address`: the tracker calls a node back. Nodes that prove their key, and all kinds of programs that do not.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use engine::proto::codec::{self, LENGTH_BYTES};
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::ticket::{Nonce, SecretKey, sign_address};
use rig::{Client, Tracker, unused_address};
use serde_json::{Value, json};

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Listens on a port of loopback, and runs `script` on each connection; the port.
fn listen(script: impl Fn(&mut TcpStream) -> Option<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            script(&mut stream);
        }
    });
    port
}

/// `None` when the tracker has closed the connection.
fn send(stream: &mut TcpStream, message: &Message) -> Option<()> {
    stream.write_all(&codec::encode_message(message)).ok()
}

fn receive(stream: &mut TcpStream) -> Option<Message> {
    let mut head = [0; LENGTH_BYTES];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; codec::frame_len(head, 1_024).ok()?];
    stream.read_exact(&mut body).ok()?;
    codec::decode_message(&body).ok()
}

fn greet(stream: &mut TcpStream, version: u32, seed: u8) -> Option<()> {
    send(stream, &Message::Greeting { version, nonce: Nonce([1; 32]), peer_key: secret(seed).peer_key() })
}

/// A node that greets with the key of seed 3, and signs what `signed` makes of the tracker's question.
fn node(signed: impl Fn(Nonce, String) -> (SecretKey, Nonce, String) + Send + 'static) -> u16 {
    listen(move |stream| {
        greet(stream, PROTOCOL_VERSION, 3)?;
        let Message::Prove { nonce, address } = receive(stream)? else { return None };
        let (key, nonce, address) = signed(nonce, address);
        send(stream, &Message::Proof { signature: sign_address(&key, nonce, &address) })
    })
}

/// The answer to `check_address` for the key of seed 3 at this port.
fn check(client: &mut Client, port: u16) -> Value {
    client.sender_port = Some(port);
    client.ok("check_address", json!({"peer_key": hex(&secret(3).peer_key().0)}))
}

#[test]
fn a_node_that_proves_its_key_is_reached() {
    let tracker = Tracker::start();
    let mut client = tracker.user("alice", 5_001);
    let port = node(|nonce, address| (secret(3), nonce, address));
    let answer = check(&mut client, port);
    assert_eq!(answer["reached"], true, "{answer}");
    assert_eq!(answer["address"], format!("127.0.0.1:{port}"));
    assert_eq!(answer.get("problem"), None);
}

#[test]
fn what_does_not_prove_the_key_is_not_reached() {
    let tracker = Tracker::start();
    let mut client = tracker.user("alice", 5_001);
    let (_bound, refusing) = unused_address();
    for (port, problem) in [
        (refusing.port(), "refused"),
        (node(|nonce, address| (secret(4), nonce, address)), "other_node"),
        (node(|_, address| (secret(3), Nonce([9; 32]), address)), "other_node"),
        (node(|nonce, _| (secret(3), nonce, "10.0.0.9:22".into())), "other_node"),
        (listen(|stream| greet(stream, PROTOCOL_VERSION, 4)), "other_node"),
        (listen(|stream| greet(stream, PROTOCOL_VERSION + 1, 3)), "other_version"),
        (listen(|stream| stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").ok()), "other_program"),
        (listen(|stream| stream.write_all(&[0xFF; 64]).ok()), "other_program"),
        (listen(|_| None), "other_program"),
    ] {
        let answer = check(&mut client, port);
        assert_eq!((&answer["reached"], &answer["problem"]), (&json!(false), &json!(problem)), "{answer}");
    }
}

#[test]
fn a_call_that_is_not_answered_ends_and_delays_no_others() {
    let tracker = Tracker::start();
    let mut waiting = tracker.user("alice", 5_001);
    // Says nothing, or one byte now and then.
    let trickling = listen(|stream| {
        let greeting = codec::encode_message(&Message::Greeting {
            version: PROTOCOL_VERSION,
            nonce: Nonce([1; 32]),
            peer_key: secret(3).peer_key(),
        });
        greeting.iter().try_for_each(|byte| {
            std::thread::park_timeout(Duration::from_millis(500));
            stream.write_all(&[*byte]).ok()
        })
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [trickling, silent.local_addr().unwrap().port()] {
        let session = waiting.log_in("alice")["session"].as_str().unwrap().to_owned();
        let args = json!({"peer_key": hex(&secret(3).peer_key().0)});
        let request = json!({"command": "check_address", "command_args": args, "session": session,
            "sender_port": port.to_string()});
        waiting.send(&request.to_string());
        let mut other = tracker.connect();
        for _ in 0..20 {
            other.ok("ping", json!({}));
        }
        let answer = waiting.receive().unwrap();
        assert_eq!(
            (&answer["reached"], &answer["problem"]),
            (&json!(false), &json!("timed_out")),
            "{answer}"
        );
    }
}

#[test]
fn calls_are_for_users_with_a_key_and_bounded_for_each() {
    let tracker = Tracker::start();
    let key = json!({"peer_key": hex(&secret(3).peer_key().0)});
    let mut stranger = tracker.connect();
    stranger.sender_port = Some(5_001);
    assert_eq!(stranger.code("check_address", key.clone()), "not_logged_in");
    let mut alice = tracker.user("alice", 5_001);
    assert_eq!(alice.code("check_address", json!({})), "bad_request");
    let port = listen(|_| None);
    alice.sender_port = Some(port);
    let answers: Vec<Value> = (0..40).map(|_| alice.ask("check_address", key.clone())).collect();
    assert!(answers.iter().any(|answer| answer["code"] == "busy"), "{answers:?}");
    let mut bob = tracker.user("bob", 5_002);
    assert_eq!(check(&mut bob, port)["reached"], false, "another user is not held up");
}
