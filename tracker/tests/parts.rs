//! Uploads in parts, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod rig;

use rig::{Client, Tracker, hash};
use serde_json::{Value, json};

/// Pieces of one row; parts have a multiple of it.
const ROW: usize = 4_096;

fn part(client: &mut Client, first: usize, digests: &[String], end: Option<&str>) -> Value {
    let mut args = json!({"group_id": "g", "file_name": "big", "upload_id": "u", "first": first});
    let mut beside = json!({"piecewise_sha": digests});
    match end {
        None => args["more"] = true.into(),
        Some(whole) => beside["fileSha"] = whole.into(),
    }
    client.ask_with("upload_file", args, beside)
}

#[test]
fn a_file_uploaded_in_parts_is_listed_with_its_last_and_downloaded_in_parts() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5000);
    alice.ok("create_group", json!({"group_id": "g"}));
    let rows: Vec<Vec<String>> = (0..3).map(|row| vec![hash(row + 1); ROW]).collect();
    let two: Vec<String> = rows[..2].concat();
    let stored = part(&mut alice, 0, &two, None);
    assert_eq!(stored["status"], "success", "{stored}");
    assert!(stored["message"].as_str().unwrap().contains("8192"), "{stored}");
    assert_eq!(alice.ok("list_files", json!({"group_id": "g"}))["files_list"], json!([]));
    let early = part(&mut alice, 5 * ROW, &rows[2], None);
    assert_eq!((&early["status"], &early["code"]), (&json!("failure"), &json!("bad_request")));
    let ended = part(&mut alice, 2 * ROW, &rows[2][..10], Some(&hash(9)));
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(alice.ok("list_files", json!({"group_id": "g"}))["files_list"], json!(["big"]));
    let wanted =
        json!({"group_id": "g", "file_name": "big", "view": "compact", "first": 2 * ROW - 1, "count": 2});
    let answer = alice.ok("download_file", wanted);
    assert_eq!(answer["next"], 2 * ROW + 1);
    let again = part(&mut alice, 0, &two, Some(&hash(9)));
    assert_eq!(again["code"], "other_content", "a shorter file under the same name: {again}");
}

#[test]
fn a_user_who_is_no_member_stores_no_part() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5000);
    alice.ok("create_group", json!({"group_id": "g"}));
    let mut eve = tracker.user("eve", 5001);
    assert_eq!(part(&mut eve, 0, &vec![hash(1); ROW], None)["code"], "not_member");
}
