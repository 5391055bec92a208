//! Zero-copy sends of a seeder: by an ordinary user, who may lock little memory, and to another host.
//!
//! All hosts are this machine, whose kernel copies what it delivers to itself. So the tests show that the file arrives when the
//! kernel copies or refuses, and that sends with a copy follow.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use engine::config::IoChoice;
use engine::mem::side_ring::SideRing;
use engine::proto::action::PeerAddress;
use engine::stats::ZeroCopySends;

use crate::PIECE;
use crate::rig::{Node, bytes, durable, spawn};
use crate::seeder::{Seeder, SeederOptions};

/// Pieces of the file.
const PIECES: usize = 96;

const MIB: u64 = 1024 * 1024;

/// Bytes that an ordinary user may lock on most systems.
const USUAL_LIMIT: u64 = 8 * MIB;

/// Bytes that an ordinary user may lock with old settings: enough for rings, and for no piece.
const LOW_LIMIT: u64 = 256 * 1024;

/// Set in the environment of the inner process.
const INSIDE: &str = "SHOAL_TEST_INSIDE";

/// A file that all users may read.
struct SharedFile {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl SharedFile {
    fn new() -> SharedFile {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, bytes(PIECES * PIECE, 41)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        SharedFile { _directory: directory, path }
    }

    /// Downloads the file from a peer.
    fn arrives_from(&self, peer: PeerAddress) {
        let manifest = Node::start(3, IoChoice::Epoll).share(&self.path, "f");
        let leecher = Node::start(2, IoChoice::Epoll);
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[peer]);
        durable(&download);
        assert!(std::fs::read(&self.path).unwrap() == std::fs::read(leecher.path("f")).unwrap());
    }
}

/// Whether this machine supports zero-copy sends.
fn possible() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ring = runtime.block_on(async { SideRing::new().map(drop) });
    let possible = ring.is_ok() && tokio_uring::Runtime::new(&tokio_uring::builder()).is_ok();
    if !possible {
        eprintln!("skipped: no zero-copy sends here ({ring:?})");
    }
    possible
}

#[test]
fn zero_copy_is_not_tried_within_this_machine() {
    let shared = SharedFile::new();
    let mut seeder = Seeder::start(&shared.path, &SeederOptions::default());
    shared.arrives_from(seeder.peer());
    assert_eq!(seeder.sends(), ZeroCopySends::default());
}

#[test]
fn demanded_zero_copy_sends_are_made_and_their_copies_counted() {
    if !possible() {
        return;
    }
    let shared = SharedFile::new();
    let mut seeder =
        Seeder::start(&shared.path, &SeederOptions { zero_copy: "always", ..SeederOptions::default() });
    shared.arrives_from(seeder.peer());
    let sends = seeder.sends();
    assert!(sends.copied_bytes > 0 && sends.mapped_bytes == 0, "{sends:?}");
}

#[test]
fn an_ordinary_user_stays_within_the_lock_limit() {
    if !possible() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become an ordinary user");
        return;
    }
    let shared = SharedFile::new();
    let seeder = |locks| {
        let options = SeederOptions {
            zero_copy: "always",
            locks: Some(locks),
            is_unprivileged: true,
            ..SeederOptions::default()
        };
        Seeder::start(&shared.path, &options)
    };
    let mut usual = seeder(USUAL_LIMIT);
    shared.arrives_from(usual.peer());
    let sends = usual.sends();
    assert!(sends.copied_bytes > 0, "{sends:?}");
    assert_eq!(sends.refused, 0, "the budget exceeds the limit");
    drop(usual);

    let mut low = seeder(LOW_LIMIT);
    shared.arrives_from(low.peer());
    assert_eq!(low.sends(), ZeroCopySends::default(), "no piece fits");
    drop(low);

    // As when other processes of the user have locked memory, which the budget does not know.
    let mut lowered = seeder(USUAL_LIMIT);
    lowered.locks(LOW_LIMIT);
    shared.arrives_from(lowered.peer());
    let sends = lowered.sends();
    assert!(sends.refused > 0, "the kernel refused nothing: {sends:?}");
    // The rest of a piece after a send with a copy may have been short enough.
    assert!(sends.copied_bytes < (PIECES * PIECE) as u64 / 2, "{sends:?}");
}

#[test]
fn zero_copy_to_another_host_ends_when_the_kernel_copies() {
    if !possible() {
        return;
    }
    let mut flags = vec!["--net", "--fork", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        flags.extend(["--user", "--map-root-user"]);
    }
    let probe = Command::new("unshare")
        .args(&flags)
        .args(["sh", "-c", "ip link add probe0 type veth peer name probe1"])
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        refused => {
            eprintln!("skipped: no network namespace is possible here ({refused:?})");
            return;
        }
    }
    let mut inner = Command::new("unshare");
    inner.args(&flags).arg(std::env::current_exe().unwrap());
    inner.args(["--exact", "zero_copy::inside_a_network_namespace", "--nocapture"]).env(INSIDE, "1");
    assert!(spawn(inner.stdin(Stdio::null())).wait().unwrap().success());
}

/// The inner process. As a test without the environment it does nothing.
#[test]
fn inside_a_network_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let shared = SharedFile::new();
    let options =
        SeederOptions { has_own_network: true, locks: Some(USUAL_LIMIT), ..SeederOptions::default() };
    let mut seeder = Seeder::start(&shared.path, &options);
    let pid = seeder.pid().to_string();
    run("ip link set lo up");
    run(&format!("ip link add near type veth peer name far netns {pid}"));
    run("ip addr add 10.78.0.1/24 dev near");
    run("ip link set near up");
    run(&format!("nsenter --target {pid} --net ip addr add 10.78.0.2/24 dev far"));
    run(&format!("nsenter --target {pid} --net ip link set far up"));
    shared.arrives_from(seeder.peer_at(Ipv4Addr::new(10, 78, 0, 2).into()));
    let sends = seeder.sends();
    assert!(sends.copied_bytes > 0, "zero copy was not tried: {sends:?}");
    // Sends in flight at the first notification were within the budget.
    assert!(sends.copied_bytes <= USUAL_LIMIT / 2, "zero copy went on: {sends:?}");
    assert_eq!((sends.mapped_bytes, sends.refused), (0, 0));
    println!("{sends:?}");
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let status = spawn(Command::new(words.next().unwrap()).args(words).stdin(Stdio::null())).wait().unwrap();
    assert!(status.success(), "{line}");
}
