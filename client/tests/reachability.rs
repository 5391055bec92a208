//! Peers that cannot be reached: a download says what became of each, and so do `get_peers` and `show_downloads`.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

mod rig;

use engine::proto::codec;
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::ticket::{Nonce, SecretKey};
use rig::{RunningNode, TestRig, UserHome, pieces, until};
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

/// The words for the only peer of Bob's only download.
fn trouble(bob: &UserHome) -> Option<Value> {
    let listed: Value = serde_json::from_str(&bob.run(["show_downloads", "--json"]).expect(0).out).unwrap();
    listed["downloads"][0]["peer_troubles"][0]["trouble"].as_str().map(Value::from)
}

#[test]
fn a_port_where_nothing_listens_is_told_as_such_everywhere() {
    let rig = TestRig::new();
    let ((_alice, a), (bob, _b)) = alice_and_bob(&rig);
    let address = a.address;
    a.kill();
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "3"]).expect(8);
    let told = format!("{address} has it but refuses connections");
    assert!(ended.err.contains(&told) && !ended.err.contains("no peer has"), "{}", ended.err);
    until("show_downloads tells it", || bob.downloads().contains(&told));
    assert_eq!(trouble(&bob), Some("connection_refused".into()));
    // The tracker names the killed node for as long as its lease.
    let peers = bob.run(["get_peers", "g", "f"]).expect(0);
    assert!(peers.out != format!("{address}\n") || peers.err.contains(&told), "{peers:?}");
    let shown = bob.run(["get_peers", "g", "f", "--json"]).expect(0).out;
    let listed: Value = serde_json::from_str(&shown).unwrap();
    for peer in listed["peers"].as_array().unwrap() {
        assert_eq!(peer["trouble"]["trouble"], "connection_refused", "{shown}");
    }
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
    until("it is complete", || bob.downloads() == "[C] [g] f\n");
}

#[test]
fn a_peer_of_another_version_is_told_so() {
    let rig = TestRig::new();
    let ((alice, a), (bob, _b)) = alice_and_bob(&rig);
    let address = a.address;
    let _key = alice.state();
    a.kill();
    // Another program takes over the node's address and greets in a later version.
    let listener = std::net::TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let secret = SecretKey::from_seed(&[7; 32]);
        for mut stream in listener.incoming().map_while(Result::ok) {
            let greeting = Message::Greeting {
                version: PROTOCOL_VERSION + 1,
                nonce: Nonce([1; 32]),
                peer_key: secret.peer_key(),
            };
            // The consumer may have closed already.
            let _ = std::io::Write::write_all(&mut stream, &codec::encode_message(&greeting));
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        }
    });
    let ended = bob.run(["download_file", "g", "f", "copy", "--wait", "3"]).expect(8);
    let told = format!("{address} has it but speaks version {}", PROTOCOL_VERSION + 1);
    assert!(ended.err.contains(&told), "{}", ended.err);
    assert_eq!(trouble(&bob), Some(json!("version")));
}
