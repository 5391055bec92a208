//! The node of a state directory: only one at a time, reachable by front ends, and ended cleanly. Without a tracker.
#![allow(clippy::unwrap_used, reason = "a socket of the test's own that fails is a failed test")]

mod rig;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use rig::TestRig;

/// `FRONT_ENDS_MAX` of the client.
const FRONTS_MAX: usize = 64;

#[test]
fn a_node_serves_without_login_or_tracker_and_says_what_it_waits_for() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let mut node = home.serve(&[]);
    let status = home.run(["status"]).expect(0);
    assert!(status.out.contains(&node.address.to_string()), "{}", status.out);
    assert!(status.out.contains("waits for a login"), "{}", status.out);
    let json: serde_json::Value =
        serde_json::from_str(&home.run(["status", "--json"]).expect(0).out).unwrap();
    assert_eq!(json["pid"].as_u64(), Some(u64::from(node.pid())));
    home.run(["quit"]).expect(0);
    assert_eq!(node.wait(), Some(0));
    home.run(["status"]).expect(1);
}

#[test]
fn node_options_are_refused_when_a_node_runs() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    for word in ["status", "quit", "doctor", "show_downloads"] {
        let ended = home.run([word, "--listen", "127.0.0.1:1", "--io", "epoll"]).expect(2);
        assert!(ended.err.contains("--listen, --io applies to the node"), "{word}: {}", ended.err);
    }
    home.run(["status"]).expect(0);
}

#[test]
fn a_node_that_refuses_front_ends_still_counts_as_running() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    let fronts: Vec<UnixStream> = (0..FRONTS_MAX)
        .map(|_| {
            let mut front = UnixStream::connect(home.state().join("node.sock")).unwrap();
            // A front end that was greeted is counted.
            front.read_exact(&mut [0]).unwrap();
            front
        })
        .collect();
    for word in ["status", "quit", "show_downloads", "serve"] {
        let ended = home.run([word]).expect(1);
        assert!(ended.err.contains("commands already use this node"), "{word}: {}", ended.err);
    }
    drop(fronts);
    rig::until("there is room again", || home.run(["status"]).code == 0);
}

#[test]
fn an_invalid_request_is_answered() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    let mut front = UnixStream::connect(home.state().join("node.sock")).unwrap();
    front.write_all(b"{\"ask\":\"dance\"}\n").unwrap();
    let mut said = String::new();
    front.read_to_string(&mut said).unwrap();
    assert!(said.contains("\"failed\"") && said.contains("\"protocol\"") && said.contains("dance"), "{said}");
}

#[test]
fn a_state_directory_has_one_node() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let node = home.serve(&[]);
    let second = home.run(["serve"]).expect(6);
    assert!(second.err.contains(&node.pid().to_string()), "{}", second.err);
}

#[test]
fn a_killed_node_leaves_nothing_in_the_way_and_keeps_its_port() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let mut address = home.serve(&[]).address;
    home.run(["status"]).expect(1);
    // Another process may get the port in between, but not every time.
    let kept = (0..10).any(|_| {
        let second = home.serve(&[]);
        home.run(["status"]).expect(0);
        std::mem::replace(&mut address, second.address) == second.address
    });
    assert!(kept, "the port was never reused");
}

#[test]
fn node_options_are_refused_to_a_front_end() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    let refused = home.run(["show_downloads", "--limit-up", "1M", "--io", "epoll"]).expect(2);
    assert!(refused.err.contains("--limit-up") && refused.err.contains("client serve"), "{}", refused.err);
    home.run(["show_downloads", "--json"]).expect(0);
}

#[test]
fn a_signal_ends_a_serving_node_well() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for signal in [Signal::TERM, Signal::INT] {
        let mut node = home.serve(&[]);
        node.signal(Signal::HUP);
        // A node that ended for the first signal does not answer, or takes the second one as an order to end at once.
        home.run(["status"]).expect(0);
        node.signal(signal);
        assert_eq!(node.wait(), Some(0), "only this one ends it");
        assert!(!home.state().join("node.sock").exists(), "the socket remains");
    }
}

#[test]
fn commands_do_without_a_node_and_leave_none_behind() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    assert_eq!(home.run(["show_downloads"]).expect(0).out, "");
    home.run(["status"]).expect(1);
    home.run(["pause", "g", "f"]).expect(5);
}

#[test]
fn the_state_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(home.state()), 0o700);
    for file in ["node.key", "node.sock", "node.lock"] {
        assert_eq!(mode(&home.state().join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_prompt_ends_with_1_when_its_node_goes_away() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let node = home.serve(&[]);
    let mut prompt = home.open_prompt();
    node.kill();
    assert_eq!(prompt.wait(), Some(1));
}

#[test]
fn a_prompt_reads_lines_and_attaches_to_a_running_node() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let alone =
        home.prompt("show_downloads\nno_such_command\nupload_file g 'open\npause g f\nquit\n").expect(2);
    assert!(alone.err.contains("no downloads"), "{}", alone.err);
    assert!(alone.err.contains("this prompt is the node"), "{}", alone.err);
    assert!(alone.err.contains("unrecognized subcommand"), "{}", alone.err);
    assert!(alone.err.contains("is not closed"), "{}", alone.err);
    let node = home.serve(&[]);
    let attached = home.prompt("status\n").expect(0);
    assert!(attached.err.contains("attached"), "{}", attached.err);
    assert!(attached.out.contains(&node.pid().to_string()), "{}", attached.out);
    home.run(["status"]).expect(0);
}
