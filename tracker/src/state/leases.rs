//! The leader's memory, which is not replicated: which sessions are online, and which pieces each leecher has.
//!
//! ```text
//!   open, close, record_ping ───────────► sessions ──┐
//!   follow_command(applied commands) ───► both       ├──► choose_peers, count_online
//!   join_swarm, record_pieces, report ──► swarms ────┘
//! ```
//!
//! Invariants: a session is online while its lease runs, or while it has an open connection that never sent a ping. For
//! [`LEASE_MS`] after the election, sessions that this leader never saw count as online too. What a command removes (a
//! session, a membership, a file) is removed here by [`LeaseTable::follow_command`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use engine::proto::units::{Digest, PieceRange};

use super::command::{LogAction, LogCommand};
use super::id::{GroupFile, GroupId, SessionId, UserId};
use super::limits::{LEASE_MS, LEECHER_MEMORY_MS, LEECHERS_PER_SWARM, UPDATE_MAX_RANGES};
use super::node::{NodeEndpoint, NodeIdentity, SwarmPeer};
use super::outcome::CommandOutcome;
use super::removals::RemovalLog;
use super::swarm::Swarm;

pub use super::swarm::{
    AskingClient, ListedContent, PeerCandidate, PeerChoice, PeerPresence, PieceSharer, ReportOutcome,
};

/// Number of a client's connection, unique among the open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientConnectionId(pub u64);

/// Sessions and swarms, as the leader remembers them.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    elected_ms: u64,
    sessions: BTreeMap<SessionId, SessionLease>,
    swarms: BTreeMap<GroupFile, Swarm>,
    /// Who removed what, for messages.
    pub removals: RemovalLog,
}

/// What keeps one session online.
#[derive(Clone, Debug, Default)]
struct SessionLease {
    /// Open connections that never sent a ping.
    without_ping: BTreeSet<ClientConnectionId>,
    /// End of the lease that the last ping began.
    lease_end_ms: u64,
    /// When the session was last seen online.
    last_seen_ms: u64,
}

/// Online nodes that have a file or part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnlineCounts {
    /// Nodes with every piece.
    pub seeders: usize,
    /// Nodes that fetch the file.
    pub leechers: usize,
}

/// Why an update of pieces does not fit the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum BadUpdate {
    /// More ranges than one update may have.
    #[error("{0} ranges are more than the {UPDATE_MAX_RANGES} that one update may have")]
    TooManyRanges(usize),
    /// A range ends past the file's last piece.
    #[error("piece {last} is past the end of a file of {pieces} pieces")]
    PastEnd { last: u32, pieces: u32 },
    /// The ranges have more pieces than the file, so some overlap.
    #[error("the ranges overlap")]
    Overlap,
}

impl LeaseTable {
    /// Empty, for a leader elected (or a lone tracker started) at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> LeaseTable {
        LeaseTable {
            elected_ms: now_ms,
            sessions: BTreeMap::new(),
            swarms: BTreeMap::new(),
            removals: RemovalLog::default(),
        }
    }

    /// Binds a connection to a session, after a login or a request that carries the session's token.
    pub fn open_connection(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        let lease = self.sessions.entry(session).or_default();
        lease.without_ping.insert(connection);
        lease.last_seen_ms = now_ms;
    }

    /// Ends the binding of a connection: it closed, or belongs to another session now.
    pub fn close_connection(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        if let Some(lease) = self.sessions.get_mut(&session)
            && lease.without_ping.remove(&connection)
        {
            lease.last_seen_ms = now_ms;
        }
    }

    /// Records a ping. From now on the lease keeps the session online, not this connection.
    pub fn record_ping(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        let lease = self.sessions.entry(session).or_default();
        lease.without_ping.remove(&connection);
        lease.renew(now_ms);
    }

    /// Makes a session offline: its node ends. The next ping, or a connection that is bound later, makes it online again.
    pub fn end_lease(&mut self, session: SessionId, now_ms: u64) {
        let lease = self.sessions.entry(session).or_default();
        *lease = SessionLease { last_seen_ms: now_ms, ..SessionLease::default() };
    }

    /// How certainly a session is online; `None` when it is offline.
    #[must_use]
    pub fn presence(&self, session: SessionId, now_ms: u64) -> Option<PeerPresence> {
        presence(&self.sessions, self.elected_ms, session, now_ms)
    }

    /// Makes a node a leecher of the content that is listed, if there is room.
    pub fn join_swarm(&mut self, file: &GroupFile, listed: ListedContent, peer: SwarmPeer, now_ms: u64) {
        _ = swarm_of(&mut self.swarms, file, listed, now_ms).join(peer);
    }

    /// Records pieces that a leecher gained; true when it has all. Renews the lease of its session, and makes the node a
    /// leecher if it was none.
    ///
    /// # Errors
    /// [`BadUpdate`] when the ranges do not fit; then nothing is recorded.
    pub fn record_pieces(
        &mut self,
        file: &GroupFile,
        listed: ListedContent,
        peer: SwarmPeer,
        ranges: &[PieceRange],
        now_ms: u64,
    ) -> Result<bool, BadUpdate> {
        if ranges.len() > UPDATE_MAX_RANGES {
            return Err(BadUpdate::TooManyRanges(ranges.len()));
        }
        let pieces = listed.pieces;
        if let Some(past) = ranges.iter().find(|range| range.last().0 >= pieces.0) {
            return Err(BadUpdate::PastEnd { last: past.last().0, pieces: pieces.0 });
        }
        if ranges.iter().map(|range| range.len()).sum::<u64>() > u64::from(pieces.0) {
            return Err(BadUpdate::Overlap);
        }
        self.sessions.entry(peer.session).or_default().renew(now_ms);
        Ok(swarm_of(&mut self.swarms, file, listed, now_ms).add_pieces(peer, ranges))
    }

    /// Records that a node has uploaded the content that is listed. Needed only if it may have asked for other content before.
    pub fn record_upload(&mut self, file: &GroupFile, listed: ListedContent, peer: &SwarmPeer) {
        if let Some(swarm) = self.swarms.get_mut(file) {
            swarm.record_asked(&(peer.user.clone(), peer.holder.identity()), listed, peer.session);
        }
    }

    /// The content that a node asked for or uploaded last under a file's name; `None` if it is not remembered.
    #[must_use]
    pub fn asked_content(&self, file: &GroupFile, peer: &SwarmPeer) -> Option<ListedContent> {
        let node = (peer.user.clone(), peer.holder.identity());
        self.swarms.get(file)?.asked_content(&node, peer.session)
    }

    /// Ends a node's fetching of a file, if it has the content that is meant; false when the node did not fetch that.
    pub fn leave_swarm(
        &mut self,
        file: &GroupFile,
        content: Option<Digest>,
        user: &UserId,
        holder: NodeEndpoint,
    ) -> bool {
        let Some(swarm) = self.swarms.get_mut(file) else { return false };
        if content.is_some_and(|content| content != swarm.content.id) {
            return false;
        }
        swarm.leechers.remove(&(user.clone(), holder.identity())).is_some()
    }

    /// The peers of a listed file that an asking client may be told. `seeders` are its seeders.
    pub fn choose_peers<'a>(
        &'a mut self,
        file: &GroupFile,
        listed: ListedContent,
        seeders: &'a [SwarmPeer],
        asker: AskingClient<'_>,
        now_ms: u64,
    ) -> PeerChoice<'a> {
        let (sessions, elected_ms) = (&self.sessions, self.elected_ms);
        let swarm = swarm_of(&mut self.swarms, file, listed, now_ms);
        swarm.choose(seeders, asker, |peer| presence(sessions, elected_ms, peer.session, now_ms))
    }

    /// Online nodes of a file whose seeders are `seeders`.
    #[must_use]
    pub fn count_online(&self, file: &GroupFile, seeders: &[SwarmPeer], now_ms: u64) -> OnlineCounts {
        let online = |peer: &&SwarmPeer| self.presence(peer.session, now_ms).is_some();
        let leechers = self
            .swarms
            .get(file)
            .map_or(0, |swarm| swarm.leechers.values().map(|leecher| &leecher.peer).filter(online).count());
        OnlineCounts { seeders: seeders.iter().filter(online).count(), leechers }
    }

    /// Number of nodes that fetch a file, online or not.
    #[must_use]
    pub fn leecher_count(&self, file: &GroupFile) -> usize {
        self.swarms.get(file).map_or(0, |swarm| swarm.leechers.len())
    }

    /// Records a member's report of a peer of a file whose seeders are `seeders`. It counts if the reporter fetched the file
    /// here and the peer has it or fetches it. The peer is then hidden from the reporter, and sorted last for other members
    /// once enough of them agree.
    pub fn record_report(
        &mut self,
        file: &GroupFile,
        by: &UserId,
        accused: SocketAddr,
        seeders: &[SwarmPeer],
    ) -> ReportOutcome {
        self.swarms
            .get_mut(file)
            .map_or(ReportOutcome::NotFetched, |swarm| swarm.report(by, accused, seeders))
    }

    /// Removes what an applied command removed. Called with every command that succeeded.
    pub fn follow_command(&mut self, command: &LogCommand, outcome: &CommandOutcome) {
        let Some(by) = &command.by else { return };
        match (&command.action, outcome) {
            (LogAction::Logout, _) => {
                self.sessions.remove(&by.session);
                self.drop_leechers(|peer| peer.session == by.session);
            }
            (LogAction::ChangePassword { .. }, _) => {
                self.drop_leechers(|peer| peer.user == by.user && peer.session != by.session);
            }
            (LogAction::RemoveMember { group, user }, _) => {
                self.removals.record_member(group.clone(), user.clone(), by.user.clone());
                self.drop_member(group, user);
            }
            (LogAction::JoinGroup { group }, _) => self.removals.forget_member(group, &by.user),
            (LogAction::LeaveGroup { group }, CommandOutcome::Left { group_deleted: true, .. }) => {
                self.swarms.retain(|file, _| file.group != *group);
            }
            (LogAction::LeaveGroup { group }, _) => self.drop_member(group, &by.user),
            (LogAction::RemoveFile { file }, _) => {
                self.removals.record_file(file.clone(), by.user.clone());
                if let Some(swarm) = self.swarms.get_mut(file) {
                    swarm.replace(swarm.content, swarm.last_used_ms);
                }
            }
            (
                LogAction::Upload { file, node, .. }
                | LogAction::Complete { file, node, .. }
                | LogAction::StopShare { file, node, .. },
                _,
            ) => self.drop_node(file, &by.user, by.session, node.identity()),
            _ => {}
        }
    }

    /// Removes old entries. Called from time to time.
    pub fn sweep(&mut self, now_ms: u64) {
        let is_past = |since_ms: u64| now_ms.saturating_sub(since_ms) > LEECHER_MEMORY_MS;
        self.sessions.retain(|_, lease| {
            !lease.without_ping.is_empty() || !is_past(lease.last_seen_ms.max(lease.lease_end_ms))
        });
        let sessions = &self.sessions;
        let elected_ms = self.elected_ms;
        self.swarms.retain(|_, swarm| {
            swarm.leechers.retain(|_, leecher| {
                let session = leecher.peer.session;
                sessions.contains_key(&session) || presence(sessions, elected_ms, session, now_ms).is_some()
            });
            let is_asked = swarm.retain_asked(|session| sessions.contains_key(&session));
            is_asked || !swarm.leechers.is_empty() || !is_past(swarm.last_used_ms)
        });
    }

    fn drop_member(&mut self, group: &GroupId, user: &UserId) {
        for (_, swarm) in self.swarms.iter_mut().filter(|(file, _)| file.group == *group) {
            swarm.leechers.retain(|(whose, _), _| whose != user);
        }
    }

    fn drop_leechers(&mut self, gone: impl Fn(&SwarmPeer) -> bool) {
        for swarm in self.swarms.values_mut() {
            swarm.leechers.retain(|_, leecher| !gone(&leecher.peer));
        }
    }

    /// Removes one node as a leecher. The command may lack the key under which the node joined, so the session's other entry
    /// is removed too.
    fn drop_node(&mut self, file: &GroupFile, user: &UserId, session: SessionId, place: NodeIdentity) {
        if let Some(swarm) = self.swarms.get_mut(file) {
            swarm
                .leechers
                .retain(|key, leecher| leecher.peer.session != session && *key != (user.clone(), place));
        }
    }
}

impl SessionLease {
    fn renew(&mut self, now_ms: u64) {
        self.lease_end_ms = now_ms + LEASE_MS;
        self.last_seen_ms = now_ms;
    }
}

/// The swarm of the content that is listed under a name. The swarm of earlier content is replaced.
fn swarm_of<'a>(
    swarms: &'a mut BTreeMap<GroupFile, Swarm>,
    file: &GroupFile,
    listed: ListedContent,
    now_ms: u64,
) -> &'a mut Swarm {
    let swarm = swarms.entry(file.clone()).or_insert_with(|| Swarm::new(listed, now_ms));
    if swarm.content != listed {
        swarm.replace(listed, now_ms);
    }
    swarm.last_used_ms = now_ms;
    assert!(swarm.leechers.len() <= LEECHERS_PER_SWARM, "{} leechers of {file}", swarm.leechers.len());
    swarm
}

fn presence(
    sessions: &BTreeMap<SessionId, SessionLease>,
    elected_ms: u64,
    session: SessionId,
    now_ms: u64,
) -> Option<PeerPresence> {
    match sessions.get(&session) {
        Some(lease) => {
            (!lease.without_ping.is_empty() || now_ms < lease.lease_end_ms).then_some(PeerPresence::Confirmed)
        }
        None => (now_ms < elected_ms + LEASE_MS).then_some(PeerPresence::Presumed),
    }
}
