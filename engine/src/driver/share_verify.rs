//! Watches the files of all shares, and hashes again what is doubted of them.
//!
//! ```text
//!   thread `watch`, once a second ─► examine: on the threads of each filesystem, one file after the other
//!                                 ─► verify:  on another thread of that filesystem
//!                                 ─► close files that no consumer needs, end connections whose tickets are over
//! ```
//!
//! Invariants: the thread itself calls no filesystem; each filesystem has at most one verification at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::context::NodeContext;
use super::limits::VERIFY_BATCH;
use super::share_file::{ShareFile, SourceState, open_path};
use super::share_watch::RecheckScope;
use super::shares::Share;
use crate::abort::AbortOnPanic;
use crate::hash::{Hasher, PieceJob};
use crate::proto::manifest::Manifest;
use crate::proto::units::{PieceIndex, PieceRange};
use crate::storage::error::SourceChange;
use crate::storage::filesystem_threads::FilesystemId;
use crate::storage::source::Source;

/// Starts the thread that watches all shares.
pub(crate) fn start_watch(context: Arc<NodeContext>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("watch".into()).spawn(move || {
        let _abort = AbortOnPanic;
        while context.watch.wait() {
            context.places.end_expired(context.clock.now(), context.tracker_time());
            look_at_shares(&context);
        }
    })
}

/// Starts what is due for each share. Calls no filesystem.
fn look_at_shares(context: &Arc<NodeContext>) {
    let now_ms = context.clock.now().ms();
    let mut due: BTreeMap<FilesystemId, Vec<Arc<Share>>> = BTreeMap::new();
    for share in context.shares.all() {
        share.close_if_idle(now_ms);
        if share.take_examination(now_ms) {
            due.entry(share.file().filesystem()).or_default().push(Arc::clone(&share));
        }
        if let Some(doubt) = share.take_doubt(now_ms) {
            start_verification(context, &share, doubt);
        }
    }
    for (filesystem, shares) in due {
        let (work, shared) = (shares.clone(), Arc::clone(context));
        let examine = move || {
            work.iter().for_each(|share| share.examine());
            // One of them may have to be hashed now.
            shared.watch.wake();
        };
        if context.file_calls.submit(filesystem, examine).is_err() {
            shares.iter().for_each(|share| share.cancel_examination());
        }
    }
}

fn start_verification(context: &Arc<NodeContext>, share: &Arc<Share>, doubt: RecheckScope) {
    let (work, shared, verified) = (Arc::clone(share), Arc::clone(context), doubt.clone());
    let verify = move || {
        let rest = verify_file(&work, &verified, shared.hasher);
        work.end_verification(rest.then_some(verified));
        work.wake_listeners();
    };
    if context.verifiers.submit(share.file().filesystem(), verify).is_err() {
        share.end_verification(Some(doubt));
    }
}

/// Hashes what is doubted of a file. Returns whether it has to be done again, because the file cannot be read now. Blocks.
fn verify_file(share: &Share, doubt: &RecheckScope, hasher: Hasher) -> bool {
    let manifest = (share.manifest())();
    let Some(manifest) = manifest else {
        let trouble = format!("{}: its manifest cannot be read", share.file().path().display());
        share.note_state(SourceState::Unreadable(trouble));
        return true;
    };
    match hash_file_again(share, &manifest, doubt, hasher) {
        Ok(()) => false,
        Err(SourceState::Unchanged) => share.source_change().is_none() && !share.is_closed(),
        Err(state) => {
            let is_unreadable = matches!(state, SourceState::Unreadable(_));
            share.note_state(state);
            is_unreadable
        }
    }
}

/// Hashes the doubted pieces. The error is what was found instead of the file; [`SourceState::Unchanged`] stands for a share
/// that ended, or whose attributes changed meanwhile.
fn hash_file_again(
    share: &Share,
    manifest: &Manifest,
    doubt: &RecheckScope,
    hasher: Hasher,
) -> Result<(), SourceState> {
    let file = share.file();
    let whole = match &*file {
        ShareFile::Partial(source) => return find_lost_pieces(share, source, manifest, doubt, hasher),
        ShareFile::Whole(_) => open_path(file.path())?,
    };
    let now = whole.fingerprint().expect("a file that was opened by its path has a fingerprint");
    let expected = file.fingerprint().expect("a complete file has a fingerprint");
    if let Some(change) = expected.compare(&now).change() {
        return Err(SourceState::Changed(change));
    }
    let pieces: Vec<PieceIndex> = match doubt {
        RecheckScope::Pieces(pieces) => pieces.iter().copied().collect(),
        RecheckScope::Whole => share.geometry().pieces().indices().collect(),
    };
    tracing::info!(file = %share.key(), pieces = pieces.len(), "hashing a shared file again");
    for batch in PieceRange::from_ascending(pieces).into_iter().flat_map(split_batches) {
        if share.is_closed() {
            return Err(SourceState::Unchanged);
        }
        if !wrong_pieces(share, &whole, manifest, batch, hasher)?.is_empty() {
            return Err(match manifest.unreadable_at() {
                Some(place) => SourceState::Unreadable(format!("hashes that were kept in {place} are lost")),
                None => SourceState::Changed(SourceChange::Modified),
            });
        }
        if *doubt == RecheckScope::Whole {
            share.add_pieces(&batch.indices().collect::<Vec<_>>());
            share.wake_listeners();
        }
    }
    let has_new_attributes =
        whole.has_new_attributes().map_err(|changed| SourceState::Changed(changed.change))?;
    match doubt {
        RecheckScope::Whole if has_new_attributes => {
            share.withhold_pieces();
            Err(SourceState::Unchanged)
        }
        RecheckScope::Whole => {
            file.set_fingerprint(now);
            Ok(())
        }
        // The next examination sees what else changed.
        RecheckScope::Pieces(_) => Ok(()),
    }
}

/// Looks for doubted pieces of a partial file that are not what was verified.
fn find_lost_pieces(
    share: &Share,
    source: &Source,
    manifest: &Manifest,
    doubt: &RecheckScope,
    hasher: Hasher,
) -> Result<(), SourceState> {
    let RecheckScope::Pieces(pieces) = doubt else { return Ok(()) };
    for index in pieces {
        let lost = wrong_pieces(share, source, manifest, PieceRange::single(*index), hasher)?;
        if manifest.unreadable_at().is_none() && !lost.is_empty() {
            share.add_lost(lost);
        }
    }
    Ok(())
}

/// The pieces of a range whose bytes are not the manifest's.
fn wrong_pieces(
    share: &Share,
    source: &Source,
    manifest: &Manifest,
    range: PieceRange,
    hasher: Hasher,
) -> Result<Vec<PieceIndex>, SourceState> {
    let geometry = share.geometry();
    let start = geometry.offset(range.first());
    let verify = |bytes: &[u8]| {
        let job = |index: PieceIndex| {
            let at = usize::try_from(geometry.offset(index) - start).expect("a batch fits in memory");
            let bytes = &bytes[at..at + geometry.piece_len(index) as usize];
            PieceJob { bytes, digest: manifest.digest(index), link: None }
        };
        hasher.verify(&range.indices().map(job).collect::<Vec<_>>())
    };
    let verdicts = source
        .with_bytes(geometry.bytes(range), verify)
        .map_err(|changed| SourceState::Changed(changed.change))?;
    let wrong = range.indices().zip(verdicts).filter(|(_, verdict)| !verdict.digest_holds);
    Ok(wrong.map(|(index, _)| index).collect())
}

/// Parts of a range that are hashed at once.
fn split_batches(range: PieceRange) -> Vec<PieceRange> {
    let pieces: Vec<PieceIndex> = range.indices().collect();
    pieces.chunks(VERIFY_BATCH).flat_map(|batch| PieceRange::from_ascending(batch.iter().copied())).collect()
}
