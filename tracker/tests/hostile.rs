//! Clients that ask and do not read, or begin and do not end, through the real binary: everybody else goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::io::Write as _;
use std::net::TcpStream;

use rig::{Client, Tracker, hash};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

const PING: &str = r#"{"command":"ping"}"#;

/// A connection that takes as little as the system lets it.
fn deaf(tracker: &Tracker) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    socket.connect(&tracker.address.into()).unwrap();
    socket.into()
}

#[test]
fn members_who_do_not_read_hold_up_nobody() {
    /// Answers of 8 MB each: more than all that a tracker keeps.
    const DEAF: usize = 40;
    const PIECES: usize = 65_536;
    let tracker = Tracker::start();
    let mut member = tracker.user("alice", 5_001);
    let mut early = tracker.connect();
    let session = member.log_in("alice")["session"].as_str().unwrap().to_owned();
    member.ok("create_group", json!({"group_id": "g"}));
    let pieces: Vec<String> = (0..PIECES).map(|piece| format!("{piece:040x}")).collect();
    let manifest = json!({"piecewise_sha": pieces, "fileSha": hash(7)});
    let listed = member.ask_with("upload_file", json!({"group_id": "g", "file_name": "f"}), manifest);
    assert_eq!(listed["status"], "success", "{listed}");

    let args = json!({"group_id": "g", "file_name": "f"});
    let wish = json!({"command": "download_file", "command_args": args, "session": session}).to_string();
    let deaf: Vec<TcpStream> = (0..DEAF)
        .map(|_| {
            let mut socket = deaf(&tracker);
            socket.write_all(wish.as_bytes()).unwrap();
            socket
        })
        .collect();
    for _ in 0..20 {
        early.send(PING);
        assert_eq!(early.receive().expect("an answer")["status"], "success");
        member.ok("whoami", json!({}));
        let mut late = tracker.connect();
        late.send(PING);
        assert_eq!(late.receive().expect("an answer")["status"], "success");
    }
    drop(deaf);
    // The tracker may come to this before it has come to all that have gone.
    let wish = json!({"group_id": "g", "file_name": "f"});
    let answers = (0..1_000).map(|_| member.ask("download_file", wish.clone()));
    let whole = { answers }.find(|answer| answer["code"] != "busy").expect("room comes back");
    assert_eq!(whole["file_chunks"].as_array().map(Vec::len), Some(PIECES), "room comes back");
}

/// With 60 KiB each: more than all strangers may hold.
const STRANGERS: usize = 1_200;

#[test]
fn of_strangers_with_half_requests_the_oldest_end() {
    let limit = getrlimit(Resource::Nofile);
    // One each, here and in the tracker, and some for all else.
    let wanted = STRANGERS as u64 + 100;
    assert!(
        limit.maximum.is_none_or(|most| most >= wanted),
        "this test takes {wanted} descriptors a process: raise the hard limit (`ulimit -Hn`)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let tracker = Tracker::start();
    let mut member = tracker.user("alice", 5_001);
    // Half a request is given up after ten seconds, whoever else there is. A machine that does not come to the last stranger
    // until then shows nothing here, and all begin again.
    assert!((0..10).any(|_| the_oldest_end(&tracker, &mut member)), "ten times there was no room in time");
}

/// Whether all this came about before the first half of a request was given up.
fn the_oldest_end(tracker: &Tracker, member: &mut Client) -> bool {
    let (head, tail) = (r#"{"command":"ping","filler":""#, r#""}"#);
    let filler = "x".repeat(60 * 1024);
    let mut strangers: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = tracker.connect();
            stranger.send(head);
            stranger.send(&filler);
            stranger
        })
        .collect();
    let told = strangers[0].receive().expect("an answer before the end");
    if told["code"] == "timeout" {
        return false;
    }
    assert_eq!(told["code"], "busy");
    assert_eq!(strangers[0].receive(), None);
    member.ok("whoami", json!({}));
    let mut new = tracker.connect();
    new.send(PING);
    assert_eq!(new.receive().unwrap()["status"], "success");
    let newest = strangers.last_mut().unwrap();
    if !newest.try_send_bytes(tail.as_bytes()) {
        return false;
    }
    let answer = newest.receive().expect("an answer before the end");
    assert!(answer["status"] == "success" || answer["code"] == "timeout", "the newest go on: {answer}");
    answer["status"] == "success"
}
