//! Lists a file at the tracker: in one message, or in parts if it has more pieces than one message may carry.
//!
//! ```text
//!   manifest ──► parts, one in memory at a time ──► tracker ──► lists the file with the last part
//!                        ▲                             │
//!                        └──── all parts again ◄───────┘ if it has forgotten the earlier ones
//! ```
//!
//! Always true: the tracker does not list the file before the last part. Each attempt has its own upload id, so
//! that parts of different attempts are never joined.

use std::ops::Range;

use engine::proto::hashes::Sha1List;
use engine::proto::manifest::Manifest;
use engine::proto::units::PieceIndex;
use serde::de::IgnoredAny;
use tracker::api::failure::FailureCode;
use tracker::api::limits::PIECES_PER_MESSAGE;
use tracker::api::request::Command;
use tracker::api::upload_part::{UploadEnd, UploadPart};
use tracker::api::{GroupFile, UploadId};

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::trackers::RequestUrgency;

/// Lists a file in the name of `user`, with this node as its seeder. If that takes several messages, `report`
/// gets before each the number of bytes of the file that the parts sent so far describe.
///
/// # Errors
/// The tracker's refusal, or that no tracker can be reached; or the error of `report`.
pub(super) fn list_file(
    core: &NodeCore,
    user: &str,
    key: &GroupFile,
    manifest: &Manifest,
    urgency: RequestUrgency,
    report: &dyn Fn(u64) -> Result<(), ClientFault>,
) -> Result<(), ClientFault> {
    let (group, peer_key) = (key.group.clone(), Some(core.peer.key()));
    let ask = |command| core.trackers.request_as::<IgnoredAny>(user, command, urgency).map(drop);
    if manifest.pieces().as_usize() <= PIECES_PER_MESSAGE {
        let manifest = copy_to_memory(manifest)?;
        return ask(Command::UploadFile { group, manifest: Box::new(manifest), peer_key });
    }
    send_parts(manifest, PIECES_PER_MESSAGE, |part| {
        report(manifest.geometry().offset(part.first))?;
        ask(Command::UploadPart { group: group.clone(), part: Box::new(part), peer_key })
    })
}

/// Sends all parts. If the tracker has forgotten the earlier ones, sends all of them again.
fn send_parts(
    manifest: &Manifest,
    part_pieces: usize,
    mut send: impl FnMut(UploadPart) -> Result<(), ClientFault>,
) -> Result<(), ClientFault> {
    let mut attempts = 1;
    loop {
        let upload = new_upload_id()?;
        let mut has_accepted_part = false;
        let sent: Result<(), ClientFault> =
            split_parts(manifest, &upload, part_pieces).try_for_each(|part| {
                check_hashes(manifest)?;
                send(part)?;
                has_accepted_part = true;
                Ok(())
            });
        match sent {
            // The tracker answers "bad request" to a part if it has forgotten the earlier parts.
            Err(fault)
                if fault.exit == ExitCause::Usage
                    && has_accepted_part
                    && attempts < limits::LISTING_ATTEMPTS =>
            {
                tracing::info!("the parts of {} are sent anew: {fault}", manifest.name());
                attempts += 1;
            }
            // Parts that were forgotten in each attempt do not mean that the file is refused.
            Err(fault) if has_accepted_part => {
                return Err(ClientFault { refusal_code: refusal_unless_forgotten(&fault), ..fault });
            }
            sent => return sent,
        }
    }
}

/// The code of a refusal. `None` for a bad request, which may only mean that the tracker has forgotten the
/// earlier parts.
fn refusal_unless_forgotten(fault: &ClientFault) -> Option<FailureCode> {
    fault.refusal_code.filter(|code| *code != FailureCode::BadRequest)
}

/// A copy of a manifest with all hashes in memory, so that none can be lost while the message is written.
fn copy_to_memory(manifest: &Manifest) -> Result<Manifest, ClientFault> {
    let digests = manifest.digests().to_vec();
    let chain = manifest.chain().map(Sha1List::to_vec);
    check_hashes(manifest)?;
    let length = manifest.is_length_known().then(|| manifest.geometry().length());
    let same = Manifest::new(manifest.name().clone(), length, digests, manifest.proof(), chain);
    Ok(same.expect("the fields of a valid manifest make a valid one"))
}

/// Refuses a manifest that has lost hashes. Without this check they would be read as zeros.
fn check_hashes(manifest: &Manifest) -> Result<(), ClientFault> {
    let Some(place) = manifest.unreadable_at() else { return Ok(()) };
    let message = format!("hashes of {} that were kept in {place} are lost", manifest.name());
    Err(ClientFault::new(ExitCause::LocalIo, message).fix("check that disk, and upload the file again"))
}

/// Splits an upload into parts of `part_pieces` pieces; the last part may be shorter. Each part is made when it
/// is needed.
fn split_parts<'a>(
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
        chain: manifest.chain().map(|chain: &Sha1List<_>| chain.range(range.clone())),
        end: (range.end == pieces).then(|| UploadEnd {
            length: manifest.is_length_known().then(|| manifest.geometry().length()),
            whole: manifest.proof().id(),
        }),
    };
    (0..pieces).step_by(part_pieces).map(move |start| part(start..pieces.min(start + part_pieces)))
}

/// A random id.
fn new_upload_id() -> Result<UploadId, ClientFault> {
    let [high, low] = [getrandom::u64(), getrandom::u64()];
    let [high, low] = [high, low].map(|word| word.map_err(|error| ClientFault::no_random(&error)));
    UploadId::new(&format!("{:016x}{:016x}", high?, low?)).map_err(|error| {
        ClientFault::new(ExitCause::Other, format!("an upload cannot be given a name: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::{FileName, FileProof};
    use engine::proto::units::{ChainState, Digest, PIECE_BYTES};
    use tracker::api::GroupId;
    use tracker::api::request::Request;

    use super::*;
    use crate::node::disk::records::LosingBytes;

    /// The number of pieces in one stored row of a manifest at the tracker: the minimum for a part.
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
    fn parts_join_into_the_manifest_and_only_the_last_has_an_end() {
        for (pieces, lengths) in
            [(2 * ROW, vec![ROW, ROW]), (2 * ROW + 1, vec![ROW, ROW, 1]), (ROW + 17, vec![ROW, 17])]
        {
            let manifest = manifest(pieces);
            let upload = UploadId::new("u").unwrap();
            let parts: Vec<UploadPart> = split_parts(&manifest, &upload, ROW).collect();
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
    fn sent_parts_are_what_trackers_parse() {
        let manifest = manifest(2 * ROW + 5);
        for part in split_parts(&manifest, &new_upload_id().unwrap(), ROW) {
            let group = GroupId::new("g").unwrap();
            let request = Request::new(Command::UploadPart { group, part: Box::new(part), peer_key: None });
            assert_eq!(Request::parse(&request.to_json()).unwrap(), request);
        }
    }

    #[test]
    fn a_manifest_that_loses_hashes_while_it_is_copied_is_not_sent() {
        let right = manifest(2);
        assert_eq!(copy_to_memory(&right), Ok(right.clone()));
        let digests = Sha1List::from_backing(std::sync::Arc::new(LosingBytes::new(40)), 0, 2).unwrap();
        let length = Some(right.geometry().length());
        let losing =
            Manifest::from_lists(right.name().clone(), length, digests, right.proof(), None).unwrap();
        assert_eq!(losing.unreadable_at(), None);
        assert_eq!(copy_to_memory(&losing).unwrap_err().exit, ExitCause::LocalIo);
    }

    /// Sends parts to a tracker that answers with `exit` where `is_failing` says so. Returns the sent parts
    /// as (upload id, first piece).
    fn send_to_failing_tracker(
        exit: ExitCause,
        is_failing: impl Fn(usize) -> bool,
    ) -> (Result<(), ExitCause>, Vec<(UploadId, u32)>) {
        let mut sent = Vec::new();
        let result = send_parts(&manifest(3 * ROW), ROW, |part| {
            sent.push((part.upload, part.first.0));
            if is_failing(sent.len()) { Err(ClientFault::new(exit, "no")) } else { Ok(()) }
        });
        (result.map_err(|fault| fault.exit), sent)
    }

    #[test]
    fn forgotten_parts_are_sent_again_under_another_upload_id() {
        let (result, all) = send_to_failing_tracker(ExitCause::Usage, |count| count == 3);
        assert_eq!(result, Ok(()));
        let firsts: Vec<usize> = all.iter().map(|(_, first)| *first as usize / ROW).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
        assert!(all[..3].iter().all(|(upload, _)| *upload == all[0].0));
        assert!(all[3..].iter().all(|(upload, _)| *upload == all[3].0 && *upload != all[0].0));
    }

    #[test]
    fn only_a_bad_first_part_is_a_refusal_of_the_file() {
        let refused_at = |part: usize, code| {
            let mut count = 0;
            let result = send_parts(&manifest(2 * ROW), ROW, |_| {
                count += 1;
                let refused = Some(code);
                if (count - 1) % 2 == part {
                    Err(ClientFault { refusal_code: refused, ..ClientFault::new(ExitCause::Usage, "no") })
                } else {
                    Ok(())
                }
            });
            result.unwrap_err().refusal_code
        };
        assert_eq!(refused_at(0, FailureCode::BadRequest), Some(FailureCode::BadRequest));
        assert_eq!(
            refused_at(1, FailureCode::BadRequest),
            None,
            "the tracker may have forgotten the first part"
        );
        assert_eq!(refused_at(1, FailureCode::OtherContent), Some(FailureCode::OtherContent));
    }

    #[test]
    fn a_refused_part_is_not_sent_again_and_attempts_are_limited() {
        assert_eq!(
            send_to_failing_tracker(ExitCause::Usage, |count| count == 1).1.len(),
            1,
            "a bad first part is refused for its content"
        );
        for exit in [ExitCause::NoTracker, ExitCause::Exists, ExitCause::NotAllowed] {
            let (result, all) = send_to_failing_tracker(exit, |count| count == 2);
            assert_eq!((result, all.len()), (Err(exit), 2));
        }
        let (result, all) = send_to_failing_tracker(ExitCause::Usage, |count| count % 2 == 0);
        assert_eq!((result, all.len()), (Err(ExitCause::Usage), 6));
    }
}
