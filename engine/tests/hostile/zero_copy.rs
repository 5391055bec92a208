//! Pieces that leave a seeder without the kernel's copy: as an ordinary user, who may lock little memory, and to another host.
//!
//! Everything here is one machine, whose kernel copies what it delivers to itself; so what is shown is that the file arrives
//! whatever the kernel says, and that nothing is tried in vain.

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
use crate::seeder::{Orders, Seeder};

/// Pieces of the file.
const PIECES: usize = 96;

const MIB: u64 = 1024 * 1024;

/// What an ordinary user may lock nearly everywhere, in bytes.
const USUAL_LIMIT: u64 = 8 * MIB;

/// What an ordinary user with old settings may lock: room for rings, and for no piece.
const POOR_LIMIT: u64 = 256 * 1024;

/// Tells this program that it is the inner one.
const INSIDE: &str = "SHOAL_TEST_INSIDE";

/// A file that everybody may read.
struct Shared {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Shared {
    fn new() -> Shared {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, bytes(PIECES * PIECE, 41)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Shared { _directory: directory, path }
    }

    /// Fetches it.
    fn arrives_from(&self, peer: PeerAddress) {
        let manifest = Node::start(3, IoChoice::Epoll).share(&self.path, "f");
        let leecher = Node::start(2, IoChoice::Epoll);
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[peer]);
        durable(&download);
        assert!(std::fs::read(&self.path).unwrap() == std::fs::read(leecher.path("f")).unwrap());
    }
}

/// Whether this machine has what it takes.
fn possible() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ring = runtime.block_on(async { SideRing::new().map(drop) });
    let possible = ring.is_ok() && tokio_uring::Runtime::new(&tokio_uring::builder()).is_ok();
    if !possible {
        eprintln!("skipped: no sends without a copy here ({ring:?})");
    }
    possible
}

#[test]
fn to_this_machine_nothing_is_tried() {
    let shared = Shared::new();
    let mut seeder = Seeder::start(&shared.path, &Orders::default());
    shared.arrives_from(seeder.peer());
    assert_eq!(seeder.sends(), ZeroCopySends::default());
}

#[test]
fn whoever_insists_gets_them_and_is_told_of_the_copies() {
    if !possible() {
        return;
    }
    let shared = Shared::new();
    let mut seeder = Seeder::start(&shared.path, &Orders { zero_copy: "always", ..Orders::default() });
    shared.arrives_from(seeder.peer());
    let sends = seeder.sends();
    assert!(sends.copied_bytes > 0 && sends.mapped_bytes == 0, "{sends:?}");
}

#[test]
fn an_ordinary_user_is_served_within_what_may_be_locked() {
    if !possible() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become an ordinary user");
        return;
    }
    let shared = Shared::new();
    let seeder = |locks| {
        let orders = Orders { zero_copy: "always", locks: Some(locks), as_nobody: true, ..Orders::default() };
        Seeder::start(&shared.path, &orders)
    };
    let mut usual = seeder(USUAL_LIMIT);
    shared.arrives_from(usual.peer());
    let sends = usual.sends();
    assert!(sends.copied_bytes > 0, "{sends:?}");
    assert_eq!(sends.refused, 0, "the budget keeps within the limit");
    drop(usual);

    let mut poor = seeder(POOR_LIMIT);
    shared.arrives_from(poor.peer());
    assert_eq!(poor.sends(), ZeroCopySends::default(), "no piece fits");
    drop(poor);

    // As when others of this user have locked much: more than the budget knows of.
    let mut lowered = seeder(USUAL_LIMIT);
    lowered.locks(POOR_LIMIT);
    shared.arrives_from(lowered.peer());
    let sends = lowered.sends();
    assert!(sends.refused > 0, "the kernel was to refuse: {sends:?}");
    // What the ordinary way left over of a piece may have been short enough.
    assert!(sends.copied_bytes < (PIECES * PIECE) as u64 / 2, "{sends:?}");
}

#[test]
fn to_another_host_they_are_tried_and_given_up_when_the_kernel_copies() {
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
            eprintln!("skipped: no network of its own can be had here ({refused:?})");
            return;
        }
    }
    let mut inner = Command::new("unshare");
    inner.args(&flags).arg(std::env::current_exe().unwrap());
    inner.args(["--exact", "zero_copy::inside_a_network_of_its_own", "--nocapture"]).env(INSIDE, "1");
    assert!(spawn(inner.stdin(Stdio::null())).wait().unwrap().success());
}

/// The inner process; as a test of its own it does nothing.
#[test]
fn inside_a_network_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let shared = Shared::new();
    let orders = Orders { elsewhere: true, locks: Some(USUAL_LIMIT), ..Orders::default() };
    let mut seeder = Seeder::start(&shared.path, &orders);
    let pid = seeder.pid().to_string();
    run("ip link set lo up");
    run(&format!("ip link add near type veth peer name far netns {pid}"));
    run("ip addr add 10.78.0.1/24 dev near");
    run("ip link set near up");
    run(&format!("nsenter --target {pid} --net ip addr add 10.78.0.2/24 dev far"));
    run(&format!("nsenter --target {pid} --net ip link set far up"));
    shared.arrives_from(seeder.peer_at(Ipv4Addr::new(10, 78, 0, 2).into()));
    let sends = seeder.sends();
    assert!(sends.copied_bytes > 0, "it was tried: {sends:?}");
    // What was on its way when the first notification came was within the budget.
    assert!(sends.copied_bytes <= USUAL_LIMIT / 2, "it was given up: {sends:?}");
    assert_eq!((sends.mapped_bytes, sends.refused), (0, 0));
    println!("{sends:?}");
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let status = spawn(Command::new(words.next().unwrap()).args(words).stdin(Stdio::null())).wait().unwrap();
    assert!(status.success(), "{line}");
}
