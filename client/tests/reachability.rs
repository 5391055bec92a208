//! Peers that cannot be reached: a download says what became of each, and so do `get_peers` and `show_downloads`.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use engine::proto::codec;
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::ticket::{Nonce, SecretKey};
use rig::{RunningNode, TestRig, UserHome, pieces, until, unused_address};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Alice, who shares `f` with the group `g`, and Bob, who is a member.
fn alice_and_bob(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, a) = rig.user("alice");
    alice.run(["create_group", "g"]).expect(0);
    rig.file("f", &pieces(3, 1));
    alice.run(["upload_file", "g", "f"]).expect(0);
    let (bob, b) = rig.user("bob");
    bob.run(["join_group", "g"]).expect(0);
    ((alice, a), (bob, b))
}

/// A session of Alice that says to have `f` at this address of loopback, online until it is dropped; her own node is ended.
fn seeder_at(rig: &TestRig, a: RunningNode, port: u16, key: Option<&SecretKey>) -> TcpStream {
    let stream = TcpStream::connect(rig.tracker()).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let hex = |key: &SecretKey| key.peer_key().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = key.map(hex);
    for request in [
        json!({"command": "login", "sender_ip": "127.0.0.1", "sender_port": port,
            "command_args": {"user_id": "alice", "passwd": "password", "peer_key": key}}),
        json!({"command": "download_confirm", "command_args": {"group_id": "g", "file_name": "f"}}),
    ] {
        (&stream).write_all(request.to_string().as_bytes()).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert!(line.contains("\"success\""), "{request}: {line}");
    }
    a.kill();
    stream
}

/// The words for the only peer of Bob's only download.
fn trouble(bob: &UserHome) -> Option<Value> {
    let listed: Value = serde_json::from_str(&bob.run(["show_downloads", "--json"]).expect(0).out).unwrap();
    listed["downloads"][0]["peer_troubles"][0]["trouble"].as_str().map(Value::from)
}

#[test]
fn a_port_where_nothing_listens_is_told_as_such_everywhere() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, _b)) = alice_and_bob(&rig);
    let (_bound, address) = unused_address();
    let _session = seeder_at(&rig, a, address.port(), Some(&SecretKey::from_seed(&[7; 32])));
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "3"]).expect(8);
    let told = format!("{address} has it but refuses connections");
    assert!(ended.err.contains(&told) && !ended.err.contains("no peer has"), "{}", ended.err);
    until("show_downloads tells it", || bob.downloads().contains(&told));
    assert_eq!(trouble(&bob), Some("connection_refused".into()));
    let peers = bob.run(["get_peers", "g", "f"]).expect(0);
    assert_eq!(peers.out, format!("{address}\n"));
    assert!(peers.err.contains(&told), "{peers:?}");
    let shown = bob.run(["get_peers", "g", "f", "--json"]).expect(0).out;
    let listed: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(listed["peers"][0]["trouble"]["trouble"], "connection_refused", "{shown}");
}

#[test]
fn peers_without_a_key_are_told_as_such_everywhere() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, _b)) = alice_and_bob(&rig);
    let (_bound, address) = unused_address();
    let _session = seeder_at(&rig, a, address.port(), None);
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "3"]).expect(8);
    assert!(ended.err.contains("the only peer that has it has no peer key"), "{}", ended.err);
    assert!(ended.err.contains("have a member upload the file with this client"), "{}", ended.err);
    until("show_downloads tells it", || bob.downloads().contains("no peer key"));
    assert_eq!(trouble(&bob), Some("no_key".into()));
    let peers = bob.run(["get_peers", "g", "f"]).expect(0);
    assert!(peers.err.contains(&format!("{address} has it but no peer key")), "{peers:?}");
}

#[test]
fn a_stopped_node_is_told_as_silent() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, _b)) = alice_and_bob(&rig);
    // Its kernel still accepts connections.
    a.signal(Signal::STOP);
    bob.prompt("download_file g f copy\n").expect(0);
    let told = |text: &str| bob.downloads().contains(&format!("{} has it but {text}", a.address));
    until("the first call is told while it lasts", || told("does not answer: nothing came for"));
    until("its end is told", || told("has sent nothing for 10 s"));
    a.signal(Signal::CONT);
    until("it is complete", || bob.downloads().starts_with("[C] [g] f "));
}

#[test]
fn a_peer_of_another_version_is_told_so() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, _b)) = alice_and_bob(&rig);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let secret = SecretKey::from_seed(&[7; 32]);
    let _session = seeder_at(&rig, a, address.port(), Some(&secret));
    let (heard, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let greeting = Message::Greeting {
                version: PROTOCOL_VERSION + 1,
                nonce: Nonce([1; 32]),
                peer_key: secret.peer_key(),
            };
            stream.write_all(&codec::encode_message(&greeting)).unwrap();
            let mut answer = Vec::new();
            std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
            let _ = heard.send(codec::decode_message(&answer[codec::LENGTH_BYTES..]).unwrap());
        }
    });
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "3"]).expect(8);
    let told = format!("{address} has it but speaks version {}", PROTOCOL_VERSION + 1);
    assert!(ended.err.contains(&told), "{}", ended.err);
    assert_eq!(trouble(&bob), Some(json!("version")));
    let answer = answers.recv().unwrap();
    assert!(matches!(answer, Message::Greeting { version: PROTOCOL_VERSION, .. }), "{answer:?}");
}

#[test]
fn a_node_tells_which_version_a_consumer_speaks() {
    let rig = TestRig::new();
    let (node, heard) = rig.home("alice").serve_and_hear();
    let mut stream = TcpStream::connect(node.address).unwrap();
    let peer_key = SecretKey::from_seed(&[7; 32]).peer_key();
    let greeting = Message::Greeting { version: PROTOCOL_VERSION + 1, nonce: Nonce([1; 32]), peer_key };
    stream.write_all(&codec::encode_message(&greeting)).unwrap();
    let told = format!("127.0.0.1 speaks version {}", PROTOCOL_VERSION + 1);
    until("the node tells it", || heard.has(&told));
}

#[test]
fn serve_status_and_doctor_say_whether_others_reach_the_node() {
    let rig = TestRig::new();
    let (alice, node) = rig.user("alice");
    until("the tracker has called back", || alice.status()["reachability"]["reached"] == true);
    assert_eq!(alice.status()["reachability"]["address"], node.address.to_string());
    let doctor = alice.run(["doctor"]);
    assert!(doctor.out.contains(&format!("reach this node at {}", node.address)), "{}", doctor.out);
    let mut restarted = None;
    node.kill();
    until("a new node says so when it starts", || {
        let (node, heard) = alice.serve_and_hear();
        let told = format!("reach this node at {}", node.address);
        until("the node tells it", || heard.has(&told));
        restarted = Some(node);
        true
    });
}
