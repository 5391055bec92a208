//! Tickets that were signed a moment ago: a leecher asks again after 1, 2, 4, … seconds, and a signature costs more than all
//! the rest of the answer.
//!
//! Invariant: a ticket is given again only for the same grant, and while it has most of its life left. Whether the asker may
//! have one is decided before, each time.

use std::collections::BTreeMap;

use engine::proto::limits::TICKET_LIFE_S;
use engine::proto::ticket::{Grant, PeerKey, SecretKey, Ticket, UnixSeconds};
use engine::proto::units::Digest;

use super::limits::{TICKET_AGAIN_S, TICKETS_KEPT};

/// The tickets of the last moments.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// Boxed, for a tree moves its values about whenever one comes or goes.
    kept: BTreeMap<(PeerKey, Digest), Box<Signed>>,
}

#[derive(Debug)]
struct Signed {
    grant: Grant,
    ticket: Ticket,
}

impl Tickets {
    /// A ticket for a grant, whose expiry is set here.
    pub(super) fn issue(&mut self, grant: Grant, key: &SecretKey, now_s: u64) -> Ticket {
        let place = (grant.peer_key, grant.file_id);
        if let Some(signed) = self.kept.get(&place)
            && signed.is_fresh(now_s)
            && signed.is_for(&grant)
        {
            return signed.ticket.clone();
        }
        let grant = Grant { expires: UnixSeconds(now_s + TICKET_LIFE_S), ..grant };
        let ticket = Ticket::sign(grant.clone(), key);
        if self.kept.len() >= TICKETS_KEPT && !self.kept.contains_key(&place) {
            self.kept.pop_first();
        }
        self.kept.insert(place, Box::new(Signed { grant, ticket: ticket.clone() }));
        ticket
    }

    /// Forgets those that are too old to be given again.
    pub(super) fn sweep(&mut self, now_s: u64) {
        self.kept.retain(|_, signed| signed.is_fresh(now_s));
    }
}

impl Signed {
    /// Neither too old nor, after the clock was set back, of the future.
    fn is_fresh(&self, now_s: u64) -> bool {
        let signed_s = self.grant.expires.0 - TICKET_LIFE_S;
        (signed_s..signed_s + TICKET_AGAIN_S).contains(&now_s)
    }

    fn is_for(&self, grant: &Grant) -> bool {
        let Grant { user, group, file_name, file_id, peer_key, expires: _ } = &self.grant;
        let same_file = *file_id == grant.file_id && *file_name == grant.file_name && *group == grant.group;
        same_file && *peer_key == grant.peer_key && *user == grant.user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(user: &str) -> Grant {
        Grant {
            user: user.to_owned(),
            group: "g".to_owned(),
            file_name: "f".to_owned(),
            file_id: Digest([7; 20]),
            peer_key: PeerKey([1; 32]),
            expires: UnixSeconds(0),
        }
    }

    #[test]
    fn a_ticket_is_given_again_for_a_moment_and_for_the_same_grant_only() {
        let key = SecretKey::from_seed(&[3; 32]);
        let mut tickets = Tickets::default();
        let mut expiry = |user: &str, now_s| {
            let ticket = tickets.issue(grant(user), &key, now_s);
            let read = ticket.verify(key.tracker_key()).unwrap();
            assert_eq!(read.user, user);
            read.expires.0
        };
        assert_eq!(expiry("a", 1_000), 1_000 + TICKET_LIFE_S);
        assert_eq!(expiry("a", 1_000 + TICKET_AGAIN_S - 1), 1_000 + TICKET_LIFE_S);
        assert_eq!(expiry("a", 1_000 + TICKET_AGAIN_S), 1_000 + TICKET_AGAIN_S + TICKET_LIFE_S);
        assert_eq!(expiry("b", 1_050), 1_050 + TICKET_LIFE_S);
        assert_eq!(expiry("a", 1_051), 1_051 + TICKET_LIFE_S);
        // The clock was set back.
        assert_eq!(expiry("a", 900), 900 + TICKET_LIFE_S);
    }

    #[test]
    fn what_is_kept_is_bounded_and_swept() {
        let key = SecretKey::from_seed(&[3; 32]);
        let mut tickets = Tickets::default();
        for number in 0..3_u8 {
            tickets.issue(Grant { peer_key: PeerKey([number; 32]), ..grant("a") }, &key, 1_000);
        }
        assert_eq!(tickets.kept.len(), 3);
        tickets.sweep(1_000 + TICKET_AGAIN_S);
        assert!(tickets.kept.is_empty());
    }
}
