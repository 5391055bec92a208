//! Places: who holds the tracker's connections, and which connection ends when there are too many.
//!
//! A connection without a session is a stranger's. Strangers and sessions have their parts of all places, and within a
//! part an address block has a share, and a user. Invariant: a newcomer is never refused. Where a limit is exceeded, a
//! connection of the largest holder ends: the one that has asked for nothing for the longest time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::state::id::UserId;

use super::limits::{
    CONNECTIONS_MAX, DESCRIPTORS_RESERVED, FIRST_REQUEST_MS, SESSIONS_PER_BLOCK_PART, SESSIONS_PER_USER_PART,
    STRANGER_SILENCE_MAX_MS, STRANGER_SILENCE_MIN_MS, STRANGERS_LEFT_PART, STRANGERS_PART,
    STRANGERS_PER_BLOCK_PART,
};
use super::slots::ConnectionToken;
use super::throttle::address_block;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceLimits {
    all: usize,
    strangers: usize,
    strangers_per_block: usize,
    sessions: usize,
    sessions_per_block: usize,
    sessions_per_user: usize,
}

impl PlaceLimits {
    /// The limits of a process that may open this many descriptors; `None` means any number. `per_address` replaces the
    /// shares of an address block.
    pub(super) fn new(descriptors: Option<u64>, per_address: Option<usize>) -> PlaceLimits {
        let descriptors = descriptors.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        // With very few descriptors, half of them are the reserve.
        let left = descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(descriptors / 2);
        let all = left.clamp(2, CONNECTIONS_MAX);
        let part = |divisor: usize| (all / divisor).max(1);
        PlaceLimits {
            all,
            strangers: part(STRANGERS_PART),
            strangers_per_block: per_address.unwrap_or(part(STRANGERS_PER_BLOCK_PART)),
            sessions: all - part(STRANGERS_LEFT_PART),
            sessions_per_block: per_address.unwrap_or(part(SESSIONS_PER_BLOCK_PART)),
            sessions_per_user: part(SESSIONS_PER_USER_PART),
        }
    }
}

/// One open connection.
#[derive(Clone, Debug)]
struct ConnectionPlace {
    block: IpAddr,
    /// The user of its session; `None` for a stranger's connection.
    user: Option<UserId>,
    /// When its last request was complete, or when it was opened, in milliseconds.
    active_ms: u64,
    has_asked: bool,
}

/// All open connections, by holder.
#[derive(Debug)]
pub(super) struct PlaceTable {
    limits: PlaceLimits,
    places: BTreeMap<ConnectionToken, ConnectionPlace>,
    strangers: HolderCounts<IpAddr>,
    session_blocks: HolderCounts<IpAddr>,
    session_users: HolderCounts<UserId>,
}

impl PlaceTable {
    pub(super) fn new(limits: PlaceLimits) -> PlaceTable {
        PlaceTable {
            limits,
            places: BTreeMap::new(),
            strangers: HolderCounts::new(),
            session_blocks: HolderCounts::new(),
            session_users: HolderCounts::new(),
        }
    }

    /// Gives a new connection a place, as a stranger's.
    pub(super) fn enter(&mut self, token: ConnectionToken, ip: IpAddr, now_ms: u64) {
        self.count(
            token,
            ConnectionPlace { block: address_block(ip), user: None, active_ms: now_ms, has_asked: false },
        );
    }

    /// Notes that a connection has completed a request. Whole seconds suffice.
    pub(super) fn note_request(&mut self, token: ConnectionToken, now_ms: u64) {
        let is_new = |place: &&ConnectionPlace| !place.has_asked || now_ms >= place.active_ms + 1_000;
        if self.places.get(&token).filter(is_new).is_some()
            && let Some(place) = self.leave(token)
        {
            self.count(token, ConnectionPlace { active_ms: now_ms, has_asked: true, ..place });
        }
    }

    /// Notes whose session a connection has; `None` makes it a stranger's.
    pub(super) fn set_user(&mut self, token: ConnectionToken, user: Option<&UserId>) {
        let is_other = |place: &&ConnectionPlace| place.user.as_ref() != user;
        if self.places.get(&token).filter(is_other).is_some()
            && let Some(place) = self.leave(token)
        {
            self.count(token, ConnectionPlace { user: user.cloned(), ..place });
        }
    }

    pub(super) fn forget(&mut self, token: ConnectionToken) {
        self.leave(token);
    }

    /// When a stranger's connection ends unless it completes a request before, in milliseconds. `None` with a session.
    pub(super) fn silence_end_ms(&self, token: ConnectionToken) -> Option<u64> {
        let place = self.places.get(&token).filter(|place| place.user.is_none())?;
        let most = self.limits.strangers as u64;
        let free = most.saturating_sub(self.strangers.total as u64);
        let silence_ms = (STRANGER_SILENCE_MAX_MS * free / most).max(STRANGER_SILENCE_MIN_MS);
        let silence_ms = if place.has_asked { silence_ms } else { silence_ms.min(FIRST_REQUEST_MS) };
        Some(place.active_ms + silence_ms)
    }

    /// The connection that ends next because a limit is exceeded.
    pub(super) fn next_to_close(&self) -> Option<ConnectionToken> {
        let limits = &self.limits;
        // Sessions displace strangers, down to what they must leave to them.
        let strangers = limits.strangers.min(limits.all.saturating_sub(self.session_blocks.total));
        (self.strangers.excess(limits.strangers_per_block, strangers))
            .or_else(|| self.session_users.excess(limits.sessions_per_user, usize::MAX))
            .or_else(|| self.session_blocks.excess(limits.sessions_per_block, limits.sessions))
    }

    fn count(&mut self, token: ConnectionToken, place: ConnectionPlace) {
        let entry = (place.active_ms, token);
        match &place.user {
            None => self.strangers.add(&place.block, entry),
            Some(user) => {
                self.session_blocks.add(&place.block, entry);
                self.session_users.add(user, entry);
            }
        }
        self.places.insert(token, place);
    }

    fn leave(&mut self, token: ConnectionToken) -> Option<ConnectionPlace> {
        let place = self.places.remove(&token)?;
        let entry = (place.active_ms, token);
        match &place.user {
            None => self.strangers.remove(&place.block, entry),
            Some(user) => {
                self.session_blocks.remove(&place.block, entry);
                self.session_users.remove(user, entry);
            }
        }
        Some(place)
    }
}

/// A connection, after the time of its last request.
type AgedConnection = (u64, ConnectionToken);

/// Connections by holder. The holder with the most comes last; of equals, the one with the connection that was silent for
/// longer.
#[derive(Debug)]
struct HolderCounts<K> {
    connections: BTreeMap<K, BTreeSet<AgedConnection>>,
    by_size: BTreeSet<(usize, Reverse<AgedConnection>, K)>,
    total: usize,
}

impl<K: Ord + Clone> HolderCounts<K> {
    fn new() -> HolderCounts<K> {
        HolderCounts { connections: BTreeMap::new(), by_size: BTreeSet::new(), total: 0 }
    }

    fn add(&mut self, holder: &K, entry: AgedConnection) {
        let mut held = self.take(holder);
        held.insert(entry);
        self.total += 1;
        self.put(holder, held);
    }

    fn remove(&mut self, holder: &K, entry: AgedConnection) {
        let mut held = self.take(holder);
        assert!(held.remove(&entry), "a connection is counted until it leaves");
        self.total -= 1;
        self.put(holder, held);
    }

    fn take(&mut self, holder: &K) -> BTreeSet<AgedConnection> {
        let held = self.connections.remove(holder).unwrap_or_default();
        if let Some(oldest) = held.first() {
            self.by_size.remove(&(held.len(), Reverse(*oldest), holder.clone()));
        }
        held
    }

    fn put(&mut self, holder: &K, held: BTreeSet<AgedConnection>) {
        if let Some(oldest) = held.first() {
            self.by_size.insert((held.len(), Reverse(*oldest), holder.clone()));
            self.connections.insert(holder.clone(), held);
        }
    }

    /// A connection that exceeds what one holder may have, or what all may have together.
    fn excess(&self, per_holder: usize, in_all: usize) -> Option<ConnectionToken> {
        let (size, Reverse((_, token)), _) = self.by_size.last()?;
        (*size > per_holder || self.total > in_all).then_some(*token)
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::SlotMap;
    use super::*;

    /// A table with 80 places: 40 for strangers, 10 for the strangers of one block, 70 for sessions, 20 for those of one
    /// block, 10 for those of one user.
    struct PlaceScenario {
        table: PlaceTable,
        slots: SlotMap<ConnectionToken>,
        now_ms: u64,
    }

    impl PlaceScenario {
        fn new() -> PlaceScenario {
            let limits = PlaceLimits::new(Some(80 + DESCRIPTORS_RESERVED as u64), None);
            PlaceScenario { table: PlaceTable::new(limits), slots: SlotMap::new(), now_ms: 0 }
        }

        /// Opens a connection a second later. Gives it, and those that end for it.
        fn open(&mut self, ip: &str, user: Option<&str>) -> (ConnectionToken, Vec<ConnectionToken>) {
            self.now_ms += 1_000;
            let token = self.slots.insert(|token| token);
            self.table.enter(token, ip.parse().unwrap(), self.now_ms);
            let mut closed = self.close_excess();
            self.table.set_user(token, user.map(|user| UserId::new(user).unwrap()).as_ref());
            closed.append(&mut self.close_excess());
            (token, closed)
        }

        fn close_excess(&mut self) -> Vec<ConnectionToken> {
            let mut closed = Vec::new();
            while let Some(token) = self.table.next_to_close() {
                self.table.forget(token);
                closed.push(token);
            }
            closed
        }

        fn open_many(&mut self, count: usize, ip: &str, user: Option<&str>) -> Vec<ConnectionToken> {
            (0..count).map(|_| self.open(ip, user).0).collect()
        }
    }

    #[test]
    fn an_address_has_a_share_and_its_own_oldest_connection_makes_room() {
        let mut scenario = PlaceScenario::new();
        let (other, _) = scenario.open("10.0.0.2", None);
        let first = scenario.open_many(10, "10.0.0.1", None);
        let (newest, closed) = scenario.open("10.0.0.1", None);
        assert_eq!(closed, [first[0]]);
        scenario.table.note_request(first[1], scenario.now_ms + 1);
        assert_eq!(scenario.open("10.0.0.1", None).1, [first[2]], "the one that asked stays");
        assert!([other, newest, first[1]].iter().all(|token| scenario.table.places.contains_key(token)));
        for suffix in 0..10 {
            assert_eq!(scenario.open(&format!("2001:db8::{suffix}"), None).1, []);
        }
        assert_eq!(scenario.open("2001:db8::ffff:0:0:1", None).1.len(), 1, "a /64 is one address");
    }

    #[test]
    fn a_newcomer_gets_in_while_many_addresses_hold_all_places_of_strangers() {
        let mut scenario = PlaceScenario::new();
        for block in 1..=8 {
            scenario.open_many(10, &format!("10.0.0.{block}"), None);
        }
        assert_eq!(scenario.table.strangers.total, 40);
        for ip in ["10.9.9.9", "10.0.0.0", "::1"] {
            let (honest, closed) = scenario.open(ip, None);
            assert!(closed.len() == 1 && closed[0] != honest, "a crowd's connection ends for {ip}");
        }
    }

    #[test]
    fn among_equals_the_longest_silent_ends() {
        let mut scenario = PlaceScenario::new();
        let first = scenario.open("2001:db8:0:1::1", None).0;
        for block in 2..=40 {
            scenario.open(&format!("2001:db8:0:{block:x}::1"), None);
        }
        assert_eq!(scenario.open("2001:db8:ffff::1", None).1, [first], "not the newcomer, at no address");
    }

    #[test]
    fn one_user_and_one_address_hold_a_part_of_the_sessions() {
        let mut scenario = PlaceScenario::new();
        let all: Vec<_> =
            (1..=10).map(|host| scenario.open(&format!("10.1.0.{host}"), Some("mallory")).0).collect();
        assert_eq!(scenario.open("10.1.0.77", Some("mallory")).1, [all[0]]);
        for user in ["u1", "u2", "u3"] {
            scenario.open_many(10, "10.0.0.1", Some(user));
        }
        let at_address = scenario.table.session_blocks.connections.values().map(BTreeSet::len).max();
        assert_eq!(at_address, Some(20));
        assert_eq!(scenario.open("10.0.0.9", Some("alice")).1, []);
    }

    #[test]
    fn sessions_displace_strangers_and_leave_them_a_part() {
        let mut scenario = PlaceScenario::new();
        for block in 1..=4 {
            scenario.open_many(10, &format!("10.0.0.{block}"), None);
        }
        for user in 0..80 {
            scenario.open(&format!("10.2.0.{user}"), Some(&format!("user{user}")));
        }
        assert_eq!(scenario.table.session_blocks.total, 70);
        for host in ["10.3.0.1", "10.3.0.2"] {
            let (newcomer, closed) = scenario.open(host, None);
            assert!(!closed.contains(&newcomer));
        }
        assert_eq!(scenario.table.strangers.total, 10);
        assert!(scenario.table.places.len() <= 80);
    }

    #[test]
    fn silence_ends_sooner_the_fuller_it_is() {
        let mut scenario = PlaceScenario::new();
        let (first, _) = scenario.open("10.0.0.1", None);
        let end_ms =
            |scenario: &PlaceScenario, token| scenario.table.silence_end_ms(token).unwrap() - scenario.now_ms;
        assert_eq!(end_ms(&scenario, first), FIRST_REQUEST_MS, "no request was completed");
        scenario.table.note_request(first, scenario.now_ms);
        assert_eq!(end_ms(&scenario, first), STRANGER_SILENCE_MAX_MS / 40 * 39);
        for block in 2..=5 {
            scenario.open_many(10, &format!("10.0.0.{block}"), None);
        }
        scenario.table.note_request(first, scenario.now_ms);
        let (newest, _) = scenario.open("10.0.0.9", None);
        assert_eq!(end_ms(&scenario, newest), STRANGER_SILENCE_MIN_MS);
        scenario.table.set_user(newest, Some(&UserId::new("alice").unwrap()));
        assert_eq!(scenario.table.silence_end_ms(newest), None, "a session may be silent");
    }

    #[test]
    fn files_keep_a_reserve_of_descriptors() {
        let all = |descriptors, per_address| PlaceLimits::new(descriptors, per_address).all;
        assert_eq!((all(Some(1_024), None), all(Some(100), None)), (960, 50));
        assert_eq!((all(None, None), all(Some(1 << 20), None)), (CONNECTIONS_MAX, CONNECTIONS_MAX));
        let limits = PlaceLimits::new(Some(1_024), Some(900));
        assert_eq!((limits.strangers_per_block, limits.sessions_per_block), (900, 900));
        assert_eq!(limits.strangers, 480, "the whole is as it was");
    }
}
