//! The leader's memory, which is not replicated: which sessions are online, and which pieces each leecher has.
//!
//! ```text
//!   open, close, record_ping ───────────► sessions ──┐
//!   follow_command(applied commands) ───► both       ├──► choose_peers, count_online
//!   join_swarm, record_pieces, report ──► swarms ────┘
//! ```
//!
//! What is remembered of swarms is bounded, for each user and in all.
//!
//! Invariants: a session is online while its lease runs, or while it has an open connection that never sent a ping. For
//! [`LEASE_MS`] after the election, sessions that this leader never saw count as online too. What a command removes (a
//! session, a membership, a file) is removed here by [`LeaseTable::follow_command`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use engine::proto::ticket::PeerKey;
use engine::proto::units::{Digest, PieceRange};

use super::command::{LogAction, LogCommand};
use super::id::{GroupFile, GroupId, SessionId, UserId};
use super::lease_memory::{LeaseMemory, NodeKey};
use super::limits::{
    LEASE_MS, LEECHER_MEMORY_MS, LEECHERS_PER_SWARM, TICKET_KEYS_PER_SESSION, UPDATE_MAX_RANGES,
};
use super::node::{NodeEndpoint, SwarmPeer};
use super::outcome::CommandOutcome;
use super::peer_choice::PeerStatus;
use super::removals::RemovalLog;
use super::swarm::{Swarm, node_key};

pub use super::peer_choice::{
    AskingClient, FileHolders, PeerCandidate, PeerChoice, PeerPresence, PieceSharer,
};
pub use super::swarm::{ListedContent, ReportOutcome};

/// Number of a client's connection, unique among the open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientConnectionId(pub u64);

/// Sessions and swarms, as the leader remembers them.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    elected_ms: u64,
    sessions: BTreeMap<SessionId, SessionLease>,
    swarms: BTreeMap<GroupFile, Swarm>,
    /// What the swarms take.
    memory: LeaseMemory,
    /// Counts the answers, so that different peers come first in each.
    answers: usize,
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
    /// Keys for which the session was given tickets.
    ticket_keys: BTreeSet<PeerKey>,
    /// The node that proved its key to the tracker, at the address where the tracker called it.
    proven: Option<NodeEndpoint>,
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
            memory: LeaseMemory::default(),
            answers: 0,
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

    /// Counts a peer key for which a session asks for a ticket; false when it has had tickets for
    /// [`TICKET_KEYS_PER_SESSION`] other keys.
    pub fn admit_ticket_key(&mut self, session: SessionId, key: PeerKey) -> bool {
        let keys = &mut self.sessions.entry(session).or_default().ticket_keys;
        if keys.len() < TICKET_KEYS_PER_SESSION {
            keys.insert(key);
        }
        keys.contains(&key)
    }

    /// Records that a session's node proved its key at its address. One that proved another key there before has left.
    pub fn record_proof(&mut self, session: SessionId, node: NodeEndpoint) {
        let is_here = |proven: &NodeEndpoint| proven.address == node.address;
        for lease in self.sessions.values_mut().filter(|lease| lease.proven.as_ref().is_some_and(is_here)) {
            lease.proven = None;
        }
        self.sessions.entry(session).or_default().proven = Some(node);
    }

    /// Makes a session offline: its node ends. The next ping, or a connection that is bound later, makes it online again.
    pub fn end_lease(&mut self, session: SessionId, now_ms: u64) {
        let lease = self.sessions.entry(session).or_default();
        let ticket_keys = std::mem::take(&mut lease.ticket_keys);
        *lease = SessionLease { last_seen_ms: now_ms, ticket_keys, ..SessionLease::default() };
    }

    /// How certainly a session is online; `None` when it is offline.
    #[must_use]
    pub fn presence(&self, session: SessionId, now_ms: u64) -> Option<PeerPresence> {
        presence(&self.sessions, self.elected_ms, session, now_ms)
    }

    /// Makes a node a leecher of the content that is listed, if there is room.
    pub fn join_swarm(&mut self, file: &GroupFile, listed: ListedContent, peer: SwarmPeer) {
        let node = node_key(&peer);
        _ = swarm_of(&mut self.swarms, file, listed).join(peer);
        self.settle_memory(file, Some(&node));
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
        let node = node_key(&peer);
        let is_complete = swarm_of(&mut self.swarms, file, listed).add_pieces(peer, ranges);
        self.settle_memory(file, Some(&node));
        Ok(is_complete)
    }

    /// Records that a node has the content that is listed, and whether it named that content. One that did is remembered only
    /// if it asked for other content before.
    pub fn record_seeder(
        &mut self,
        file: &GroupFile,
        listed: ListedContent,
        peer: &SwarmPeer,
        is_stated: bool,
    ) {
        if is_stated && !self.swarms.contains_key(file) {
            return;
        }
        let (node, swarm) = (node_key(peer), swarm_of(&mut self.swarms, file, listed));
        swarm.record_asked(&node, listed, peer.session);
        swarm.record_stated(&node, is_stated);
        self.settle_memory(file, Some(&node));
    }

    /// The content that a node asked for or uploaded last under a file's name; `None` if it is not remembered.
    #[must_use]
    pub fn asked_content(&self, file: &GroupFile, peer: &SwarmPeer) -> Option<ListedContent> {
        self.swarms.get(file)?.asked_content(&node_key(peer), peer.session)
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
        let was_leecher = swarm.remove_leecher(&(user.clone(), holder.identity()), |_| true);
        self.settle_memory(file, None);
        was_leecher
    }

    /// The peers of a listed file that an asking client may be told.
    pub fn choose_peers<'a>(
        &'a mut self,
        file: &GroupFile,
        shared: FileHolders<'a>,
        asker: AskingClient<'_>,
        now_ms: u64,
    ) -> PeerChoice<'a> {
        self.answers = self.answers.wrapping_add(1);
        let (sessions, elected_ms) = (&self.sessions, self.elected_ms);
        let swarm = self.swarms.get(file).filter(|swarm| swarm.content == shared.content);
        PeerChoice::of_swarm(swarm, shared, asker, self.answers, |peer| {
            let presence = presence(sessions, elected_ms, peer.session, now_ms)?;
            let proven = sessions.get(&peer.session).and_then(|lease| lease.proven);
            Some(PeerStatus { presence, is_proven: proven == Some(peer.holder) })
        })
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
    /// here and the peer has it or fetches it. The peer is then hidden from the reporter, and named later to other members
    /// once enough of them agree who have the file.
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
                self.drop_leechers(&by.user, |_, peer| peer.session == by.session);
            }
            (LogAction::ChangePassword { .. }, _) => {
                self.drop_leechers(&by.user, |_, peer| peer.session != by.session);
            }
            (LogAction::Resume { node }, _) => self.move_node(&by.user, by.session, *node),
            (LogAction::RemoveMember { group, user }, _) => {
                self.removals.record_member(group.clone(), user.clone(), by.user.clone());
                self.drop_leechers(user, |file, _| file.group == *group);
            }
            (LogAction::JoinGroup { group }, _) => self.removals.forget_member(group, &by.user),
            (LogAction::LeaveGroup { group }, CommandOutcome::Left { group_deleted: true, .. }) => {
                self.drop_swarms(group);
            }
            (LogAction::LeaveGroup { group }, _) => {
                self.drop_leechers(&by.user, |file, _| file.group == *group);
            }
            (LogAction::RemoveFile { file }, _) => {
                self.removals.record_file(file.clone(), by.user.clone());
                if let Some(swarm) = self.swarms.get_mut(file) {
                    swarm.replace(swarm.content);
                }
                self.settle_memory(file, None);
            }
            (
                LogAction::Upload { file, node, .. }
                | LogAction::Complete { file, node, .. }
                | LogAction::StopShare { file, node, .. },
                _,
            ) => self.drop_node(file, &by.user, by.session, *node),
            _ => {}
        }
    }

    /// Removes old entries. Called from time to time.
    pub fn sweep(&mut self, now_ms: u64) {
        let is_past = |since_ms: u64| now_ms.saturating_sub(since_ms) > LEECHER_MEMORY_MS;
        self.sessions.retain(|_, lease| {
            !lease.without_ping.is_empty() || !is_past(lease.last_seen_ms.max(lease.lease_end_ms))
        });
        for (file, swarm) in &mut self.swarms {
            swarm.forget_unless(|session| self.sessions.contains_key(&session));
            for node in swarm.take_changed() {
                self.memory.reduce(file, &node, swarm.node_bytes(file, &node));
            }
        }
        self.swarms.retain(|_, swarm| !swarm.is_empty());
    }

    /// Counts what is remembered of a swarm's nodes after a change, of which `heard` was heard of now. Forgets what is too much.
    fn settle_memory(&mut self, file: &GroupFile, heard: Option<&NodeKey>) {
        if let Some(swarm) = self.swarms.get_mut(file) {
            for node in swarm.take_changed() {
                self.memory.reduce(file, &node, swarm.node_bytes(file, &node));
            }
            if let Some(node) = heard {
                self.memory.charge(file, node, swarm.node_bytes(file, node));
            }
            if swarm.is_empty() {
                self.swarms.remove(file);
            }
        }
        while let Some((file, node)) = self.memory.next_to_forget() {
            self.memory.reduce(&file, &node, 0);
            if let Some(swarm) = self.swarms.get_mut(&file) {
                swarm.forget(&node);
                swarm.take_changed();
                if swarm.is_empty() {
                    self.swarms.remove(&file);
                }
            }
        }
    }

    /// Removes a user's leechers that are meant.
    fn drop_leechers(&mut self, user: &UserId, is_meant: impl Fn(&GroupFile, &SwarmPeer) -> bool) {
        for (file, node) in self.memory.nodes_of(user) {
            if let Some(swarm) = self.swarms.get_mut(&file) {
                swarm.remove_leecher(&node, |peer| is_meant(&file, peer));
                self.settle_memory(&file, None);
            }
        }
    }

    /// Gives a session's node its present address in every swarm.
    fn move_node(&mut self, user: &UserId, session: SessionId, holder: NodeEndpoint) {
        for (file, node) in self.memory.nodes_of(user) {
            let moved = self.swarms.get_mut(&file).and_then(|swarm| swarm.move_node(&node, session, holder));
            self.settle_memory(&file, moved.as_ref());
        }
    }

    fn drop_swarms(&mut self, group: &GroupId) {
        let files: Vec<GroupFile> = self.swarms.keys().filter(|file| file.group == *group).cloned().collect();
        for file in files {
            let nodes = self.swarms.remove(&file).map(|swarm| swarm.nodes().cloned().collect::<Vec<_>>());
            for node in nodes.into_iter().flatten() {
                self.memory.reduce(&file, &node, 0);
            }
        }
    }

    /// Removes one node as a leecher. The command may lack the key under which the node joined, so the session's other entries
    /// are removed too.
    fn drop_node(&mut self, file: &GroupFile, user: &UserId, session: SessionId, holder: NodeEndpoint) {
        if let Some(swarm) = self.swarms.get_mut(file) {
            let own = swarm.leechers.iter().filter(|((whose, identity), leecher)| {
                whose == user && (leecher.peer.session == session || *identity == holder.identity())
            });
            let own: Vec<NodeKey> = own.map(|(node, _)| node.clone()).collect();
            for node in own {
                swarm.remove_leecher(&node, |_| true);
            }
            self.settle_memory(file, None);
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
) -> &'a mut Swarm {
    let swarm = swarms.entry(file.clone()).or_insert_with(|| Swarm::new(listed));
    if swarm.content != listed {
        swarm.replace(listed);
    }
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

#[cfg(test)]
impl LeaseTable {
    /// Bytes that are remembered of the nodes of all swarms.
    pub(super) fn swarm_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Bytes that are remembered of one user's nodes.
    pub(super) fn bytes_of(&self, user: &UserId) -> usize {
        self.memory.bytes_of(user)
    }

    /// The same as [`LeaseTable::swarm_bytes`], counted anew.
    pub(super) fn recount_bytes(&self) -> usize {
        let bytes = |(file, swarm): (&GroupFile, &Swarm)| {
            swarm.nodes().map(|node| swarm.node_bytes(file, node)).sum::<usize>()
        };
        self.swarms.iter().map(bytes).sum()
    }
}
