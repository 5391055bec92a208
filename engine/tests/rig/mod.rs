//! Engines in this process, with a key that stands for the tracker's.
//!
//! ```text
//!   swarm, hostile ──► Node (engine, directory) ──► fetch, share, upload
//!                      wait_for, durable, finish ──► progress, with a time limit (clock)
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program uses its own part of the rig")]

pub(crate) mod clock;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use engine::config::{EngineConfig, IoChoice, ZeroCopyChoice};
use engine::hash::HashKind;
use engine::proto::action::PeerAddress;
use engine::proto::manifest::{FileKey, FileName, Manifest};
use engine::proto::ticket::{Grant, PeerKey, SecretKey, Ticket, UnixSeconds};
use engine::stats::{DownloadPhase, DownloadProgress, ManifestLoader};
use engine::{Download, DownloadOrder, Engine};

pub(crate) use clock::{PATIENCE, Patience};

/// The tracker's key.
pub(crate) fn trackers() -> SecretKey {
    SecretKey::from_seed(&[200; 32])
}

/// The back ends that this machine allows.
pub(crate) fn back_ends() -> Vec<IoChoice> {
    let uring = tokio_uring::Runtime::new(&tokio_uring::builder()).is_ok();
    if !uring {
        eprintln!("skipped for io_uring: it is forbidden here");
    }
    [IoChoice::Epoll].into_iter().chain(uring.then_some(IoChoice::Uring)).collect()
}

/// One node and its directory.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) directory: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start(seed: u8, io: IoChoice) -> Node {
        Node::with_hash(seed, io, None)
    }

    pub(crate) fn with_hash(seed: u8, io: IoChoice, hash: Option<HashKind>) -> Node {
        Node::with_config(Node::config(seed, io, hash))
    }

    /// Starts a node that fetches at most `rate` bytes a second.
    pub(crate) fn with_download_limit(seed: u8, rate: u64) -> Node {
        let limit_down = std::num::NonZeroU64::new(rate);
        Node::with_config(EngineConfig { limit_down, ..Node::config(seed, IoChoice::Auto, None) })
    }

    /// Starts a node that sends at most `rate` bytes a second.
    pub(crate) fn with_upload_limit(seed: u8, io: IoChoice, rate: u64) -> Node {
        let limit_up = std::num::NonZeroU64::new(rate);
        Node::with_config(EngineConfig { limit_up, ..Node::config(seed, io, None) })
    }

    pub(crate) fn config(seed: u8, io: IoChoice, hash: Option<HashKind>) -> EngineConfig {
        EngineConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            io,
            zero_copy: ZeroCopyChoice::Auto,
            hash,
            workers: None,
            limit_up: None,
            limit_down: None,
            secret: SecretKey::from_seed(&[seed; 32]),
            scratch_dir: None,
        }
    }

    pub(crate) fn with_config(config: EngineConfig) -> Node {
        let engine = Engine::start(config).unwrap();
        engine.set_trust(trackers().tracker_key(), tracker_now());
        Node { engine, directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress { address: self.engine.listen_address(), key: self.engine.peer_key() }
    }

    /// Writes a file into this node's directory, hashes and shares it.
    pub(crate) fn upload(&self, name: &str, bytes: &[u8]) -> Arc<Manifest> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        self.share(&path, name)
    }

    pub(crate) fn share(&self, path: &Path, name: &str) -> Arc<Manifest> {
        let name = FileName::new(name).unwrap();
        let hashed = self.engine.hash_file(path, name.clone(), &|_| {}).unwrap();
        let (manifest, fingerprint) = (hashed.manifest(), hashed.fingerprint());
        self.engine.share_file(key(name.as_str()), path, manifest, fingerprint, loader(manifest)).unwrap();
        Arc::clone(hashed.manifest())
    }

    /// Starts to download a file from `peers` into this node's directory.
    pub(crate) fn fetch(&self, manifest: &Arc<Manifest>, peers: &[&Node]) -> Download {
        let download = self.engine.download(self.order(manifest)).unwrap();
        download.add_peers(&peers.iter().map(|peer| peer.address()).collect::<Vec<_>>());
        download
    }

    pub(crate) fn order(&self, manifest: &Arc<Manifest>) -> DownloadOrder {
        DownloadOrder {
            key: key(manifest.name().as_str()),
            manifest: Arc::clone(manifest),
            destination: self.directory.path().to_owned(),
            overwrite: false,
            ticket: ticket(manifest, self.engine.peer_key(), far_future()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// Keeps a manifest in memory.
pub(crate) fn loader(manifest: &Arc<Manifest>) -> ManifestLoader {
    let manifest = Arc::clone(manifest);
    Arc::new(move || Some(Arc::clone(&manifest)))
}

pub(crate) fn key(name: &str) -> FileKey {
    FileKey { group: "g".into(), name: FileName::new(name).unwrap() }
}

/// The tracker's time when a test starts.
pub(crate) fn tracker_now() -> UnixSeconds {
    UnixSeconds(2_000_000_000)
}

/// An expiry that no test reaches.
pub(crate) fn far_future() -> UnixSeconds {
    UnixSeconds(u64::MAX / 2)
}

pub(crate) fn ticket(manifest: &Manifest, peer_key: PeerKey, expires: UnixSeconds) -> Ticket {
    let grant = Grant {
        user: "u".into(),
        group: "g".into(),
        file_name: manifest.name().as_str().into(),
        file_id: manifest.proof().id(),
        peer_key,
        expires,
    };
    Ticket::sign(grant, &trackers())
}

/// Held for writing while a program is started: until its `exec` it has all descriptors of this process, and so holds the
/// locks of files that are closed here meanwhile.
static SPAWNS: RwLock<()> = RwLock::new(());

/// Starts a program while no test releases a file lock that it needs again.
pub(crate) fn spawn(command: &mut Command) -> Child {
    try_spawn(command).unwrap()
}

/// As [`spawn`], for a program that may be missing.
pub(crate) fn try_spawn(command: &mut Command) -> std::io::Result<Child> {
    let _alone = SPAWNS.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// No program is started while this is held, so that closing a file releases its lock.
pub(crate) fn nothing_is_spawned() -> RwLockReadGuard<'static, ()> {
    SPAWNS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the download has ended.
pub(crate) fn finish(download: &Download) -> DownloadProgress {
    wait_for(download, |progress| progress.phase.is_end())
}

/// Waits until the download is durable.
pub(crate) fn durable(download: &Download) -> DownloadProgress {
    let progress = finish(download);
    assert_eq!(progress.phase, DownloadPhase::Durable);
    progress
}

/// Waits until `reached` accepts the progress. Fails when no bytes are received or verified for [`PATIENCE`].
pub(crate) fn wait_for(download: &Download, reached: impl Fn(&DownloadProgress) -> bool) -> DownloadProgress {
    let bytes = |progress: &DownloadProgress| {
        (progress.verified_bytes, progress.received_bytes, progress.checked_bytes)
    };
    let mut progress = download.progress();
    let mut moved = Patience::new();
    while !reached(&progress) {
        let next = download.wait(progress.version, Duration::from_secs(1));
        if bytes(&next) != bytes(&progress) {
            moved = Patience::new();
        }
        assert!(moved.is_left(), "no progress: {next:?}");
        progress = next;
    }
    progress
}

/// Random bytes, different for each seed.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}
