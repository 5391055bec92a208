//! Leases: what the leader alone remembers and nobody replicates. Who is online, and what each leecher holds so far.
//!
//! ```text
//!   opened, ping, closed ──► sessions ──┐
//!   follow(applied commands) ──► both   ├──► choose, counts
//!   join, gained, report ──► swarms ────┘
//! ```
//!
//! Invariants: a session is online while its lease runs or a connection of it is open that never sent a ping; for
//! [`LEASE_MS`] after the election every session that this leader never saw counts as online too. Whatever a command
//! takes away (a session, a membership, a file) is gone from here once [`LeaseTable::follow_command`] has seen it applied.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use engine::proto::units::{PieceCount, PieceRange};

use super::command::{LogAction, LogCommand};
use super::id::{GroupFile, GroupId, SessionId, UserId};
use super::limits::{LEASE_MS, LEECHER_MEMORY_MS, UPDATE_MAX_RANGES};
use super::node::{NodeEndpoint, NodeIdentity, SwarmPeer};
use super::outcome::CommandOutcome;
use super::swarm::Swarm;

pub use super::swarm::{AskingClient, PeerCandidate, PeerChoice, PeerPresence, PieceSharer, ReportOutcome};

/// A client's connection, under a number that no other open one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientConnectionId(pub u64);

/// The leader's memory.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    elected_ms: u64,
    sessions: BTreeMap<SessionId, SessionLease>,
    swarms: BTreeMap<GroupFile, Swarm>,
}

/// The signs of life of one session.
#[derive(Clone, Debug, Default)]
struct SessionLease {
    /// Its open connections that never sent a ping.
    without_ping: BTreeSet<ClientConnectionId>,
    /// The end of the lease that its last ping began.
    lease_end_ms: u64,
    /// When it was last seen online.
    last_seen_ms: u64,
}

/// How many nodes have a file, or part of it, online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnlineCounts {
    /// With every piece.
    pub seeders: usize,
    /// Fetching.
    pub leechers: usize,
}

/// An update that does not fit the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpdate {
    /// More runs than one update may have.
    #[error("{0} ranges are more than the {UPDATE_MAX_RANGES} that one update may have")]
    TooManyRanges(usize),
    /// A run names a piece that the file does not have.
    #[error("piece {last} is past the end of a file of {pieces} pieces")]
    PastEnd {
        /// The run's last piece.
        last: u32,
        /// Of the file.
        pieces: u32,
    },
    /// The runs name more pieces than the file has, so some twice: work for nothing.
    #[error("the ranges overlap")]
    Overlap,
}

impl LeaseTable {
    /// The memory of a leader elected (or a lone tracker started) at `now_ms`: empty.
    #[must_use]
    pub fn new(now_ms: u64) -> LeaseTable {
        LeaseTable { elected_ms: now_ms, sessions: BTreeMap::new(), swarms: BTreeMap::new() }
    }

    /// A connection belongs to a session from now on: by login, or by a request that carries its token.
    pub fn open_connection(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        let life = self.sessions.entry(session).or_default();
        life.without_ping.insert(connection);
        life.last_seen_ms = now_ms;
    }

    /// A connection of a session has ended, or belongs to another session now.
    pub fn close_connection(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        if let Some(life) = self.sessions.get_mut(&session)
            && life.without_ping.remove(&connection)
        {
            life.last_seen_ms = now_ms;
        }
    }

    /// A ping came over a connection: from now on the session lives by its lease, not by that connection.
    pub fn record_ping(&mut self, session: SessionId, connection: ClientConnectionId, now_ms: u64) {
        let life = self.sessions.entry(session).or_default();
        life.without_ping.remove(&connection);
        life.renew(now_ms);
    }

    /// How sure it is that a session is online; `None` when it is not.
    #[must_use]
    pub fn presence(&self, session: SessionId, now_ms: u64) -> Option<PeerPresence> {
        presence(&self.sessions, self.elected_ms, session, now_ms)
    }

    /// A node fetches a file of `pieces` pieces: it is a leecher at once, and told to others, as far as there is room.
    pub fn join_swarm(&mut self, file: &GroupFile, pieces: PieceCount, peer: SwarmPeer, now_ms: u64) {
        _ = swarm_of(&mut self.swarms, file, pieces, now_ms).join(peer);
    }

    /// A leecher has gained pieces; whether it has all now. Renews its session's lease, and makes the node a leecher
    /// where this leader did not know it as one.
    ///
    /// # Errors
    /// [`BadUpdate`] when the ranges do not fit; then nothing is noted.
    pub fn record_pieces(
        &mut self,
        file: &GroupFile,
        pieces: PieceCount,
        peer: SwarmPeer,
        ranges: &[PieceRange],
        now_ms: u64,
    ) -> Result<bool, BadUpdate> {
        if ranges.len() > UPDATE_MAX_RANGES {
            return Err(BadUpdate::TooManyRanges(ranges.len()));
        }
        if let Some(past) = ranges.iter().find(|range| range.last().0 >= pieces.0) {
            return Err(BadUpdate::PastEnd { last: past.last().0, pieces: pieces.0 });
        }
        if ranges.iter().map(|range| range.len()).sum::<u64>() > u64::from(pieces.0) {
            return Err(BadUpdate::Overlap);
        }
        self.sessions.entry(peer.session).or_default().renew(now_ms);
        Ok(swarm_of(&mut self.swarms, file, pieces, now_ms).add_pieces(peer, ranges))
    }

    /// A node no longer fetches a file; whether it did.
    pub fn leave_swarm(&mut self, file: &GroupFile, user: &UserId, holder: NodeEndpoint) -> bool {
        let Some(swarm) = self.swarms.get_mut(file) else { return false };
        swarm.leechers.remove(&(user.clone(), holder.identity())).is_some()
    }

    /// The peers to tell an asker about a file of `pieces` pieces, whose complete holders are `seeders`.
    pub fn choose_peers<'a>(
        &'a mut self,
        file: &GroupFile,
        pieces: PieceCount,
        seeders: &'a [SwarmPeer],
        asker: AskingClient<'_>,
        now_ms: u64,
    ) -> PeerChoice<'a> {
        let (sessions, elected_ms) = (&self.sessions, self.elected_ms);
        let swarm = swarm_of(&mut self.swarms, file, pieces, now_ms);
        swarm.choose(seeders, asker, |peer| presence(sessions, elected_ms, peer.session, now_ms))
    }

    /// How many nodes have a file online, whose complete holders are `seeders`.
    #[must_use]
    pub fn count_online(&self, file: &GroupFile, seeders: &[SwarmPeer], now_ms: u64) -> OnlineCounts {
        let online = |peer: &&SwarmPeer| self.presence(peer.session, now_ms).is_some();
        let leechers = self
            .swarms
            .get(file)
            .map_or(0, |swarm| swarm.leechers.values().map(|leecher| &leecher.peer).filter(online).count());
        OnlineCounts { seeders: seeders.iter().filter(online).count(), leechers }
    }

    /// How many nodes fetch a file, online or not.
    #[must_use]
    pub fn leecher_count(&self, file: &GroupFile) -> usize {
        self.swarms.get(file).map_or(0, |swarm| swarm.leechers.len())
    }

    /// A member reports a peer of a file whose complete holders are `seeders`. A report counts from those who fetched the file
    /// here, about a node that has it or fetches it. That peer is withheld from the reporter, and listed last for others once
    /// enough members agree.
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

    /// Drops what an applied command has taken away. To be called with every command that succeeded.
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
            (LogAction::RemoveMember { group, user }, _) => self.drop_member(group, user),
            (LogAction::LeaveGroup { group }, CommandOutcome::Left { group_deleted: true, .. }) => {
                self.swarms.retain(|file, _| file.group != *group);
            }
            (LogAction::LeaveGroup { group }, _) => self.drop_member(group, &by.user),
            (LogAction::RemoveFile { file }, _) => {
                self.swarms.remove(file);
            }
            (
                LogAction::Upload { file, node, .. }
                | LogAction::Complete { file, node }
                | LogAction::StopShare { file, node },
                _,
            ) => self.drop_node(file, &by.user, by.session, node.identity()),
            _ => {}
        }
    }

    /// Forgets what is long past. To be called now and then.
    pub fn sweep(&mut self, now_ms: u64) {
        let is_past = |since_ms: u64| now_ms.saturating_sub(since_ms) > LEECHER_MEMORY_MS;
        self.sessions.retain(|_, life| {
            !life.without_ping.is_empty() || !is_past(life.last_seen_ms.max(life.lease_end_ms))
        });
        let sessions = &self.sessions;
        let elected_ms = self.elected_ms;
        self.swarms.retain(|_, swarm| {
            swarm.leechers.retain(|_, leecher| {
                let session = leecher.peer.session;
                sessions.contains_key(&session) || presence(sessions, elected_ms, session, now_ms).is_some()
            });
            !swarm.leechers.is_empty() || !is_past(swarm.last_used_ms)
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

    /// Drops one node's entry as a leecher. The command may not have repeated the key under which the node joined, so
    /// the session's entry goes too.
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

/// The swarm of a file. One of another size belonged to another file of that name.
fn swarm_of<'a>(
    swarms: &'a mut BTreeMap<GroupFile, Swarm>,
    file: &GroupFile,
    pieces: PieceCount,
    now_ms: u64,
) -> &'a mut Swarm {
    let swarm = swarms.entry(file.clone()).or_insert_with(|| Swarm::new(pieces, now_ms));
    if swarm.pieces != pieces {
        *swarm = Swarm::new(pieces, now_ms);
    }
    swarm.last_used_ms = now_ms;
    swarm
}

fn presence(
    sessions: &BTreeMap<SessionId, SessionLease>,
    elected_ms: u64,
    session: SessionId,
    now_ms: u64,
) -> Option<PeerPresence> {
    match sessions.get(&session) {
        Some(life) => {
            (!life.without_ping.is_empty() || now_ms < life.lease_end_ms).then_some(PeerPresence::Confirmed)
        }
        None => (now_ms < elected_ms + LEASE_MS).then_some(PeerPresence::Presumed),
    }
}
