//! Trackers that send false answers: the command ends with exit 13, at once and in bounded memory, and later requests are not
//! affected.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::rig::{TestRig, UserHome};
use crate::scripted::{lying_tracker, scripted_tracker};

fn bob(rig: &TestRig) -> UserHome {
    let home = rig.home("bob");
    home.run(["login", "bob", "password"]).expect(0);
    home
}

fn description(digests: &[String], next: usize) -> Value {
    json!({"file_path": "f", "file_chunks": digests, "peers": [], "server_time": 1, "next": next})
}

#[test]
fn a_description_that_never_ends_is_refused() {
    // Parts without pieces, each naming a next one.
    let rig = TestRig::with_tracker_at(lying_tracker(|_| description(&[], 1)));
    let ended = bob(&rig).run(["download_file", "g", "f", "copy"]).expect(13);
    assert!(ended.err.contains("do not follow one another"), "{}", ended.err);

    // More and more pieces of a file that has one.
    let told = AtomicU32::new(0);
    let rig = TestRig::with_tracker_at(lying_tracker(move |_| {
        let digest = told.fetch_add(1, Ordering::SeqCst);
        let mut part = description(&[format!("{digest:040x}")], digest as usize + 1);
        part["file_size"] = (3 * super::PIECE).into();
        part
    }));
    let ended = bob(&rig).run(["download_file", "g", "f", "copy"]).expect(13);
    assert!(ended.err.contains("more pieces than it can have"), "{}", ended.err);
}

#[test]
fn an_answer_to_another_request_is_refused_and_misleads_no_later_one() {
    let asked = AtomicU32::new(0);
    let rig = TestRig::with_tracker_at(scripted_tracker(move |request| {
        let of = |user: &str, id: &Value| {
            let reply = json!({"status": "success", "message": "", "epoch": 1, "request_id": id,
                "user_id": user, "created": 1, "sessions": 1});
            format!("{reply}\n")
        };
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => of("mallory", &"another".into()),
            // The right answer, followed by one to a later request.
            1 => of("bob", &request["request_id"]) + &of("mallory", &Value::Null),
            _ => of("bob", &request["request_id"]),
        }
    }));
    let home = rig.home("bob");
    let _node = home.serve(&[]);
    home.run(["login", "bob", "password"]).expect(0);
    let ended = home.run(["whoami"]).expect(13);
    assert!(ended.err.contains("answered another request"), "{}", ended.err);
    for _ in 0..2 {
        assert!(home.run(["whoami"]).expect(0).out.starts_with("bob"));
    }
}

#[test]
fn a_trackers_text_cannot_control_the_terminal() {
    let rig = TestRig::with_tracker_at(scripted_tracker(|request| {
        let hostile = "\u{1b}[2J\u{202e}".repeat(1_000);
        let status = if request["command"] == "create_group" { "success" } else { "failure" };
        let reply = json!({"status": status, "code": "not_found", "message": hostile, "fix": hostile,
            "epoch": 1, "request_id": request["request_id"]});
        format!("{reply}\n")
    }));
    let home = bob(&rig);
    for (words, code) in [(["create_group", "g"], 0), (["join_group", "g"], 5)] {
        let ended = home.run(words).expect(code);
        let shown = ended.out + &ended.err;
        assert!(shown.contains("\\u{1b}[2J\\u{202e}"), "{shown}");
        // Log lines may have colours of their own: check only the tracker's text.
        assert!(!shown.contains("\u{1b}[2J") && !shown.contains('\u{202e}'), "{shown:?}");
        assert!(shown.len() < 8 * 1_024);
    }
}

#[test]
fn an_invalid_ticket_is_refused() {
    for ticket in ["AAAA".to_owned(), "A".repeat(1 << 20), "no base64".to_owned()] {
        let rig = TestRig::with_tracker_at(lying_tracker(move |_| {
            json!({"file_path": "f", "file_chunks": ["11".repeat(20)], "file_size": 1, "fileSha": "11".repeat(20),
                "peers": [], "server_time": 1, "ticket": ticket})
        }));
        bob(&rig).run(["download_file", "g", "f", "copy"]).expect(13);
    }
}
