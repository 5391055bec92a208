//! Verification, tickets and the path of sent bytes: real binaries against peers and trackers that speak the raw protocols.
#![allow(clippy::unwrap_used, reason = "a file or socket of the test's own that fails is a failed test")]

mod liars;
#[path = "../rig/mod.rs"]
mod rig;
mod scripted;

use std::net::SocketAddr;
use std::process::Command;

use engine::hash::{FileHasher, FileHashes, Hasher};
use engine::proto::frame::{ByeCode, Message, RefusedCode};
use engine::proto::geometry::Geometry;
use engine::proto::limits::CONNECTIONS_PER_PEER;
use engine::proto::ticket::{Grant, SecretKey, Ticket, UnixSeconds};
use engine::proto::units::Digest;
use rig::{RunningNode, TestRig, UserHome};
use rustix::fs::inotify;
use scripted::{
    RawClient, consume, hex, lying_tracker, open, receive, serve_recording, serve_without_tickets,
};
use serde_json::{Value, json};

const PIECE: usize = 524_288;

fn content(pieces: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(pieces * PIECE).collect()
}

fn hashes(content: &[u8]) -> FileHashes {
    let hasher = FileHasher::new(Hasher::best(), Some(1)).unwrap();
    let Ok(hashes) = hasher.hash_file(Geometry::new(content.len() as u64).unwrap(), content, |_| {});
    hashes
}

fn user_with(rig: &TestRig, name: &str, options: &[&str]) -> (UserHome, RunningNode) {
    let home = rig.home(name);
    let node = home.serve(options);
    home.run(["create_user", name, "password"]).expect(0);
    home.run(["login", name, "password"]).expect(0);
    (home, node)
}

/// Announces a file over the raw protocol, for a node that listens at `provider`. A connection that never pings is online while
/// the caller keeps it open.
fn announce(rig: &TestRig, provider: SocketAddr, hashes: &FileHashes, length: usize) -> RawClient {
    let mut raw = RawClient::login(rig.tracker(), "alice", SecretKey::from_seed(&[9; 32]).peer_key());
    let list = |values: Vec<String>| Value::from(values);
    raw.ask(&json!({"command": "upload_file",
        "command_args": {"group_id": "g", "file_name": "f"},
        "piecewise_sha": list(hashes.digests.iter().map(ToString::to_string).collect()),
        "file_chain": list(hashes.chain.iter().map(ToString::to_string).collect()),
        "fileSha": hashes.digest.to_string(),
        "file_size": length,
        "peer_key": hex(&SecretKey::from_seed(&[9; 32]).peer_key().0),
        "sender_ip": "127.0.0.1",
        "sender_port": provider.port()}));
    raw
}

fn download(home: &UserHome, code: i32) -> Value {
    let ended = home.run(["download_file", "g", "f", "copy", "--json", "--wait", "300"]).expect(code);
    serde_json::from_str(ended.out.lines().last().unwrap()).unwrap()
}

/// A group of alice, with bob as a member.
fn group(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    alice.0.run(["create_group", "g"]).expect(0);
    bob.0.run(["join_group", "g"]).expect(0);
    (alice, bob)
}

#[test]
fn a_false_sha1_of_the_whole_ends_with_11_and_blames_no_peer() {
    let rig = TestRig::new();
    let (_alice, bob) = group(&rig);
    let content = content(5);
    let provider = serve_without_tickets(content.clone(), SecretKey::from_seed(&[9; 32]));
    let stated = FileHashes { digest: Digest([7; 20]), ..hashes(&content) };
    let _online = announce(&rig, provider, &stated, content.len());
    let failed = download(&bob.0, 11);
    assert!(failed["message"].as_str().unwrap().contains(&hashes(&content).digest.to_string()), "{failed}");
    assert!(!rig.path("copy").exists());
    let peers = bob.0.run(["get_peers", "g", "f"]).expect(0);
    assert_eq!(peers.out.trim(), provider.to_string(), "the provider is not withheld");
}

#[test]
fn a_false_chain_costs_exactly_one_pass_and_blames_no_peer() {
    let rig = TestRig::new();
    let (_alice, bob) = group(&rig);
    let content = content(5);
    let provider = serve_without_tickets(content.clone(), SecretKey::from_seed(&[9; 32]));
    let mut stated = hashes(&content);
    stated.chain[2] = engine::proto::units::ChainState([7; 20]);
    let _online = announce(&rig, provider, &stated, content.len());
    let done = download(&bob.0, 0);
    assert_eq!(done["sequential_passes"], 1, "{done}");
    let fetched = done["received_bytes"].as_u64().unwrap() - done["duplicate_bytes"].as_u64().unwrap();
    // On a machine that stalls, one more piece per connection may have been in flight at the end.
    assert!(fetched < 2 * content.len() as u64, "pieces were downloaded twice: {done}");
    assert!(std::fs::read(rig.path("copy")).unwrap() == content);
    let peers = bob.0.run(["get_peers", "g", "f"]).expect(0);
    assert_eq!(peers.out.trim(), provider.to_string(), "the provider is not withheld");
}

#[test]
fn identical_pieces_are_requested_once_and_zeros_never() {
    let rig = TestRig::new();
    let (_alice, bob) = group(&rig);
    let (both, zeros) = (content(2), vec![0; PIECE]);
    let (one, two) = both.split_at(PIECE);
    let whole = [one, &zeros, two, one, one, &zeros, two, &zeros].concat();
    let (provider, asked) = serve_recording(whole.clone(), SecretKey::from_seed(&[9; 32]));
    let _online = announce(&rig, provider, &hashes(&whole), whole.len());
    download(&bob.0, 0);
    assert!(std::fs::read(rig.path("copy")).unwrap() == whole);
    let asked = asked.lock().unwrap().clone();
    // Compares the indices, not the number of requests: on a machine that stalls, a piece is requested again.
    let asked_of = |copies: &[u32]| copies.iter().filter(|index| asked.contains(index)).count();
    assert_eq!((asked_of(&[0, 3, 4]), asked_of(&[2, 6]), asked.len()), (1, 1, 2), "{asked:?}");
}

#[test]
fn a_ticket_serves_only_its_owner() {
    let rig = TestRig::new();
    let (alice, bob) = group(&rig);
    rig.file("f", &content(2));
    alice.0.run(["upload_file", "g", "f"]).expect(0);
    let (owner, thief) = (SecretKey::from_seed(&[5; 32]), SecretKey::from_seed(&[6; 32]));
    let mut raw = RawClient::login(rig.tracker(), "bob", owner.peer_key());
    let ticket = raw.ticket("g", "f", &owner);
    let node = alice.1.address;

    let refused = |said: Vec<Message>| match &said[..] {
        [Message::Refused { code, .. }] => *code,
        other => panic!("a stranger received {other:?}"),
    };
    assert_eq!(refused(consume(node, &ticket, &thief)), RefusedCode::Ticket, "stolen");
    let grant = Grant {
        user: "bob".into(),
        group: "g".into(),
        file_name: "f".into(),
        file_id: Digest([1; 20]),
        peer_key: thief.peer_key(),
        expires: UnixSeconds(u64::MAX / 2),
    };
    assert_eq!(refused(consume(node, &Ticket::sign(grant, &thief), &thief)), RefusedCode::Ticket, "forged");
    let said = consume(node, &ticket, &owner);
    assert!(
        matches!(said[..], [Message::Opened { .. }, Message::Piece { .. }]),
        "its owner received {said:?}"
    );
    drop(bob);
}

#[test]
fn a_member_with_all_places_of_a_node_makes_room_for_others() {
    let rig = TestRig::new();
    let alice = rig.home("alice");
    // A node that may have few files open has few places.
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 128 && exec \"$0\" serve --listen 127.0.0.1", rig::CLIENT]);
    let node = rig.adopt(few, &alice.command([""]));
    alice.run(["create_user", "alice", "password"]).expect(0);
    alice.run(["login", "alice", "password"]).expect(0);
    alice.run(["create_group", "g"]).expect(0);
    let (mallory, bob) = (rig.user("mallory"), rig.user("bob"));
    for member in [&mallory.0, &bob.0] {
        member.run(["join_group", "g"]).expect(0);
    }
    let key = SecretKey::from_seed(&[5; 32]);
    let mut raw = RawClient::login(rig.tracker(), "mallory", key.peer_key());
    let mut crowd = Vec::new();
    for file in ["f", "f1", "f2", "f3", "f4", "f5"] {
        rig.file(file, &content(2));
        alice.run(["upload_file", "g", file]).expect(0);
        let ticket = raw.ticket("g", file, &key);
        crowd.extend((0..CONNECTIONS_PER_PEER).map(|_| open(node.address, &ticket, &key)));
    }
    let is_opened = |first: &Message| matches!(first, Message::Opened { .. });
    let is_busy = |first: &Message| matches!(first, Message::Refused { code: RefusedCode::Busy, .. });
    assert!(crowd.iter().all(|(_, first)| is_opened(first) || is_busy(first)), "{crowd:?}");
    assert!(is_opened(&crowd[0].1) && is_busy(&crowd[crowd.len() - 1].1), "she has all places: {crowd:?}");
    let ended = bob.0.run(["download_file", "g", "f", "copy", "--json"]).expect(0);
    assert!(!ended.out.contains("no peer has"), "{}", ended.out);
    assert!(std::fs::read(rig.path("copy")).unwrap() == content(2));
    let busy = Some(Message::Bye { code: ByeCode::Busy });
    assert_eq!(receive(&mut crowd[0].0), busy, "the connection that was unused for longest made room");
    // The node still has descriptors for its own files.
    rig.file("late", &content(1));
    alice.run(["upload_file", "g", "late"]).expect(0);
}

#[test]
fn a_hostile_file_name_from_a_tracker_never_becomes_a_path() {
    for name in ["../evil", "..", "a/b", "bell\u{7}", "rtl\u{202e}txt.exe"] {
        let tracker = lying_tracker(move |command| match command {
            "download_file" => json!({"file_path": name, "file_chunks": [], "file_size": 0,
                "fileSha": "da39a3ee5e6b4b0d3255bfef95601890afd80709", "peers": [], "server_time": 1}),
            _ => json!({"files_list": [], "files": []}),
        });
        let rig = TestRig::with_tracker_at(tracker);
        let home = rig.home("bob");
        home.run(["login", "bob", "password"]).expect(0);
        std::fs::create_dir(rig.path("inside")).unwrap();
        let ended = home.run(["download_file", "g", "f", "inside"]).expect(13);
        assert!(ended.err.contains("file_path") || ended.err.contains("file name"), "{}", ended.err);
        assert_eq!(std::fs::read_dir(rig.path("inside")).unwrap().count(), 0);
        assert!(!rig.path("evil").exists());
    }
}

#[test]
fn a_source_that_shrinks_while_it_is_hashed_is_not_uploaded() {
    let rig = TestRig::new();
    let (alice, _bob) = group(&rig);
    let path = rig.path("growing");
    // Long enough that hashing still runs when the first event has been read. The file is sparse.
    std::fs::File::create(&path).unwrap().set_len(256 << 30).unwrap();
    let (mut upload, first) = alice.0.start(&["upload_file", "g", "growing", "--json"]);
    assert!(first.contains("hashing"), "{first}");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1_000).unwrap();
    assert_eq!(upload.wait(), Some(14));
    assert_eq!(alice.0.run(["list_files", "g"]).expect(0).out, "");
}

#[test]
fn with_uring_pieces_leave_by_the_ring_from_the_mapping() {
    const PIECES: usize = 40;
    if !rings_are_shown() {
        eprintln!("skipped: io_uring is forbidden here, or the system does not show what is submitted");
        return;
    }
    let fetched = |io: &str| {
        let rig = TestRig::new();
        let alice = user_with(&rig, "alice", &["--io", io]);
        let bob = rig.user("bob");
        alice.0.run(["create_group", "g"]).expect(0);
        bob.0.run(["join_group", "g"]).expect(0);
        let path = rig.file("f", &content(PIECES));
        alice.0.run(["upload_file", "g", "f"]).expect(0);
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &path, inotify::WatchFlags::ACCESS).unwrap();
        let before = rings(alice.1.pid()).unwrap();
        download(&bob.0, 0);
        let submitted = rings(alice.1.pid()).unwrap() - before;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let read = inotify::Reader::new(&watch, &mut buffer).next().is_ok();
        assert!(!read, "the source was read by a system call");
        submitted
    };
    assert!(fetched("uring") >= PIECES as u64);
    assert_eq!(fetched("epoll"), 0, "no ring takes part");
}

/// Entries that a process has submitted to its rings; `None` where this machine does not show them.
fn rings(pid: u32) -> Option<u64> {
    let mut submitted = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.map_while(Result::ok) {
        let ring =
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("[io_uring]"));
        if ring {
            submitted += tail(pid, &entry.file_name().to_string_lossy())?;
        }
    }
    Some(submitted)
}

/// Submitted entries of one ring. A busy ring may be shown as empty, so this retries.
fn tail(pid: u32, descriptor: &str) -> Option<u64> {
    const LOOKS: usize = 1_000;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..LOOKS {
        let shown = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
        if let Some(tail) = shown.lines().find_map(|line| line.strip_prefix("SqTail:")) {
            return tail.trim().parse().ok();
        }
        // Polls; this is not a replacement for the condition.
        std::thread::park_timeout(PAUSE);
    }
    None
}

/// Whether a node gets rings on this machine and their entries are visible. Starts a node to find out.
fn rings_are_shown() -> bool {
    let rig = TestRig::without_tracker();
    let home = rig.home("trying");
    let node = home.serve(&[]);
    home.status()["io"] == "uring" && rings(node.pid()).is_some()
}
