//! Files as the group's list has them: upload_file, stop_share, remove_file.

use std::collections::VecDeque;

use engine::proto::hashes::Hashes;
use engine::proto::manifest::{FileProof, Manifest};
use engine::proto::ticket::PeerKey;

use crate::api::parts::UploadPart;
use crate::state::command::{Action, Command as Change, ManifestEnd, ManifestPart};
use crate::state::id::{Actor, RequestId, UploadId};
use crate::state::id::{FileKey, GroupId};
use crate::state::limits::MANIFEST_ROW_PIECES;
use crate::state::node::Holder;
use crate::state::outcome::{Outcome, Refusal};

use super::super::clock::Now;
use super::replies;
use super::service::{Asked, Service, Step};

/// An upload whose manifest goes to the state in parts.
struct Upload {
    actor: Actor,
    request_id: Option<RequestId>,
    file: FileKey,
    node: Holder,
    /// The name under which parts are kept; `None` when there is only one, which ends the upload.
    id: Option<UploadId>,
    /// Index of the next part's first piece.
    first: u32,
    parts: VecDeque<ManifestPart>,
    /// What the last part says about the whole; `None` where the client sends that later.
    end: Option<(Option<u64>, FileProof)>,
}

impl Service {
    pub(super) fn upload(
        asked: &Asked,
        group: GroupId,
        manifest: &Manifest,
        peer_key: Option<PeerKey>,
        now: Now,
    ) -> Step {
        let node = match asked.sharing_node(peer_key) {
            Ok(node) => node,
            Err(failure) => return Step::done(Err(failure)),
        };
        let chain = manifest.chain().map(Hashes::to_vec);
        let parts = VecDeque::from(ManifestPart::split(&manifest.digests().to_vec(), chain.as_deref()));
        let id = if parts.len() > 1 { upload_id() } else { None };
        if parts.len() > 1 && id.is_none() {
            return Step::done(Err(replies::internal()));
        }
        let upload = Upload {
            actor: asked.actor.clone(),
            request_id: asked.request_id,
            file: FileKey { group, name: manifest.name().clone() },
            node,
            id,
            first: 0,
            parts,
            end: Some((manifest.length_known().then(|| manifest.geometry().length()), manifest.proof())),
        };
        upload.next_part(now)
    }

    /// One message of an upload that its client sends in parts.
    pub(super) fn upload_part(
        &mut self,
        asked: &Asked,
        group: GroupId,
        part: UploadPart,
        peer_key: Option<PeerKey>,
        now: Now,
    ) -> Step {
        let node = match self.member(asked, &group).and_then(|()| asked.sharing_node(peer_key)) {
            Ok(node) => node,
            Err(failure) => return Step::done(Err(failure)),
        };
        let upload = Upload {
            actor: asked.actor.clone(),
            request_id: asked.request_id,
            file: FileKey { group, name: part.name },
            node,
            id: Some(part.upload),
            first: part.first.0,
            parts: VecDeque::from(ManifestPart::split(&part.digests, part.chain.as_deref())),
            end: part.end.map(|end| (end.length, FileProof::Whole(end.whole))),
        };
        upload.next_part(now)
    }

    /// Ends this node's share: as a seeder in the state, as a leecher in the leases.
    pub(super) fn stop_share(&mut self, asked: &Asked, file: FileKey, now: Now) -> Step {
        let node = match asked.sharing_node(None) {
            Ok(node) => node,
            Err(failure) => return Step::done(Err(failure)),
        };
        let fetched = self.proposals.leases.leave(&file, &asked.actor.user, node);
        let stop = Action::StopShare { file: file.clone(), node };
        Step::Propose(
            asked.change(now, stop),
            Box::new(move |_, _, decision, _| {
                let stopped = || replies::done(format!("this node no longer shares {file}"));
                Step::done(match decision {
                    Ok(Outcome::ShareStopped) => stopped(),
                    Err(Refusal::NotShared(_)) if fetched => stopped(),
                    Ok(other) => Err(replies::unexpected(&other)),
                    Err(refusal) => Err(replies::refused(&refusal)),
                })
            }),
        )
    }

    pub(super) fn remove_file(asked: &Asked, file: FileKey, now: Now) -> Step {
        let message = format!("{file} is removed");
        Step::Propose(
            asked.change(now, Action::RemoveFile { file }),
            Box::new(move |_, _, decision, _| {
                Step::done(match decision {
                    Ok(_) => replies::done(message),
                    Err(refusal) => Err(replies::refused(&refusal)),
                })
            }),
        )
    }
}

impl Upload {
    /// Proposes the next part; the file's last one lists it.
    fn next_part(mut self, now: Now) -> Step {
        let Some(part) = self.parts.pop_front() else {
            let Upload { file, first, .. } = self;
            return Step::done(replies::done(format!("the next part of {file} begins at piece {first}")));
        };
        let ends_here = if self.parts.is_empty() { self.end } else { None };
        let (length, proof) = match (&self.id, ends_here) {
            (Some(id), None) => {
                let action = Action::UploadPart { upload: id.clone(), first: self.first, part };
                let change = Change::by(self.actor.clone(), now.unix_s, None, action);
                self.first += MANIFEST_ROW_PIECES;
                return Step::Propose(
                    Box::new(change),
                    Box::new(move |_, _, decision, now| match decision {
                        Ok(_) => self.next_part(now),
                        Err(refusal) => Step::done(Err(replies::refused(&refusal))),
                    }),
                );
            }
            (_, Some(end)) => end,
            (None, None) => unreachable!("without a name there is one part, and it ends the upload"),
        };
        let Upload { actor, request_id, file, node, id, first, .. } = self;
        let manifest = ManifestEnd { upload: id, first, part, length, proof };
        let action = Action::Upload { file: file.clone(), manifest, node };
        Step::Propose(
            Box::new(Change::by(actor, now.unix_s, request_id, action)),
            Box::new(move |_, _, decision, _| {
                let pieces_only = match proof {
                    FileProof::Whole(_) => "",
                    FileProof::PiecesOnly(_) => {
                        "; without the SHA-1 of the whole, only its pieces can be proven"
                    }
                };
                Step::done(match decision {
                    Ok(Outcome::Uploaded { new_file: true }) => {
                        replies::done(format!("{file} is shared{pieces_only}"))
                    }
                    Ok(Outcome::Uploaded { new_file: false }) => replies::done(format!(
                        "{file} is there already, with this content; this node seeds it too"
                    )),
                    Ok(other) => Err(replies::unexpected(&other)),
                    Err(refusal) => Err(replies::refused(&refusal)),
                })
            }),
        )
    }
}

/// A random name for the parts of one upload; `None` when the system gives no random bytes.
fn upload_id() -> Option<UploadId> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .inspect_err(|error| tracing::error!(%error, "the system gives no random bytes"))
        .ok()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(UploadId::new(&text).expect("32 hex digits are an id"))
}
