//! The engine's public interface: start a node, share files, download files.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::config::{EngineConfig, WORKERS_MAX};
use crate::download::Download;
use crate::driver::{
    self, ActiveDownload, CheckCause, EngineWorkers, IoKind, NodeContext, ServedSource, Share, ShareFile,
    WholeFile, WorkerJob, WorkerMessage,
};
use crate::error::StartError;
use crate::hash::{FileHasher, Hasher};
use crate::local_files::{self, ExistingFile, HashedFile};
use crate::lock::lock;
use crate::proto::action::PeerAddress;
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::hashes::Sha1Value;
use crate::proto::manifest::{FileKey, FileName, Manifest};
use crate::proto::ticket::{PeerKey, Ticket, TrackerKey, UnixSeconds};
use crate::proto::units::{Digest, PieceIndex};
use crate::stats::{ManifestLoader, ShareStatus, ZeroCopySends};
use crate::storage::error::{SourceChange, StorageError, StorageErrorKind, StorageOperation};
use crate::storage::filesystem_threads::{FilesystemId, SubmitError};
use crate::storage::fingerprint::Fingerprint;
use crate::storage::sha1_list::{self, Sha1ListBuilder};
use crate::storage::source::Source;

/// A file to download.
#[derive(Debug)]
pub struct DownloadOrder {
    /// The tracker's name of the file; its pieces are served under the same key.
    pub key: FileKey,
    /// Digests and layout of the file.
    pub manifest: Arc<Manifest>,
    /// Directory or file name, as the user typed it.
    pub destination: PathBuf,
    /// Replace an existing file.
    pub overwrite: bool,
    /// The tracker's permission to fetch it.
    pub ticket: Ticket,
}

/// Threads, rings and sockets of one node. Cheap to clone; all clones are the same node, until [`Engine::stop`].
#[derive(Clone)]
pub struct Engine {
    context: Arc<NodeContext>,
    workers: Arc<EngineWorkers>,
    file_hasher: Arc<FileHasher>,
    listen_address: SocketAddr,
    scratch_dir: Option<Arc<Path>>,
    io_name: Arc<str>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
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
        let listen_address = listener.local_addr().map_err(listen_error)?;
        let hasher = match config.hash {
            Some(kind) => Hasher::new(kind)?,
            None => Hasher::best(),
        };
        tracing::info!(hash = %hasher.kind(), "hashing");
        if let Some(scratch_dir) = &config.scratch_dir {
            sha1_list::remove_stale_lists(scratch_dir);
        }
        let context = Arc::new(NodeContext::new(&config, io, hasher).map_err(StartError::System)?);
        let file_hasher =
            FileHasher::new(hasher, None).map_err(|error| StartError::System(io::Error::other(error)))?;
        let (queues, jobs): (Vec<_>, Vec<_>) =
            (0..worker_count(config.workers)).map(|_| mpsc::channel(driver::WORKER_JOBS_MAX)).unzip();
        let workers = Arc::new(EngineWorkers::new(queues));
        let engine = Engine {
            context: Arc::clone(&context),
            workers: Arc::clone(&workers),
            file_hasher: Arc::new(file_hasher),
            listen_address,
            scratch_dir: config.scratch_dir.map(Arc::from),
            io_name: Arc::default(),
            threads: Arc::default(),
            downloads: Arc::default(),
        };
        let started = engine.start_workers(jobs, listener).map_err(StartError::System);
        let watching = driver::start_watch(Arc::clone(&context)).map_err(StartError::System);
        let started = started.and_then(|kinds| watching.map(|thread| (kinds, thread)));
        let named = started.and_then(|(kinds, thread)| {
            lock(&engine.threads).push(thread);
            IoKind::describe_workers(config.io, &kinds)
        });
        let io_name = named.inspect_err(|_| engine.stop())?;
        tracing::info!(io = io_name, "transport");
        Ok(Engine { io_name: io_name.into(), ..engine })
    }

    /// Starts a worker for each queue, of which the first accepts peers; returns the back end of each.
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
            lock(&self.threads).push(thread);
        }
        answers.iter().take(count).collect()
    }

    /// The address on which peers connect.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        self.listen_address
    }

    /// This node's public key.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        self.context.secret.peer_key()
    }

    /// Whether this process may use io_uring, tested by making a ring.
    ///
    /// # Errors
    /// The system's error when it may not.
    pub fn probe_uring() -> io::Result<()> {
        IoKind::probe_uring()
    }

    /// The back end that runs: `uring` or `epoll`, or how many workers have which.
    #[must_use]
    pub fn io_name(&self) -> &str {
        &self.io_name
    }

    /// The hashing back end that runs: `avx512`, `avx2`, `sha_ni` or `asm`.
    #[must_use]
    pub fn hash_name(&self) -> &'static str {
        self.context.hasher.kind().name()
    }

    /// Sets the key that signs valid tickets, and the tracker's present time of day.
    pub fn set_trust(&self, key: TrackerKey, now: UnixSeconds) {
        self.context.set_trust(key, now);
    }

    /// Hashes a file for upload, reading it once; blocks. `progress` gets the bytes hashed so far.
    ///
    /// # Errors
    /// [`StorageError`]: the file cannot be read, is no regular file, or changed while it was read.
    pub fn hash_file(
        &self,
        path: &Path,
        name: FileName,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<HashedFile, StorageError> {
        local_files::hash_file(&self.file_hasher, path, name, self.scratch_dir.as_deref(), progress)
    }

    /// An empty list of hashes. It moves to a file in the scratch directory when it grows too long for memory.
    #[must_use]
    pub fn sha1_list_builder<T: Sha1Value>(&self) -> Sha1ListBuilder<T> {
        Sha1ListBuilder::new(self.scratch_dir.as_deref())
    }

    /// Serves a file that was hashed before, without reading it; a share under the same key ends. If only the file's
    /// attributes have changed, each piece is hashed before it is served. `loader` reads the manifest then.
    ///
    /// # Errors
    /// [`StorageError`]: the file cannot be opened; or [`StorageErrorKind::Changed`], and then it has to be hashed again.
    pub fn share_file(
        &self,
        key: FileKey,
        path: &Path,
        manifest: &Manifest,
        fingerprint: Fingerprint,
        loader: ManifestLoader,
    ) -> Result<(), StorageError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let now = self.examine_file(&path, fingerprint.device)?;
        let found = fingerprint.compare_ignoring_device(&now);
        let geometry =
            Geometry::new(now.length).ok().filter(|_| local_files::fits_length(manifest, now.length));
        let Some(geometry) = geometry.filter(|_| found.change().is_none()) else {
            let kind = StorageErrorKind::Changed(found.change().unwrap_or(SourceChange::Modified));
            return Err(StorageError { operation: StorageOperation::Read, path, kind });
        };
        let file = ShareFile::Whole(WholeFile::new(path, Fingerprint { device: now.device, ..fingerprint }));
        let held = Bitfield::full(manifest.pieces());
        let share = Arc::new(Share::new(key, manifest.proof().id(), geometry, (file, loader), held));
        share.note_state(found.into());
        self.context.shares.insert(share);
        self.context.watch.wake();
        Ok(())
    }

    /// Opens a regular file and closes it again; returns its fingerprint. `device` is the device number that its filesystem
    /// had last. Waits for a limited time.
    ///
    /// # Errors
    /// [`StorageError`]: the file cannot be opened; [`StorageErrorKind::NoAnswer`] when its filesystem does not answer.
    pub fn examine_file(&self, path: &Path, device: u64) -> Result<Fingerprint, StorageError> {
        let opened_path = path.to_owned();
        let open = move || Source::open(&opened_path).map(|source| source.fingerprint());
        let opened = self.context.file_calls.call(FilesystemId::of_device(device), open);
        let no_answer = |_| driver::no_answer_error(path);
        Ok(opened.map_err(no_answer)??.expect("a file that was opened by its path has a fingerprint"))
    }

    /// Reads the manifest of a share by `loader` from now on, if a share of that content is served under the key.
    pub fn set_manifest_loader(&self, key: &FileKey, content: Digest, loader: ManifestLoader) {
        if let Some(share) = self.context.shares.find(key).filter(|share| share.content_id() == content) {
            share.set_manifest(loader);
        }
    }

    /// Stops serving a file; whether it was served.
    #[must_use = "whether there was such a share"]
    pub fn unshare(&self, key: &FileKey) -> bool {
        self.context.shares.remove(key)
    }

    /// Stops serving a file if it is served with this content; whether it was.
    #[must_use = "whether there was such a share"]
    pub fn unshare_content(&self, key: &FileKey, content: Digest) -> bool {
        let share = self.context.shares.find(key).filter(|share| share.content_id() == content);
        share.inspect(|share| self.context.shares.remove_if_current(share)).is_some()
    }

    /// All shares, also those of running downloads.
    #[must_use]
    pub fn shares(&self) -> Vec<ShareStatus> {
        self.context.shares.statuses(self.context.clock.now().ms())
    }

    /// Compares what is at the destination with a manifest; blocks. A file of the right length is hashed. `progress` gets
    /// the bytes hashed so far after each piece; when it breaks, the comparison ends within the same window of the file.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist, or the file or the manifest's hashes cannot be read.
    pub fn compare_existing(
        &self,
        destination: &Path,
        manifest: &Manifest,
        progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<ExistingFile, StorageError> {
        local_files::compare_existing(&self.file_hasher, destination, manifest, progress)
    }

    /// Starts a download, or resumes an earlier attempt at the same destination. Verified pieces are served under the same
    /// key from the start, and the file once it is durable. When this node serves the whole file already, that share stays
    /// and the bytes come from it over a loopback connection.
    ///
    /// # Errors
    /// [`StorageError`]: the directory does not exist, the disk is full, another download writes the same partial file, or
    /// a file of that name exists and is not to be replaced.
    pub fn download(&self, order: DownloadOrder) -> Result<Download, StorageError> {
        let DownloadOrder { key, manifest, destination, overwrite, ticket } = order;
        self.check_download_limit(&destination)?;
        let (opened, to_check) = driver::open_files(&destination, &key, &manifest, overwrite)?;
        let mut seed = [0; 8];
        // Without randomness all downloaders start with the same pieces, which only costs time.
        let _ = getrandom::fill(&mut seed);
        let active = Arc::new(ActiveDownload::new(
            key,
            Arc::clone(&manifest),
            opened,
            overwrite,
            ticket,
            u64::from_le_bytes(seed),
            self.context.clock,
        ));
        lock(&self.downloads).push(Arc::downgrade(&active));
        self.start_download(&active, to_check).inspect_err(|_| active.abandon(&self.context.shares))?;
        Ok(Download::new(active, self.context.clock))
    }

    /// Refuses a download beyond [`driver::DOWNLOADS_MAX`]; drops those that have ended.
    fn check_download_limit(&self, destination: &Path) -> Result<(), StorageError> {
        let mut downloads = lock(&self.downloads);
        downloads.retain(|download| download.upgrade().is_some_and(|download| !download.has_ended()));
        if downloads.len() < driver::DOWNLOADS_MAX {
            return Ok(());
        }
        let kind =
            StorageErrorKind::NodeBusy(format!("{} downloads are running on this node", downloads.len()));
        Err(StorageError { operation: StorageOperation::Create, path: destination.to_owned(), kind })
    }

    /// Starts all work for a download. The share is made after everything that can fail, and before the download's own
    /// task, which replaces it by the share of the finished file.
    fn start_download(
        &self,
        active: &Arc<ActiveDownload>,
        to_check: Option<Vec<PieceIndex>>,
    ) -> Result<(), StorageError> {
        let thread_error = |error: SubmitError| StorageError {
            operation: StorageOperation::Create,
            path: active.target.path(),
            kind: match error {
                SubmitError::NoThread(_) => StorageErrorKind::NoThreads,
                SubmitError::Stopped | SubmitError::Busy => StorageErrorKind::NodeBusy(error.to_string()),
            },
        };
        let (manifest, context) = (&active.manifest, &self.context);
        let can_serve = manifest.is_length_known() && manifest.pieces().0 > 0;
        let source = can_serve.then(|| active.target.reader()).transpose()?;
        driver::start_zero_pieces(context, active).map_err(thread_error)?;
        if let Some(to_check) = to_check {
            driver::start_check(context, active, to_check, CheckCause::EarlierAttempt)
                .map_err(thread_error)?;
        }
        if let Some(source) = source {
            let geometry = manifest.geometry();
            let (content, held) = (manifest.proof().id(), Bitfield::empty(geometry.pieces()));
            let served = ServedSource::new(source, active.target.filesystem(), &context.file_calls);
            let manifest = Arc::clone(manifest);
            let loader: ManifestLoader = Arc::new(move || Some(Arc::clone(&manifest)));
            let file = (ShareFile::Partial(Arc::new(served)), loader);
            let share = Arc::new(Share::new(active.key.clone(), content, geometry, file, held));
            if context.shares.insert_unless_whole(Arc::clone(&share), &context.file_calls) {
                active.attach_share(share);
            } else {
                active.add_peers(&[self.own_address()]);
            }
        }
        if !self.workers.submit(WorkerJob::Drive(Arc::clone(active))) {
            return Err(thread_error(SubmitError::Busy));
        }
        Ok(())
    }

    /// The address at which this node reaches itself.
    fn own_address(&self) -> PeerAddress {
        let mut address = self.listen_address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        PeerAddress { address, key: self.peer_key() }
    }

    /// Figures of zero-copy sends since the start.
    #[must_use]
    pub fn zero_copy_sends(&self) -> ZeroCopySends {
        self.context.zero_copy.sends()
    }

    /// Ends all connections and threads, and records what downloads have written, so that they can be resumed. Blocks, so an
    /// asynchronous task must not call it.
    pub fn stop(&self) {
        let downloads = std::mem::take(&mut *lock(&self.downloads));
        let downloads: Vec<_> = downloads.iter().filter_map(Weak::upgrade).collect();
        self.context.shares.close_all();
        self.context.watch.stop();
        self.workers.stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic of a worker has aborted the program.
            let _ = thread.join();
        }
        for download in &downloads {
            download.detach();
        }
        self.context.threads.stop();
        for download in &downloads {
            driver::start_last_record(&self.context, download);
        }
        self.context.threads.stop_flushes();
    }
}

fn worker_count(wanted: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    wanted.map_or_else(|| cores().min(WORKERS_MAX), NonZeroUsize::get)
}
