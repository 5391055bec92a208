//! The way of every request: whose it is, whether its node moved, and which part carries it out.

use engine::proto::manifest::FileProof;

use crate::api::limits::PIECES_PER_MESSAGE;
use crate::api::request::{Command, DownloadView, PiecePage, Request};
use crate::state::command::{LogAction, LogCommand as Change};
use crate::state::id::{GroupFile, RequestId};

use super::super::clock::ClockReading;
use super::super::limits::{ANSWER_PEER_BYTES, ANSWER_PIECE_BYTES, JOINED_PIECE_BYTES};
use super::super::session_token;
use super::classic::peers_per_hash;
use super::lists::FileListQuery;
use super::replies;
use super::service::{Caller, RequestContext, RequestStep, Service, claimed_holder};
use super::swarms::DownloadQuery;

/// What a request's answer needs before it is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum AnswerRoom {
    /// Next to nothing.
    Negligible,
    /// About so many bytes, which have to be free.
    Bytes(usize),
    /// What a list comes to is known when it is built, page by page.
    List,
}

impl AnswerRoom {
    /// In bytes, as far as that is known.
    pub(in crate::server) fn bytes(self) -> usize {
        match self {
            AnswerRoom::Bytes(bytes) => bytes,
            AnswerRoom::Negligible | AnswerRoom::List => 0,
        }
    }
}

impl Service {
    /// What a request's answer needs before it is begun. Nothing is looked up for strangers.
    pub(in crate::server) fn answer_room(
        &mut self,
        caller: &Caller,
        request: &Request,
        now: ClockReading,
    ) -> AnswerRoom {
        match &request.command {
            Command::DownloadFile { file, view, part, .. } if self.has_valid_token(caller, request, now) => {
                AnswerRoom::Bytes(self.download_bytes(file, *view, *part))
            }
            Command::ListFiles { .. } | Command::ListGroups | Command::ListRequests { .. }
                if self.has_valid_token(caller, request, now) =>
            {
                AnswerRoom::List
            }
            _ => AnswerRoom::Negligible,
        }
    }

    /// Whether a session is named that was given out; whether it holds is asked later.
    fn has_valid_token(&self, caller: &Caller, request: &Request, now: ClockReading) -> bool {
        let is_given = |token: &String| {
            caller.session.as_ref().is_some_and(|bound| bound.token == *token)
                || session_token::verify_token(token, &self.keys.sessions, now.unix_s).is_some()
        };
        request.session.as_ref().map_or(caller.is_logged_in(), is_given)
    }

    /// About how long the description of a file is, in bytes.
    fn download_bytes(&mut self, file: &GroupFile, view: DownloadView, part: PiecePage) -> usize {
        let Some(listed) = self.state.file(file) else { return 0 };
        let pieces = listed.file.pieces;
        let asked_for = part.count.map_or(pieces, |count| count.0.min(pieces)) as usize;
        let asked_for = asked_for.min(PIECES_PER_MESSAGE);
        if view == DownloadView::Compact {
            return asked_for * ANSWER_PIECE_BYTES;
        }
        let peers = listed.holders.len() + self.state.leases.leecher_count(file);
        let of_piece = ANSWER_PIECE_BYTES + peers_per_hash(asked_for).min(peers) * ANSWER_PEER_BYTES;
        let joined = match listed.file.proof {
            FileProof::Whole(_) => 0,
            FileProof::PiecesOnly(_) => pieces as usize * JOINED_PIECE_BYTES,
        };
        asked_for * of_piece + joined
    }

    /// Begins to carry out a request.
    pub(in crate::server) fn begin_request(
        &mut self,
        caller: &mut Caller,
        request: Request,
        now: ClockReading,
    ) -> RequestStep {
        let Request { command, request_id, session, sender } = request;
        match command {
            Command::CreateUser { user, password } => return self.create_user(caller, user, password, now),
            Command::Login { user, password, peer_key } => {
                let node = sender.map(|sender| claimed_holder(caller, sender, peer_key));
                return self.login(user, password, node);
            }
            _ => {}
        }
        let request_id = request_id.map(|id| RequestId::of(&id.to_string()));
        if let Some(token) = session
            && let Err(failure) = self.resume_session(caller, &token, now)
        {
            let is_retry =
                matches!(command, Command::Logout) && self.logged_out_before(&token, request_id, now);
            return RequestStep::answer(if is_retry { replies::logged_out() } else { Err(failure) });
        }
        match command {
            Command::Ping => return RequestStep::answer(self.ping(caller, now)),
            Command::Status => return RequestStep::answer(self.status(now)),
            _ => {}
        }
        let Some((asked, moved)) = self.authenticate(caller, sender, request_id, now) else {
            return RequestStep::answer(Err(replies::not_logged_in()));
        };
        match moved {
            None => self.run_command(caller, asked, command, now),
            Some(node) => {
                let resume = Change::by(asked.actor.clone(), now.unix_s, None, LogAction::Resume { node });
                RequestStep::Propose(
                    Box::new(resume),
                    Box::new(move |service, caller, decision, now| match decision {
                        Ok(_) => service.run_command(caller, asked, command, now),
                        Err(refusal) => RequestStep::answer(Err(replies::refusal_failure(&refusal))),
                    }),
                )
            }
        }
    }

    fn run_command(
        &mut self,
        caller: &mut Caller,
        whole: RequestContext,
        command: Command,
        now: ClockReading,
    ) -> RequestStep {
        let asked = &whole;
        let answer = match command {
            Command::Logout => return Service::logout(asked, now),
            Command::ChangePassword { old, new } => return self.change_password(asked, old, new, now),
            Command::CreateGroup { .. }
            | Command::JoinGroup { .. }
            | Command::AcceptRequest { .. }
            | Command::RejectRequest { .. }
            | Command::RemoveMember { .. }
            | Command::LeaveGroup { .. } => return Service::change_group(asked, command, now),
            Command::UploadFile { group, manifest, peer_key } => {
                return Service::upload_file(asked, group, &manifest, peer_key, now);
            }
            Command::UploadPart { group, part, peer_key } => {
                return self.upload_part(asked, group, *part, peer_key, now);
            }
            Command::StopShare { file } => return self.stop_share(asked, file, now),
            Command::RemoveFile { file } => return Service::remove_file(asked, file, now),
            Command::UpdatePieces { file, gained } => return self.update_pieces(asked, file, &gained, now),
            Command::Whoami => self.whoami(asked, now),
            Command::ListRequests { group } => return self.list_requests(whole, group, Vec::new()),
            Command::ListGroups => return self.list_groups(whole, Vec::new()),
            Command::ListFiles { group, after, count } => {
                let count = count.map_or(usize::MAX, |count| count as usize);
                return self.list_files(whole, FileListQuery { group, after, count }, Vec::new(), now);
            }
            Command::DownloadFile { file, view, part, peer_key } => {
                return self.download_file(caller, asked, &DownloadQuery { file, view, part, peer_key }, now);
            }
            Command::GetPeers { file, peer_key } => self.get_peers(caller, asked, &file, peer_key, now),
            Command::ReportPeer { file, peer, reason } => self.report_peer(asked, &file, peer, &reason),
            Command::CreateUser { .. } | Command::Login { .. } | Command::Ping | Command::Status => {
                unreachable!("`begin` carries out what needs no login")
            }
        };
        RequestStep::answer(answer)
    }
}
