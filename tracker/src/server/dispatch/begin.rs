//! The way of every request: whose it is, whether its node moved, and which part carries it out.

use crate::api::limits::PIECES_PER_MESSAGE;
use crate::api::request::{Command, Request};
use crate::state::command::{Action, Command as Change};
use crate::state::id::RequestId;

use super::super::clock::Now;
use super::super::limits::ANSWER_PIECE_BYTES;
use super::replies;
use super::service::{Asked, Caller, Service, Step, holder};
use super::swarms::Wanted;

impl Service {
    /// About how long a request's answer is, in bytes, where it can be long: then it is only begun when there is room. What a
    /// list comes to is known when it is built; it is not begun while there is no room at all.
    pub(in crate::server) fn answer_bytes(&mut self, request: &Request) -> Option<usize> {
        match &request.command {
            Command::DownloadFile { file, part, .. } => {
                let pieces = self.proposals.file(file).map_or(0, |listed| listed.file.pieces);
                let asked_for = part.count.map_or(pieces, |count| count.0.min(pieces)) as usize;
                Some(asked_for.min(PIECES_PER_MESSAGE) * ANSWER_PIECE_BYTES)
            }
            Command::ListFiles { .. } | Command::ListGroups | Command::ListRequests { .. } => Some(0),
            _ => None,
        }
    }

    /// Begins to carry out a request.
    pub(in crate::server) fn begin(&mut self, caller: &mut Caller, request: Request, now: Now) -> Step {
        let Request { command, request_id, session, sender } = request;
        match command {
            Command::CreateUser { user, password } => return self.create_user(caller, user, password, now),
            Command::Login { user, password, peer_key } => {
                let node = sender.map(|sender| holder(caller, sender, peer_key));
                return self.login(user, password, node);
            }
            _ => {}
        }
        let request_id = request_id.map(|id| RequestId::of(&id.to_string()));
        if let Some(token) = session
            && let Err(failure) = self.resume(caller, &token, now)
        {
            let is_retry =
                matches!(command, Command::Logout) && self.logged_out_before(&token, request_id, now);
            return Step::done(if is_retry { replies::logged_out() } else { Err(failure) });
        }
        match command {
            Command::Ping => return Step::done(self.ping(caller, now)),
            Command::Status => return Step::done(self.status(now)),
            _ => {}
        }
        let Some((asked, moved)) = self.asked(caller, sender, request_id, now) else {
            return Step::done(Err(replies::not_logged_in()));
        };
        match moved {
            None => self.carry_out(caller, &asked, command, now),
            Some(node) => {
                let resume = Change::by(asked.actor.clone(), now.unix_s, None, Action::Resume { node });
                Step::Propose(
                    Box::new(resume),
                    Box::new(move |service, caller, _, now| service.carry_out(caller, &asked, command, now)),
                )
            }
        }
    }

    fn carry_out(&mut self, caller: &mut Caller, asked: &Asked, command: Command, now: Now) -> Step {
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
                return Service::upload(asked, group, &manifest, peer_key, now);
            }
            Command::UploadPart { group, part, peer_key } => {
                return self.upload_part(asked, group, *part, peer_key, now);
            }
            Command::StopShare { file } => return self.stop_share(asked, file, now),
            Command::RemoveFile { file } => return Service::remove_file(asked, file, now),
            Command::UpdatePieces { file, gained } => return self.update_pieces(asked, file, &gained, now),
            Command::Whoami => self.whoami(asked, now),
            Command::ListRequests { group } => self.list_requests(asked, &group),
            Command::ListGroups => Ok(self.list_groups(asked)),
            Command::ListFiles { group, after, count } => {
                self.list_files(asked, &group, after.as_ref(), count, now)
            }
            Command::DownloadFile { file, view, part, peer_key } => {
                self.download(caller, asked, &Wanted { file, view, part, peer_key }, now)
            }
            Command::GetPeers { file, peer_key } => self.get_peers(caller, asked, &file, peer_key, now),
            Command::ReportPeer { file, peer, reason } => self.report_peer(asked, &file, peer, &reason),
            Command::CreateUser { .. } | Command::Login { .. } | Command::Ping | Command::Status => {
                unreachable!("`begin` carries out what needs no login")
            }
        };
        Step::done(answer)
    }
}
