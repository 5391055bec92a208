//! A cache of recently signed tickets. A leecher asks again after 1, 2, 4, … seconds, and a signature costs
//! more than the rest of the answer.
//!
//! Invariants: a ticket is reused only for the same grant, and while it has most of its life left. The caller
//! checks each time that the client may have one. Entries are evicted by age alone, never by key: a member
//! who asks with invented keys only makes other tickets leave the cache sooner.

use std::collections::HashMap;
use std::mem;

use engine::proto::limits::TICKET_LIFE_S;
use engine::proto::ticket::{Grant, PeerKey, SecretKey, Ticket, UnixSeconds};
use engine::proto::units::Digest;

use crate::state::id::{GroupFile, UserId};

use super::limits::{TICKET_AGAIN_S, TICKETS_KEPT};

/// What a ticket permits: this user's node, by its key, may fetch this file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TicketClaim<'a> {
    pub(super) user: &'a UserId,
    pub(super) file: &'a GroupFile,
    /// Digest that names the content.
    pub(super) file_id: Digest,
    pub(super) peer_key: PeerKey,
}

/// Recent tickets in two generations, of which the previous one is dropped as a whole.
#[derive(Debug, Default)]
pub(super) struct TicketCache {
    current: Generation,
    previous: Generation,
    /// Start of the current generation, in seconds since the Unix epoch.
    since_s: u64,
}

type Generation = HashMap<(PeerKey, Digest), SignedTicket>;

#[derive(Debug)]
struct SignedTicket {
    grant: Grant,
    ticket: Ticket,
}

impl TicketCache {
    /// Gives a ticket with most of its life left, cached or newly signed.
    pub(super) fn issue(&mut self, claim: TicketClaim<'_>, key: &SecretKey, now_s: u64) -> Ticket {
        let cache_key = (claim.peer_key, claim.file_id);
        let kept = self.current.get(&cache_key).or_else(|| self.previous.get(&cache_key));
        if let Some(signed) = kept
            && signed.is_fresh(now_s)
            && signed.is_for(claim)
        {
            return signed.ticket.clone();
        }
        let grant = Grant {
            user: claim.user.as_str().to_owned(),
            group: claim.file.group.as_str().to_owned(),
            file_name: claim.file.name.as_str().to_owned(),
            file_id: claim.file_id,
            peer_key: claim.peer_key,
            expires: UnixSeconds(now_s + TICKET_LIFE_S),
        };
        let ticket = Ticket::sign(grant.clone(), key);
        if self.current.len() >= TICKETS_KEPT / 2 {
            self.rotate(now_s);
        }
        self.current.insert(cache_key, SignedTicket { grant, ticket: ticket.clone() });
        ticket
    }

    pub(super) fn sweep(&mut self, now_s: u64) {
        if !(self.since_s..self.since_s.saturating_add(TICKET_AGAIN_S)).contains(&now_s) {
            self.rotate(now_s);
        }
    }

    /// Makes the current generation the previous one.
    fn rotate(&mut self, now_s: u64) {
        self.previous = mem::take(&mut self.current);
        self.since_s = now_s;
    }
}

impl SignedTicket {
    /// Whether it is neither too old nor, after the clock was set back, from the future.
    fn is_fresh(&self, now_s: u64) -> bool {
        let signed_s = self.grant.expires.0 - TICKET_LIFE_S;
        (signed_s..signed_s + TICKET_AGAIN_S).contains(&now_s)
    }

    fn is_for(&self, claim: TicketClaim<'_>) -> bool {
        let Grant { user, group, file_name, file_id, peer_key, expires: _ } = &self.grant;
        let TicketClaim { file, .. } = claim;
        let same_file =
            *file_id == claim.file_id && file_name == file.name.as_str() && group == file.group.as_str();
        same_file && *peer_key == claim.peer_key && user == claim.user.as_str()
    }
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::FileName;

    use crate::state::id::GroupId;

    use super::*;

    const KEPT_S: u64 = 1_000;

    struct Asker {
        tickets: TicketCache,
        key: SecretKey,
        file: GroupFile,
    }

    impl Asker {
        fn new() -> Asker {
            let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
            Asker { tickets: TicketCache::default(), key: SecretKey::from_seed(&[3; 32]), file }
        }

        /// The time at which the ticket was signed that a node of this user gets now.
        fn signed_s(&mut self, user: &str, node: u32, now_s: u64) -> u64 {
            let user = UserId::new(user).unwrap();
            let claim = TicketClaim {
                user: &user,
                file: &self.file,
                file_id: Digest([7; 20]),
                peer_key: node_key(node),
            };
            let ticket = self.tickets.issue(claim, &self.key, now_s);
            let grant = ticket.unverified_grant().unwrap();
            assert_eq!((grant.user.as_str(), grant.peer_key), (user.as_str(), node_key(node)));
            assert_eq!((grant.group.as_str(), grant.file_name.as_str()), ("g", "f"));
            grant.expires.0 - TICKET_LIFE_S
        }

        fn kept(&self) -> usize {
            self.tickets.current.len() + self.tickets.previous.len()
        }
    }

    fn node_key(node: u32) -> PeerKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&node.to_be_bytes());
        PeerKey(key)
    }

    #[test]
    fn a_ticket_is_reused_for_a_short_time_and_for_the_same_grant_only() {
        let mut asker = Asker::new();
        assert_eq!(asker.signed_s("a", 1, 1_000), 1_000);
        assert_eq!(asker.signed_s("a", 1, 1_000 + TICKET_AGAIN_S - 1), 1_000);
        assert_eq!(asker.signed_s("a", 1, 1_000 + TICKET_AGAIN_S), 1_000 + TICKET_AGAIN_S);
        assert_eq!(asker.signed_s("b", 1, 1_050), 1_050);
        assert_eq!(asker.signed_s("a", 1, 1_051), 1_051);
        // After the clock was set back.
        assert_eq!(asker.signed_s("a", 1, 900), 900);
    }

    #[test]
    fn the_cache_is_bounded_and_evicts_by_age() {
        let mut asker = Asker::new();
        let half = u32::try_from(TICKETS_KEPT / 2).unwrap();
        // The smallest and the largest key, signed after half of the others: the order of keys does not
        // matter.
        for node in 1..half {
            asker.signed_s("a", node, KEPT_S);
        }
        asker.signed_s("a", 0, KEPT_S);
        asker.signed_s("a", u32::MAX, KEPT_S);
        for node in half..2 * half - 1 {
            asker.signed_s("mallory", node, KEPT_S + 1);
        }
        assert_eq!(asker.kept(), TICKETS_KEPT);
        assert_eq!(asker.signed_s("a", 0, KEPT_S + 2), KEPT_S, "reused from the previous generation");
        assert_eq!(asker.signed_s("a", u32::MAX, KEPT_S + 2), KEPT_S, "reused from the current generation");
        asker.signed_s("mallory", 2 * half, KEPT_S + 2);
        assert!(asker.kept() <= TICKETS_KEPT);
        assert_eq!(asker.signed_s("a", u32::MAX, KEPT_S + 3), KEPT_S, "in the previous generation by now");
        assert_eq!(asker.signed_s("a", 0, KEPT_S + 3), KEPT_S + 3, "dropped with its generation");
    }

    #[test]
    fn old_tickets_are_swept() {
        let mut asker = Asker::new();
        asker.tickets.sweep(KEPT_S);
        asker.signed_s("a", 1, KEPT_S);
        asker.tickets.sweep(KEPT_S + TICKET_AGAIN_S - 1);
        assert_eq!(asker.tickets.current.len(), 1, "it may still be reused");
        asker.tickets.sweep(KEPT_S + TICKET_AGAIN_S);
        asker.tickets.sweep(KEPT_S + 2 * TICKET_AGAIN_S);
        assert_eq!(asker.kept(), 0);
    }
}
