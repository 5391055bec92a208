//! Real trackers, killed with kill -9 under load, repeatedly on the same log.
//!
//! Writers make changes of every kind concurrently, each in worlds of its own. After each kill the next tracker is compared
//! with what was acknowledged, and the writers continue on it. `SHOAL_KILL_ROUNDS` sets the number of rounds;
//! `scripts/long.sh` sets a thousand.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;

use serde_json::{Value, json};

use super::real::{Client, Tracker};
use super::rig::PATIENCE;
use super::worlds::{Member, Members, Seen, World};

const ROUNDS: usize = 20;
const WRITERS: usize = 4;

/// Finished worlds that are checked again after each kill, in turns. At the end all are checked.
const LOOKED_AT_AGAIN: usize = 8;

/// A writer and its current world.
struct Writer {
    number: usize,
    worlds: usize,
    world: World,
    /// Worlds finished since they were taken last.
    finished: Vec<World>,
}

impl Writer {
    fn new(number: usize) -> Writer {
        Writer { number, worlds: 1, world: World::new(number, 0), finished: Vec::new() }
    }

    /// Makes changes until the tracker is gone, and reports each acknowledgement.
    fn write(&mut self, mut client: Client, members: &Members, acknowledged: &mpsc::Sender<()>) {
        // Without a login a request may not be as long as a part of a file.
        client.ask(&json!({ "command": "whoami", "command_args": {}, "session": members.owner.session }));
        while self.world.advance(&mut client, members).is_some() {
            // The receiver is gone once the tracker is being killed.
            let _ = acknowledged.send(());
            if self.world.is_done() {
                let next = World::new(self.number, self.worlds);
                self.worlds += 1;
                self.finished.push(std::mem::replace(&mut self.world, next));
            }
        }
    }
}

fn member(user: &'static str, port: u16, address: SocketAddr) -> Member {
    let mut client = Client::connect(address);
    let args = json!({ "user_id": user, "passwd": "password123" });
    client.ask(&json!({ "command": "create_user", "command_args": args })).unwrap();
    let answer = client.ask(&json!({ "command": "login", "command_args": args })).unwrap();
    Member { user, session: answer["session"].as_str().unwrap().to_owned(), port }
}

/// Keeps the guest online during the check: a new tracker presumes unseen sessions online for half a minute only. The owner
/// is online by its own requests.
fn online(members: &Members, address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    let who = json!({ "command": "whoami", "command_args": {}, "session": members.guest.session });
    assert_eq!(client.ask(&who).unwrap()["status"], "success");
    client
}

/// All writers write, and the tracker is killed after `enough` acknowledgements. Returns the number of acknowledgements.
fn kill_under_load(tracker: Tracker, writers: &mut [Writer], members: &Members, enough: usize) -> usize {
    let address = tracker.address;
    let (acknowledged, counted) = mpsc::channel();
    // All connect before any writes: a thread that starts late would find the tracker killed.
    let clients: Vec<Client> = writers.iter().map(|_| Client::connect(address)).collect();
    std::thread::scope(|scope| {
        for (writer, client) in writers.iter_mut().zip(clients) {
            let acknowledged = acknowledged.clone();
            scope.spawn(move || writer.write(client, members, &acknowledged));
        }
        drop(acknowledged);
        for _ in 0..enough {
            counted.recv_timeout(PATIENCE).unwrap();
        }
        tracker.kill();
        enough + counted.iter().count()
    })
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = std::env::var("SHOAL_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let dir = tempfile::tempdir().unwrap();
    let mut tracker = Tracker::start(dir.path());
    let members = Members {
        owner: member("alice", 5_001, tracker.address),
        guest: member("bob", 5_002, tracker.address),
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut finished: Vec<(World, Seen)> = Vec::new();
    let (mut changes, mut interrupted) = (0, 0);
    for round in 0..rounds {
        // By progress and not by time, so that each round is killed during its writes.
        changes += kill_under_load(tracker, &mut writers, &members, 5 + round * 13 % 60);
        tracker = Tracker::start(dir.path());
        let address = tracker.address;
        let _online = online(&members, address);
        for writer in &mut writers {
            writer.world.check(&writer.world.look(address, &members));
            interrupted += usize::from(writer.world.is_unanswered());
            for world in writer.finished.drain(..) {
                let seen = world.look(address, &members);
                world.check(&seen);
                finished.push((world, seen));
            }
        }
        let again = finished.len().min(LOOKED_AT_AGAIN);
        for turn in 0..again {
            let (world, seen) = &finished[(round * LOOKED_AT_AGAIN + turn) % finished.len()];
            assert_eq!(&world.look(address, &members), seen, "{}, round {round}", world.name());
        }
    }
    println!(
        "{rounds} kills: {changes} changes acknowledged, {interrupted} left unanswered, {} worlds finished",
        finished.len()
    );
    let _online = online(&members, tracker.address);
    assert!(interrupted > 0, "no write was interrupted: the test tests nothing");
    for (world, seen) in &finished {
        assert_eq!(&world.look(tracker.address, &members), seen, "{}, at the end", world.name());
    }
    tracker.kill();
    inspected(&dir);
}

/// Checks that `tracker inspect` prints JSON lines without secrets for a killed tracker's log.
fn inspected(dir: &tempfile::TempDir) {
    let printed = Command::new(env!("CARGO_BIN_EXE_tracker"))
        .args(["inspect", "--data", "data"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let lines = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.status.success() && lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let key = std::fs::read_to_string(dir.path().join("data/cluster.key")).unwrap();
    assert!(!lines.contains("$argon2") && !lines.contains(key.lines().nth(1).unwrap()));
}
