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

use crate::config::{Config, WORKERS_MAX};
use crate::download::{self, Download};
use crate::driver::{self, Context, DownloadState, IoKind, Job, Parts, Share, Told, Trust, Workers};
use crate::error::StartError;
use crate::hash::{FileHasher, Hasher, WindowHashes};
use crate::proto::action::PeerAddress;
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::hashes::Hash20;
use crate::proto::manifest::{FileKey, FileName, FileProof, Manifest};
use crate::proto::ticket::{PeerKey, Ticket, TrackerKey};
use crate::proto::units::PieceIndex;
use crate::stats::{ShareStatus, ZeroCopySends};
use crate::storage::destination::{self, Destination};
use crate::storage::error::{Change, Operation, StorageError, StorageErrorKind};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::gather::{self, Gatherer};
use crate::storage::source::Source;

/// A file that was hashed and is still open, ready to be shared.
#[derive(Debug)]
pub struct Hashed {
    manifest: Arc<Manifest>,
    source: Source,
}

impl Hashed {
    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// What the file looked like when it was hashed: for [`Engine::reshare`], after a restart.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.source.fingerprint().expect("only whole files are hashed to be shared")
    }
}

/// A file to fetch.
#[derive(Debug)]
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

/// What is at a destination already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Absent,
    /// The same file, proven by hashing it.
    Same(PathBuf),
    /// Another file.
    Differs(PathBuf),
    /// Something that is never replaced; in words.
    Other(PathBuf, &'static str),
    /// Nobody wanted to know any more before it was found out.
    GivenUp,
}

/// Why comparing ends before the end of the file.
enum Halt {
    /// It cannot go on.
    Failed(StorageError),
    /// Nobody wants to know.
    GivenUp,
}

impl<E: Into<StorageError>> From<E> for Halt {
    fn from(error: E) -> Halt {
        Halt::Failed(error.into())
    }
}

/// Threads, rings and sockets of one node. Cheap to clone; all clones are the same node, until [`Engine::stop`].
#[derive(Clone)]
pub struct Engine {
    context: Arc<Context>,
    workers: Arc<Workers>,
    file_hasher: Arc<FileHasher>,
    listen: SocketAddr,
    scratch: Option<Arc<Path>>,
    /// By what the workers run.
    io_name: Arc<str>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Those under way.
    downloads: Arc<Mutex<Vec<Weak<DownloadState>>>>,
}

impl Engine {
    /// Starts the workers and listens for peers.
    ///
    /// # Errors
    /// [`StartError`]: the address is taken, io_uring was demanded and a worker has none, or the system gives no threads or
    /// event loops.
    pub fn start(config: Config) -> Result<Engine, StartError> {
        let io = IoKind::settle(config.io)?;
        let listen_error = |source| StartError::Listen { address: config.listen, source };
        let listener = driver::listen(config.listen).map_err(listen_error)?;
        let listen = listener.local_addr().map_err(listen_error)?;
        let hasher = match config.hash {
            Some(kind) => Hasher::new(kind)?,
            None => Hasher::best(),
        };
        tracing::info!(hash = %hasher.kind(), "hashing");
        let parts = Parts {
            io,
            zero_copy: config.zero_copy,
            secret: config.secret,
            hasher,
            limit_up: config.limit_up,
            limit_down: config.limit_down,
        };
        if let Some(scratch) = &config.scratch {
            gather::sweep(scratch);
        }
        let context = Arc::new(Context::new(parts).map_err(StartError::System)?);
        let file_hasher =
            FileHasher::new(hasher, None).map_err(|error| StartError::System(io::Error::other(error)))?;
        let (queues, jobs): (Vec<_>, Vec<_>) =
            (0..worker_count(config.workers)).map(|_| mpsc::channel(driver::JOBS_MAX)).unzip();
        let workers = Arc::new(Workers::new(queues));
        let engine = Engine {
            context: Arc::clone(&context),
            workers: Arc::clone(&workers),
            file_hasher: Arc::new(file_hasher),
            listen,
            scratch: config.scratch.map(Arc::from),
            io_name: Arc::default(),
            threads: Arc::default(),
            downloads: Arc::default(),
        };
        let started = engine.start_workers(jobs, listener).map_err(StartError::System);
        let named = started.and_then(|kinds| IoKind::of_all(config.io, &kinds));
        let io_name = named.inspect_err(|_| engine.stop())?;
        tracing::info!(io = io_name, "transport");
        Ok(Engine { io_name: io_name.into(), ..engine })
    }

    /// Starts the workers, one for each queue, of which the first accepts; by what each of them runs.
    fn start_workers(
        &self,
        queues: Vec<mpsc::Receiver<Told>>,
        listener: TcpListener,
    ) -> io::Result<Vec<IoKind>> {
        let count = queues.len();
        let (started, answers) = sync_channel(count);
        let mut listener = Some(listener);
        for (number, jobs) in queues.into_iter().enumerate() {
            let (context, workers) = (Arc::clone(&self.context), Arc::clone(&self.workers));
            let (listener, started) = (listener.take(), started.clone());
            let start = driver::Start { number, context, jobs, workers, listener, started };
            let thread = driver::start(start)?;
            self.lock_threads().push(thread);
        }
        answers.iter().take(count).collect()
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_downloads(&self) -> MutexGuard<'_, Vec<Weak<DownloadState>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where peers connect.
    #[must_use]
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
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
    pub fn trust(&self, key: TrackerKey, clock_offset_s: i64) {
        self.context.set_trust(Trust { key, clock_offset_s });
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
    ) -> Result<Hashed, StorageError> {
        let source = Source::open(path)?;
        source.expect_sequential();
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
            Manifest::of(name, Some(source.length()), digests, FileProof::Whole(whole), Some(chain))
                .expect("what was hashed is consistent");
        Ok(Hashed { manifest: Arc::new(manifest), source })
    }

    /// An empty list of hashes, which goes to a file when it grows too long for memory.
    #[must_use]
    pub fn gatherer<T: Hash20>(&self) -> Gatherer<T> {
        Gatherer::new(self.scratch.as_deref())
    }

    /// Serves a hashed file; what was served under the key before no longer is.
    pub fn share(&self, key: FileKey, hashed: Hashed) {
        let Hashed { manifest, source } = hashed;
        let held = Bitfield::full(manifest.pieces());
        let share = Share::new(key, manifest.proof().id(), manifest.geometry(), source, held);
        self.context.shares.insert(Arc::new(share));
    }

    /// Serves a file that was hashed before, without reading it, if it still looks as it did then.
    ///
    /// # Errors
    /// [`StorageError`]: it cannot be opened; or [`StorageErrorKind::Changed`], and then it has to be hashed again.
    pub fn reshare(
        &self,
        key: FileKey,
        path: &Path,
        manifest: &Manifest,
        fingerprint: Fingerprint,
    ) -> Result<(), StorageError> {
        let source = Source::open(path)?;
        let fits = if manifest.length_known() {
            manifest.geometry().length() == source.length()
        } else {
            manifest.geometry().same_pieces(source.length())
        };
        let change = match source.fingerprint().map(|now| fingerprint.change_on_record(&now)) {
            Some(None) if fits => {
                let held = Bitfield::full(manifest.pieces());
                let geometry =
                    Geometry::new(source.length()).expect("a source is no longer than a file may be");
                let share = Share::new(key, manifest.proof().id(), geometry, source, held);
                self.context.shares.insert(Arc::new(share));
                return Ok(());
            }
            Some(Some(change)) => change,
            _ => Change::Modified,
        };
        let path = source.path().to_owned();
        Err(StorageError { operation: Operation::Read, path, kind: StorageErrorKind::Changed(change) })
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
    pub fn existing(
        &self,
        destination: &Path,
        manifest: &Manifest,
        progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<Existing, StorageError> {
        let destination = Destination::resolve(destination, manifest.name())?;
        let path = destination.path();
        let length = match destination.existing()? {
            destination::Existing::Absent => return Ok(Existing::Absent),
            destination::Existing::Other(what) => return Ok(Existing::Other(path, what)),
            destination::Existing::File { length } => length,
        };
        let geometry = manifest.geometry();
        let plausible =
            if manifest.length_known() { geometry.length() == length } else { geometry.same_pieces(length) };
        if !plausible {
            return Ok(Existing::Differs(path));
        }
        let source = destination.open_existing()?;
        let layout = Geometry::new(length).expect("it has as many pieces as the file");
        let mut stated = manifest.digests().iter();
        let mut same = true;
        let given_up = Cell::new(false);
        let compare = |window: &WindowHashes<'_>| -> Result<(), Halt> {
            same &= window.digests.iter().all(|digest| stated.next() == Some(*digest));
            if given_up.get() { Err(Halt::GivenUp) } else { Ok(()) }
        };
        let tell = |done| given_up.set(given_up.get() | progress(done).is_break());
        let found = match self.file_hasher.hash_into(layout, &source, compare, tell) {
            Ok(found) => found,
            Err(Halt::GivenUp) => return Ok(Existing::GivenUp),
            Err(Halt::Failed(error)) => return Err(error),
        };
        same &= match manifest.proof() {
            FileProof::Whole(digest) => found == digest,
            FileProof::PiecesOnly(_) => true,
        };
        match manifest.lost() {
            _ if same => Ok(Existing::Same(path)),
            Some(place) => Err(StorageError::hashes_lost(place)),
            None => Ok(Existing::Differs(path)),
        }
    }

    /// Starts to fetch, or goes on where an earlier attempt at the same destination ended. Verified pieces are served under
    /// the same key from the start, and the file once it is durable. Where this node serves the whole of it already, that
    /// goes on, and the bytes come from there over a loopback connection.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist, the disk is full, another download writes the same partial file, or
    /// a file of that name exists and is not to be replaced.
    pub fn download(&self, order: Order) -> Result<Download, StorageError> {
        let Order { key, manifest, destination, overwrite, ticket } = order;
        self.make_room(&destination)?;
        let (opened, to_check) = download::open(&destination, &key, &manifest, overwrite)?;
        let checking = opened.checking;
        let mut seed = [0; 8];
        // Without randomness all leechers begin alike, which is slow and nothing worse.
        let _ = getrandom::fill(&mut seed);
        let state = Arc::new(DownloadState::new(
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
        self.begin(&state, to_check).inspect_err(|_| state.abandon(&self.context.shares))?;
        Ok(Download::new(state))
    }

    /// Forgets the downloads that have ended.
    fn make_room(&self, destination: &Path) -> Result<(), StorageError> {
        let mut downloads = self.lock_downloads();
        downloads.retain(|download| download.upgrade().is_some_and(|download| !download.has_ended()));
        if downloads.len() < driver::DOWNLOADS_MAX {
            return Ok(());
        }
        let many = format!("{} downloads are under way on this node; wait for one to end", downloads.len());
        let kind = StorageErrorKind::Io(io::Error::other(many));
        Err(StorageError { operation: Operation::Create, path: destination.to_owned(), kind })
    }

    /// Starts all that works for a download. Its share comes after what can fail, but before its own task: that one puts the
    /// share of the finished file in its place.
    fn begin(
        &self,
        state: &Arc<DownloadState>,
        to_check: Option<Vec<PieceIndex>>,
    ) -> Result<(), StorageError> {
        let thread_error = |error: io::Error| StorageError {
            operation: Operation::Create,
            path: state.target.path(),
            kind: StorageErrorKind::Io(error),
        };
        let manifest = &state.manifest;
        let serves = manifest.length_known() && manifest.pieces().0 > 0;
        let source = serves.then(|| state.target.reader()).transpose()?;
        driver::start_holes(state, self.context.hasher, &self.context.threads).map_err(thread_error)?;
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
                state.serve_by(share);
            } else {
                state.offer(&[self.own_address()]);
            }
        }
        if !self.workers.submit(Job::Drive(Arc::clone(state))) {
            return Err(thread_error(io::Error::other("this node is going down or has too much to do")));
        }
        Ok(())
    }

    /// Where this node reaches itself.
    fn own_address(&self) -> PeerAddress {
        let mut address = self.listen;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        PeerAddress { address, key: self.peer_key() }
    }

    /// What became of sends without a copy, since the start.
    #[must_use]
    pub fn zero_copy(&self) -> ZeroCopySends {
        self.context.zero_copy.sends()
    }

    /// Ends all connections and threads, and waits for them; records what downloads have written, so that they go on from there. Blocks,
    /// and so must not be called by an asynchronous task.
    pub fn stop(&self) {
        let downloads = std::mem::take(&mut *self.lock_downloads());
        let downloads: Vec<_> = downloads.iter().filter_map(Weak::upgrade).collect();
        self.context.shares.clear();
        self.workers.stop();
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            // A panic of a worker has been reported on its thread already.
            let _ = thread.join();
        }
        for download in &downloads {
            download.leave_alone();
        }
        self.context.threads.stop();
        for download in &downloads {
            download.record_at_last();
        }
    }
}

fn worker_count(wanted: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    wanted.map_or_else(|| cores().min(WORKERS_MAX), NonZeroUsize::get)
}
