//! Files of a group's list: upload_file, stop_share, remove_file.

use std::collections::VecDeque;

use engine::proto::hashes::Sha1List;
use engine::proto::manifest::{FileProof, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::Digest;

use crate::api::failure::RequestFailure;
use crate::api::upload_part::UploadPart;
use crate::state::command::{LogAction, LogCommand, ManifestEnd, ManifestPart};
use crate::state::id::{Actor, RequestId, UploadId};
use crate::state::id::{GroupFile, GroupId};
use crate::state::limits::MANIFEST_ROW_PIECES;
use crate::state::node::{NodeEndpoint, SwarmPeer};
use crate::state::outcome::{CommandOutcome, CommandRefusal};

use super::super::clock::ClockReading;
use super::replies;
use super::service::{RequestContext, RequestStep, Service, StepResult};
use super::swarms::own_peer;

/// An upload whose manifest is proposed to the state in parts.
struct StagedUpload {
    actor: Actor,
    request_id: Option<RequestId>,
    file: GroupFile,
    node: NodeEndpoint,
    /// Name of the stored parts; `None` when there is only one part.
    id: Option<UploadId>,
    /// Index of the next part's first piece.
    first: u32,
    parts: VecDeque<ManifestPart>,
    /// Length and proof of the file, for its last part; `None` where the client sends that part later.
    end: Option<(Option<u64>, FileProof)>,
}

impl Service {
    pub(super) fn upload_file(
        &mut self,
        context: &RequestContext,
        group: GroupId,
        manifest: &Manifest,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> StepResult {
        let file = GroupFile { group, name: manifest.name().clone() };
        self.check_new_name(context, &file)?;
        let node = context.sharing_node(peer_key)?;
        let chain = manifest.chain().map(Sha1List::to_vec);
        let parts = VecDeque::from(ManifestPart::split(&manifest.digests().to_vec(), chain.as_deref()));
        let id = if parts.len() > 1 { random_upload_id() } else { None };
        if parts.len() > 1 && id.is_none() {
            return Err(replies::internal_failure());
        }
        let upload = StagedUpload {
            actor: context.actor.clone(),
            request_id: context.request_id,
            file,
            node,
            id,
            first: 0,
            parts,
            end: Some((manifest.is_length_known().then(|| manifest.geometry().length()), manifest.proof())),
        };
        upload.next_part(now)
    }

    /// Takes one message of an upload that the client sends in parts.
    pub(super) fn upload_part(
        &mut self,
        context: &RequestContext,
        group: GroupId,
        part: UploadPart,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> StepResult {
        self.require_member(context, &group)?;
        let file = GroupFile { group, name: part.name };
        self.check_new_name(context, &file)?;
        let node = context.sharing_node(peer_key)?;
        let upload = StagedUpload {
            actor: context.actor.clone(),
            request_id: context.request_id,
            file,
            node,
            id: Some(part.upload),
            first: part.first.0,
            parts: VecDeque::from(ManifestPart::split(&part.digests, part.chain.as_deref())),
            end: part.end.map(|end| (end.length, FileProof::Whole(end.whole))),
        };
        upload.next_part(now)
    }

    /// Refuses a name that looks like another one, unless a file is listed under it already: its nodes list it again when
    /// they come back.
    fn check_new_name(&mut self, context: &RequestContext, file: &GroupFile) -> Result<(), RequestFailure> {
        let Err(bad) = file.name.check_new() else { return Ok(()) };
        // Only members may learn which names are listed.
        self.require_member(context, &file.group)?;
        match self.state.queries().file(file) {
            Some(_) => Ok(()),
            None => Err(RequestFailure::field("file_name", bad).with_fix("choose another name")),
        }
    }

    /// Ends this node's share, as a seeder in the state and as a leecher in the leases.
    pub(super) fn stop_share(
        &mut self,
        context: &RequestContext,
        file: GroupFile,
        content: Option<Digest>,
        now: ClockReading,
    ) -> StepResult {
        let node = context.sharing_node(None)?;
        if content.is_none()
            && let Some(listed) = self.state.file(&file)
        {
            self.check_asked(&file, &listed.file, &own_peer(context, node))?;
        }
        let was_leecher = self.state.leases.leave_swarm(&file, content, &context.actor.user, node);
        let message = format!("this node no longer shares {file}");
        let stop = LogAction::StopShare { file, node, content };
        RequestStep::propose(context.to_command(now, stop), move |_, _, decision, _| match decision {
            Err(CommandRefusal::NotShared(_)) if was_leecher => RequestStep::succeed(message),
            Ok(CommandOutcome::ShareStopped) => RequestStep::succeed(message),
            Ok(other) => Err(replies::unexpected_outcome(&other)),
            Err(refusal) => Err(refusal.into()),
        })
    }

    pub(super) fn remove_file(context: &RequestContext, file: GroupFile, now: ClockReading) -> StepResult {
        let message = format!("{file} is removed");
        let remove = context.to_command(now, LogAction::RemoveFile { file });
        RequestStep::propose(remove, move |_, _, decision, _| {
            decision?;
            RequestStep::succeed(message)
        })
    }
}

impl StagedUpload {
    /// Proposes the next part. The last part of the file lists it.
    fn next_part(mut self, now: ClockReading) -> StepResult {
        let Some(part) = self.parts.pop_front() else {
            let StagedUpload { file, first, .. } = self;
            return RequestStep::succeed(format!("the next part of {file} begins at piece {first}"));
        };
        let ends_here = if self.parts.is_empty() { self.end } else { None };
        let (length, proof) = match (&self.id, ends_here) {
            (Some(id), None) => {
                let action = LogAction::UploadPart { upload: id.clone(), first: self.first, part };
                let command = LogCommand::by(self.actor.clone(), now.unix_s, None, action);
                self.first += MANIFEST_ROW_PIECES;
                return RequestStep::propose(command, move |_, _, decision, now| {
                    decision?;
                    self.next_part(now)
                });
            }
            (_, Some(end)) => end,
            (None, None) => unreachable!("an upload without a name has one part, which is the last"),
        };
        let StagedUpload { actor, request_id, file, node, id, first, .. } = self;
        let manifest = ManifestEnd { upload: id, first, part, length, proof };
        let action = LogAction::Upload { file: file.clone(), manifest, node };
        let peer = SwarmPeer { user: actor.user.clone(), holder: node, session: actor.session };
        let command = LogCommand::by(actor, now.unix_s, request_id, action);
        RequestStep::propose(command, move |service, _, decision, _| {
            let message = match decision? {
                CommandOutcome::Uploaded { new_file: true } => match proof {
                    FileProof::Whole(_) => format!("{file} is shared"),
                    FileProof::PiecesOnly(_) => {
                        format!(
                            "{file} is shared; without the SHA-1 of the whole, only its pieces can be proven"
                        )
                    }
                },
                CommandOutcome::Uploaded { new_file: false } => {
                    format!("{file} is already listed with this content; this node seeds it too")
                }
                other => return Err(replies::unexpected_outcome(&other)),
            };
            if let Some(listed) = service.state.file(&file) {
                service.state.leases.record_seeder(&file, listed.file.content(), &peer, true);
            }
            RequestStep::succeed(message)
        })
    }
}

/// A random name for the parts of an upload; `None` when the system gives no random bytes.
fn random_upload_id() -> Option<UploadId> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .inspect_err(|error| tracing::error!(%error, "the system gives no random bytes"))
        .ok()?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(UploadId::new(&text).expect("32 hex digits are an id"))
}
