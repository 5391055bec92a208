//! The engine's front: start, share, download.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::StartError;
use crate::proto::manifest::{FileKey, FileName, Manifest};
use crate::proto::ticket::{PeerKey, Ticket, TrackerKey};
use crate::proto::units::PieceRange;
use crate::stats::{Progress, ShareStatus, Suspect};

/// A file that was hashed and is still open, ready to be shared.
pub struct Hashed {}

impl Hashed {
    /// What it is.
    pub fn manifest(&self) -> &Arc<Manifest> {
        unimplemented!()
    }
}

/// Stand-in for storage's error.
#[derive(Debug, thiserror::Error)]
#[error("storage")]
pub struct StorageError;

/// A file to fetch.
pub struct Order {
    /// Which.
    pub key: FileKey,
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// Directory or file name, as the user typed it.
    pub destination: PathBuf,
    /// Replace an existing file that differs.
    pub overwrite: bool,
    /// The trackers' permission.
    pub ticket: Ticket,
}

/// Where a peer listens, and the key that it must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// Where.
    pub address: SocketAddr,
    /// Who.
    pub key: PeerKey,
}

/// What is at a destination already.
pub enum Existing {
    /// Nothing.
    Absent,
    /// The same file, proven by hashing it.
    Same(PathBuf),
    /// Another file.
    Differs(PathBuf),
}

/// Threads, rings and sockets of one node. Cheap to clone; ends with [`Engine::stop`].
#[derive(Clone)]
pub struct Engine {}

#[allow(missing_docs, unused_variables, clippy::missing_errors_doc)]
impl Engine {
    pub fn start(config: Config) -> Result<Engine, StartError> {
        unimplemented!()
    }
    pub fn listen_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    pub fn peer_key(&self) -> PeerKey {
        unimplemented!()
    }
    /// Name of the back end that runs: `uring` or `epoll`.
    pub fn io_name(&self) -> &'static str {
        unimplemented!()
    }
    /// Whose tickets count, and by which clock: `clock_offset_s` = the trackers' time minus ours.
    pub fn trust(&self, key: TrackerKey, clock_offset_s: i64) {
        unimplemented!()
    }
    /// Hashes a file for upload; blocks. `progress` gets the bytes done so far.
    pub fn hash_file(
        &self,
        path: &Path,
        name: FileName,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Hashed, StorageError> {
        unimplemented!()
    }
    pub fn share(&self, key: FileKey, hashed: Hashed) {
        unimplemented!()
    }
    /// Stops serving; whether it was served.
    pub fn unshare(&self, key: &FileKey) -> bool {
        unimplemented!()
    }
    pub fn shares(&self) -> Vec<ShareStatus> {
        unimplemented!()
    }
    /// What is at the destination already; hashes an existing file of the right length; blocks.
    pub fn existing(
        &self,
        destination: &Path,
        manifest: &Manifest,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Existing, StorageError> {
        unimplemented!()
    }
    /// Starts to fetch. The verified pieces are shared under the same key from the start, and the file after it is durable.
    pub fn download(&self, order: Order) -> Result<Download, StorageError> {
        unimplemented!()
    }
    /// Ends all connections and threads; waits for them.
    pub fn stop(&self) {
        unimplemented!()
    }
}

/// One running download. Cheap to clone; dropping it does not stop it.
#[derive(Clone)]
pub struct Download {}

#[allow(missing_docs, unused_variables)]
impl Download {
    pub fn key(&self) -> &FileKey {
        unimplemented!()
    }
    /// Peers that the tracker names; known ones are kept as they are.
    pub fn offer(&self, peers: &[PeerAddress]) {
        unimplemented!()
    }
    /// A fresh ticket: used for new connections and sent to open ones.
    pub fn renew(&self, ticket: Ticket) {
        unimplemented!()
    }
    pub fn pause(&self) {
        unimplemented!()
    }
    pub fn resume(&self) {
        unimplemented!()
    }
    /// Gives it up; the partial file is removed.
    pub fn cancel(&self) {
        unimplemented!()
    }
    pub fn progress(&self) -> Progress {
        unimplemented!()
    }
    /// Blocks until the progress has another version than `seen`, or `timeout` has passed.
    pub fn wait(&self, seen: u64, timeout: Duration) -> Progress {
        unimplemented!()
    }
    /// Runs of pieces verified since the last call: for `update_pieces`.
    pub fn take_gained(&self) -> Vec<PieceRange> {
        unimplemented!()
    }
    /// Peers that sent bad pieces since the last call: for `report_peer`.
    pub fn take_suspects(&self) -> Vec<Suspect> {
        unimplemented!()
    }
}
