//! The rules of users, sessions and groups, through the real binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use rig::{Client, Tracker, file, file_with, two_members};
use serde_json::{Value, json};

fn group(name: &str) -> Value {
    json!({"group_id": name})
}

fn member(name: &str, user: &str) -> Value {
    json!({"group_id": name, "user_id": user})
}

#[test]
fn users_are_made_once_and_log_in_with_their_password() {
    let tracker = Tracker::start();
    let mut client = tracker.connect();
    let alice = json!({"user_id": "alice", "passwd": "secret"});
    assert_eq!(client.code("login", alice.clone()), "wrong_password");
    client.ok("create_user", alice.clone());
    assert_eq!(client.code("create_user", alice.clone()), "already_exists");
    let wrong = client.ask("login", json!({"user_id": "alice", "passwd": "Secret"}));
    let unknown = client.ask("login", json!({"user_id": "mallory", "passwd": "Secret"}));
    assert_eq!(wrong["message"], unknown["message"], "an answer does not say whether the user exists");
    assert_eq!(wrong["code"], "wrong_password");
    assert!(wrong["fix"].is_string());
    client.ok("login", alice);
    for bad in [
        json!({"user_id": "a b", "passwd": "x"}),
        json!({"user_id": "", "passwd": "x"}),
        json!({"user_id": "a".repeat(65), "passwd": "x"}),
        json!({"user_id": "ok", "passwd": ""}),
        json!({"user_id": "ok", "passwd": "x".repeat(1_025)}),
        json!({"user_id": "ok"}),
        json!({"passwd": "x"}),
    ] {
        assert_eq!(client.code("create_user", bad.clone()), "bad_request", "{bad}");
    }
}

#[test]
fn everything_else_needs_a_login() {
    let tracker = Tracker::start();
    let mut client = tracker.connect();
    let file = json!({"group_id": "g", "file_name": "f"});
    for (word, args) in [
        ("logout", json!({})),
        ("create_group", group("g")),
        ("join_group", group("g")),
        ("list_requests", group("g")),
        ("accept_request", member("g", "u")),
        ("reject_request", member("g", "u")),
        ("remove_member", member("g", "u")),
        ("leave_group", group("g")),
        ("list_groups", json!({})),
        ("download_file", file.clone()),
        ("list_files", group("g")),
        ("stop_share", file.clone()),
        ("remove_file", file.clone()),
        ("update_pieces", file.clone()),
        ("get_peers", file.clone()),
        (
            "report_peer",
            json!({"group_id": "g", "file_name": "f", "ip": "10.0.0.1", "port": 1, "reason": ""}),
        ),
        ("whoami", json!({})),
        ("change_password", json!({"passwd": "a", "new_passwd": "b"})),
    ] {
        assert_eq!(client.code(word, args), "not_logged_in", "{word}");
    }
    assert_eq!(client.upload("g", "f", &[1])["code"], "not_logged_in");
    assert!(client.ok("ping", json!({}))["server_time"].is_u64());
    let status = client.ok("status", json!({}));
    assert_eq!(status["leader"], tracker.address.to_string());
    assert_eq!(status["voters"], json!([tracker.address.to_string()]));
    assert_eq!(client.code("fly", json!({})), "unknown_command");
}

#[test]
fn a_session_continues_on_another_connection() {
    let tracker = Tracker::start();
    let mut first = tracker.connect();
    first.ok("create_user", json!({"user_id": "alice", "passwd": "secret"}));
    let session = first.log_in("alice")["session"].as_str().unwrap().to_owned();
    let mut second = tracker.connect();
    assert_eq!(second.code("whoami", json!({})), "not_logged_in");
    second.session = Some(session.clone());
    assert_eq!(second.ok("whoami", json!({}))["user_id"], "alice");
    second.session = None;
    assert_eq!(second.ok("whoami", json!({}))["user_id"], "alice", "the connection belongs to it now");
    let mut forger = tracker.connect();
    forger.session = Some(format!("B{}", &session[1..]));
    assert_eq!(forger.code("whoami", json!({})), "not_logged_in");
    second.ok("logout", json!({}));
    assert_eq!(first.code("whoami", json!({})), "not_logged_in", "the session has ended everywhere");
    second.session = Some(session);
    assert_eq!(second.code("whoami", json!({})), "not_logged_in");
}

#[test]
fn two_connections_may_be_two_users() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = (tracker.user("alice", 5_001), tracker.user("bob", 5_002));
    for _ in 0..3 {
        assert_eq!(alice.ok("whoami", json!({}))["user_id"], "alice");
        assert_eq!(bob.ok("whoami", json!({}))["user_id"], "bob");
    }
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let tracker = Tracker::start();
    let mut here = tracker.user("alice", 5_001);
    let mut there = tracker.connect();
    there.log_in("alice");
    let change = |old: &str| json!({"passwd": old, "new_passwd": "another"});
    assert_eq!(here.code("change_password", change("wrong")), "wrong_password");
    let token = here.log_in("alice")["session"].as_str().unwrap().to_owned();
    here.ok("change_password", change("secret"));
    assert_eq!(here.ok("whoami", json!({}))["user_id"], "alice");
    assert_eq!(there.code("whoami", json!({})), "not_logged_in");
    assert_eq!(there.code("login", json!({"user_id": "alice", "passwd": "secret"})), "wrong_password");
    there.session = Some(token);
    assert_eq!(there.ok("whoami", json!({}))["user_id"], "alice", "the session that changed it goes on");
}

#[test]
fn open_groups_take_every_user() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = (tracker.user("alice", 5_001), tracker.user("bob", 5_002));
    alice.ok("create_group", group("g"));
    assert_eq!(bob.code("create_group", group("g")), "already_exists");
    assert_eq!(bob.code("join_group", group("none")), "not_found");
    assert_eq!(bob.code("list_files", group("g")), "not_member");
    assert_eq!(bob.ok("join_group", group("g"))["pending"], false);
    assert_eq!(bob.code("join_group", group("g")), "already_exists");
    let groups = bob.ok("list_groups", json!({}));
    assert_eq!(groups["groups_list"], json!(["g"]));
    let details =
        json!({"group_id": "g", "owner": "alice", "policy": "open", "members": 2, "is_member": true});
    assert_eq!(groups["groups"], json!([details]));
    assert_eq!(alice.code("create_group", json!({"group_id": "x", "policy": "secret"})), "bad_request");
}

#[test]
fn groups_with_approval_ask_their_owner() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5_001);
    let mut others = [tracker.user("bob", 5_002), tracker.user("carol", 5_003)];
    alice.ok("create_group", json!({"group_id": "g", "policy": "approval"}));
    for other in &mut others {
        assert_eq!(other.ok("join_group", group("g"))["pending"], true);
        assert_eq!(other.code("list_files", group("g")), "not_member");
        assert_eq!(other.code("list_requests", group("g")), "not_member");
        assert_eq!(other.code("accept_request", member("g", "bob")), "not_member");
    }
    let [mut bob, mut carol] = others;
    assert_eq!(alice.ok("list_requests", group("g"))["pending_list"], json!(["bob", "carol"]));
    alice.ok("accept_request", member("g", "bob"));
    alice.ok("reject_request", member("g", "carol"));
    assert_eq!(alice.code("accept_request", member("g", "carol")), "not_found");
    bob.ok("list_files", group("g"));
    assert_eq!(bob.code("list_requests", group("g")), "not_allowed");
    assert_eq!(carol.code("list_files", group("g")), "not_member");
    assert_eq!(bob.code("remove_member", member("g", "alice")), "not_allowed");
    alice.ok("remove_member", member("g", "bob"));
    assert_eq!(bob.code("list_files", group("g")), "not_member");
}

#[test]
fn an_owner_who_leaves_is_replaced_and_the_last_member_ends_the_group() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = (tracker.user("alice", 5_001), tracker.user("bob", 5_002));
    alice.ok("create_group", group("g"));
    bob.ok("join_group", group("g"));
    assert_eq!(alice.code("remove_member", member("g", "alice")), "not_allowed");
    let left = alice.ok("leave_group", group("g"));
    assert!(left["message"].as_str().unwrap().contains("bob owns it now"), "{left}");
    assert_eq!(bob.ok("list_groups", json!({}))["groups"][0]["owner"], "bob");
    assert_eq!(alice.code("leave_group", group("g")), "not_member");
    bob.ok("leave_group", group("g"));
    assert_eq!(bob.ok("list_groups", json!({}))["groups_list"], json!([]));
}

#[test]
fn a_retried_write_gives_its_first_outcome() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5_001);
    let request = json!({"command": "create_group", "command_args": {"group_id": "g"}, "request_id": "r1"});
    let first = alice.ask_value(&request);
    let again = alice.ask_value(&request);
    assert_eq!((&first["status"], &first["request_id"]), (&json!("success"), &json!("r1")));
    assert_eq!(first, again);
    assert_eq!(
        alice.code("create_group", group("g")),
        "already_exists",
        "without the id it is another request"
    );
    let numbered = alice.ask_value(&json!({"command": "ping", "request_id": -7}));
    assert_eq!(numbered["request_id"], -7);
}

#[test]
fn a_retried_change_of_the_password_gives_its_first_outcome() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5_001);
    let request = |old: &str, new: &str| json!({"command": "change_password", "command_args": {"passwd": old, "new_passwd": new}, "request_id": "r1"});
    let first = alice.ask_value(&request("secret", "another"));
    assert_eq!(first["status"], "success", "{first}");
    assert_eq!(alice.ask_value(&request("secret", "another")), first);
    let other = alice.ask_value(&request("secret", "a third"));
    assert_eq!(other["code"], "wrong_password", "the id was used for another request");
}

#[test]
fn a_retried_logout_gives_its_first_outcome_on_another_connection_too() {
    let tracker = Tracker::start();
    let mut alice = tracker.user("alice", 5_001);
    let session = alice.log_in("alice")["session"].as_str().unwrap().to_owned();
    let request =
        |id: &str| json!({"command": "logout", "command_args": {}, "session": session, "request_id": id});
    let first = alice.ask_value(&request("r1"));
    assert_eq!(first["status"], "success", "{first}");
    assert_eq!(alice.ask_value(&request("r1")), first);
    assert_eq!(tracker.connect().ask_value(&request("r1")), first);
    assert_eq!(alice.ask_value(&request("r2"))["code"], "not_logged_in");
    let whoami = json!({"command": "whoami", "command_args": {}, "session": session, "request_id": "r1"});
    assert_eq!(alice.ask_value(&whoami)["code"], "not_logged_in");
}

#[test]
fn a_few_wrong_passwords_hold_no_login_up() {
    let tracker = Tracker::start();
    let mut client = tracker.user("alice", 5_001);
    for _ in 0..5 {
        assert_eq!(client.code("login", json!({"user_id": "alice", "passwd": "wrong"})), "wrong_password");
    }
    client.log_in("alice");
}

#[test]
fn a_request_from_another_address_or_with_another_port_moves_the_node() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    for key in [None, Some("ab".repeat(32))] {
        let mut carol = tracker.connect();
        carol.ok("create_user", json!({"user_id": format!("carol{}", key.is_some()), "passwd": "secret"}));
        (carol.peer_key, carol.sender_port) = (key, Some(5_003));
        let session =
            carol.log_in(if carol.peer_key.is_some() { "caroltrue" } else { "carolfalse" })["session"]
                .clone();
        carol.ok("join_group", json!({"group_id": "g"}));
        assert_eq!(carol.upload("g", "seeded", &[1])["status"], "success");
        assert_eq!(alice.upload("g", "fetched", &[2])["status"], "success");
        carol.ok("download_file", file("fetched"));
        let ping = |port: u16| json!({"command": "ping", "command_args": {}, "session": session, "sender_port": port});
        let mut listed_at = |name: &str| {
            let peers = bob.ok("get_peers", file(name))["peers"].clone();
            let at = |peer: &Value| (peer["ip"].as_str().unwrap().to_owned(), peer["port"].as_u64().unwrap());
            peers.as_array().unwrap().iter().map(at).filter(|(_, port)| *port != 5_001).collect::<Vec<_>>()
        };
        // The connection is new, and pings alone.
        let mut elsewhere = Client::from_host(2, &tracker);
        for (connection, ip, port) in [(&mut elsewhere, "127.0.0.2", 5_003), (&mut carol, "127.0.0.1", 5_004)]
        {
            let pong = connection.ask_value(&ping(port));
            assert_eq!((&pong["status"], &pong["shares"]), (&json!("success"), &json!(1)), "{pong}");
            for name in ["seeded", "fetched"] {
                assert_eq!(listed_at(name), [(ip.to_owned(), u64::from(port))], "{name}");
            }
        }
        carol.sender_port = Some(5_004);
        carol.ok("stop_share", file("seeded"));
        carol.ok("stop_share", file("fetched"));
        assert_eq!(listed_at("seeded"), []);
        alice.ok("remove_file", file("seeded"));
        alice.ok("remove_file", file("fetched"));
    }
}

#[test]
fn a_session_gets_tickets_for_a_few_keys() {
    let tracker = Tracker::start();
    let (mut alice, mut bob) = two_members(&tracker);
    alice.upload("g", "f", &[1]);
    let mut codes = (0..300).map(|number| {
        let command = if number % 2 == 0 { "get_peers" } else { "download_file" };
        bob.ask(command, file_with("f", "peer_key", json!(format!("{number:064x}"))))["code"].clone()
    });
    assert_eq!(codes.by_ref().take_while(Value::is_null).count(), 4);
    assert!(codes.all(|code| code == "not_allowed"));
    let other = alice.ok("get_peers", file_with("f", "peer_key", json!("cd".repeat(32))));
    assert!(other["ticket"].is_string(), "{other}");
}
