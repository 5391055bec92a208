//! Who has what: download_file, get_peers, update_pieces, report_peer; and who is there at all: ping, status.
//!
//! A member that asks for a file is a leecher of its swarm at once.

use std::net::SocketAddr;
use std::rc::Rc;

use engine::proto::manifest::FileProof;
use engine::proto::ticket::{PeerKey, Ticket};
use engine::proto::units::{Digest, PieceCount};

use crate::api::answers::{Answer, DownloadAnswer, PeerEntry, PeersAnswer, PingAnswer, StatusAnswer};
use crate::api::failure::{Failure, FailureCode};
use crate::api::hashes::{self, HashForm, HashList};
use crate::api::limits::PIECES_PER_MESSAGE;
use crate::api::request::{Gained, Part, View};
use crate::state::command::Action;
use crate::state::id::FileKey;
use crate::state::lease::{Asker, Candidate, Reported};
use crate::state::node::{Holder, Peer};
use crate::state::outcome::Outcome;
use crate::state::queries::FileView;

use super::super::bodies;
use super::super::clock::Now;
use super::super::known::Listed;
use super::super::tickets::Claim;
use super::classic::Classic;
use super::replies::{self, Reply};
use super::service::{Asked, Caller, Service, Step};

/// What a download_file asks for.
pub(super) struct Wanted {
    pub(super) file: FileKey,
    pub(super) view: View,
    pub(super) part: Part,
    pub(super) peer_key: Option<PeerKey>,
}

impl Service {
    pub(super) fn ping(&mut self, caller: &mut Caller, now: Now) -> Reply {
        if let Some(session) = caller.session.as_ref().map(|bound| bound.actor.session) {
            // Who cannot be looked up gets the benefit of the doubt.
            if self.proposals.holds(session, now.unix_s) || !self.proposals.can_read() {
                self.proposals.leases.ping(session, caller.connection.id(), now.ms);
            } else {
                self.unbind(caller, now);
            }
        }
        replies::with("pong", Answer::Ping(PingAnswer { server_time: now.unix_s }))
    }

    pub(super) fn status(&self, now: Now) -> Reply {
        let status = StatusAnswer {
            leader: Some(self.own),
            voters: vec![self.own],
            learners: Vec::new(),
            server_time: now.unix_s,
        };
        replies::with("a tracker alone", Answer::Status(status))
    }

    pub(super) fn download(&mut self, caller: &Caller, asked: &Asked, wanted: &Wanted, now: Now) -> Step {
        self.described(caller, asked, wanted, now).unwrap_or_else(|failure| Step::done(Err(failure)))
    }

    fn described(
        &mut self,
        caller: &Caller,
        asked: &Asked,
        wanted: &Wanted,
        now: Now,
    ) -> Result<Step, Failure> {
        let Wanted { file, view, part, peer_key } = wanted;
        let listed = self.listed(asked, file)?;
        let (first, shown_pieces) = shown(&listed.file, file, *view, *part)?;
        let ticket = self.ticket(asked, file, &listed.file, *peer_key, now);
        self.join_swarm(asked, file, &listed, *peer_key, now);
        let pieces = self
            .proposals
            .queries()
            .pieces(file, first, shown_pieces)
            .ok_or_else(|| replies::no_file(file))?;
        let joined = self.joined(file, &listed.file, *view)?;
        let Listed { file: described, holders } = &*listed;
        let count = PieceCount(described.pieces);
        let choice = self.proposals.leases.choose(file, count, holders, asker(caller, asked), now.ms);
        let next = first + shown_pieces;
        let form = match view {
            View::Classic => HashForm::Hex,
            View::Compact => HashForm::Base64,
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
            peers: (*view == View::Compact).then(|| choice.peers().map(entry).collect()),
            ticket,
            server_time: now.unix_s,
            next: (next < described.pieces).then_some(next),
        };
        let message = format!("{file} has {}", replies::counted(described.pieces as usize, "piece"));
        if *view == View::Compact {
            return Ok(Step::done(replies::with(message, Answer::Download(Box::new(answer)))));
        }
        let classic = Classic::new(&choice, first, shown_pieces as usize);
        let elements = shown_pieces as usize * (1 + classic.each()) + joined.as_ref().map_or(0, Vec::len);
        let build = move || {
            if let Some(digests) = joined {
                answer.file_sha = Some(hashes::joined_hex(&digests));
            }
            answer.chunk_metadata = Some(classic.chunks(&answer.file_chunks.values));
            replies::with(message, Answer::Download(Box::new(answer)))
        };
        Ok(if bodies::is_long(elements) { Step::Build(Box::new(build)) } else { Step::done(build()) })
    }

    pub(super) fn get_peers(
        &mut self,
        caller: &Caller,
        asked: &Asked,
        file: &FileKey,
        peer_key: Option<PeerKey>,
        now: Now,
    ) -> Reply {
        let listed = self.listed(asked, file)?;
        let ticket = self.ticket(asked, file, &listed.file, peer_key, now);
        let (count, asker) = (PieceCount(listed.file.pieces), asker(caller, asked));
        let choice = self.proposals.leases.choose(file, count, &listed.holders, asker, now.ms);
        let peers: Vec<PeerEntry> = choice.peers().map(entry).collect();
        let message = format!("{} of {file}", replies::counted(peers.len(), "peer"));
        replies::with(message, Answer::Peers(PeersAnswer { peers, ticket, server_time: now.unix_s }))
    }

    pub(super) fn update_pieces(&mut self, asked: &Asked, file: FileKey, gained: &Gained, now: Now) -> Step {
        match self.note_gain(asked, &file, gained, now) {
            Err(failure) => Step::done(Err(failure)),
            Ok(None) => Step::done(replies::done("noted")),
            Ok(Some(node)) => Step::Propose(
                asked.change(now, Action::Complete { file: file.clone(), node }),
                Box::new(move |_, _, decision, _| {
                    Step::done(match decision {
                        Ok(Outcome::Completed) => replies::done(format!("this node seeds {file}")),
                        Ok(other) => Err(replies::unexpected(&other)),
                        Err(refusal) => Err(replies::refused(&refusal)),
                    })
                }),
            ),
        }
    }

    /// Notes what a leecher has gained; gives the node when it has everything now.
    fn note_gain(
        &mut self,
        asked: &Asked,
        file: &FileKey,
        gained: &Gained,
        now: Now,
    ) -> Result<Option<Holder>, Failure> {
        let node = asked.sharing_node(None)?;
        let listed = self.listed(asked, file)?;
        let Gained::Ranges(ranges) = gained else { return Ok(Some(node)) };
        if is_seeder(asked, &listed, node) {
            return Ok(None);
        }
        let all = self
            .proposals
            .leases
            .gained(file, PieceCount(listed.file.pieces), peer(asked, node), ranges, now.ms)
            .map_err(|bad| Failure::field("ranges", bad))?;
        Ok(all.then_some(node))
    }

    pub(super) fn report_peer(
        &mut self,
        asked: &Asked,
        file: &FileKey,
        accused: SocketAddr,
        reason: &str,
    ) -> Reply {
        let listed = self.listed(asked, file)?;
        let report = self.proposals.leases.report(file, &asked.actor.user, accused, &listed.holders);
        if report == Reported::Noted {
            tracing::info!(by = %asked.actor.user, %file, %accused, reason, "a peer was reported");
        }
        replies::done(match report {
            Reported::Noted | Reported::Again => "noted; you are not told about that peer again",
            Reported::NotFetched => "not counted: only those who fetched the file here can judge its peers",
            Reported::NoPeer => "not counted: no node at that address has the file now",
            Reported::Full => "not counted: as many peers of this file are reported as are kept",
        })
    }

    /// The file, for members.
    fn listed(&mut self, asked: &Asked, file: &FileKey) -> Result<Rc<Listed>, Failure> {
        self.member(asked, &file.group)?;
        self.proposals.file(file).ok_or_else(|| replies::no_file(file))
    }

    /// Whoever asks for a file fetches it, and shares what it has so far.
    fn join_swarm(
        &mut self,
        asked: &Asked,
        file: &FileKey,
        listed: &Listed,
        peer_key: Option<PeerKey>,
        now: Now,
    ) {
        if let Some(node) = asked.node(peer_key)
            && !is_seeder(asked, listed, node)
        {
            self.proposals.leases.join(file, PieceCount(listed.file.pieces), peer(asked, node), now.ms);
        }
    }

    fn ticket(
        &mut self,
        asked: &Asked,
        file: &FileKey,
        listed: &FileView,
        peer_key: Option<PeerKey>,
        now: Now,
    ) -> Option<Ticket> {
        let peer_key = peer_key.or_else(|| asked.node.and_then(|node| node.peer_key))?;
        let claim = Claim { user: &asked.actor.user, file, file_id: listed.proof.id(), peer_key };
        Some(self.tickets.issue(claim, &self.keys.tickets, now.unix_s))
    }

    /// The digests that the classic view joins in place of a whole file's; see [`DownloadAnswer::file_sha`].
    fn joined(&self, file: &FileKey, listed: &FileView, view: View) -> Result<Option<Vec<Digest>>, Failure> {
        match (listed.proof, view) {
            (FileProof::Whole(_), _) | (FileProof::PiecesOnly(_), View::Compact) => Ok(None),
            (FileProof::PiecesOnly(_), View::Classic) => {
                let all = self.proposals.queries().pieces(file, 0, listed.pieces);
                Ok(Some(all.ok_or_else(|| replies::no_file(file))?.digests))
            }
        }
    }
}

fn is_seeder(asked: &Asked, listed: &Listed, node: Holder) -> bool {
    let is_it = |peer: &Peer| peer.user == asked.actor.user && peer.holder.place() == node.place();
    listed.holders.iter().any(is_it)
}

/// Which pieces an answer describes: the first, and how many.
fn shown(listed: &FileView, file: &FileKey, view: View, part: Part) -> Result<(u32, u32), Failure> {
    let first = part.first.0;
    if first > listed.pieces {
        return Err(Failure::field("first", format!("{file} has {} pieces", listed.pieces)));
    }
    let rest = listed.pieces - first;
    let most = u32::try_from(PIECES_PER_MESSAGE).expect("the limit fits 32 bits");
    let asked_for = part.count.map_or(rest, |PieceCount(count)| count.min(rest));
    if asked_for > most && view == View::Classic {
        let message = format!("{file} has more pieces than the {most} that one message carries");
        return Err(Failure::new(FailureCode::TooLarge, message).with_fix("view: compact"));
    }
    Ok((first, asked_for.min(most)))
}

fn asker<'a>(caller: &Caller, asked: &'a Asked) -> Asker<'a> {
    Asker {
        user: &asked.actor.user,
        address: asked.node.map(|node| node.address),
        on_loopback: caller.ip.is_loopback(),
    }
}

fn peer(asked: &Asked, node: Holder) -> Peer {
    Peer { user: asked.actor.user.clone(), holder: node, session: asked.actor.session }
}

fn entry(candidate: &Candidate<'_>) -> PeerEntry {
    let Holder { address, peer_key } = candidate.peer.holder;
    PeerEntry { ip: address.ip(), port: address.port(), peer_key, complete: candidate.is_complete() }
}
