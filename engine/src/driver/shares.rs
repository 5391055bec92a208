//! The files that this node serves: whole ones, and what it holds of those that it downloads.
//!
//! Invariants: a piece counts as held only after it was verified and written; a share that was closed, or whose source has
//! changed, never starts another piece; no file is looked at under the lock of the table, since a filesystem that hangs would
//! stop every connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use tokio::sync::Notify;

use crate::lock::{lock, read, write};
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::limits::CONNECTIONS_PER_PEER;
use crate::proto::manifest::FileKey;
use crate::proto::steering::UploadHistory;
use crate::proto::ticket::PeerKey;
use crate::proto::units::{Digest, PieceIndex};
use crate::stats::ShareStatus;
use crate::storage::source::Source;

/// A file that is served.
#[derive(Debug)]
pub(crate) struct Share {
    key: FileKey,
    content_id: Digest,
    geometry: Geometry,
    source: Source,
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
}

impl Share {
    /// A share of the pieces `held` of `source`.
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

    /// The digest that names the content in tickets.
    pub(crate) fn content_id(&self) -> Digest {
        self.content_id
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
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
        let mut pieces = gained[*told_count..].to_vec();
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
    pub(crate) fn set_source_changed(&self, change: String) {
        if self.change.set(change).is_ok() {
            let (file, change) = (&self.key, self.source_change());
            tracing::warn!(%file, change, "the source file has changed; it is no longer served");
            self.wake_listeners();
        }
    }

    /// How the source has changed, if it has.
    pub(crate) fn source_change(&self) -> Option<&str> {
        self.change.get().map(String::as_str)
    }

    /// Whether all of `content_id` is served here and its file is unchanged now.
    fn is_whole_unchanged(&self, content_id: Digest) -> bool {
        let is_whole =
            self.content_id == content_id && !self.is_closed() && self.with_held(Bitfield::is_full);
        is_whole && self.source_change().is_none() && self.source.check_now().is_ok()
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

/// One admitted connection of a consumer, until it is dropped.
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
    /// Adds a share; one under the same key is closed.
    pub(crate) fn insert(&self, share: Arc<Share>) {
        let before = write(&self.by_key).insert(share.key.clone(), share);
        if let Some(before) = before {
            before.close();
        }
    }

    /// Adds a share, unless the whole of the same content is served under its key already. Whether it was added.
    pub(crate) fn insert_unless_whole(&self, share: Arc<Share>) -> bool {
        let content_id = share.content_id;
        self.insert_unless(share, |found| found.is_whole_unchanged(content_id))
    }

    /// Adds a share, unless the one under its key `stays`. It is called without the lock, and again when another share has
    /// come meanwhile.
    fn insert_unless(&self, share: Arc<Share>, stays: impl Fn(&Share) -> bool) -> bool {
        loop {
            let found = self.find(&share.key);
            if found.as_deref().is_some_and(&stays) {
                return false;
            }
            let mut by_key = write(&self.by_key);
            if by_key.get(&share.key).map(Arc::as_ptr) == found.as_ref().map(Arc::as_ptr) {
                by_key.insert(share.key.clone(), share);
                drop(by_key);
                found.inspect(|before| before.close());
                return true;
            }
        }
    }

    /// Closes the share under a key; whether there was one.
    pub(crate) fn remove(&self, key: &FileKey) -> bool {
        let share = write(&self.by_key).remove(key);
        share.map(|share| share.close()).is_some()
    }

    /// Closes this share, and removes it if it is the one under its key.
    pub(crate) fn remove_if_current(&self, share: &Arc<Share>) {
        let mut by_key = write(&self.by_key);
        if by_key.get(&share.key).is_some_and(|found| Arc::ptr_eq(found, share)) {
            by_key.remove(&share.key);
        }
        share.close();
    }

    /// The share under a key.
    pub(crate) fn find(&self, key: &FileKey) -> Option<Arc<Share>> {
        read(&self.by_key).get(key).cloned()
    }

    /// The status of each share; also checks whether its source has changed.
    pub(crate) fn statuses(&self, now_ms: u64) -> Vec<ShareStatus> {
        self.map_shares(|share| {
            if let Err(changed) = share.source.check(now_ms) {
                share.set_source_changed(changed.to_string());
            }
            share.status()
        })
    }

    /// Calls `look` with each share, without the lock.
    fn map_shares<R>(&self, look: impl Fn(&Share) -> R) -> Vec<R> {
        let all: Vec<_> = read(&self.by_key).values().cloned().collect();
        all.iter().map(|share| look(share)).collect()
    }

    /// Closes and removes all shares.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut *write(&self.by_key));
        all.values().for_each(|share| share.close());
    }
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
    fn files_are_looked_at_without_the_lock_of_the_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (shares, served) = (ShareTable::default(), share(file.path()));
        let is_free = || shares.by_key.try_write().is_ok();
        shares.insert(Arc::clone(&served));
        let asked = std::cell::Cell::new(0);
        let stays = |_: &Share| {
            asked.set(asked.get() + 1);
            assert!(is_free());
            false
        };
        assert!(shares.insert_unless(share(file.path()), stays));
        assert!(served.is_closed());
        assert_eq!((asked.get(), shares.map_shares(|_| is_free())), (1, vec![true]));
    }

    #[test]
    fn a_share_that_came_meanwhile_is_asked_about_too() {
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
    fn a_whole_file_stays_and_a_truncated_one_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(9).unwrap();
        let (shares, first) = (ShareTable::default(), share(file.path()));
        assert!(shares.insert_unless_whole(first));
        assert!(!shares.insert_unless_whole(share(file.path())));
        file.as_file().set_len(8).unwrap();
        assert!(shares.insert_unless_whole(share(file.path())));
    }
}
