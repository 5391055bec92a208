//! Routes requests: estimates the room for the answer, checks the session, records a node that moved, and
//! calls the command.

use engine::proto::manifest::FileProof;

use crate::api::limits::{LIST_MAX_ENTRIES, PIECES_PER_MESSAGE};
use crate::api::request::{Command, DownloadView, PiecePage, Request};
use crate::state::command::{LogAction, LogCommand};
use crate::state::id::{GroupFile, RequestId};

use super::super::clock::ClockReading;
use super::super::limits::{ANSWER_PEER_BYTES, ANSWER_PIECE_BYTES, JOINED_PIECE_BYTES, LIST_ENTRY_BYTES};
use super::super::session_token;
use super::classic::peers_per_hash;
use super::replies;
use super::service::{Caller, RequestContext, RequestStep, Service, StepResult, claimed_holder};
use super::swarms::ContentRequest;

/// Room that the answer of a request needs before the request is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum AnswerRoom {
    /// Too little to be counted.
    Negligible,
    Bytes(usize),
}

impl AnswerRoom {
    /// The room in bytes; 0 where it is negligible.
    pub(in crate::server) fn bytes(self) -> usize {
        match self {
            AnswerRoom::Bytes(bytes) => bytes,
            AnswerRoom::Negligible => 0,
        }
    }
}

/// Most bytes of an answer to a list command.
fn list_room_bytes(count: Option<u32>) -> usize {
    count.unwrap_or(LIST_MAX_ENTRIES).min(LIST_MAX_ENTRIES) as usize * LIST_ENTRY_BYTES
}

impl Service {
    /// Estimates the room for the answer of a request. For an anonymous client nothing is looked up.
    pub(in crate::server) fn answer_room(
        &mut self,
        caller: &Caller,
        request: &Request,
        now: ClockReading,
    ) -> AnswerRoom {
        let has_room = match &request.command {
            Command::DownloadFile { .. }
            | Command::ListFiles { .. }
            | Command::ListGroups { .. }
            | Command::ListRequests { .. } => self.has_valid_token(caller, request, now),
            _ => false,
        };
        if !has_room {
            return AnswerRoom::Negligible;
        }
        AnswerRoom::Bytes(match &request.command {
            Command::DownloadFile { file, view, part, .. } => self.download_bytes(file, *view, *part),
            Command::ListFiles { page, .. } => list_room_bytes(page.count),
            Command::ListGroups { page } => list_room_bytes(page.count),
            Command::ListRequests { page, .. } => list_room_bytes(page.count),
            _ => 0,
        })
    }

    /// Whether the request names a session by a token that this cluster signed. Whether the session still
    /// exists is checked later.
    fn has_valid_token(&self, caller: &Caller, request: &Request, now: ClockReading) -> bool {
        let is_signed = |token: &String| {
            caller.session.as_ref().is_some_and(|bound| bound.token == *token)
                || session_token::verify_token(token, &self.keys.sessions, now.unix_s).is_some()
        };
        request.session.as_ref().map_or(caller.is_logged_in(), is_signed)
    }

    /// Estimated size of the answer to `download_file`, in bytes.
    fn download_bytes(&mut self, file: &GroupFile, view: DownloadView, part: PiecePage) -> usize {
        let Some(listed) = self.state.file(file) else { return 0 };
        let pieces = listed.file.pieces;
        let count = part.count.map_or(pieces, |count| count.0.min(pieces)) as usize;
        let count = count.min(PIECES_PER_MESSAGE);
        if view == DownloadView::Compact {
            return count * ANSWER_PIECE_BYTES;
        }
        let peers = listed.seeders.len() + self.state.leases.leecher_count(file);
        let piece_bytes = ANSWER_PIECE_BYTES + peers_per_hash(count).min(peers) * ANSWER_PEER_BYTES;
        let joined_bytes = match listed.file.proof {
            FileProof::Whole(_) => 0,
            FileProof::PiecesOnly(_) => pieces as usize * JOINED_PIECE_BYTES,
        };
        count * piece_bytes + joined_bytes
    }

    pub(in crate::server) fn begin_request(
        &mut self,
        caller: &mut Caller,
        request: Request,
        now: ClockReading,
    ) -> StepResult {
        let Request { command, request_id, session, sender } = request;
        match command {
            Command::CreateUser { user, password } => return self.create_user(caller, user, password, now),
            Command::Login { user, password, peer_key } => {
                let node = sender.map(|sender| claimed_holder(caller, sender, peer_key));
                return self.login(caller, user, password, node, now);
            }
            _ => {}
        }
        let request_id = request_id.map(|id| RequestId::of(&id.to_string()));
        if let Some(token) = session
            && let Err(failure) = self.resume_session(caller, &token, now)
        {
            let is_retry =
                matches!(command, Command::Logout) && self.is_retried_logout(&token, request_id, now);
            return if is_retry { RequestStep::answer(replies::logged_out()) } else { Err(failure) };
        }
        match command {
            Command::Status => return self.status(now),
            Command::Ping => self.renew_lease(caller, now),
            _ => {}
        }
        let peer_key = match &command {
            Command::DownloadFile { peer_key, .. } | Command::GetPeers { peer_key, .. } => *peer_key,
            _ => None,
        };
        let Some((context, moved)) = self.authenticate(caller, sender, peer_key, request_id, now) else {
            let is_ping = matches!(command, Command::Ping);
            return if is_ping { self.answer_ping(caller, now) } else { Err(replies::not_logged_in()) };
        };
        let Some(node) = moved else { return self.run_command(caller, context, command, now) };
        let resume = LogCommand::by(context.actor.clone(), now.unix_s, None, LogAction::Resume { node });
        RequestStep::propose(resume, move |service, caller, decision, now| {
            decision?;
            service.run_command(caller, context, command, now)
        })
    }

    fn run_command(
        &mut self,
        caller: &Caller,
        context: RequestContext,
        command: Command,
        now: ClockReading,
    ) -> StepResult {
        match command {
            Command::Ping => self.answer_ping(caller, now),
            Command::ShowDownloads => Service::show_downloads(),
            Command::Logout => Service::logout(&context, now),
            Command::ChangePassword { old, new } => self.change_password(&context, old, new, now),
            Command::Whoami => self.whoami(&context, now),
            Command::GoOffline => self.go_offline(&context, now),
            Command::CheckAddress { peer_key } => self.check_address(&context, peer_key, now),
            Command::CreateGroup { .. }
            | Command::JoinGroup { .. }
            | Command::AcceptRequest { .. }
            | Command::RejectRequest { .. }
            | Command::RemoveMember { .. }
            | Command::LeaveGroup { .. } => Service::change_group(&context, command, now),
            Command::UploadFile { group, manifest, peer_key } => {
                self.upload_file(&context, group, &manifest, peer_key, now)
            }
            Command::UploadPart { group, part, peer_key } => {
                self.upload_part(&context, group, *part, peer_key, now)
            }
            Command::StopShare { file, content } => self.stop_share(&context, file, content, now),
            Command::RemoveFile { file } => Service::remove_file(&context, file, now),
            Command::UpdatePieces { file, content, gained } => {
                self.update_pieces(&context, file, content, &gained, now)
            }
            Command::ListRequests { group, page } => self.list_requests(context, group, page, Vec::new()),
            Command::ListGroups { page } => self.list_groups(context, page, Vec::new()),
            Command::ListFiles { group, page } => self.list_files(context, group, page, Vec::new(), now),
            Command::DownloadFile { file, content, view, part, peer_key } => {
                let file = ContentRequest { file: &file, content };
                self.download_file(&context, file, view, part, peer_key, now)
            }
            Command::GetPeers { file, content, peer_key } => {
                self.get_peers(&context, ContentRequest { file: &file, content }, peer_key, now)
            }
            Command::ReportPeer { file, content, peer, reason } => {
                self.report_peer(&context, ContentRequest { file: &file, content }, peer, &reason)
            }
            Command::CreateUser { .. } | Command::Login { .. } | Command::Status => {
                unreachable!("`begin_request` carries out commands that need no login")
            }
        }
    }
}
