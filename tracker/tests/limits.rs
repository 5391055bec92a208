//! Limits, invalid input and the ends of connections, with the real binary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use rig::{Client, Tracker, frame};
use serde_json::json;

const PING: &str = r#"{"command":"ping"}"#;

#[test]
fn other_protocols_are_refused_by_their_first_byte() {
    let tracker = Tracker::start();
    for (first, word) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "form"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"T\x01\x02", "links"),
        (b"\xff\xff", "form"),
    ] {
        let mut client = tracker.connect();
        client.send_bytes(first);
        let answer = client.receive().expect("one line of failure");
        assert_eq!((&answer["status"], &answer["code"]), (&json!("failure"), &json!("protocol")));
        assert!(answer["message"].as_str().unwrap().contains(word), "{answer}");
        assert!(answer["epoch"].is_u64());
        assert_eq!(client.receive(), None);
    }
}

#[test]
fn a_syntax_error_ends_a_stream_but_not_frames() {
    let tracker = Tracker::start();
    let mut client = tracker.connect();
    client.send(&format!("{PING}{{\"command\":}}{PING}"));
    assert_eq!(client.receive().unwrap()["status"], "success");
    assert_eq!(client.receive().unwrap()["code"], "syntax");
    assert_eq!(client.receive(), None);

    let mut client = tracker.connect().framed();
    for text in ["{\"command\":}", "{", "", "[]", "{}{}"] {
        client.send_bytes(&frame(text));
        assert_eq!(client.receive().unwrap()["code"], "syntax", "{text}");
    }
    client.send(PING);
    assert_eq!(client.receive().unwrap()["status"], "success");
}

#[test]
fn the_connection_survives_refused_requests() {
    let tracker = Tracker::start();
    for framed in [false, true] {
        let client = tracker.connect();
        let mut client = if framed { client.framed() } else { client };
        let large = json!({"command": "ping", "filler": "x".repeat(64 * 1024)}).to_string();
        let deep = format!("{{\"command\":\"ping\",\"a\":{}{}}}", "[".repeat(20), "]".repeat(20));
        client.send(&large);
        client.send(&deep);
        client.send("{\"command\":\"login\",\"command_args\":7}");
        client.send(PING);
        let codes: Vec<_> = (0..4).map(|_| client.receive().unwrap()["code"].clone()).collect();
        assert_eq!(codes, [json!("too_large"), json!("bad_request"), json!("bad_request"), json!(null)]);
    }
}

#[test]
fn larger_requests_are_allowed_after_login() {
    let tracker = Tracker::start();
    let mut client = tracker.user("alice", 5_001);
    let filler = |bytes: usize| json!({"command": "ping", "filler": "}".repeat(bytes)}).to_string();
    client.send(&filler(15 * 1024 * 1024));
    assert_eq!(client.receive().unwrap()["status"], "success");
    client.send(&filler(16 * 1024 * 1024));
    assert_eq!(client.receive().unwrap()["code"], "too_large");
    client.send(PING);
    assert_eq!(client.receive().unwrap()["status"], "success");
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let tracker = Tracker::start();
    let mut client = tracker.connect();
    client.send(r#"{"command":"create_user","command_args":{"user_id":"alice","passwd":"secret"}}"#);
    client.send(r#"{"command":"login","command_args":{"user_id":"alice","passwd":"secret"}}"#);
    client.send(r#"{"command":"whoami"}"#);
    client.half_close();
    assert_eq!(client.receive().unwrap()["status"], "success");
    assert!(client.receive().unwrap()["session"].is_string());
    assert_eq!(client.receive().unwrap()["user_id"], "alice");
    assert_eq!(client.receive(), None);
}

#[test]
fn a_partial_request_is_refused_when_input_ends() {
    let tracker = Tracker::start();
    let mut client = tracker.connect();
    client.send(r#"{"command":"pi"#);
    client.half_close();
    assert_eq!(client.receive().unwrap()["code"], "syntax");
    assert_eq!(client.receive(), None);
}

#[test]
fn no_reset_discards_the_answer() {
    let tracker = Tracker::start();
    for _ in 0..20 {
        let mut client = tracker.connect();
        client.send_bytes(b"no json at all");
        // The tracker refuses at the first byte. What is still sent to it must not discard its answer.
        for _ in 0..50 {
            if !client.try_send_bytes(&[b'x'; 4096]) {
                break;
            }
        }
        assert_eq!(client.receive().expect("the answer")["code"], "protocol");
    }
}

#[test]
fn a_partial_request_that_stops_growing_is_refused() {
    let tracker = Tracker::start();
    let mut stalled = tracker.connect();
    stalled.send(r#"{"command":"#);
    let mut idle = tracker.connect();
    assert_eq!(stalled.receive().expect("an answer before the end")["code"], "timeout");
    assert_eq!(stalled.receive(), None);
    idle.send(PING);
    assert_eq!(idle.receive().unwrap()["status"], "success", "an idle connection stays open");
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    const REQUESTS: usize = 5_000;
    let tracker = Tracker::start();
    for framed in [false, true] {
        let client = tracker.connect();
        let mut client = if framed { client.framed() } else { client };
        let text = |index: usize| json!({"command": "ping", "request_id": index}).to_string();
        let bytes: Vec<u8> = (0..REQUESTS)
            .flat_map(|index| if framed { frame(&text(index)) } else { text(index).into_bytes() })
            .collect();
        client.send_bytes(&bytes);
        for index in 0..REQUESTS {
            assert_eq!(client.receive().unwrap()["request_id"], index);
        }
    }
}

#[test]
fn a_login_delays_only_its_own_connection() {
    let tracker = Tracker::start();
    let mut slow = tracker.connect();
    slow.send(r#"{"command":"login","command_args":{"user_id":"unknown","passwd":"x"},"request_id":1}"#);
    slow.send(r#"{"command":"ping","request_id":2}"#);
    let mut other = tracker.connect();
    other.send(PING);
    assert_eq!(other.receive().unwrap()["status"], "success");
    assert_eq!(slow.receive().unwrap()["request_id"], 1);
    assert_eq!(slow.receive().unwrap()["request_id"], 2);
}

#[test]
fn too_many_new_accounts_at_once_are_refused_as_busy_and_keep_no_user_out() {
    let tracker = Tracker::start();
    let mut owner = tracker.user("alice", 5_001);
    let mut clients: Vec<_> = (0..200).map(|index| Client::from_host(2 + index % 16, &tracker)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let args = json!({"user_id": format!("user{index}"), "passwd": "secret"});
        client.send(&json!({"command": "create_user", "command_args": args}).to_string());
    }
    // Neither from another address, nor from one of the crowd, nor with a new connection.
    owner.log_in("alice");
    Client::from_host(2, &tracker).log_in("alice");
    Client::from_host(77, &tracker).log_in("alice");
    let answers: Vec<_> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
    let busy = answers.iter().filter(|answer| answer["code"] == "busy").count();
    let made = answers.iter().filter(|answer| answer["status"] == "success").count();
    assert_eq!(busy + made, answers.len());
    assert!(made >= 64 && busy > 0, "{made} users were created");
    clients[0].send(PING);
    assert_eq!(clients[0].receive().unwrap()["status"], "success", "the connection stays open");
}
