//! The four examples of the protocol, word for word, through the real binary: pretty-printed, joined, and cut at every
//! offset, in both forms.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use rig::{Client, Tracker, frame};
use serde_json::{Value, json};

const LOGIN: &str = r#"{"command":"login","command_args":{"user_id":"alice","passwd":"password123"},"sender_ip":"127.0.0.1","sender_port":"5000"}"#;
const UPLOAD: &str = r#"{"command":"upload_file","command_args":{"group_id":"group1","file_name":"document.pdf"},"piecewise_sha":["0101010101010101010101010101010101010101","0202020202020202020202020202020202020202"],"fileSha":"0303030303030303030303030303030303030303","sender_ip":"127.0.0.1","sender_port":"5000"}"#;
const DOWNLOAD: &str = r#"{"command":"download_file","command_args":{"group_id":"group1","file_name":"document.pdf"},"sender_ip":"127.0.0.1","sender_port":"5000"}"#;

/// A tracker with alice, her group and her file, and two more seeders of its first piece.
fn prepared() -> Tracker {
    let tracker = Tracker::start();
    let mut alice = tracker.connect();
    alice.ok("create_user", json!({"user_id": "alice", "passwd": "password123"}));
    alice.send(LOGIN);
    assert_eq!(alice.receive().unwrap()["status"], "success");
    alice.ok("create_group", json!({"group_id": "group1"}));
    tracker
}

/// Checks the fields of the example's answer; the peers may differ.
fn check_download(answer: &Value) {
    let (first, second) = (rig::hash(1), rig::hash(2));
    assert_eq!(answer["status"], "success", "{answer}");
    assert_eq!(answer["file_path"], "document.pdf");
    assert_eq!(answer["file_chunks"], json!([first, second]));
    assert_eq!(answer["fileSha"], rig::hash(3));
}

fn pretty(text: &str) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(text).unwrap()).unwrap()
}

fn check_three(client: &mut Client) {
    assert_eq!(client.receive().unwrap()["status"], "success");
    assert_eq!(client.receive().unwrap()["status"], "success");
    check_download(&client.receive().unwrap());
}

#[test]
fn the_examples_work_word_for_word() {
    let tracker = prepared();
    let mut alice = tracker.connect();
    alice.send(LOGIN);
    let login = alice.receive().unwrap();
    assert!(login["session"].is_string() && login["server_time"].is_u64() && login["epoch"].is_u64());
    assert_eq!(login["tracker_key"].as_str().unwrap().len(), 64);
    alice.send(UPLOAD);
    assert_eq!(alice.receive().unwrap()["status"], "success");
    let mut bob = tracker.user("bob", 5_002);
    bob.ok("join_group", json!({"group_id": "group1"}));
    bob.ok("update_pieces", json!({"group_id": "group1", "file_name": "document.pdf", "ranges": [[0, 0]]}));
    alice.send(DOWNLOAD);
    let answer = alice.receive().unwrap();
    check_download(&answer);
    let chunks = &answer["chunk_metadata"];
    assert_eq!(chunks[rig::hash(1)], json!([["127.0.0.1", "5002"]]), "the asker's own node is left out");
    let mut carol = tracker.user("carol", 5_009);
    carol.ok("join_group", json!({"group_id": "group1"}));
    carol.send(&DOWNLOAD.replace("5000", "5009"));
    let answer = carol.receive().unwrap();
    check_download(&answer);
    let both = &answer["chunk_metadata"][rig::hash(1)];
    assert_eq!(both.as_array().unwrap().len(), 2, "{answer}");
    assert!(both.as_array().unwrap().contains(&json!(["127.0.0.1", "5002"])));
    assert_eq!(answer["chunk_metadata"][rig::hash(2)], json!([["127.0.0.1", "5000"]]));
}

#[test]
fn pretty_printed_and_joined_texts_are_one_stream() {
    let tracker = prepared();
    let pretty = [LOGIN, UPLOAD, DOWNLOAD].map(pretty);
    for stream in
        [[LOGIN, UPLOAD, DOWNLOAD].concat(), pretty.concat(), format!("\n\n  {}\n", pretty.join("\r\n\t"))]
    {
        let mut client = tracker.connect();
        client.send(&stream);
        check_three(&mut client);
    }
    let mut client = tracker.connect().framed();
    client.send_bytes(&[frame(LOGIN), frame(&pretty[1]), frame(DOWNLOAD)].concat());
    check_three(&mut client);
}

#[test]
fn a_stream_may_be_cut_at_every_offset() {
    let tracker = prepared();
    let mut first = tracker.connect();
    first.send(LOGIN);
    let session = first.receive().unwrap()["session"].as_str().unwrap().to_owned();
    let with_session = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        value["session"] = session.as_str().into();
        value.to_string()
    };
    let (upload, download) = (with_session(UPLOAD), with_session(DOWNLOAD));
    let joined = format!("{upload}{download}");
    let frames = [frame(&upload), frame(&download)].concat();
    for (stream, framed) in [(joined.into_bytes(), false), (frames, true)] {
        for at in 0..stream.len() {
            let client = tracker.connect();
            let mut client = if framed { client.framed() } else { client };
            client.send_bytes(&stream[..at]);
            client.send_bytes(&stream[at..]);
            assert_eq!(client.receive().unwrap()["status"], "success", "cut at {at}");
            check_download(&client.receive().unwrap());
        }
    }
}

#[test]
fn a_login_may_be_cut_at_every_offset() {
    let tracker = prepared();
    for framed in [false, true] {
        let bytes = if framed { frame(LOGIN) } else { LOGIN.as_bytes().to_vec() };
        for at in 0..bytes.len() {
            let client = tracker.connect();
            let mut client = if framed { client.framed() } else { client };
            client.send_bytes(&bytes[..at]);
            client.send_bytes(&bytes[at..]);
            assert_eq!(client.receive().unwrap()["status"], "success", "cut at {at}");
        }
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    let tracker = prepared();
    let mut client = tracker.connect();
    for byte in format!("{LOGIN}{UPLOAD}\n{DOWNLOAD}").bytes() {
        client.send_bytes(&[byte]);
    }
    check_three(&mut client);
}

#[test]
fn the_original_clients_other_requests_get_answers_that_it_can_print() {
    let tracker = prepared();
    let mut alice = tracker.connect().framed();
    alice.send(LOGIN);
    assert_eq!(alice.receive().unwrap()["status"], "success");
    alice.send(UPLOAD);
    assert_eq!(alice.receive().unwrap()["status"], "success");
    alice.send(
        r#"{"command":"show_downloads","command_args":{},"sender_ip":"127.0.0.1","sender_port":"5000"}"#,
    );
    let shown = alice.receive().unwrap();
    assert_eq!(shown["status"], "success", "{shown}");
    assert!(shown["message"].as_str().unwrap().contains("keeps no list of downloads"), "{shown}");
    // The documented example has no `destination_path`; the original client cannot read an answer with peers.
    for (args, beside) in [(r#","destination_path":"/tmp/d""#, ""), ("", r#","destination_path":"""#)] {
        let end = r#""document.pdf""#;
        let text =
            DOWNLOAD.replace(end, &format!("{end}{args}")).replacen('{', &format!(r#"{{"x":0{beside},"#), 1);
        alice.send(&text);
        let refused = alice.receive().unwrap();
        assert_eq!(
            (&refused["status"], &refused["code"]),
            (&json!("failure"), &json!("not_allowed")),
            "{refused}"
        );
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("cannot fetch"), "{refused}");
        assert!(refused.get("file_chunks").is_none() && refused.get("chunk_metadata").is_none());
    }
    let download = alice.ok("list_files", json!({"group_id": "group1"}));
    assert_eq!(download["files"][0]["leechers"], 0, "a refused client is not told to others");
}
