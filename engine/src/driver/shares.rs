//! What this node serves: whole files, and what it has of those that it is fetching.
//!
//! Invariants: a piece counts as held only after it was verified and written; a share that was closed or whose source has
//! changed never sends another piece; no file is looked at under the lock of all shares, since a filesystem that hangs would
//! hold up every connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use tokio::sync::Notify;

use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::limits::CONNECTIONS_PER_PEER;
use crate::proto::manifest::FileKey;
use crate::proto::steering::UploadHistory;
use crate::proto::ticket::PeerKey;
use crate::proto::units::{Digest, PieceIndex};
use crate::stats::ShareStatus;
use crate::storage::source::Source;

/// One file that is served.
#[derive(Debug)]
pub(crate) struct Share {
    key: FileKey,
    content_id: Digest,
    geometry: Geometry,
    source: Source,
    held: RwLock<Bitfield>,
    /// Pieces gained since the share began, in order: each connection remembers how far it has told.
    gained: Mutex<Vec<PieceIndex>>,
    sent: Vec<AtomicU16>,
    sent_pieces: AtomicU64,
    sent_bytes: AtomicU64,
    consumers: Mutex<BTreeMap<PeerKey, usize>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
    is_closed: AtomicBool,
    change: OnceLock<String>,
}

impl Share {
    /// Serves what `held` says of `source`.
    pub(crate) fn new(
        key: FileKey,
        content_id: Digest,
        geometry: Geometry,
        source: Source,
        held: Bitfield,
    ) -> Share {
        Share {
            key,
            content_id,
            geometry,
            source,
            sent: held.pieces().indices().map(|_| AtomicU16::new(0)).collect(),
            held: RwLock::new(held),
            gained: Mutex::default(),
            sent_pieces: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            consumers: Mutex::default(),
            listeners: Mutex::default(),
            is_closed: AtomicBool::new(false),
            change: OnceLock::new(),
        }
    }

    /// What names its content.
    pub(crate) fn content_id(&self) -> Digest {
        self.content_id
    }

    /// Its layout.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Its file.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Calls `read` with the pieces that can be served.
    pub(crate) fn with_held<R>(&self, read: impl FnOnce(&Bitfield) -> R) -> R {
        read(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pieces that were verified and written just now.
    pub(crate) fn add_pieces(&self, pieces: &[PieceIndex]) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut gained = lock(&self.gained);
        gained.extend(pieces.iter().copied().filter(|index| held.insert(*index)));
    }

    /// Pieces that the disk has lost. Who was told of them is refused, until they are gained again.
    pub(crate) fn remove_pieces(&self, pieces: &[PieceIndex]) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for index in pieces {
            held.remove(*index);
        }
    }

    /// What was gained since `told`, which moves on.
    pub(crate) fn gained_since(&self, told: &mut usize) -> Vec<PieceIndex> {
        let gained = lock(&self.gained);
        let mut news = gained[*told..].to_vec();
        *told = gained.len();
        news.sort_unstable();
        // What was lost and gained again is told once.
        news.dedup();
        news
    }

    /// Everything that was gained counts as told: for a connection that just got the bit field.
    pub(crate) fn gained_count(&self) -> usize {
        lock(&self.gained).len()
    }

    /// How its pieces have gone out.
    pub(crate) fn spread(&self) -> UploadHistory<impl Fn(PieceIndex) -> u32> {
        let sent = |index: PieceIndex| u32::from(self.sent[index.as_usize()].load(Ordering::Relaxed));
        let consumers = lock(&self.consumers).len();
        UploadHistory::new(self.geometry.pieces(), sent, self.sent_pieces.load(Ordering::Relaxed), consumers)
    }

    /// Counts a piece that goes out, from when it was chosen: it may have to wait.
    pub(crate) fn count_chosen(&self, index: PieceIndex) {
        let counter = &self.sent[index.as_usize()];
        // Two connections at once may count one; it only decides what is sent first.
        counter.store(counter.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        self.sent_pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of a piece that go out.
    pub(crate) fn count_sent_bytes(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Lets a consumer in, unless it has as many connections as it may.
    pub(crate) fn admit(self: &Arc<Share>, peer: PeerKey) -> Option<ConsumerAdmission> {
        let mut consumers = lock(&self.consumers);
        let count = consumers.entry(peer).or_default();
        (*count < CONNECTIONS_PER_PEER).then(|| {
            *count += 1;
            ConsumerAdmission { share: Arc::clone(self), peer }
        })
    }

    /// Is notified by [`Share::wake_listeners`], and when the share closes.
    pub(crate) fn add_listener(&self, listener: &Arc<Notify>) {
        let mut listeners = lock(&self.listeners);
        // A share that nobody wakes would keep those of all connections that ever were.
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Wakes the connections, so that they tell what was gained or go.
    pub(crate) fn wake_listeners(&self) {
        lock(&self.listeners)
            .retain(|listener| listener.upgrade().map(|listener| listener.notify_one()).is_some());
    }

    /// Ends the share: its connections say goodbye.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake_listeners();
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The source is not what was hashed: nothing more is served.
    pub(crate) fn set_source_changed(&self, why: String) {
        if self.change.set(why).is_ok() {
            tracing::warn!(file = %self.key, why = self.source_change(), "the source has changed; it is no longer served");
            self.wake_listeners();
        }
    }

    /// Why nothing more is served, if so.
    pub(crate) fn source_change(&self) -> Option<&str> {
        self.change.get().map(String::as_str)
    }

    /// Whether everything of `content` is served here and its file still is what it was: looked up now.
    fn is_whole_unchanged(&self, content: Digest) -> bool {
        let whole = self.content_id == content && !self.is_closed() && self.with_held(Bitfield::is_full);
        whole && self.source_change().is_none() && self.source.check_now().is_ok()
    }

    fn status(&self) -> ShareStatus {
        ShareStatus {
            key: self.key.clone(),
            held: self.with_held(Bitfield::count),
            pieces: self.geometry.pieces(),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            consumers: lock(&self.consumers).values().sum(),
            source_change: self.source_change().map(str::to_owned),
        }
    }
}

/// A consumer's place at a share, until it is dropped.
#[derive(Debug)]
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

/// All shares of a node.
#[derive(Debug, Default)]
pub(crate) struct ShareTable {
    by_key: RwLock<BTreeMap<FileKey, Arc<Share>>>,
}

impl ShareTable {
    /// Serves a file; what was served under the same key ends.
    pub(crate) fn insert(&self, share: Arc<Share>) {
        let before =
            self.by_key.write().unwrap_or_else(PoisonError::into_inner).insert(share.key.clone(), share);
        if let Some(before) = before {
            before.close();
        }
    }

    /// Serves what a download has, unless the whole of the same content is served under the key already: that one stays.
    /// Whether this share serves from now on.
    pub(crate) fn insert_unless_whole(&self, share: Arc<Share>) -> bool {
        let content = share.content_id;
        self.insert_unless(share, |found| found.is_whole_unchanged(content))
    }

    /// As [`ShareTable::insert_unless_whole`], where `stays` says what does. It is asked about one share after the other until
    /// nothing has come in between.
    fn insert_unless(&self, share: Arc<Share>, stays: impl Fn(&Share) -> bool) -> bool {
        loop {
            let found = self.find(&share.key);
            if found.as_deref().is_some_and(&stays) {
                return false;
            }
            let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
            if by_key.get(&share.key).map(Arc::as_ptr) == found.as_ref().map(Arc::as_ptr) {
                by_key.insert(share.key.clone(), share);
                drop(by_key);
                found.inspect(|before| before.close());
                return true;
            }
        }
    }

    /// Stops serving; whether it was served.
    pub(crate) fn remove(&self, key: &FileKey) -> bool {
        let share = self.by_key.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        share.map(|share| share.close()).is_some()
    }

    /// Stops serving this very share, if it still is the one under its key.
    pub(crate) fn remove_if_current(&self, share: &Arc<Share>) {
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        if by_key.get(&share.key).is_some_and(|found| Arc::ptr_eq(found, share)) {
            by_key.remove(&share.key);
        }
        share.close();
    }

    /// What is served under a key.
    pub(crate) fn find(&self, key: &FileKey) -> Option<Arc<Share>> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All of them; notices by the way whose source has changed.
    pub(crate) fn statuses(&self, now_ms: u64) -> Vec<ShareStatus> {
        self.map_shares(|share| {
            if let Err(changed) = share.source.check(now_ms) {
                share.set_source_changed(changed.to_string());
            }
            share.status()
        })
    }

    /// What `look` makes of each of them.
    fn map_shares<R>(&self, look: impl Fn(&Share) -> R) -> Vec<R> {
        let all: Vec<_> =
            self.by_key.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.iter().map(|share| look(share)).collect()
    }

    /// Ends them all.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut *self.by_key.write().unwrap_or_else(PoisonError::into_inner));
        all.values().for_each(|share| share.close());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::manifest::FileName;

    fn share(path: &std::path::Path) -> Arc<Share> {
        let key = FileKey { group: "g".into(), name: FileName::new("f").unwrap() };
        let source = Source::open(path).unwrap();
        let geometry = Geometry::new(source.length()).unwrap();
        let held = Bitfield::full(geometry.pieces());
        Arc::new(Share::new(key, Digest([1; 20]), geometry, source, held))
    }

    #[test]
    fn a_file_is_looked_at_without_the_lock_of_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (shares, served) = (ShareTable::default(), share(file.path()));
        let free = || shares.by_key.try_write().is_ok();
        shares.insert(Arc::clone(&served));
        let asked = std::cell::Cell::new(0);
        let stays = |_: &Share| {
            asked.set(asked.get() + 1);
            assert!(free());
            false
        };
        assert!(shares.insert_unless(share(file.path()), stays));
        assert!(served.is_closed());
        assert_eq!((asked.get(), shares.map_shares(|_| free())), (1, vec![true]));
    }

    #[test]
    fn what_came_in_between_is_asked_about_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (shares, late) = (ShareTable::default(), share(file.path()));
        shares.insert(share(file.path()));
        let stays = |found: &Share| {
            let is_late = std::ptr::eq(found, &raw const *late);
            if !is_late {
                shares.insert(Arc::clone(&late));
            }
            is_late
        };
        assert!(!shares.insert_unless(share(file.path()), stays));
        assert!(Arc::ptr_eq(&shares.find(&late.key).unwrap(), &late) && !late.is_closed());
    }

    #[test]
    fn a_whole_file_stays_and_a_cut_one_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(9).unwrap();
        let (shares, first) = (ShareTable::default(), share(file.path()));
        assert!(shares.insert_unless_whole(first));
        assert!(!shares.insert_unless_whole(share(file.path())));
        file.as_file().set_len(8).unwrap();
        assert!(shares.insert_unless_whole(share(file.path())));
    }
}
