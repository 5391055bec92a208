//! Crowds against single consumers: of one address, of one user, of many users at one address; in virtual time.

use std::net::Ipv4Addr;

use super::super::limits::TICKET_GRACE_S;
use super::*;

const LIMITS: NodePlaceLimits = NodePlaceLimits { handshakes: 8, serving: 16 };
const END: UnixSeconds = UnixSeconds(1_000);

struct NodeScenario {
    table: NodePlaceTable,
    now: Moment,
}

impl NodeScenario {
    fn new() -> NodeScenario {
        NodeScenario { table: NodePlaceTable::new(LIMITS), now: Moment::default() }
    }

    /// A connection that closes at once the one that made room for it.
    fn accept(&mut self, ip: IpAddr) -> PlaceId {
        let accepted = self.table.accept(ip).expect("there is always room for a handshake");
        if let Some(ended) = accepted.ended {
            assert_eq!(self.table.end_of(ended), Some(PlaceEnd::Busy));
            self.table.remove(ended);
        }
        accepted.id
    }

    /// A connection that has shown a ticket; `None` when it is refused.
    fn open(&mut self, user: &str, ip: IpAddr) -> Option<PlaceId> {
        let id = self.accept(ip);
        match self.table.admit(self.now, id, user, END) {
            Ok(ended) => {
                ended.into_iter().for_each(|ended| self.table.remove(ended));
                Some(id)
            }
            Err(end) => {
                assert_eq!(end, PlaceEnd::Busy);
                self.table.remove(id);
                None
            }
        }
    }

    fn has_place(&self, id: PlaceId) -> bool {
        self.table.places.get(&id).is_some_and(|place| !matches!(place.state, PlaceState::Ended(_)))
    }

    fn count_of(&self, user: &str) -> usize {
        let is_of = |place: &&NodePlace| matches!(&place.state, PlaceState::Serving(serving) if *serving.user == *user);
        self.table.places.values().filter(is_of).count()
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

#[test]
fn strangers_of_one_address_make_room_for_others_and_for_their_own() {
    let mut provider = NodeScenario::new();
    let others = [provider.accept(ip(2)), provider.accept(ip(3))];
    let crowd: Vec<PlaceId> = (0..1_000).map(|_| provider.accept(ip(1))).collect();
    assert!(others.iter().all(|id| provider.has_place(*id)), "the crowd takes room from itself");
    let honest = provider.accept(ip(1));
    assert!(provider.has_place(honest), "also where an honest consumer shares its address");
    assert!(crowd[..990].iter().all(|id| !provider.has_place(*id)));
    assert_eq!(provider.table.places.len(), LIMITS.handshakes);
    assert!(provider.open("alice", ip(4)).is_some());
}

#[test]
fn one_machine_has_no_more_of_ipv6_by_changing_its_address() {
    let mut provider = NodeScenario::new();
    let honest = provider.accept("2001:db8:0:2::1".parse().unwrap());
    for host in 0..100_u16 {
        provider.accept(format!("2001:db8:0:1::{host:x}").parse().unwrap());
    }
    assert!(provider.has_place(honest));
    assert_eq!(AddressBlock::of("::ffff:10.0.0.1".parse().unwrap()), AddressBlock::of(ip(1)));
    assert_ne!(AddressBlock::of(ip(1)), AddressBlock::of(ip(2)));
}

#[test]
fn connections_that_do_not_close_are_bounded() {
    let mut provider = NodeScenario::new();
    let accepted: Vec<_> = (0..100).map_while(|_| provider.table.accept(ip(1))).collect();
    assert_eq!(accepted.len(), 2 * LIMITS.handshakes);
    let ended: Vec<PlaceId> = accepted.iter().filter_map(|accepted| accepted.ended).collect();
    provider.table.remove(ended[0]);
    assert!(provider.table.accept(ip(2)).is_some());
}

#[test]
fn a_user_with_all_places_makes_room_until_the_shares_are_equal() {
    for is_silent in [true, false] {
        let mut provider = NodeScenario::new();
        let crowd: Vec<PlaceId> = (0..16).map(|key| provider.open("mallory", ip(key)).unwrap()).collect();
        for round in 0..8 {
            if !is_silent {
                provider.pass_ms(PLACE_IDLE_MS);
                crowd.iter().for_each(|id| provider.table.note_use(provider.now, *id));
            }
            assert!(provider.open("alice", ip(1)).is_some(), "round {round}");
        }
        let _ = (provider.open("mallory", ip(9)), provider.open("alice", ip(1)));
        assert_eq!([provider.count_of("mallory"), provider.count_of("alice")], [8, 8], "equal shares stay");
        assert!(provider.open("bob", ip(1)).is_some());
    }
}

#[test]
fn many_accounts_at_one_address_share_its_part() {
    let mut provider = NodeScenario::new();
    for puppet in 0..16 {
        provider.open(&format!("puppet-{puppet}"), ip(1)).unwrap();
    }
    assert!(provider.open("alice", ip(2)).is_some());
    assert_eq!(provider.open("puppet-17", ip(1)), None);
    provider.pass_ms(PLACE_IDLE_MS);
    assert!(provider.open("bob", ip(1)).is_some(), "behind the same address an idle one makes room");
}

#[test]
fn an_idle_consumer_makes_room_but_not_for_a_user_who_has_as_many() {
    let mut provider = NodeScenario::new();
    let users: Vec<PlaceId> =
        (0..15).map(|user| provider.open(&format!("user-{user}"), ip(user)).unwrap()).collect();
    let mallory = provider.open("mallory", ip(99)).unwrap();
    assert_eq!(provider.open("late", ip(100)), None, "all are in use");
    provider.pass_ms(PLACE_IDLE_MS);
    users[1..].iter().for_each(|id| provider.table.note_use(provider.now, *id));
    assert!(provider.open("late", ip(100)).is_some());
    assert!(!provider.has_place(users[0]) && provider.has_place(mallory), "the one unused for longest");
    provider.pass_ms(PLACE_IDLE_MS);
    assert!(provider.open("mallory", ip(99)).is_some());
    assert!(!provider.has_place(mallory), "her own idle connection made room");
    assert!(users[1..].iter().all(|id| provider.has_place(*id)));
    assert_eq!(provider.open("mallory", ip(99)), None);
}

#[test]
fn a_connection_ends_with_its_ticket_and_grace_unless_it_was_renewed() {
    let mut provider = NodeScenario::new();
    let (silent, renewed) = (provider.open("a", ip(1)).unwrap(), provider.open("a", ip(1)).unwrap());
    provider.table.renew(renewed, UnixSeconds(END.0 + 1));
    let last = UnixSeconds(END.0 + TICKET_GRACE_S);
    assert_eq!(provider.table.expire(provider.now, last), []);
    assert_eq!(provider.table.expire(provider.now, UnixSeconds(last.0 + 1)), [silent]);
    assert_eq!(provider.table.end_of(silent), Some(PlaceEnd::Expired));
    assert_eq!(provider.table.end_of(renewed), None);
    provider.table.remove(silent);
    assert_eq!((provider.table.places.len(), provider.table.serving_count), (1, 1));
}

#[test]
fn rejections_of_one_user_are_paced_over_all_connections_and_over_reconnecting() {
    let mut provider = NodeScenario::new();
    let (first, other) = (provider.open("mallory", ip(1)).unwrap(), provider.open("alice", ip(2)).unwrap());
    for _ in 0..REJECTIONS_BURST {
        assert_eq!(provider.table.reserve_rejection(provider.now, first), 0);
    }
    provider.table.remove(first);
    provider.table.expire(provider.now, END);
    let again = provider.open("mallory", ip(3)).unwrap();
    assert!(provider.table.reserve_rejection(provider.now, again) > 0);
    assert_eq!(provider.table.reserve_rejection(provider.now, other), 0);
    provider.table.remove(again);
    provider.pass_ms(REJECTION_EVERY_MS * 2 * u64::from(REJECTIONS_BURST));
    provider.table.expire(provider.now, END);
    assert_eq!(provider.table.rejections.len(), 1, "only alice has a place");
}

#[test]
fn few_descriptors_make_few_places() {
    let full = NodePlaceLimits { handshakes: UNAUTHENTICATED_MAX, serving: PROVIDER_CONNECTIONS_MAX };
    assert_eq!(NodePlaceLimits::for_descriptors(None), full);
    assert_eq!(NodePlaceLimits::for_descriptors(Some(1 << 20)), full);
    for descriptors in [0, 64, 256, 1_024, 4_096] {
        let NodePlaceLimits { handshakes, serving } = NodePlaceLimits::for_descriptors(Some(descriptors));
        assert!(handshakes > 0 && serving > 0);
        let used = 2 * (2 * handshakes + serving) as u64;
        assert!(used <= (descriptors / 2).max(6), "{descriptors}: {used}");
    }
}
