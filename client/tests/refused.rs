//! Uploads that the trackers refuse to list: temporary refusals are retried; final ones are set aside, reported and not retried.
#![allow(clippy::unwrap_used, reason = "a file or socket of the test's own that fails is a failed test")]

mod rig;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rig::{RunningNode, TestRig, UserHome, pieces, until};
use serde_json::{Value, json};

/// A proxy before a tracker: counts the uploads of each file, and logins, and answers some with `busy`.
#[derive(Clone)]
struct UploadProxy {
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    busy_for: Arc<Mutex<Vec<&'static str>>>,
    address: SocketAddr,
}

impl UploadProxy {
    /// Starts before this tracker; these files or commands are refused until [`UploadProxy::admit`].
    fn before(tracker: SocketAddr, busy_for: &[&'static str]) -> UploadProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let busy_for = Arc::new(Mutex::new(busy_for.to_vec()));
        let proxy = UploadProxy { seen: Arc::default(), busy_for, address };
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let proxy = serving.clone();
                // The thread ends with its connection.
                std::thread::spawn(move || proxy.serve(stream, tracker));
            }
        });
        proxy
    }

    fn serve(&self, mut client: TcpStream, tracker: SocketAddr) -> Option<()> {
        let mut tracker = BufReader::new(TcpStream::connect(tracker).ok()?);
        for line in BufReader::new(client.try_clone().ok()?).lines().map_while(Result::ok) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let mut answer = String::new();
            if self.is_busy(&request) {
                let refusal = json!({"status": "failure", "code": "busy", "message": "too much to do",
                    "epoch": 1, "request_id": request["request_id"]});
                answer = format!("{refusal}\n");
            } else {
                tracker.get_mut().write_all(format!("{line}\n").as_bytes()).ok()?;
                tracker.read_line(&mut answer).ok()?;
            }
            client.write_all(answer.as_bytes()).ok()?;
        }
        Some(())
    }

    fn is_busy(&self, request: &Value) -> bool {
        let file = match request["command"].as_str() {
            Some("upload_file") => request["command_args"]["file_name"].as_str().unwrap().to_owned(),
            Some(command @ ("create_user" | "login")) => command.to_owned(),
            _ => return false,
        };
        let busy = self.busy_for.lock().unwrap().iter().any(|name| *name == file);
        *self.seen.lock().unwrap().entry(file).or_default() += 1;
        busy
    }

    fn admit(&self, file: &str) {
        self.busy_for.lock().unwrap().retain(|name| *name != file);
    }

    /// Upload attempts of a file.
    fn uploads_of(&self, file: &str) -> usize {
        self.seen.lock().unwrap().get(file).copied().unwrap_or(0)
    }
}

/// Bob, who owns the group `g` and uses the tracker directly; Alice, a member, who uses the proxy.
fn bob_and_alice(
    rig: &TestRig,
    busy_for: &[&'static str],
) -> ((UserHome, RunningNode), (UserHome, RunningNode), UploadProxy) {
    let proxy = UploadProxy::before(rig.tracker(), busy_for);
    std::fs::copy(rig.path("tracker_info.txt"), rig.path("real.txt")).unwrap();
    rig.name_tracker(proxy.address);
    let bob = rig.home("bob");
    let node = bob.serve(&["--trackers", "real.txt"]);
    bob.run(["create_user", "bob", "password"]).expect(0);
    bob.run(["login", "bob", "password"]).expect(0);
    bob.run(["create_group", "g"]).expect(0);
    let alice = rig.user("alice");
    alice.0.run(["join_group", "g"]).expect(0);
    ((bob, node), alice, proxy)
}

/// Why a share is not served: empty if it is served, `None` if there is none.
fn share(home: &UserHome, file: &str) -> Option<String> {
    let status = home.status();
    let row = status["shares"].as_array().unwrap().iter().find(|row| row["file"] == file)?;
    Some(row["changed"].as_str().unwrap_or_default().to_owned())
}

fn records(home: &UserHome) -> usize {
    let names = std::fs::read_dir(home.state().join("shares")).unwrap();
    names.filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|end| end == "json")).count()
}

/// Uploads a file that the tracker is too busy to list.
fn upload_later(home: &UserHome, path: &str, file: &str) {
    let said = home.run(["upload_file", "g", path, "--wait", "0"]).expect(1);
    assert!(said.err.contains("hashed and recorded"), "{}", said.err);
    assert!(share(home, file).unwrap().contains("not listed it yet"));
}

/// Waits for one more round of retries, which a login starts.
fn another_round(home: &UserHome, proxy: &UploadProxy, still_busy: &str) {
    let before = proxy.uploads_of(still_busy);
    until("the other one is tried again, twice", || {
        home.run(["login", "alice", "password"]).expect(0);
        proxy.uploads_of(still_busy) >= before + 2
    });
}

#[test]
fn a_taken_name_is_final_and_a_busy_tracker_is_retried() {
    let rig = TestRig::new();
    let ((bob, _b), (alice, a), proxy) = bob_and_alice(&rig, &["f", "later"]);
    rig.file("f", &pieces(2, 1));
    rig.file("of-bob/f", &pieces(2, 2));
    rig.file("later", &pieces(1, 3));
    upload_later(&alice, "f", "f");
    upload_later(&alice, "later", "later");
    another_round(&alice, &proxy, "later");
    assert!(proxy.uploads_of("f") >= 2, "a temporary refusal is retried");
    bob.run(["upload_file", "g", "of-bob/f"]).expect(0);
    proxy.admit("f");
    until("the upload is set aside", || {
        share(&alice, "f").is_some_and(|why| why.contains("not asked again"))
    });
    let why = share(&alice, "f").unwrap();
    for part in ["other content", "remove_file g f", "upload_file g /", "stop_share g f"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let tried = proxy.uploads_of("f");
    another_round(&alice, &proxy, "later");
    assert_eq!(proxy.uploads_of("f"), tried, "the file was requested again");

    // A kill loses neither the record nor the reason, and starts no retry.
    a.kill();
    let _a = alice.serve(&[]);
    another_round(&alice, &proxy, "later");
    assert_eq!((proxy.uploads_of("f"), share(&alice, "f"), records(&alice)), (tried, Some(why), 2));
    // The same upload command is refused again and loses nothing.
    alice.run(["upload_file", "g", "f"]).expect(6);
    assert_eq!(records(&alice), 2);

    bob.run(["remove_file", "g", "f"]).expect(0);
    let said = alice.run(["upload_file", "g", "f", "--json"]).expect(0).out;
    let listed: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(listed["hashing_ms"], 0, "it was hashed again: {listed}");
    assert_eq!((share(&alice, "f"), records(&alice)), (Some(String::new()), 2));
    proxy.admit("later");
    until("the other one is listed too", || share(&alice, "later").is_some_and(|why| why.is_empty()));
}

#[test]
fn an_upload_of_a_removed_member_is_kept_until_it_is_given_up() {
    let rig = TestRig::new();
    let ((bob, _b), (alice, _a), proxy) = bob_and_alice(&rig, &["f"]);
    rig.file("f", &pieces(1, 4));
    upload_later(&alice, "f", "f");
    bob.run(["remove_member", "g", "alice"]).expect(0);
    proxy.admit("f");
    until("the upload is set aside", || share(&alice, "f").is_some_and(|why| why.contains("not a member")));
    assert!(share(&alice, "f").unwrap().contains("join_group g"));
    assert_eq!(records(&alice), 1);
    let given_up = alice.run(["stop_share", "g", "f"]).expect(0);
    assert!(given_up.out.contains("no longer shared"), "{}", given_up.out);
    assert_eq!((share(&alice, "f"), records(&alice)), (None, 0));
}

#[test]
fn a_login_is_sent_again_while_the_tracker_is_busy() {
    let rig = TestRig::new();
    let proxy = UploadProxy::before(rig.tracker(), &["create_user", "login"]);
    rig.name_tracker(proxy.address);
    let home = rig.home("alice");
    std::thread::scope(|scope| {
        let created = scope.spawn(|| home.run(["create_user", "alice", "password"]).expect(0));
        for command in ["create_user", "login"] {
            until("the command is sent again", || proxy.uploads_of(command) >= 2);
            proxy.admit(command);
        }
        assert!(created.join().unwrap().out.contains("alice is logged in here"));
    });
}
