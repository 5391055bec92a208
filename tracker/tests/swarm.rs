//! Files, swarms and tickets, with the real binary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod rig;

use engine::proto::ticket::{Ticket, TrackerKey};
use rig::{Client, Tracker, file, file_with, hash, two_members};
use serde_json::{Value, json};

fn ports(peers: &Value) -> Vec<u64> {
    let mut ports: Vec<u64> =
        peers.as_array().unwrap().iter().map(|peer| peer["port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    ports
}

fn listed(client: &mut Client) -> Value {
    client.ok("list_files", json!({"group_id": "g"}))["files"].clone()
}

#[test]
fn a_file_is_shared_by_members_only_and_once_under_its_name() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    let mut mallory = tracker.user("mallory", 5_009);
    assert_eq!(mallory.upload("g", "f", &[1, 2])["code"], "not_member");
    assert_eq!(alice.upload("none", "f", &[1, 2])["code"], "not_found");
    assert_eq!(alice.upload("g", "f", &[1, 2])["status"], "success");
    assert_eq!(bob.upload("g", "f", &[1, 3])["code"], "other_content");
    assert_eq!(bob.upload("g", "f", &[1, 2])["status"], "success", "the same content makes another seeder");
    assert_eq!(bob.upload("g", "other name", &[1, 2])["status"], "success");
    alice.ok("create_group", json!({"group_id": "h"}));
    assert_eq!(
        alice.upload("h", "f", &[9])["status"],
        "success",
        "the same name in another group is another file"
    );
    let files = listed(&mut alice);
    assert_eq!(files[0]["file_name"], "f");
    assert_eq!((&files[0]["seeders"], &files[0]["fileSha"]), (&json!(2), &json!(hash(0xFF))));
    assert_eq!(files[1]["seeders"], 1);
    let page = alice.ok("list_files", json!({"group_id": "g", "after": "f", "count": 5}));
    assert_eq!(page["files_list"], json!(["other name"]));
    assert_eq!(mallory.code("download_file", file("f")), "not_member");
    assert_eq!(mallory.code("get_peers", file("f")), "not_member");
    assert_eq!(alice.code("download_file", file("none")), "not_found");
}

#[test]
fn sharing_needs_an_address() {
    let tracker = Tracker::start();
    let (mut alice, _) = two_members(&tracker);
    let mut silent = tracker.connect();
    silent.ok("create_user", json!({"user_id": "silent", "passwd": "secret"}));
    silent.log_in("silent");
    silent.ok("join_group", json!({"group_id": "g"}));
    let refused = silent.upload("g", "f", &[1]);
    assert!(refused["message"].as_str().unwrap().contains("sender_port"), "{refused}");
    alice.upload("g", "f", &[1]);
    silent.ok("download_file", file("f"));
    assert_eq!(listed(&mut alice)[0]["leechers"], 0, "a client that does not listen is not a leecher");
}

#[test]
fn a_leecher_joins_gets_pieces_and_becomes_a_seeder() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2, 1, 4]);
    let download = bob.ok("download_file", file("f"));
    assert_eq!(download["file_chunks"], json!([hash(1), hash(2), hash(1), hash(4)]));
    assert_eq!(download["chunk_metadata"].as_object().unwrap().len(), 3, "identical pieces share one hash");
    let mut carol = tracker.user("carol", 5_003);
    carol.ok("join_group", json!({"group_id": "g"}));
    assert_eq!(ports(&carol.ok("get_peers", file("f"))["peers"]), [5_001, 5_002], "bob is a leecher at once");
    assert_eq!(
        (&listed(&mut alice)[0]["seeders"], &listed(&mut alice)[0]["leechers"]),
        (&json!(1), &json!(1))
    );

    bob.ok("update_pieces", file_with("f", "ranges", json!([[1, 1], [3, 3]])));
    let chunks = carol.ok("download_file", file("f"))["chunk_metadata"].clone();
    assert_eq!(chunks[hash(1)], json!([["127.0.0.1", "5001"]]));
    assert_eq!(chunks[hash(2)].as_array().unwrap().len(), 2);
    for bad in
        [json!([[0, 4]]), json!([[2, 1]]), json!([[0]]), json!("some"), json!([[0, 0], [0, 3]]), json!(7)]
    {
        assert_eq!(bob.code("update_pieces", file_with("f", "ranges", bad.clone())), "bad_request", "{bad}");
    }
    bob.ok("update_pieces", file_with("f", "ranges", json!([[0, 0], [2, 2]])));
    let peers = carol.ok("get_peers", file("f"))["peers"].clone();
    assert!(peers.as_array().unwrap().iter().all(|peer| peer["complete"] == true), "{peers}");
    carol.ok("download_confirm", file("f"));
    assert_eq!(listed(&mut alice)[0]["seeders"], 3);
}

#[test]
fn a_share_ends_and_the_file_stays() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    bob.ok("download_file", file("f"));
    bob.ok("stop_share", file("f"));
    assert_eq!(bob.code("stop_share", file("f")), "not_found");
    alice.ok("stop_share", file("f"));
    let files = listed(&mut alice);
    assert_eq!((&files[0]["seeders"], &files[0]["leechers"]), (&json!(0), &json!(0)));
    assert_eq!(bob.code("remove_file", file("f")), "not_allowed");
    bob.upload("g", "his", &[3]);
    alice.ok("remove_file", file("his"));
    alice.ok("remove_file", file("f"));
    assert_eq!(listed(&mut alice), json!([]));
    assert_eq!(alice.upload("g", "f", &[7])["status"], "success", "the name is free again");
}

/// Replaces `f` by other pieces under the same stated SHA-1, as clients that prove pieces only may do.
fn replace(alice: &mut Client, digests: &[u8]) {
    alice.ok("remove_file", file("f"));
    assert_eq!(alice.upload("g", "f", digests)["status"], "success");
}

#[test]
fn a_client_that_names_no_content_means_what_it_asked_for() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    bob.ok("download_file", file("f"));
    bob.ok("update_pieces", file_with("f", "ranges", json!([[0, 0]])));
    replace(&mut alice, &[3, 4]);
    for (command, args) in [
        ("download_confirm", file("f")),
        ("update_pieces", file_with("f", "ranges", json!([[1, 1]]))),
        ("stop_share", file("f")),
    ] {
        let refused = bob.ask(command, args);
        assert_eq!(refused["code"], "other_content", "{command}: {refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.contains("removed from the list by alice") && message.contains(&hash(0xFF)),
            "{refused}"
        );
    }
    let files = listed(&mut alice);
    assert_eq!((&files[0]["seeders"], &files[0]["leechers"]), (&json!(1), &json!(0)), "{files}");
    // After asking for what is listed now, the client means that.
    bob.ok("download_file", file("f"));
    bob.ok("download_confirm", file("f"));
    assert_eq!(listed(&mut alice)[0]["seeders"], 2);
    // The same for a seeder of earlier content, and for one that uploads.
    replace(&mut alice, &[5, 6]);
    assert_eq!(bob.code("download_confirm", file("f")), "other_content");
    bob.upload("g", "f", &[5, 6]);
    bob.ok("download_confirm", file("f"));
    alice.ok("remove_file", file("f"));
    let refused = bob.ask("download_confirm", file("f"));
    assert_eq!(refused["code"], "not_found");
    assert!(refused["message"].as_str().unwrap().contains("was removed from the list by alice"), "{refused}");
}

#[test]
fn a_request_that_names_content_counts_for_that_content_alone() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1]);
    bob.ok("download_file", file("f"));
    replace(&mut alice, &[2]);
    let with = |byte: u8, field: &str, value: Value| {
        let mut args = file_with("f", "fileSha", json!(hash(byte)));
        args[field] = value;
        args
    };
    let report = |byte| {
        let mut args = with(byte, "ip", json!("127.0.0.1"));
        args["port"] = json!(5_001);
        args
    };
    let requests = |byte| {
        [
            ("update_pieces", with(byte, "ranges", json!([[0, 0]]))),
            ("update_pieces", with(byte, "complete", json!(true))),
            ("download_confirm", with(byte, "complete", json!(true))),
            ("get_peers", with(byte, "view", json!(null))),
            ("download_file", with(byte, "view", json!("compact"))),
            ("report_peer", report(byte)),
            ("stop_share", with(byte, "view", json!(null))),
        ]
    };
    for (command, args) in requests(1) {
        assert_eq!(bob.code(command, args), "other_content", "{command}");
    }
    assert_eq!(listed(&mut alice)[0]["seeders"], 1);
    // The content that the request names counts, also where the node asked for other content before.
    for (command, args) in requests(2) {
        bob.ok(command, args);
    }
    assert_eq!(bob.code("get_peers", with(0, "fileSha", json!("f00"))), "bad_request");
}

#[test]
fn a_ping_counts_the_shares_of_the_sessions_node() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    assert_eq!(alice.ok("ping", json!({}))["shares"], 0);
    alice.upload("g", "f", &[1]);
    bob.ok("download_confirm", file("f"));
    assert_eq!(
        (&alice.ok("ping", json!({}))["shares"], &bob.ok("ping", json!({}))["shares"]),
        (&json!(1), &json!(1))
    );
    alice.ok("remove_file", file("f"));
    assert_eq!(bob.ok("ping", json!({}))["shares"], 0);
    assert!(tracker.connect().ok("ping", json!({})).get("shares").is_none(), "without a session");
}

#[test]
fn a_removed_member_and_the_owner_are_told() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1]);
    let removed = alice.ok("remove_member", json!({"group_id": "g", "user_id": "bob"}));
    let message = removed["message"].as_str().unwrap();
    assert!(message.contains("10 minutes at most") && message.contains(" UTC"), "{message}");
    let refused = bob.ask("get_peers", file("f"));
    assert_eq!(refused["code"], "not_member");
    assert_eq!(refused["message"], "alice, the owner of group g, has removed you from it");
    bob.ok("join_group", json!({"group_id": "g"}));
    bob.ok("leave_group", json!({"group_id": "g"}));
    assert_eq!(bob.ask("get_peers", file("f"))["message"], "you are not a member of group g");
}

#[test]
fn logout_and_a_closed_connection_take_shares_offline() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    alice.ok("logout", json!({}));
    assert_eq!(listed(&mut bob)[0]["seeders"], 0);
    alice.log_in("alice");
    assert_eq!(listed(&mut bob)[0]["seeders"], 1, "the next login brings them back");
    bob.upload("g", "his", &[3]);
    let half_closed = bob.ok("list_files", json!({"group_id": "g"}));
    assert_eq!(half_closed["files_list"], json!(["f", "his"]));
    bob.half_close();
    assert_eq!(bob.receive(), None, "the tracker has closed its side");
    assert_eq!(
        listed(&mut alice)[1]["seeders"],
        0,
        "a session without pings is online only while its connection is open"
    );
}

#[test]
fn tickets_name_the_key_of_the_request() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    assert!(bob.ok("get_peers", file("f")).get("ticket").is_none(), "no key, no ticket");
    bob.peer_key = Some("ab".repeat(32));
    let tracker_key = bob.log_in("bob")["tracker_key"].as_str().unwrap().to_owned();
    let key = TrackerKey(engine::proto::hex::parse_hex(&tracker_key).unwrap());
    let granted = |answer: &Value| {
        let text = answer["ticket"].as_str().expect("a ticket");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        Ticket(bytes).verify(key).unwrap()
    };
    let answer = bob.ok("download_file", file("f"));
    let grant = granted(&answer);
    assert_eq!((grant.user.as_str(), grant.group.as_str(), grant.file_name.as_str()), ("bob", "g", "f"));
    assert_eq!((grant.peer_key.0, grant.file_id.0), ([0xAB; 32], [0xFF; 20]));
    assert_eq!(grant.expires.0, answer["server_time"].as_u64().unwrap() + 9 * 60);
    let other = bob.ok("get_peers", file_with("f", "peer_key", json!("cd".repeat(32))));
    assert_eq!(granted(&other).peer_key.0, [0xCD; 32]);
    assert_eq!(bob.code("get_peers", file_with("f", "peer_key", json!("cd"))), "bad_request");
}

#[test]
fn a_node_that_listens_only_after_its_login_is_listed_with_its_key() {
    let tracker = Tracker::start();
    let (mut alice, _) = two_members(&tracker);
    alice.upload("g", "f", &[1]);
    let mut carol = tracker.connect();
    carol.ok("create_user", json!({"user_id": "carol", "passwd": "secret"}));
    carol.peer_key = Some("ab".repeat(32));
    carol.log_in("carol");
    carol.ok("join_group", json!({"group_id": "g"}));
    // Only now does carol's node listen.
    carol.sender_port = Some(5_003);
    carol.ok("ping", json!({}));
    carol.ok("list_groups", json!({}));
    carol.ok("download_file", file_with("f", "peer_key", json!("ab".repeat(32))));
    carol.ok("download_confirm", file("f"));
    let peers = alice.ok("get_peers", file("f"))["peers"].clone();
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    assert_eq!((&peers[0]["port"], &peers[0]["peer_key"]), (&json!(5_003), &json!("ab".repeat(32))));
}

#[test]
fn the_compact_view_comes_in_parts() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    let upload = json!({"piecewise_sha": [hash(1), hash(2), hash(3)], "fileSha": hash(9), "file_chain": [hash(4), hash(5)]});
    let sized = file_with("f", "file_size", json!(3 * 524_288));
    assert_eq!(alice.ask_with("upload_file", sized, upload)["status"], "success");
    let mut part = |first: u64| {
        let args = json!({"group_id": "g", "file_name": "f", "view": "compact", "first": first, "count": 2});
        bob.ok("download_file", args)
    };
    let decoded = |value: &Value| {
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value.as_str().unwrap()).unwrap()
    };
    let (head, tail) = (part(0), part(2));
    assert_eq!(decoded(&head["file_chunks"]), [[1; 20], [2; 20]].concat());
    assert_eq!(decoded(&head["file_chain"]), [[4; 20], [5; 20]].concat());
    assert_eq!(head["next"], 2);
    assert!(head.get("chunk_metadata").is_none());
    assert_eq!(ports(&head["peers"]), [5_001]);
    assert_eq!((decoded(&tail["file_chunks"]), decoded(&tail["file_chain"])), (vec![3; 20], vec![]));
    assert!(tail.get("next").is_none());
    assert_eq!((&tail["file_size"], &tail["fileSha"]), (&json!(3 * 524_288), &json!(hash(9))));
    let past = json!({"group_id": "g", "file_name": "f", "first": 4});
    assert_eq!(bob.code("download_file", past), "bad_request");
}

#[test]
fn an_upload_of_the_original_client_is_accepted_and_marked() {
    let tracker = Tracker::start();
    let (mut alice, _) = two_members(&tracker);
    let joined = format!("{}{}", hash(1), hash(2));
    let upload = json!({"piecewise_sha": [hash(1), hash(2)], "fileSha": joined});
    let args = json!({"group_id": "g", "file_path": "/home/alice/old film.avi"});
    let answer = alice.ask_with("upload_file", args, upload);
    assert!(answer["message"].as_str().unwrap().contains("only its pieces can be proven"), "{answer}");
    let download = alice.ok("download_file", file("old film.avi"));
    assert_eq!((&download["fileSha"], &download["pieces_only"]), (&json!(joined), &json!(true)));
    for name in ["../f", "a/b", "..", "", "a\nb", "a\u{202E}b", &"x".repeat(256)] {
        assert_eq!(alice.upload("g", name, &[1])["code"], "bad_request", "{name:?}");
    }
}

#[test]
fn a_reported_peer_is_hidden_from_its_reporter_only() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    bob.ok("download_file", file("f"));
    let report =
        json!({"group_id": "g", "file_name": "f", "ip": "127.0.0.1", "port": "5001", "reason": "bad piece"});
    bob.ok("report_peer", report);
    assert_eq!(ports(&bob.ok("get_peers", file("f"))["peers"]), [] as [u64; 0]);
    let mut carol = tracker.user("carol", 5_003);
    carol.ok("join_group", json!({"group_id": "g"}));
    assert_eq!(ports(&carol.ok("get_peers", file("f"))["peers"]), [5_001, 5_002]);
}

#[test]
fn leaving_and_removal_withdraw_shares() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    bob.upload("g", "f", &[1]);
    alice.ok("remove_member", json!({"group_id": "g", "user_id": "bob"}));
    assert_eq!(listed(&mut alice)[0]["seeders"], 0);
    assert_eq!(bob.code("download_file", file("f")), "not_member", "and so no ticket");
    bob.ok("join_group", json!({"group_id": "g"}));
    bob.upload("g", "f", &[1]);
    bob.ok("leave_group", json!({"group_id": "g"}));
    assert_eq!(listed(&mut alice)[0]["seeders"], 0);
}

#[test]
fn a_loopback_client_may_share_at_any_loopback_address() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    let upload = |ip: &str, name: &str| {
        json!({"command": "upload_file", "command_args": file(name), "piecewise_sha": [hash(1)], "fileSha": hash(1),
            "sender_ip": ip, "sender_port": 6_000})
    };
    alice.ask_value(&upload("127.0.0.7", "f"));
    let peers = bob.ok("get_peers", file("f"))["peers"].clone();
    assert_eq!((&peers[0]["ip"], &peers[0]["port"]), (&json!("127.0.0.7"), &json!(6_000)));
    alice.ask_value(&upload("10.1.2.3", "e"));
    let peers = bob.ok("get_peers", file("e"))["peers"].clone();
    assert_eq!(peers[0]["ip"], "127.0.0.1", "an address that is not loopback is ignored");
    assert_eq!(alice.ask_value(&upload("fe80::1%eth0", "d"))["code"], "bad_request");
}

#[test]
fn large_uploads_are_returned_completely() {
    const PIECES: usize = 10_000;
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    let digests: Vec<String> = (0..PIECES).map(|index| format!("{index:040x}")).collect();
    let upload = json!({"piecewise_sha": digests, "fileSha": hash(9), "request_id": 1});
    assert_eq!(alice.ask_with("upload_file", file("f"), upload)["status"], "success");
    let download = bob.ok("download_file", file("f"));
    assert_eq!(download["file_chunks"], json!(digests));
    assert_eq!(download["chunk_metadata"].as_object().unwrap().len(), PIECES);
    let compact = bob.ok("download_file", file_with("f", "view", json!("compact")));
    assert_eq!(compact["file_chunks"].as_str().unwrap().len(), (PIECES * 20).div_ceil(3) * 4);
}

#[test]
fn a_confirmation_with_other_hashes_makes_no_seeder() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1, 2]);
    bob.ok("download_file", file("f"));
    let joined = |digests: &[u8]| digests.iter().map(|byte| hash(*byte)).collect::<String>();
    let list = |digests: &[u8]| digests.iter().map(|byte| hash(*byte)).collect::<Vec<_>>();
    for false_claim in [
        json!({"piecewise_sha": list(&[1, 3])}),
        json!({"piecewise_sha": list(&[1])}),
        json!({"piecewise_sha": list(&[])}),
        json!({"fileSha": hash(8)}),
        json!({"fileSha": joined(&[2, 1])}),
        json!({"fileSha": hash(8), "piecewise_sha": list(&[1, 2])}),
    ] {
        let refused = bob.ask_with("download_confirm", file("f"), false_claim.clone());
        assert_eq!(refused["code"], "other_content", "{false_claim}: {refused}");
    }
    let contradiction = json!({"piecewise_sha": list(&[1, 2]), "fileSha": joined(&[1, 3])});
    assert_eq!(bob.ask_with("download_confirm", file("f"), contradiction)["code"], "bad_request");
    assert_eq!(listed(&mut alice)[0]["seeders"], 1);
    for claim in [
        json!({"piecewise_sha": list(&[1, 2])}),
        json!({"fileSha": joined(&[1, 2])}),
        json!({"fileSha": hash(0xFF), "piecewise_sha": list(&[1, 2])}),
    ] {
        assert_eq!(
            bob.ask_with("download_confirm", file("f"), claim.clone())["status"],
            "success",
            "{claim}"
        );
        assert_eq!(listed(&mut alice)[0]["seeders"], 2);
        bob.ok("stop_share", file("f"));
    }
}
