//! Hashes a file for an upload in one read: piece digests, chain and file digest.
//!
//! ```text
//!             ┌─ pool: 16 pieces a job, in lanes ─► digests
//!   window ───┼─ pool: will_need(next window)
//!             └─ this thread: sequential pass ────► chain, file digest, progress
//! ```
//!
//! Pool and pass work on the same window before the next is lent, so a cold file is read from the disk once.
//! The sequential pass is the bottleneck: SHA-1 over the whole file on one core. The pool only has to keep
//! up.
//!
//! Invariants: windows are lent in order, start at pieces and cover the file exactly once; no byte is kept
//! past its window.

use std::ops::Range;
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::file_hash::FileHash;
use super::hasher::Hasher;
use super::limits::{JOB_PIECES, POOL_MAX_THREADS, WINDOW_PIECES};
use crate::proto::geometry::Geometry;
use crate::proto::units::{ChainState, Digest, PIECE_BYTES};

/// Length of a whole piece, for slices.
const PIECE: usize = PIECE_BYTES as usize;

/// Length of a job of the pool, in bytes.
const JOB_BYTES: usize = JOB_PIECES as usize * PIECE;

/// A file whose bytes are lent window by window.
pub trait WindowSource: Sync {
    /// Why a window cannot be lent, or changed while it was.
    type Error;

    /// Lends exactly the bytes of `range` to `read`, which may share them with other threads until it
    /// returns.
    ///
    /// # Errors
    /// The bytes cannot be read, or changed meanwhile; the result of `read` is dropped.
    fn with_window<R>(&self, range: Range<u64>, read: impl FnOnce(&[u8]) -> R) -> Result<R, Self::Error>;

    /// Whether lent bytes take memory of their own, so that windows have to be short. By default they do not.
    fn lends_copies(&self) -> bool {
        false
    }

    /// Announces that the bytes of `range` are needed next, from another thread, so that a cold file is read
    /// while the window before is hashed. The default does nothing.
    fn will_need(&self, range: Range<u64>) {
        let _ = range;
    }
}

impl WindowSource for [u8] {
    type Error = std::convert::Infallible;

    fn with_window<R>(&self, range: Range<u64>, read: impl FnOnce(&[u8]) -> R) -> Result<R, Self::Error> {
        let at = |offset: u64| usize::try_from(offset).expect("memory is addressed by usize");
        Ok(read(&self[at(range.start)..at(range.end)]))
    }
}

/// The hashes of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// SHA-1 of each piece, in order.
    pub digests: Vec<Digest>,
    /// The state after each piece but the last.
    pub chain: Vec<ChainState>,
    /// SHA-1 of the whole file.
    pub digest: Digest,
}

/// The hashes of one window.
#[derive(Clone, Copy, Debug)]
pub struct WindowHashes<'a> {
    /// SHA-1 of each of its pieces, in order.
    pub digests: &'a [Digest],
    /// The state after each of its pieces but the file's last.
    pub chain: &'a [ChainState],
}

/// The threads for hashing could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} threads for hashing ({source}): raise the limit that `ulimit -u` shows")]
pub struct PoolError {
    /// Number of threads requested.
    pub threads: usize,
    /// The system's error.
    pub source: rayon::ThreadPoolBuildError,
}

/// Hashes whole files: a hasher and the threads that work beside the sequential pass.
#[derive(Debug)]
pub struct FileHasher {
    hasher: Hasher,
    pool: ThreadPool,
}

impl FileHasher {
    /// Starts `threads` threads for the pieces; by default one for every CPU but that of the sequential pass,
    /// at most `POOL_MAX_THREADS`.
    ///
    /// # Errors
    /// [`PoolError`] when the system refuses the threads.
    pub fn new(hasher: Hasher, threads: Option<usize>) -> Result<FileHasher, PoolError> {
        let spare = || thread::available_parallelism().map_or(1, |cpus| cpus.get() - 1);
        let threads = threads.unwrap_or_else(|| spare().min(POOL_MAX_THREADS)).max(1);
        let named = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("hash-{i}"));
        let pool = named.build().map_err(|source| PoolError { threads, source })?;
        Ok(FileHasher { hasher, pool })
    }

    /// Number of threads that hash pieces beside the sequential pass.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Hashes a file of this layout and keeps everything in memory: see [`FileHasher::hash_into`].
    ///
    /// # Errors
    /// That of the source, from the first window that fails.
    ///
    /// # Panics
    /// As for [`FileHasher::hash_into`].
    pub fn hash_file<W: WindowSource + ?Sized>(
        &self,
        geometry: Geometry,
        source: &W,
        progress: impl FnMut(u64),
    ) -> Result<FileHashes, W::Error> {
        let pieces = geometry.pieces().as_usize();
        let mut digests = Vec::with_capacity(pieces);
        let mut chain = Vec::with_capacity(pieces.saturating_sub(1));
        let keep = |window: &WindowHashes<'_>| {
            digests.extend_from_slice(window.digests);
            chain.extend_from_slice(window.chain);
            Ok(())
        };
        let digest = self.hash_into(geometry, source, keep, progress)?;
        Ok(FileHashes { digests, chain, digest })
    }

    /// Hashes a file of this layout, and returns the digest of the whole. `keep` gets the hashes of each
    /// window, in order. `progress` gets the number of bytes behind the sequential pass, after each piece.
    ///
    /// # Errors
    /// That of the source, from the first window that fails; or that of `keep`.
    ///
    /// # Panics
    /// When the source lends more or fewer bytes than asked for.
    pub fn hash_into<W: WindowSource + ?Sized, E: From<W::Error>>(
        &self,
        geometry: Geometry,
        source: &W,
        mut keep: impl FnMut(&WindowHashes<'_>) -> Result<(), E>,
        mut progress: impl FnMut(u64),
    ) -> Result<Digest, E> {
        let mut digests = [Digest([0; 20]); WINDOW_PIECES as usize];
        let mut chain = Vec::with_capacity(WINDOW_PIECES as usize);
        let mut pass = FileHash::new(self.hasher);
        let window_pieces = if source.lends_copies() { JOB_PIECES } else { WINDOW_PIECES };
        let mut left = geometry.pieces().as_usize();
        while left > 0 {
            let window = window_at(geometry, pass.length(), window_pieces);
            let next = window_at(geometry, window.end, window_pieces);
            let found = &mut digests[..left.min(window_pieces as usize)];
            left -= found.len();
            chain.clear();
            source.with_window(window.clone(), |bytes| {
                assert_eq!(bytes.len() as u64, window.end - window.start, "a window is lent completely");
                self.pool.in_place_scope(|scope| {
                    for (job, out) in bytes.chunks(JOB_BYTES).zip(found.chunks_mut(JOB_PIECES as usize)) {
                        scope.spawn(move |_| {
                            let pieces: Vec<&[u8]> = job.chunks(PIECE).collect();
                            out.copy_from_slice(&self.hasher.digest_many(&pieces));
                        });
                    }
                    if !next.is_empty() {
                        scope.spawn(|_| source.will_need(next));
                    }
                    absorb_window(&mut pass, bytes, geometry, &mut chain, &mut progress);
                });
            })?;
            keep(&WindowHashes { digests: found, chain: &chain })?;
        }
        Ok(pass.finish())
    }
}

/// The window that starts at `start`; empty at the end of the file.
fn window_at(geometry: Geometry, start: u64, pieces: u32) -> Range<u64> {
    start..geometry.length().min(start + u64::from(pieces) * u64::from(PIECE_BYTES))
}

/// The sequential pass over one window. Appends the state after each piece except the file's last.
fn absorb_window(
    pass: &mut FileHash,
    window: &[u8],
    geometry: Geometry,
    chain: &mut Vec<ChainState>,
    progress: &mut impl FnMut(u64),
) {
    for piece in window.chunks(PIECE) {
        pass.update(piece);
        if pass.length() < geometry.length() {
            chain.push(pass.state().expect("a piece before the last fills its blocks"));
        }
        progress(pass.length());
    }
}
