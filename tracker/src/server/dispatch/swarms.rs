//! Swarms: download_file, get_peers, update_pieces, report_peer; also ping, status and check_address.
//!
//! A member's node that asks for a file joins the file's swarm as a leecher at once.

use std::net::SocketAddr;
use std::rc::Rc;

use engine::proto::manifest::FileProof;
use engine::proto::ticket::{PeerKey, Ticket};
use engine::proto::units::{Digest, PieceCount};

use crate::api::answers::{
    AddressProblem, CheckAddressAnswer, CommandAnswer, DownloadAnswer, PeerEntry, PeersAnswer, PingAnswer,
    StatusAnswer,
};
use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::hashes::{self, HashForm, HashList};
use crate::api::limits::PIECES_PER_MESSAGE;
use crate::api::request::{DownloadView, GainedPieces, PiecePage};
use crate::state::command::LogAction;
use crate::state::id::GroupFile;
use crate::state::leases::{AskingClient, PeerCandidate, ReportOutcome};
use crate::state::node::{NodeEndpoint, SwarmPeer};
use crate::state::outcome::CommandOutcome;
use crate::state::queries::FileView;

use super::super::address_check::AddressCheckJob;
use super::super::bodies;
use super::super::clock::ClockReading;
use super::super::tickets::TicketClaim;
use super::super::view_cache::ListedFile;
use super::classic::ClassicChunks;
use super::replies;
use super::service::{Caller, RequestContext, RequestStep, Service, StepResult};

/// A listed file as a request names it: the content may be left out.
#[derive(Clone, Copy)]
pub(super) struct ContentRequest<'a> {
    pub(super) file: &'a GroupFile,
    pub(super) content: Option<Digest>,
}

impl Service {
    /// Keeps the caller's session online, or unbinds a session that has ended.
    pub(super) fn renew_lease(&mut self, caller: &mut Caller, now: ClockReading) {
        if let Some(session) = caller.session.as_ref().map(|bound| bound.actor.session) {
            // A session that cannot be read counts as valid.
            if self.state.session_holds(session, now.unix_s) || !self.state.can_read() {
                self.state.leases.record_ping(session, caller.connection.id(), now.ms);
            } else {
                self.unbind_session(caller, now);
            }
        }
    }

    pub(super) fn answer_ping(&mut self, caller: &Caller, now: ClockReading) -> StepResult {
        let shares = self.count_shares(caller, now);
        let answer = CommandAnswer::Ping(PingAnswer {
            server_time: now.unix_s,
            shares,
            cluster: Some(self.state.cluster().to_owned()),
            revision: self.state.revision(),
        });
        RequestStep::answer(replies::success_with("pong", answer))
    }

    /// Names the session's node to no one any more, until its next `ping`.
    pub(super) fn go_offline(&mut self, context: &RequestContext, now: ClockReading) -> StepResult {
        self.state.leases.end_lease(context.actor.session, now.ms);
        RequestStep::answer(replies::plain_success("the node is offline"))
    }

    /// Number of files that the node of the caller's session shares; `None` without a session.
    fn count_shares(&mut self, caller: &Caller, now: ClockReading) -> Option<u64> {
        let session = caller.session.as_ref()?.actor.session;
        self.state.session(session, now.unix_s).map(|session| session.shares)
    }

    pub(super) fn status(&self, now: ClockReading) -> StepResult {
        let status = StatusAnswer {
            leader: Some(self.own_address),
            voters: vec![self.own_address],
            learners: Vec::new(),
            server_time: now.unix_s,
            cluster: Some(self.state.cluster().to_owned()),
            revision: self.state.revision(),
            refuses_changes: self.state.write_trouble(),
        };
        RequestStep::answer(replies::success_with(
            "the cluster has one tracker",
            CommandAnswer::Status(status),
        ))
    }

    /// Clients of the original protocol ask the tracker.
    pub(super) fn show_downloads() -> StepResult {
        RequestStep::succeed(
            "the tracker keeps no list of downloads: the client that fetches a file shows them",
        )
    }

    /// Calls the session's node back at the address under which it is listed.
    pub(super) fn check_address(
        &mut self,
        context: &RequestContext,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> StepResult {
        let node = context.sharing_node(peer_key)?;
        let peer_key = node.peer_key.ok_or_else(|| RequestFailure::field("peer_key", "is missing"))?;
        if !self.address_checks.admit(&context.actor.user, now.ms) {
            return Err(replies::too_many_checks());
        }
        let (session, address) = (context.actor.session, node.address);
        let report = move |service: &mut Service, _: &mut Caller, result: Result<(), AddressProblem>, _| {
            let message = match result {
                Ok(()) => {
                    service.state.leases.record_proof(session, node);
                    format!("the node answers at {address}")
                }
                Err(problem) => format!("the tracker cannot reach {address}: {problem}"),
            };
            let answer = CheckAddressAnswer { address, reached: result.is_ok(), problem: result.err() };
            RequestStep::answer(replies::success_with(message, CommandAnswer::CheckAddress(answer)))
        };
        Ok(RequestStep::CheckAddress(AddressCheckJob { address, peer_key }, Box::new(report)))
    }

    pub(super) fn download_file(
        &mut self,
        context: &RequestContext,
        wanted: ContentRequest<'_>,
        view: DownloadView,
        part: PiecePage,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> StepResult {
        let file = wanted.file;
        let listed = self.listed_content(context, wanted)?;
        let (first, shown_pieces) = requested_pieces(&listed.file, file, view, part)?;
        let ticket = self.issue_ticket(context, file, &listed.file, peer_key, now)?;
        self.join_swarm(context, file, &listed, peer_key);
        let pieces =
            self.state.queries().pieces(file, first, shown_pieces).ok_or_else(|| replies::no_file(file))?;
        let joined = self.joined_digests(file, &listed.file, view)?;
        let described = &listed.file;
        let choice = self.state.leases.choose_peers(file, listed.holders(), peer_asker(context), now.ms);
        let next = first + shown_pieces;
        let form = match view {
            DownloadView::Classic => HashForm::Hex,
            DownloadView::Compact => HashForm::Base64,
        };
        let mut answer = DownloadAnswer {
            file_path: described.name.clone(),
            chunk_metadata: None,
            file_size: described.length,
            file_sha: match described.proof {
                FileProof::Whole(digest) => Some(digest.to_string()),
                FileProof::PiecesOnly(_) => None,
            },
            pieces_only: matches!(described.proof, FileProof::PiecesOnly(_)),
            file_chain: pieces.chain.map(|values| HashList { form, values }),
            file_chunks: HashList { form, values: pieces.digests },
            peers: (view == DownloadView::Compact).then(|| choice.peers().map(peer_entry).collect()),
            ticket,
            server_time: now.unix_s,
            next: (next < described.pieces).then_some(next),
        };
        let message = format!("{file} has {}", replies::count_noun(described.pieces as usize, "piece"));
        if view == DownloadView::Compact {
            let answer = CommandAnswer::Download(Box::new(answer));
            return RequestStep::answer(replies::success_with(message, answer));
        }
        let classic = ClassicChunks::new(&choice, first, shown_pieces as usize);
        let elements =
            shown_pieces as usize * (1 + classic.named_peers()) + joined.as_ref().map_or(0, Vec::len);
        let build = move || {
            if let Some(digests) = joined {
                answer.file_sha = Some(hashes::joined_hex(&digests));
            }
            answer.chunk_metadata = Some(classic.chunks(&answer.file_chunks.values));
            replies::success_with(message, CommandAnswer::Download(Box::new(answer)))
        };
        if bodies::is_long_answer(elements) {
            Ok(RequestStep::BuildAnswer(Box::new(build)))
        } else {
            RequestStep::answer(build())
        }
    }

    pub(super) fn get_peers(
        &mut self,
        context: &RequestContext,
        wanted: ContentRequest<'_>,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> StepResult {
        let file = wanted.file;
        let listed = self.listed_content(context, wanted)?;
        let ticket = self.issue_ticket(context, file, &listed.file, peer_key, now)?;
        let choice = self.state.leases.choose_peers(file, listed.holders(), peer_asker(context), now.ms);
        let peers: Vec<PeerEntry> = choice.peers().map(peer_entry).collect();
        let message = format!("{} of {file}", replies::count_noun(peers.len(), "peer"));
        let answer = CommandAnswer::Peers(PeersAnswer { peers, ticket, server_time: now.unix_s });
        RequestStep::answer(replies::success_with(message, answer))
    }

    pub(super) fn update_pieces(
        &mut self,
        context: &RequestContext,
        file: GroupFile,
        content: Option<Digest>,
        gained: &GainedPieces,
        now: ClockReading,
    ) -> StepResult {
        let node = context.sharing_node(None)?;
        let listed = self.listed_content(context, ContentRequest { file: &file, content })?;
        match gained {
            GainedPieces::Confirmed(digests) if !listed.file.has_digests(digests) => {
                let remover = self.state.leases.removals.file_remover(&file);
                return Err(replies::content_replaced(&file, &listed.file, remover));
            }
            GainedPieces::Confirmed(_) => {}
            _ if content.is_none() => self.check_asked(&file, &listed.file, &own_peer(context, node))?,
            _ => {}
        }
        if !self.record_gain(context, &file, &listed, node, gained, now)? {
            return RequestStep::succeed("noted");
        }
        let is_stated = content.is_some() || !matches!(gained, GainedPieces::Complete);
        let listed = listed.file.content();
        let peer = own_peer(context, node);
        let complete = LogAction::Complete { file: file.clone(), node, content: Some(listed.id) };
        RequestStep::propose(
            context.to_command(now, complete),
            move |service, _, decision, _| match decision? {
                CommandOutcome::Completed => {
                    service.state.leases.record_seeder(&file, listed, &peer, is_stated);
                    RequestStep::succeed(format!("this node seeds {file}"))
                }
                other => Err(replies::unexpected_outcome(&other)),
            },
        )
    }

    /// Records pieces that a leecher has gained. Whether it has become a node with all pieces.
    fn record_gain(
        &mut self,
        context: &RequestContext,
        file: &GroupFile,
        listed: &ListedFile,
        node: NodeEndpoint,
        gained: &GainedPieces,
        now: ClockReading,
    ) -> Result<bool, RequestFailure> {
        let GainedPieces::Ranges(ranges) = gained else { return Ok(true) };
        if is_seeder(context, listed, node) {
            return Ok(false);
        }
        self.state
            .leases
            .record_pieces(file, listed.file.content(), own_peer(context, node), ranges, now.ms)
            .map_err(|bad| RequestFailure::field("ranges", bad))
    }

    pub(super) fn report_peer(
        &mut self,
        context: &RequestContext,
        wanted: ContentRequest<'_>,
        accused: SocketAddr,
        reason: &str,
    ) -> StepResult {
        let file = wanted.file;
        let listed = self.listed_content(context, wanted)?;
        let report = self.state.leases.record_report(file, &context.actor.user, accused, &listed.seeders);
        if report == ReportOutcome::Noted {
            tracing::info!(by = %context.actor.user, %file, %accused, reason, "a peer was reported");
        }
        RequestStep::succeed(match report {
            ReportOutcome::Noted | ReportOutcome::Again => {
                "noted; the tracker no longer names that peer to you"
            }
            ReportOutcome::NotFetched => "not counted: only a user who fetched the file may report its peers",
            ReportOutcome::NoPeer => "not counted: no node at that address has the file now",
            ReportOutcome::Full => "not counted: the list of reported peers of this file is full",
        })
    }

    /// A file that is listed in a group of which the user is a member, with the content that the request means.
    fn listed_content(
        &mut self,
        context: &RequestContext,
        wanted: ContentRequest<'_>,
    ) -> Result<Rc<ListedFile>, RequestFailure> {
        let file = wanted.file;
        self.require_member(context, &file.group)?;
        let Some(listed) = self.state.file(file) else {
            return Err(replies::file_gone(file, self.state.leases.removals.file_remover(file)));
        };
        match wanted.content {
            Some(content) if content != listed.file.content().id => {
                let remover = self.state.leases.removals.file_remover(file);
                Err(replies::content_replaced(file, &listed.file, remover))
            }
            _ => Ok(listed),
        }
    }

    /// Refuses a request that names no content, of a node that asked for other content than is listed now.
    pub(super) fn check_asked(
        &self,
        file: &GroupFile,
        listed: &FileView,
        peer: &SwarmPeer,
    ) -> Result<(), RequestFailure> {
        match self.state.leases.asked_content(file, peer) {
            Some(asked) if asked != listed.content() => {
                Err(replies::content_replaced(file, listed, self.state.leases.removals.file_remover(file)))
            }
            _ => Ok(()),
        }
    }

    /// Makes the node that asks for a file a leecher, unless it is a seeder: it shares the pieces that it has
    /// so far.
    fn join_swarm(
        &mut self,
        context: &RequestContext,
        file: &GroupFile,
        listed: &ListedFile,
        peer_key: Option<PeerKey>,
    ) {
        if let Some(node) = context.node(peer_key)
            && !is_seeder(context, listed, node)
        {
            self.state.leases.join_swarm(file, listed.file.content(), own_peer(context, node));
        }
    }

    fn issue_ticket(
        &mut self,
        context: &RequestContext,
        file: &GroupFile,
        listed: &FileView,
        peer_key: Option<PeerKey>,
        now: ClockReading,
    ) -> Result<Option<Ticket>, RequestFailure> {
        let Some(peer_key) = peer_key.or_else(|| context.node.and_then(|node| node.peer_key)) else {
            return Ok(None);
        };
        if !self.state.leases.admit_ticket_key(context.actor.session, peer_key) {
            return Err(replies::too_many_keys());
        }
        let claim = TicketClaim { user: &context.actor.user, file, file_id: listed.proof.id(), peer_key };
        Ok(Some(self.tickets.issue(claim, &self.keys.tickets, now.unix_s)))
    }

    /// The digests of all pieces, where the classic view joins them in place of the file's; see
    /// [`DownloadAnswer::file_sha`].
    fn joined_digests(
        &self,
        file: &GroupFile,
        listed: &FileView,
        view: DownloadView,
    ) -> Result<Option<Vec<Digest>>, RequestFailure> {
        match (listed.proof, view) {
            (FileProof::Whole(_), _) | (FileProof::PiecesOnly(_), DownloadView::Compact) => Ok(None),
            (FileProof::PiecesOnly(_), DownloadView::Classic) => {
                let all = self.state.queries().pieces(file, 0, listed.pieces);
                Ok(Some(all.ok_or_else(|| replies::no_file(file))?.digests))
            }
        }
    }
}

fn is_seeder(context: &RequestContext, listed: &ListedFile, node: NodeEndpoint) -> bool {
    let is_own =
        |peer: &SwarmPeer| peer.user == context.actor.user && peer.holder.identity() == node.identity();
    listed.seeders.iter().any(is_own)
}

/// The pieces that an answer describes: index of the first, and their number.
fn requested_pieces(
    listed: &FileView,
    file: &GroupFile,
    view: DownloadView,
    part: PiecePage,
) -> Result<(u32, u32), RequestFailure> {
    let first = part.first.0;
    if first > listed.pieces {
        return Err(RequestFailure::field("first", format!("{file} has {} pieces", listed.pieces)));
    }
    let rest = listed.pieces - first;
    let most = u32::try_from(PIECES_PER_MESSAGE).expect("the limit fits 32 bits");
    let count = part.count.map_or(rest, |PieceCount(count)| count.min(rest));
    if count > most && view == DownloadView::Classic {
        let message = format!("{file} has more pieces than the {most} that one message carries");
        return Err(RequestFailure::new(FailureCode::TooLarge, message).with_fix("view: compact"));
    }
    Ok((first, count.min(most)))
}

fn peer_asker(context: &RequestContext) -> AskingClient<'_> {
    AskingClient {
        user: &context.actor.user,
        address: context.node.map(|node| node.address),
        on_loopback: context.ip.is_loopback(),
    }
}

pub(super) fn own_peer(context: &RequestContext, node: NodeEndpoint) -> SwarmPeer {
    SwarmPeer { user: context.actor.user.clone(), holder: node, session: context.actor.session }
}

fn peer_entry(candidate: &PeerCandidate<'_>) -> PeerEntry {
    let NodeEndpoint { address, peer_key } = candidate.peer.holder;
    PeerEntry { ip: address.ip(), port: address.port(), peer_key, complete: candidate.is_complete() }
}
