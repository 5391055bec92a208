//! The engine's front: start a node, share files, fetch files.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::config::{EngineConfig, WORKERS_MAX};
use crate::download::{self, Download};
use crate::driver::{
    self, ActiveDownload, EngineWorkers, IoKind, NodeContext, NodeParts, Share, TicketTrust, WorkerJob,
    WorkerMessage,
};
use crate::error::StartError;
use crate::hash::{FileHasher, Hasher, WindowHashes};
use crate::proto::action::PeerAddress;
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::hashes::Sha1Value;
use crate::proto::manifest::{FileKey, FileName, FileProof, Manifest};
use crate::proto::ticket::{PeerKey, Ticket, TrackerKey};
use crate::proto::units::PieceIndex;
use crate::stats::{ShareStatus, ZeroCopySends};
use crate::storage::destination::{self, Destination};
use crate::storage::error::{SourceChange, StorageError, StorageErrorKind, StorageOperation};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::sha1_list::{self, Sha1ListBuilder};
use crate::storage::source::Source;

/// A file that was hashed and is still open, ready to be shared.
#[derive(Debug)]
pub struct HashedFile {
    manifest: Arc<Manifest>,
    source: Source,
}

impl HashedFile {
    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// What the file looked like when it was hashed: for [`Engine::share_file`], after a restart.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.source.fingerprint().expect("only whole files are hashed to be shared")
    }
}

/// A file to fetch.
#[derive(Debug)]
pub struct DownloadOrder {
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

/// What is at a destination already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExistingFile {
    /// Nothing.
    Absent,
    /// The same file, proven by hashing it.
    Same(PathBuf),
    /// Another file.
    Differs(PathBuf),
    /// Something that is never replaced; in words.
    NotAFile(PathBuf, &'static str),
    /// Nobody wanted to know any more before it was found out.
    Cancelled,
}

/// Why comparing ends before the end of the file.
enum CompareStop {
    /// It cannot go on.
    Failed(StorageError),
    /// Nobody wants to know.
    Cancelled,
}

impl<E: Into<StorageError>> From<E> for CompareStop {
    fn from(error: E) -> CompareStop {
        CompareStop::Failed(error.into())
    }
}

/// Threads, rings and sockets of one node. Cheap to clone; all clones are the same node, until [`Engine::stop`].
#[derive(Clone)]
pub struct Engine {
    context: Arc<NodeContext>,
    workers: Arc<EngineWorkers>,
    file_hasher: Arc<FileHasher>,
    listen_address: SocketAddr,
    scratch_dir: Option<Arc<Path>>,
    /// By what the workers run.
    io_name: Arc<str>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Those under way.
    downloads: Arc<Mutex<Vec<Weak<ActiveDownload>>>>,
}

impl Engine {
    /// Starts the workers and listens for peers.
    ///
    /// # Errors
    /// [`StartError`]: the address is taken, io_uring was demanded and a worker has none, or the system gives no threads or
    /// event loops.
    pub fn start(config: EngineConfig) -> Result<Engine, StartError> {
        let io = IoKind::resolve(config.io)?;
        let listen_error = |source| StartError::Listen { address: config.listen, source };
        let listener = driver::listen_on(config.listen).map_err(listen_error)?;
        let listen = listener.local_addr().map_err(listen_error)?;
        let hasher = match config.hash {
            Some(kind) => Hasher::new(kind)?,
            None => Hasher::best(),
        };
        tracing::info!(hash = %hasher.kind(), "hashing");
        let parts = NodeParts {
            io,
            zero_copy: config.zero_copy,
            secret: config.secret,
            hasher,
            limit_up: config.limit_up,
            limit_down: config.limit_down,
        };
        if let Some(scratch) = &config.scratch_dir {
            sha1_list::remove_stale_lists(scratch);
        }
        let context = Arc::new(NodeContext::new(parts).map_err(StartError::System)?);
        let file_hasher =
            FileHasher::new(hasher, None).map_err(|error| StartError::System(io::Error::other(error)))?;
        let (queues, jobs): (Vec<_>, Vec<_>) =
            (0..worker_count(config.workers)).map(|_| mpsc::channel(driver::WORKER_JOBS_MAX)).unzip();
        let workers = Arc::new(EngineWorkers::new(queues));
        let engine = Engine {
            context: Arc::clone(&context),
            workers: Arc::clone(&workers),
            file_hasher: Arc::new(file_hasher),
            listen_address: listen,
            scratch_dir: config.scratch_dir.map(Arc::from),
            io_name: Arc::default(),
            threads: Arc::default(),
            downloads: Arc::default(),
        };
        let started = engine.start_workers(jobs, listener).map_err(StartError::System);
        let named = started.and_then(|kinds| IoKind::describe_workers(config.io, &kinds));
        let io_name = named.inspect_err(|_| engine.stop())?;
        tracing::info!(io = io_name, "transport");
        Ok(Engine { io_name: io_name.into(), ..engine })
    }

    /// Starts the workers, one for each queue, of which the first accepts; by what each of them runs.
    fn start_workers(
        &self,
        queues: Vec<mpsc::Receiver<WorkerMessage>>,
        listener: TcpListener,
    ) -> io::Result<Vec<IoKind>> {
        let count = queues.len();
        let (started, answers) = sync_channel(count);
        let mut listener = Some(listener);
        for (number, jobs) in queues.into_iter().enumerate() {
            let (context, workers) = (Arc::clone(&self.context), Arc::clone(&self.workers));
            let (listener, started) = (listener.take(), started.clone());
            let start = driver::WorkerStart { number, context, jobs, workers, listener, started };
            let thread = driver::start_worker(start)?;
            self.lock_threads().push(thread);
        }
        answers.iter().take(count).collect()
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_downloads(&self) -> MutexGuard<'_, Vec<Weak<ActiveDownload>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where peers connect.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        self.listen_address
    }

    /// This node's public key.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        self.context.secret.peer_key()
    }

    /// Whether this process may use io_uring, found out by making a ring.
    ///
    /// # Errors
    /// What the kernel says against it.
    pub fn probe_uring() -> io::Result<()> {
        IoKind::probe_uring()
    }

    /// Name of the back end that runs: `uring` or `epoll`, or how many workers have which.
    #[must_use]
    pub fn io_name(&self) -> &str {
        &self.io_name
    }

    /// Name of the hashing that runs: `avx512`, `avx2`, `sha_ni` or `asm`.
    #[must_use]
    pub fn hash_name(&self) -> &'static str {
        self.context.hasher.kind().name()
    }

    /// Whose tickets count, and by which clock: `clock_offset_s` is the trackers' time minus this machine's.
    pub fn set_trust(&self, key: TrackerKey, clock_offset_s: i64) {
        self.context.set_trust(TicketTrust { key, clock_offset_s });
    }

    /// Hashes a file for upload, reading it once; blocks. `progress` gets the bytes done so far.
    ///
    /// # Errors
    /// [`StorageError`]: the file cannot be read, is no regular file, or changed while it was read.
    pub fn hash_file(
        &self,
        path: &Path,
        name: FileName,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<HashedFile, StorageError> {
        let source = Source::open(path)?;
        source.advise_sequential();
        let geometry =
            Geometry::new(source.length()).expect("a source is checked to be no longer than a file may be");
        let (mut digests, mut chain) = (self.gatherer(), self.gatherer());
        let keep = |window: &WindowHashes<'_>| {
            digests.push(window.digests)?;
            chain.push(window.chain)
        };
        let whole = self.file_hasher.hash_into::<_, StorageError>(geometry, &source, keep, progress)?;
        let (digests, chain) = (digests.finish()?, chain.finish()?);
        let manifest =
            Manifest::from_lists(name, Some(source.length()), digests, FileProof::Whole(whole), Some(chain))
                .expect("what was hashed is consistent");
        Ok(HashedFile { manifest: Arc::new(manifest), source })
    }

    /// An empty list of hashes, which goes to a file when it grows too long for memory.
    #[must_use]
    pub fn gatherer<T: Sha1Value>(&self) -> Sha1ListBuilder<T> {
        Sha1ListBuilder::new(self.scratch_dir.as_deref())
    }

    /// Serves a hashed file; what was served under the key before no longer is.
    pub fn share(&self, key: FileKey, hashed: HashedFile) {
        let HashedFile { manifest, source } = hashed;
        let held = Bitfield::full(manifest.pieces());
        let share = Share::new(key, manifest.proof().id(), manifest.geometry(), source, held);
        self.context.shares.insert(Arc::new(share));
    }

    /// Serves a file that was hashed before, without reading it, if it still looks as it did then.
    ///
    /// # Errors
    /// [`StorageError`]: it cannot be opened; or [`StorageErrorKind::SourceChangedError`], and then it has to be hashed again.
    pub fn share_file(
        &self,
        key: FileKey,
        path: &Path,
        manifest: &Manifest,
        fingerprint: Fingerprint,
    ) -> Result<(), StorageError> {
        let source = Source::open(path)?;
        let fits = if manifest.is_length_known() {
            manifest.geometry().length() == source.length()
        } else {
            manifest.geometry().same_pieces(source.length())
        };
        let change = match source.fingerprint().map(|now| fingerprint.difference_ignoring_device(&now)) {
            Some(None) if fits => {
                let held = Bitfield::full(manifest.pieces());
                let geometry =
                    Geometry::new(source.length()).expect("a source is no longer than a file may be");
                let share = Share::new(key, manifest.proof().id(), geometry, source, held);
                self.context.shares.insert(Arc::new(share));
                return Ok(());
            }
            Some(Some(change)) => change,
            _ => SourceChange::Modified,
        };
        let path = source.path().to_owned();
        Err(StorageError { operation: StorageOperation::Read, path, kind: StorageErrorKind::Changed(change) })
    }

    /// Stops serving; whether it was served.
    #[must_use = "whether there was such a share"]
    pub fn unshare(&self, key: &FileKey) -> bool {
        self.context.shares.remove(key)
    }

    /// All that is served, also of downloads under way.
    #[must_use]
    pub fn shares(&self) -> Vec<ShareStatus> {
        self.context.shares.statuses(self.context.clock.now().ms())
    }

    /// What is at the destination already: an existing file of the right length is hashed; blocks. `progress` is told after
    /// each piece how many bytes are, and may break it off: it then ends within the window of the file that is being hashed.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist, or the file or the manifest's hashes cannot be read.
    pub fn compare_existing(
        &self,
        destination: &Path,
        manifest: &Manifest,
        progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<ExistingFile, StorageError> {
        let destination = Destination::resolve(destination, manifest.name())?;
        let path = destination.path();
        let length = match destination.existing_entry()? {
            destination::DestinationEntry::Absent => return Ok(ExistingFile::Absent),
            destination::DestinationEntry::Other(what) => return Ok(ExistingFile::NotAFile(path, what)),
            destination::DestinationEntry::File { length } => length,
        };
        let geometry = manifest.geometry();
        let plausible = if manifest.is_length_known() {
            geometry.length() == length
        } else {
            geometry.same_pieces(length)
        };
        if !plausible {
            return Ok(ExistingFile::Differs(path));
        }
        let source = destination.open_existing()?;
        let layout = Geometry::new(length).expect("it has as many pieces as the file");
        let mut stated = manifest.digests().iter();
        let mut same = true;
        let given_up = Cell::new(false);
        let compare = |window: &WindowHashes<'_>| -> Result<(), CompareStop> {
            same &= window.digests.iter().all(|digest| stated.next() == Some(*digest));
            if given_up.get() { Err(CompareStop::Cancelled) } else { Ok(()) }
        };
        let tell = |done| given_up.set(given_up.get() | progress(done).is_break());
        let found = match self.file_hasher.hash_into(layout, &source, compare, tell) {
            Ok(found) => found,
            Err(CompareStop::Cancelled) => return Ok(ExistingFile::Cancelled),
            Err(CompareStop::Failed(error)) => return Err(error),
        };
        same &= match manifest.proof() {
            FileProof::Whole(digest) => found == digest,
            FileProof::PiecesOnly(_) => true,
        };
        match manifest.unreadable_at() {
            _ if same => Ok(ExistingFile::Same(path)),
            Some(place) => Err(StorageError::hashes_lost(place)),
            None => Ok(ExistingFile::Differs(path)),
        }
    }

    /// Starts to fetch, or goes on where an earlier attempt at the same destination ended. Verified pieces are served under
    /// the same key from the start, and the file once it is durable. Where this node serves the whole of it already, that
    /// goes on, and the bytes come from there over a loopback connection.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist, the disk is full, another download writes the same partial file, or
    /// a file of that name exists and is not to be replaced.
    pub fn download(&self, order: DownloadOrder) -> Result<Download, StorageError> {
        let DownloadOrder { key, manifest, destination, overwrite, ticket } = order;
        self.check_download_limit(&destination)?;
        let (opened, to_check) = download::open_files(&destination, &key, &manifest, overwrite)?;
        let checking = opened.is_checking;
        let mut seed = [0; 8];
        // Without randomness all leechers begin alike, which is slow and nothing worse.
        let _ = getrandom::fill(&mut seed);
        let state = Arc::new(ActiveDownload::new(
            key,
            Arc::clone(&manifest),
            opened,
            overwrite,
            ticket,
            u64::from_le_bytes(seed),
            self.context.clock,
        ));
        self.lock_downloads().push(Arc::downgrade(&state));
        let to_check = checking.then_some(to_check);
        self.start_download(&state, to_check).inspect_err(|_| state.abandon(&self.context.shares))?;
        Ok(Download::new(state))
    }

    /// Forgets the downloads that have ended.
    fn check_download_limit(&self, destination: &Path) -> Result<(), StorageError> {
        let mut downloads = self.lock_downloads();
        downloads.retain(|download| download.upgrade().is_some_and(|download| !download.has_ended()));
        if downloads.len() < driver::DOWNLOADS_MAX {
            return Ok(());
        }
        let many = format!("{} downloads are under way on this node; wait for one to end", downloads.len());
        let kind = StorageErrorKind::Io(io::Error::other(many));
        Err(StorageError { operation: StorageOperation::Create, path: destination.to_owned(), kind })
    }

    /// Starts all that works for a download. Its share comes after what can fail, but before its own task: that one puts the
    /// share of the finished file in its place.
    fn start_download(
        &self,
        state: &Arc<ActiveDownload>,
        to_check: Option<Vec<PieceIndex>>,
    ) -> Result<(), StorageError> {
        let thread_error = |error: io::Error| StorageError {
            operation: StorageOperation::Create,
            path: state.target.path(),
            kind: StorageErrorKind::Io(error),
        };
        let manifest = &state.manifest;
        let serves = manifest.is_length_known() && manifest.pieces().0 > 0;
        let source = serves.then(|| state.target.reader()).transpose()?;
        driver::start_zero_pieces(state, self.context.hasher, &self.context.threads).map_err(thread_error)?;
        if let Some(to_check) = to_check {
            driver::start_check(state, to_check, self.context.hasher, &self.context.threads)
                .map_err(thread_error)?;
        }
        if let Some(source) = source {
            let geometry = manifest.geometry();
            let held = Bitfield::empty(geometry.pieces());
            let share =
                Arc::new(Share::new(state.key.clone(), manifest.proof().id(), geometry, source, held));
            if self.context.shares.insert_unless_whole(Arc::clone(&share)) {
                state.attach_share(share);
            } else {
                state.add_peers(&[self.own_address()]);
            }
        }
        if !self.workers.submit(WorkerJob::Drive(Arc::clone(state))) {
            return Err(thread_error(io::Error::other("this node is going down or has too much to do")));
        }
        Ok(())
    }

    /// Where this node reaches itself.
    fn own_address(&self) -> PeerAddress {
        let mut address = self.listen_address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        PeerAddress { address, key: self.peer_key() }
    }

    /// What became of sends without a copy, since the start.
    #[must_use]
    pub fn zero_copy_sends(&self) -> ZeroCopySends {
        self.context.zero_copy.sends()
    }

    /// Ends all connections and threads, and waits for them; records what downloads have written, so that they go on from there. Blocks,
    /// and so must not be called by an asynchronous task.
    pub fn stop(&self) {
        let downloads = std::mem::take(&mut *self.lock_downloads());
        let downloads: Vec<_> = downloads.iter().filter_map(Weak::upgrade).collect();
        self.context.shares.close_all();
        self.workers.stop();
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            // A panic of a worker has been reported on its thread already.
            let _ = thread.join();
        }
        for download in &downloads {
            download.detach();
        }
        self.context.threads.stop();
        for download in &downloads {
            download.record_on_stop();
        }
    }
}

fn worker_count(wanted: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    wanted.map_or_else(|| cores().min(WORKERS_MAX), NonZeroUsize::get)
}
