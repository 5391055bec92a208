//! A file that this node serves: a whole one, or what it holds of one that it downloads.
//!
//! Invariants: a piece counts as held only after it was verified and written; a share that was closed, or whose source has
//! changed, never starts another piece; no function here waits for a filesystem, except where it says that it blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::limits::OPEN_WAIT_MS;
use super::share_file::{ServedSource, ShareFile, SourceState, WholeFile};
use super::share_watch::{RecheckScope, ShareWatch};
use crate::lock::{lock, read, write};
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::limits::CONNECTIONS_PER_PEER;
use crate::proto::manifest::FileKey;
use crate::proto::steering::UploadHistory;
use crate::proto::ticket::PeerKey;
use crate::proto::units::{Digest, PieceIndex};
use crate::stats::{ManifestLoader, ShareStatus};
use crate::storage::error::{SourceChange, SourceChangedError};
use crate::storage::filesystem_threads::{FilesystemThreads, NoAnswer};

/// A file that is served.
pub(crate) struct Share {
    key: FileKey,
    content_id: Digest,
    geometry: Geometry,
    /// The partial file of a download, until that has finished it.
    file: RwLock<Arc<ShareFile>>,
    manifest: Mutex<ManifestLoader>,
    held: RwLock<Bitfield>,
    /// Pieces gained since the share began, in order. Each connection remembers how many it has told.
    gained: Mutex<Vec<PieceIndex>>,
    /// How often each piece was chosen to be sent.
    sent: Vec<AtomicU16>,
    sent_pieces: AtomicU64,
    sent_bytes: AtomicU64,
    /// Connections of each consumer.
    consumers: Mutex<BTreeMap<PeerKey, usize>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
    is_closed: AtomicBool,
    /// How the source has changed, if it has.
    change: OnceLock<String>,
    watch: Mutex<ShareWatch>,
    /// Pieces of a partial file that are not what was verified; the download has not been told yet.
    lost: Mutex<Vec<PieceIndex>>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("key", &self.key).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Share {
    /// A share of the pieces `held` of a file.
    pub(crate) fn new(
        key: FileKey,
        content_id: Digest,
        geometry: Geometry,
        (file, manifest): (ShareFile, ManifestLoader),
        held: Bitfield,
    ) -> Share {
        Share {
            key,
            content_id,
            geometry,
            file: RwLock::new(Arc::new(file)),
            manifest: Mutex::new(manifest),
            sent: held.pieces().indices().map(|_| AtomicU16::new(0)).collect(),
            held: RwLock::new(held),
            gained: Mutex::default(),
            sent_pieces: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            consumers: Mutex::default(),
            listeners: Mutex::default(),
            is_closed: AtomicBool::new(false),
            change: OnceLock::new(),
            watch: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// The tracker's name of the file.
    pub(crate) fn key(&self) -> &FileKey {
        &self.key
    }

    /// The digest that names the content in tickets.
    pub(crate) fn content_id(&self) -> Digest {
        self.content_id
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The file as it is now.
    pub(crate) fn file(&self) -> Arc<ShareFile> {
        Arc::clone(&read(&self.file))
    }

    /// The partial file is complete, and has its final name. Consumers are served on from what is open.
    pub(crate) fn set_complete(&self, file: WholeFile) {
        *write(&self.file) = Arc::new(ShareFile::Whole(file));
    }

    /// What reads the manifest of the file.
    pub(crate) fn manifest(&self) -> ManifestLoader {
        ManifestLoader::clone(&lock(&self.manifest))
    }

    /// From now on the manifest is read by `loader`.
    pub(crate) fn set_manifest(&self, loader: ManifestLoader) {
        *lock(&self.manifest) = loader;
    }

    /// Calls `look` with the pieces that can be served.
    pub(crate) fn with_held<R>(&self, look: impl FnOnce(&Bitfield) -> R) -> R {
        look(&read(&self.held))
    }

    /// Adds pieces that were verified and written.
    pub(crate) fn add_pieces(&self, pieces: &[PieceIndex]) {
        let mut held = write(&self.held);
        let mut gained = lock(&self.gained);
        gained.extend(pieces.iter().copied().filter(|index| held.insert(*index)));
    }

    /// Removes pieces that the disk has lost. Requests of consumers that were told of them are rejected.
    pub(crate) fn remove_pieces(&self, pieces: &[PieceIndex]) {
        let mut held = write(&self.held);
        for index in pieces {
            held.remove(*index);
        }
    }

    /// Pieces gained after the first `told_count`, which is updated, in ascending order.
    pub(crate) fn gained_since(&self, told_count: &mut usize) -> Vec<PieceIndex> {
        let gained = lock(&self.gained);
        // There are fewer after the whole file was doubted; consumers that were told before ask again by themselves.
        let mut pieces = gained[gained.len().min(*told_count)..].to_vec();
        *told_count = gained.len();
        pieces.sort_unstable();
        // A piece that was lost and gained again is told once.
        pieces.dedup();
        pieces
    }

    /// Pieces gained so far: the `told_count` of a connection that has just sent the bit field.
    pub(crate) fn gained_count(&self) -> usize {
        lock(&self.gained).len()
    }

    /// How often each piece was sent.
    pub(crate) fn upload_history(&self) -> UploadHistory<impl Fn(PieceIndex) -> u32> {
        let sent = |index: PieceIndex| u32::from(self.sent[index.as_usize()].load(Ordering::Relaxed));
        let consumers = lock(&self.consumers).len();
        UploadHistory::new(self.geometry.pieces(), sent, self.sent_pieces.load(Ordering::Relaxed), consumers)
    }

    /// Counts a piece as sent when it is chosen, because it may have to wait before it is.
    pub(crate) fn count_chosen(&self, index: PieceIndex) {
        let counter = &self.sent[index.as_usize()];
        // Two connections at once may count one. The counter only decides which pieces are sent first.
        counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        self.sent_pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of a piece that are being sent.
    pub(crate) fn count_sent_bytes(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Admits a connection of a consumer, unless it has [`CONNECTIONS_PER_PEER`].
    pub(crate) fn admit(self: &Arc<Share>, peer: PeerKey) -> Option<ConsumerAdmission> {
        let mut consumers = lock(&self.consumers);
        let count = consumers.entry(peer).or_default();
        (*count < CONNECTIONS_PER_PEER).then(|| {
            *count += 1;
            ConsumerAdmission { share: Arc::clone(self), peer }
        })
    }

    /// Adds a listener, which [`Share::wake_listeners`] notifies until it is dropped.
    pub(crate) fn add_listener(&self, listener: &Arc<Notify>) {
        let mut listeners = lock(&self.listeners);
        // A whole file is seldom woken, so dropped listeners are removed here too.
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Wakes the connections, to tell of gained pieces or to end.
    pub(crate) fn wake_listeners(&self) {
        lock(&self.listeners)
            .retain(|listener| listener.upgrade().map(|listener| listener.notify_one()).is_some());
    }

    /// Ends the share: its connections say goodbye.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake_listeners();
    }

    /// Whether the share has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The source is no longer what was hashed: nothing more is served.
    pub(crate) fn set_source_changed(&self, change: SourceChange) {
        let path = self.file().path().to_owned();
        if self.change.set(SourceChangedError { path, change }.to_string()).is_ok() {
            let (file, change) = (&self.key, self.source_change());
            tracing::warn!(%file, change, "the source file has changed; it is no longer served");
            self.wake_listeners();
        }
    }

    /// How the source has changed, if it has.
    pub(crate) fn source_change(&self) -> Option<&str> {
        self.change.get().map(String::as_str)
    }

    /// Whether all of `content_id` is served here and its file is unchanged now. Waits for the filesystem, for a limited time.
    pub(crate) fn is_whole_unchanged(
        self: &Arc<Share>,
        content_id: Digest,
        threads: &FilesystemThreads,
    ) -> bool {
        let is_whole = || {
            matches!(*self.file(), ShareFile::Whole(_))
                && self.content_id == content_id
                && !self.is_closed()
                && self.source_change().is_none()
                && self.with_held(Bitfield::is_full)
        };
        let share = Arc::clone(self);
        is_whole()
            && threads.call(self.file().filesystem(), move || share.examine()).is_ok()
            && lock(&self.watch).trouble().is_none()
            && is_whole()
    }

    /// The open file, for a consumer; opens it if needed, and looks at it in any case. `None`: the file has changed, as [`Share::source_change`] says.
    ///
    /// # Errors
    /// [`NoAnswer`]: it cannot be opened now; the status of the share says why.
    pub(crate) async fn open(
        self: &Arc<Share>,
        threads: &FilesystemThreads,
    ) -> Result<Option<Arc<ServedSource>>, NoAnswer> {
        if self.source_change().is_some() {
            return Ok(None);
        }
        let (done, opened) = oneshot::channel();
        let (share, own_threads) = (Arc::clone(self), threads.clone());
        let work = move || {
            let opened = share.file().open(&own_threads);
            let state = if opened.is_ok() { share.file().examine() } else { SourceState::Unchanged };
            let opened = opened.map_err(|state| share.note_state(state)).ok();
            share.note_state(state);
            // The connection may be gone by now.
            let _ = done.send(opened);
        };
        threads.submit(self.file().filesystem(), work).map_err(|_| NoAnswer)?;
        let opened = tokio::time::timeout(Duration::from_millis(OPEN_WAIT_MS), opened).await;
        match opened.ok().and_then(Result::ok).flatten() {
            _ if self.source_change().is_some() => Ok(None),
            Some(source) => Ok(Some(source)),
            None => Err(NoAnswer),
        }
    }

    /// Whether the file is to be examined now; then the caller has that done by [`Share::examine`].
    pub(crate) fn take_examination(&self, now_ms: u64) -> bool {
        let is_open = self.file().source().is_some();
        self.source_change().is_none() && lock(&self.watch).take_examination(now_ms, is_open)
    }

    /// An examination could not be started.
    pub(crate) fn cancel_examination(&self) {
        lock(&self.watch).end_examination();
    }

    /// Looks at the file. Blocks.
    pub(crate) fn examine(&self) {
        let state = self.file().examine();
        lock(&self.watch).end_examination();
        self.note_state(state);
    }

    /// Notes what was found when looking at the file.
    pub(crate) fn note_state(&self, state: SourceState) {
        let trouble = match state {
            SourceState::Unreadable(trouble) => Some(trouble),
            SourceState::Unchanged => None,
            SourceState::Changed(change) => {
                self.set_source_changed(change);
                None
            }
            SourceState::NewAttributes => {
                self.doubt_whole();
                None
            }
        };
        lock(&self.watch).set_trouble(trouble);
    }

    /// The attributes of the file have changed, so its content may have changed too: no piece is held before it was hashed.
    pub(crate) fn doubt_whole(&self) {
        // The lock is held so that no verification adds pieces in between.
        let mut watch = lock(&self.watch);
        if watch.doubt_whole() {
            self.withhold_pieces();
        }
    }

    /// No piece is held until it is added again.
    pub(crate) fn withhold_pieces(&self) {
        *write(&self.held) = Bitfield::empty(self.geometry.pieces());
        lock(&self.gained).clear();
    }

    /// A consumer found that a piece was wrong; `pieces` are the last that it was sent.
    pub(crate) fn doubt_pieces(&self, pieces: impl IntoIterator<Item = PieceIndex>) {
        lock(&self.watch).doubt_pieces(pieces);
    }

    /// What is to be verified now. The caller has that done, and calls [`Share::end_verification`].
    pub(crate) fn take_doubt(&self, now_ms: u64) -> Option<RecheckScope> {
        lock(&self.watch).take_doubt(now_ms)
    }

    /// A verification has ended; `rest` is what has to be verified later.
    pub(crate) fn end_verification(&self, rest: Option<RecheckScope>) {
        lock(&self.watch).end_verification(rest);
    }

    /// Pieces of the partial file are not what was verified. Its download learns of them by [`Share::take_lost`].
    pub(crate) fn add_lost(&self, pieces: Vec<PieceIndex>) {
        self.remove_pieces(&pieces);
        lock(&self.lost).extend(pieces);
    }

    /// Pieces of the partial file that were found to be wrong since the last call.
    pub(crate) fn take_lost(&self) -> Vec<PieceIndex> {
        std::mem::take(&mut lock(&self.lost))
    }

    /// Closes the file when no consumer has needed it for a while.
    pub(crate) fn close_if_idle(&self, now_ms: u64) {
        let has_consumers = !lock(&self.consumers).is_empty();
        self.file().close_if_idle(has_consumers, now_ms);
    }

    /// Why the file is not served now although it has not changed, in words.
    fn trouble(&self, now_ms: u64) -> Option<String> {
        let watch = lock(&self.watch);
        let file = self.file();
        let path = file.path().display();
        let silent = |ms| format!("{path}: its filesystem has not answered for {} s", ms / 1_000);
        watch.no_answer_ms(now_ms).map(silent).or_else(|| watch.trouble().map(str::to_owned))
    }

    pub(crate) fn status(&self, now_ms: u64) -> ShareStatus {
        ShareStatus {
            key: self.key.clone(),
            held: self.with_held(Bitfield::count),
            pieces: self.geometry.pieces(),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            consumers: lock(&self.consumers).values().sum(),
            source_change: self.source_change().map(str::to_owned),
            trouble: self.trouble(now_ms),
            fingerprint: self.file().fingerprint(),
        }
    }
}

/// One admitted connection of a consumer, until it is dropped.
pub(crate) struct ConsumerAdmission {
    share: Arc<Share>,
    peer: PeerKey,
}

impl Drop for ConsumerAdmission {
    fn drop(&mut self) {
        let mut consumers = lock(&self.share.consumers);
        if let Some(count) = consumers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                consumers.remove(&self.peer);
            }
        }
    }
}
