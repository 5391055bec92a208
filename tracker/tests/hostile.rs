//! Clients that do not read their answers or do not complete their requests, with the real binary: all other
//! clients are served.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use std::io::Write as _;
use std::net::TcpStream;

use rig::{Client, Tracker, hash};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

const PING: &str = r#"{"command":"ping"}"#;

/// A connection with the smallest receive buffer that the system allows.
fn connect_deaf(tracker: &Tracker) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    socket.connect(&tracker.address.into()).unwrap();
    socket.into()
}

#[test]
fn clients_that_do_not_read_delay_no_others() {
    /// With answers of 8 MB each: more than the tracker's budget for answers.
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
    let request = json!({"command": "download_file", "command_args": args, "session": session}).to_string();
    let deaf: Vec<TcpStream> = (0..DEAF)
        .map(|_| {
            let mut socket = connect_deaf(&tracker);
            socket.write_all(request.as_bytes()).unwrap();
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
    // The tracker may read this request before it has seen that the others closed.
    let args = json!({"group_id": "g", "file_name": "f"});
    let answers = (0..1_000).map(|_| member.ask("download_file", args.clone()));
    let whole = { answers }.find(|answer| answer["code"] != "busy").expect("room after the others closed");
    assert_eq!(whole["file_chunks"].as_array().map(Vec::len), Some(PIECES));
}

/// With 60 KiB each: more than the budget of anonymous clients.
const ANONYMOUS_CLIENTS: usize = 1_200;

#[test]
fn the_oldest_partial_requests_of_anonymous_clients_are_refused() {
    let limit = getrlimit(Resource::Nofile);
    // One descriptor per client here. In the tracker, half of them are for clients without a login.
    let wanted = 2 * ANONYMOUS_CLIENTS as u64 + 200;
    assert!(
        limit.maximum.is_none_or(|most| most >= wanted),
        "this test needs {wanted} descriptors per process: raise the hard limit (`ulimit -Hn`)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let tracker = Tracker::with_options(&["--connections-per-address", "10000"]);
    let mut member = tracker.user("alice", 5_001);
    // A partial request times out after ten seconds in any case. A machine that needs longer for all clients
    // proves nothing, and the test starts again.
    assert!((0..10).any(|_| refuses_oldest(&tracker, &mut member)), "ten attempts were too slow");
}

/// Whether the oldest partial request was refused for want of room, before any timed out.
fn refuses_oldest(tracker: &Tracker, member: &mut Client) -> bool {
    let (head, tail) = (r#"{"command":"ping","filler":""#, r#""}"#);
    let filler = "x".repeat(60 * 1024);
    let mut clients: Vec<_> = (0..ANONYMOUS_CLIENTS)
        .map(|_| {
            let mut client = tracker.connect();
            client.send(head);
            client.send(&filler);
            client
        })
        .collect();
    let refusal = clients[0].receive().expect("an answer before the end");
    if refusal["code"] == "timeout" {
        return false;
    }
    assert_eq!(refusal["code"], "busy");
    assert_eq!(clients[0].receive(), None);
    member.ok("whoami", json!({}));
    let mut new = tracker.connect();
    new.send(PING);
    assert_eq!(new.receive().unwrap()["status"], "success");
    let newest = clients.last_mut().unwrap();
    if !newest.try_send_bytes(tail.as_bytes()) {
        return false;
    }
    let answer = newest.receive().expect("an answer before the end");
    assert!(
        answer["status"] == "success" || answer["code"] == "timeout",
        "the newest is not refused: {answer}"
    );
    answer["status"] == "success"
}

#[test]
fn strangers_who_hold_connections_keep_no_one_out() {
    /// 96 places for connections: 48 for strangers, of which one address has 12; 24 for sessions at one address.
    const DESCRIPTORS: usize = 160;
    let tracker = Tracker::with_descriptors(DESCRIPTORS);
    let mut member = tracker.user("alice", 5_001);
    // More than there are descriptors from one address, then as many from others.
    let mut idle: Vec<_> = (0..200).map(|_| tracker.connect()).collect();
    idle.extend((0..200).map(|index| Client::from_host(2 + index % 20, &tracker)));
    for host in [1, 2, 77] {
        let mut newcomer = Client::from_host(host, &tracker);
        newcomer.log_in("alice");
        newcomer.ok("whoami", json!({}));
    }
    member.ok("whoami", json!({}));
    assert_eq!(idle[0].receive(), None, "the oldest made room");

    // Sessions are no way around the shares: more of them, of one user, from one address.
    let session = member.log_in("alice")["session"].as_str().map(str::to_owned);
    let mut resumed: Vec<_> = (0..100)
        .map(|_| {
            let mut client = tracker.connect();
            client.session.clone_from(&session);
            client.ok("whoami", json!({}));
            client
        })
        .collect();
    assert_eq!(resumed[0].receive(), None, "one user has a share");
    let mut other = Client::from_host(78, &tracker);
    other.ok("create_user", json!({"user_id": "bob", "passwd": "secret"}));
    other.log_in("bob");
    let open = std::fs::read_dir(format!("/proc/{}/fd", tracker.pid())).unwrap().count();
    assert!(open < DESCRIPTORS - 16, "{open} descriptors are open");
}
