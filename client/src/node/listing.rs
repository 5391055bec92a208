//! Telling the trackers of a file that was hashed: in one message, or in parts where it is longer than a message may be.
//!
//! ```text
//!   manifest ──► parts, one in memory at a time ──► trackers ──► listed with the last
//!                        ▲                              │
//!                        └── all of them anew ◄─────────┘ lost, or it knows nothing of those before
//! ```
//!
//! Invariants: nothing is listed before the last part; an attempt that is begun anew has an upload's name of its own, so that no
//! part of an earlier one is taken for one of this.

use std::ops::Range;
use std::time::Duration;

use engine::proto::hashes::Hashes;
use engine::proto::manifest::Manifest;
use engine::proto::units::PieceIndex;
use serde::de::IgnoredAny;
use tracker::api::limits::PIECES_PER_MESSAGE;
use tracker::api::parts::{UploadEnd, UploadPart};
use tracker::api::request::Command;
use tracker::api::{GroupId, UploadId};

use super::core::Core;
use super::events::Events;
use super::trackers::Urgency;
use crate::exit::{Exit, Fault};
use crate::front::protocol::Event;
use crate::limits;

/// Has a file listed in a group, with this node as a seeder. What was lost on the way is sent again: to hash a terabyte takes
/// longer than a tracker is away. Without `events` nobody waits for it: then it is sent once, and again by whoever tries later.
///
/// # Errors
/// The trackers' refusal, or that none can be reached for long; or that the front end went away.
pub(super) fn list(
    core: &Core,
    group: &GroupId,
    manifest: &Manifest,
    events: Option<&Events<'_>>,
) -> Result<(), Fault> {
    let mut pause = Duration::from_millis(limits::RECONNECT_FIRST_MS);
    let mut tries = 1;
    loop {
        let fault = match send(core, group, manifest, events) {
            Ok(()) => return Ok(()),
            Err(Attempt::Given(fault)) => return Err(fault),
            Err(Attempt::Lost(fault)) => fault,
        };
        tries += 1;
        let Some(events) = events.filter(|_| tries <= limits::LISTING_TRIES) else { return Err(fault) };
        let text = format!("{fault}; {} is hashed, and is sent again", manifest.name());
        events.tell(Event::Notice { text })?;
        if core.ending.wait_for(pause) {
            return Err(fault);
        }
        pause = (pause * 2).min(Duration::from_millis(limits::RECONNECT_MAX_MS));
    }
}

/// Why an attempt ended.
enum Attempt {
    /// Another may do better.
    Lost(Fault),
    /// It is no use.
    Given(Fault),
}

fn send(
    core: &Core,
    group: &GroupId,
    manifest: &Manifest,
    events: Option<&Events<'_>>,
) -> Result<(), Attempt> {
    let urgency = if events.is_some() { Urgency::Asked } else { Urgency::Background };
    let peer_key = Some(core.peer.key());
    let ask = |command| core.trackers.ask::<IgnoredAny>(command, urgency).map(drop);
    if manifest.pieces().as_usize() <= PIECES_PER_MESSAGE {
        let manifest = Box::new(manifest.clone());
        return ask(Command::UploadFile { group: group.clone(), manifest, peer_key })
            .map_err(|fault| judged(fault, false));
    }
    let upload = upload_id().map_err(Attempt::Given)?;
    for part in parts(manifest, &upload, PIECES_PER_MESSAGE) {
        let begun = part.first.0 > 0;
        let done_bytes = manifest.geometry().offset(part.first);
        let progress = || {
            let (file, total_bytes) = (manifest.name().to_string(), manifest.geometry().length());
            Event::Listing { file, done_bytes, total_bytes }
        };
        events.map_or(Ok(()), |events| events.progress(progress)).map_err(Attempt::Given)?;
        ask(Command::UploadPart { group: group.clone(), part: Box::new(part), peer_key })
            .map_err(|fault| judged(fault, begun))?;
    }
    Ok(())
}

/// A tracker that is away comes back. One that has forgotten the parts before this one calls it out of order.
fn judged(fault: Fault, begun: bool) -> Attempt {
    match fault.exit {
        Exit::NoTracker => Attempt::Lost(fault),
        Exit::Usage if begun => Attempt::Lost(fault),
        _ => Attempt::Given(fault),
    }
}

/// The messages of an upload, each of `part_pieces` pieces but the last, made one after the other.
fn parts<'a>(
    manifest: &'a Manifest,
    upload: &'a UploadId,
    part_pieces: usize,
) -> impl Iterator<Item = UploadPart> + 'a {
    let pieces = manifest.pieces().as_usize();
    let part = move |range: Range<usize>| UploadPart {
        name: manifest.name().clone(),
        upload: upload.clone(),
        first: PieceIndex(u32::try_from(range.start).expect("pieces are counted in 32 bits")),
        digests: manifest.digests().range(range.clone()),
        chain: manifest.chain().map(|chain: &Hashes<_>| chain.range(range.clone())),
        end: (range.end == pieces).then(|| UploadEnd {
            length: manifest.length_known().then(|| manifest.geometry().length()),
            whole: manifest.proof().id(),
        }),
    };
    (0..pieces).step_by(part_pieces).map(move |start| part(start..pieces.min(start + part_pieces)))
}

/// A name that no other upload has.
fn upload_id() -> Result<UploadId, Fault> {
    let bad = |what: String| Fault::new(Exit::LocalIo, format!("the system gives no random bytes: {what}"));
    let stem = [getrandom::u64(), getrandom::u64()];
    let [high, low] = stem.map(|word| word.map_err(|error| bad(error.to_string())));
    UploadId::new(&format!("{:016x}{:016x}", high?, low?)).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::{FileName, FileProof};
    use engine::proto::units::{ChainState, Digest, PIECE_BYTES};
    use tracker::api::request::Request;

    use super::*;

    /// Pieces of a row: the least that a part may have.
    const ROW: usize = 4_096;

    fn manifest(pieces: usize) -> Manifest {
        let value = |index: usize| {
            let mut bytes = [5; 20];
            bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
            bytes
        };
        let digests = (0..pieces).map(|index| Digest(value(index))).collect();
        let chain = (1..pieces).map(|index| ChainState(value(index))).collect();
        let length = pieces as u64 * u64::from(PIECE_BYTES) - 1;
        let whole = FileProof::Whole(Digest([9; 20]));
        Manifest::new(FileName::new("f").unwrap(), Some(length), digests, whole, Some(chain)).unwrap()
    }

    #[test]
    fn parts_join_into_the_manifest_and_only_the_last_ends_it() {
        for (pieces, lengths) in
            [(2 * ROW, vec![ROW, ROW]), (2 * ROW + 1, vec![ROW, ROW, 1]), (ROW + 17, vec![ROW, 17])]
        {
            let manifest = manifest(pieces);
            let upload = UploadId::new("u").unwrap();
            let parts: Vec<UploadPart> = parts(&manifest, &upload, ROW).collect();
            assert_eq!(parts.iter().map(|part| part.digests.len()).collect::<Vec<_>>(), lengths);
            let firsts: Vec<usize> = parts.iter().map(|part| part.first.as_usize()).collect();
            assert_eq!(firsts, (0..lengths.len()).map(|part| part * ROW).collect::<Vec<_>>());
            let digests: Vec<Digest> = parts.iter().flat_map(|part| part.digests.clone()).collect();
            assert_eq!(manifest.digests(), &digests[..]);
            let chain: Vec<ChainState> = parts.iter().flat_map(|part| part.chain.clone().unwrap()).collect();
            assert_eq!(manifest.chain().unwrap(), &chain[..]);
            let (last, before) = parts.split_last().unwrap();
            assert!(before.iter().all(|part| part.end.is_none()));
            let length = Some(manifest.geometry().length());
            assert_eq!(last.end, Some(UploadEnd { length, whole: Digest([9; 20]) }));
        }
    }

    #[test]
    fn what_is_sent_is_what_trackers_read() {
        let manifest = manifest(2 * ROW + 5);
        for part in parts(&manifest, &upload_id().unwrap(), ROW) {
            let group = GroupId::new("g").unwrap();
            let request = Request::new(Command::UploadPart { group, part: Box::new(part), peer_key: None });
            assert_eq!(Request::parse(&request.to_json()).unwrap(), request);
        }
    }

    #[test]
    fn only_what_may_do_better_is_tried_again() {
        let again = |exit, begun| matches!(judged(Fault::new(exit, "m"), begun), Attempt::Lost(_));
        assert!(again(Exit::NoTracker, false) && again(Exit::NoTracker, true) && again(Exit::Usage, true));
        assert!(!again(Exit::Usage, false) && !again(Exit::Exists, true) && !again(Exit::NotAllowed, true));
    }
}
