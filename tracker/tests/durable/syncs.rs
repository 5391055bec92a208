//! Every sync that a founding and an acknowledgement depend on, seen in the system calls. The simulated disk of the other
//! tests cannot show whether a sync reaches the system.

use super::real::{Client, Tracker, log_in};
use super::trace::{Trace, next, shown};

use serde_json::json;

#[test]
fn a_founding_and_every_acknowledged_change_are_synced() {
    let dir = tempfile::tempdir().unwrap();
    let Some(trace) = Trace::to(dir.path().join("trace")) else { return };
    let (tracker, pid) = Tracker::start_traced(dir.path(), &trace);
    let founding = trace.calls();
    let data = dir.path().join("data");
    let line = data.join("127.0.0.1_0");
    // Each file is synced before it gets its name, and each name before the next step: log, key, entry.
    let mut at = 0;
    for parts in [
        ["sync(", "tracker.redb.new>"],
        ["rename", "tracker.redb\""],
        ["fsync(", &shown(&line)],
        ["fsync(", &shown(&data)],
        ["fsync(", &shown(dir.path())],
        ["fsync(", "cluster.key.new>"],
        ["link", "cluster.key\""],
        ["fsync(", &shown(&data)],
        ["sync(", "tracker.redb>"],
    ] {
        at = 1 + next(&founding, at, &parts);
    }
    let session = log_in(tracker.address);
    let mut client = Client::connect(tracker.address);
    for number in 0..5 {
        let before = trace.calls().len();
        let args = json!({ "group_id": format!("group{number}") });
        let request = json!({ "command": "create_group", "command_args": args, "session": session });
        assert_eq!(client.ask(&request).unwrap()["status"], "success");
        next(&trace.calls(), before, &["sync(", "tracker.redb>"]);
    }
    tracker.kill();
    trace.all_calls(pid);
}
