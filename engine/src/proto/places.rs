//! The places of a provider's connections: who gets one, and who gives one up for another.
//!
//! ```text
//!   accept ──► Handshake(address) ──admit──► Serving(user, address) ──┐
//!                  └──────────── made room, or expired ───────────────┴──► Ended ──remove──►
//! ```
//!
//! A crowd takes room from itself: when all places are taken, the address or user with most connections gives one up. No
//! limit stands in the way while places are free. Invariant: there are never more places than the [`NodePlaceLimits`] say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::limits::{
    DESCRIPTORS_PER_PLACE, PLACE_IDLE_MS, PROVIDER_CONNECTIONS_MAX, REJECTION_EVERY_MS, REJECTIONS_BURST,
    UNAUTHENTICATED_MAX,
};
use super::rate::BurstLimit;
use super::ticket::UnixSeconds;
use super::time::Moment;

/// The place of one connection. Numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceId(u64);

/// Why a connection lost its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceEnd {
    /// Another consumer needs the place.
    Busy,
    /// The ticket and its grace have ended.
    Expired,
}

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlaceLimits {
    /// For connections that have shown no ticket yet; and as many for those that have lost their place and are about to close.
    handshakes: usize,
    /// For connections with a ticket.
    serving: usize,
}

impl NodePlaceLimits {
    /// The limits of a process that may have `descriptors` files open; `None`: any number.
    #[must_use]
    pub fn for_descriptors(descriptors: Option<u64>) -> NodePlaceLimits {
        const ALL: usize = PROVIDER_CONNECTIONS_MAX + 2 * UNAUTHENTICATED_MAX;
        let most = descriptors.map_or(u64::MAX, |count| count / DESCRIPTORS_PER_PLACE);
        let all = usize::try_from(most).unwrap_or(ALL).min(ALL);
        let share = |of: usize| (of * all / ALL).max(1);
        NodePlaceLimits { handshakes: share(UNAUTHENTICATED_MAX), serving: share(PROVIDER_CONNECTIONS_MAX) }
    }
}

/// The address that a connection counts for: one of IPv4, or a /64 of IPv6, of which one machine may have all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AddressBlock(IpAddr);

impl AddressBlock {
    fn of(ip: IpAddr) -> AddressBlock {
        AddressBlock(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
            ip => ip,
        })
    }
}

/// One connection.
#[derive(Debug)]
struct NodePlace {
    address: AddressBlock,
    state: PlaceState,
}

#[derive(Debug)]
enum PlaceState {
    /// It has shown no ticket yet.
    Handshake,
    Serving(ServingPlace),
    /// It has lost its place, and is about to close.
    Ended(PlaceEnd),
}

#[derive(Debug)]
struct ServingPlace {
    user: Arc<str>,
    /// End of the ticket.
    expires: UnixSeconds,
    /// When the last piece was sent, or the connection was admitted.
    used_at: Moment,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedPlace {
    /// Its place.
    pub id: PlaceId,
    /// The connection that made room for it, to be closed.
    pub ended: Option<PlaceId>,
}

/// All connections to one provider.
#[derive(Debug)]
pub struct NodePlaceTable {
    limits: NodePlaceLimits,
    places: BTreeMap<PlaceId, NodePlace>,
    next_id: u64,
    handshakes: BTreeMap<AddressBlock, BTreeSet<PlaceId>>,
    serving_count: usize,
    /// What is left of each user's rejections; only of users with a place, and of those whose burst is not saved up again.
    rejections: BTreeMap<Arc<str>, BurstLimit>,
}

impl NodePlaceTable {
    /// A table without connections.
    #[must_use]
    pub fn new(limits: NodePlaceLimits) -> NodePlaceTable {
        NodePlaceTable {
            limits,
            places: BTreeMap::new(),
            next_id: 0,
            handshakes: BTreeMap::new(),
            serving_count: 0,
            rejections: BTreeMap::new(),
        }
    }

    /// Gives a place to a new connection. When all are taken, the oldest handshake of the address that has most of them makes
    /// room. `None`: too many connections that have lost their place are still to be closed.
    pub fn accept(&mut self, ip: IpAddr) -> Option<AcceptedPlace> {
        let handshake_count: usize = self.handshakes.values().map(BTreeSet::len).sum();
        if self.places.len() - handshake_count - self.serving_count >= self.limits.handshakes {
            return None;
        }
        let address = AddressBlock::of(ip);
        let ended =
            if handshake_count < self.limits.handshakes { None } else { self.oldest_of_most(address) };
        if let Some(ended) = ended {
            self.end(ended, PlaceEnd::Busy);
        }
        let id = PlaceId(self.next_id);
        self.next_id += 1;
        self.handshakes.entry(address).or_default().insert(id);
        self.places.insert(id, NodePlace { address, state: PlaceState::Handshake });
        Some(AcceptedPlace { id, ended })
    }

    /// The oldest handshake of the address with most handshakes, where one more counts for `newcomer`.
    fn oldest_of_most(&self, newcomer: AddressBlock) -> Option<PlaceId> {
        let count = |address: &AddressBlock, ids: &BTreeSet<PlaceId>| {
            (ids.len() + usize::from(*address == newcomer), *address == newcomer)
        };
        let most = self.handshakes.iter().max_by_key(|(address, ids)| count(address, ids));
        most.and_then(|(_, ids)| ids.first().copied())
    }

    /// Moves a connection whose ticket was verified to the serving places. When all are taken, another connection makes room
    /// and is to be closed; it is returned.
    ///
    /// # Errors
    /// [`PlaceEnd`]: the connection has lost its place already, or none is free and no other makes room.
    pub fn admit(
        &mut self,
        now: Moment,
        id: PlaceId,
        user: &str,
        expires: UnixSeconds,
    ) -> Result<Option<PlaceId>, PlaceEnd> {
        let address = match self.places.get(&id) {
            Some(NodePlace { address, state: PlaceState::Handshake }) => *address,
            Some(NodePlace { state: PlaceState::Ended(end), .. }) => return Err(*end),
            _ => unreachable!("a connection shows its first ticket once, while it has a place"),
        };
        let is_full = self.serving_count >= self.limits.serving;
        let ended = is_full.then(|| self.make_room(now, user, address).ok_or(PlaceEnd::Busy)).transpose()?;
        if let Some(ended) = ended {
            self.end(ended, PlaceEnd::Busy);
        }
        self.remove_handshake(id, address);
        let user = self.rejections_of(user);
        let state = PlaceState::Serving(ServingPlace { user, expires, used_at: now });
        self.places.insert(id, NodePlace { address, state });
        self.serving_count += 1;
        assert!(self.serving_count <= self.limits.serving, "the serving places are bounded");
        Ok(ended)
    }

    /// The serving connection that makes room for one of `user` at `address`: of the user with most; else of the address with
    /// most, or an idle one, but only of the same user or of one who has more. It is the one that was unused for longest.
    fn make_room(&self, now: Moment, user: &str, address: AddressBlock) -> Option<PlaceId> {
        let serving = || {
            self.places.iter().filter_map(|(id, place)| match &place.state {
                PlaceState::Serving(serving) => Some((*id, place.address, serving)),
                _ => None,
            })
        };
        let (mut by_user, mut by_address) = (BTreeMap::new(), BTreeMap::new());
        for (_, address, place) in serving() {
            *by_user.entry(&*place.user).or_insert(0) += 1;
            *by_address.entry(address).or_insert(0) += 1;
        }
        let user_with_most = find_most(&by_user, &user);
        let address_with_most = find_most(&by_address, &address);
        let own_count = by_user.get(user).copied().unwrap_or(0);
        let makes_room = |address: AddressBlock, place: &ServingPlace| {
            let is_idle = now.ms_since(place.used_at) >= PLACE_IDLE_MS;
            let has_more = by_user[&*place.user] > own_count;
            match user_with_most {
                Some(user) => *place.user == *user,
                None if Some(address) == address_with_most && has_more => true,
                None => is_idle && (has_more || *place.user == *user),
            }
        };
        let candidates = serving().filter(|(_, address, place)| makes_room(*address, place));
        candidates.min_by_key(|(id, _, place)| (place.used_at, *id)).map(|(id, ..)| id)
    }

    /// Notes that a connection showed a later ticket.
    pub fn renew(&mut self, id: PlaceId, expires: UnixSeconds) {
        if let Some(place) = self.serving_mut(id) {
            place.expires = expires;
        }
    }

    /// Notes that a piece was sent to a connection.
    pub fn note_use(&mut self, now: Moment, id: PlaceId) {
        if let Some(place) = self.serving_mut(id) {
            place.used_at = now;
        }
    }

    /// Counts a rejected request of a connection for its user. Returns how long to wait before it is answered, in milliseconds.
    pub fn reserve_rejection(&mut self, now: Moment, id: PlaceId) -> u64 {
        let Some(user) = self.serving_mut(id).map(|place| Arc::clone(&place.user)) else { return 0 };
        self.rejections.get_mut(&user).map_or(0, |rejections| rejections.reserve(now))
    }

    /// Ends the connections whose ticket and grace are over at `time`, and returns them. To be called regularly.
    pub fn expire(&mut self, now: Moment, time: UnixSeconds) -> Vec<PlaceId> {
        let is_over = |place: &NodePlace| match &place.state {
            PlaceState::Serving(serving) => serving.expires.is_over_at(time),
            _ => false,
        };
        let over: Vec<PlaceId> =
            self.places.iter().filter(|(_, place)| is_over(place)).map(|(id, _)| *id).collect();
        over.iter().for_each(|id| self.end(*id, PlaceEnd::Expired));
        self.rejections.retain(|user, rejections| Arc::strong_count(user) > 1 || !rejections.is_full(now));
        over
    }

    /// Why a connection has lost its place, if it has.
    #[must_use]
    pub fn end_of(&self, id: PlaceId) -> Option<PlaceEnd> {
        match self.places.get(&id)?.state {
            PlaceState::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// A connection was closed.
    pub fn remove(&mut self, id: PlaceId) {
        if let Some(place) = self.places.remove(&id) {
            self.leave_state(id, &place);
        }
    }

    fn end(&mut self, id: PlaceId, end: PlaceEnd) {
        let place = self.places.remove(&id).expect("a connection that ends has a place");
        self.leave_state(id, &place);
        self.places.insert(id, NodePlace { state: PlaceState::Ended(end), ..place });
    }

    fn leave_state(&mut self, id: PlaceId, place: &NodePlace) {
        match place.state {
            PlaceState::Handshake => self.remove_handshake(id, place.address),
            PlaceState::Serving(_) => self.serving_count -= 1,
            PlaceState::Ended(_) => {}
        }
    }

    fn remove_handshake(&mut self, id: PlaceId, address: AddressBlock) {
        let ids = self.handshakes.get_mut(&address).expect("each handshake is counted for its address");
        assert!(ids.remove(&id), "each handshake is counted");
        if ids.is_empty() {
            self.handshakes.remove(&address);
        }
    }

    fn serving_mut(&mut self, id: PlaceId) -> Option<&mut ServingPlace> {
        match &mut self.places.get_mut(&id)?.state {
            PlaceState::Serving(place) => Some(place),
            _ => None,
        }
    }

    /// The user's name as the key under which its rejections are counted.
    fn rejections_of(&mut self, user: &str) -> Arc<str> {
        if let Some((known, _)) = self.rejections.get_key_value(user) {
            return Arc::clone(known);
        }
        let user = Arc::<str>::from(user);
        let rejections = BurstLimit::new(Duration::from_millis(REJECTION_EVERY_MS), REJECTIONS_BURST);
        self.rejections.insert(Arc::clone(&user), rejections);
        user
    }
}

/// Who has most connections, if giving one to `newcomer` leaves that one with no fewer than `newcomer` has then.
fn find_most<K: Ord + Copy>(counts: &BTreeMap<K, usize>, newcomer: &K) -> Option<K> {
    let own = counts.get(newcomer).copied().unwrap_or(0);
    let (most, count) = counts.iter().max_by_key(|(_, count)| **count)?;
    (*count > own + 1).then_some(*most)
}

#[cfg(test)]
mod tests;
