//! Leases: online sessions, pieces of leechers, and the choice of peers.

use std::collections::BTreeSet;

use engine::proto::units::{PieceCount, PieceIndex, PieceRange};

use super::*;
use crate::state::leases::{
    AskingClient, BadUpdate, ClientConnectionId, LeaseTable, ListedContent, OnlineCounts, PeerCandidate,
    PeerPresence, ReportOutcome,
};
use crate::state::limits::{
    ASKED_PER_FILE_MAX, LEASE_MS, LEECHER_MEMORY_MS, LEECHERS_PER_SWARM, NODES_PER_USER_AND_FILE,
    PEERS_PER_ANSWER, REPORTS_PER_USER, UPDATE_MAX_RANGES,
};
use crate::state::node::SwarmPeer;

/// A time at which no election is recent.
const START_MS: u64 = 10 * LEASE_MS;
const PIECES: PieceCount = PieceCount(8);
const LISTED: ListedContent = ListedContent { id: Digest([7; 20]), fold: [7; 32], pieces: PIECES };

fn leases() -> LeaseTable {
    LeaseTable::new(START_MS - LEASE_MS)
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn peer(name: &str, number: u8) -> SwarmPeer {
    SwarmPeer { user: user(name), holder: node(u16::from(number)), session: session(number) }
}

fn key() -> GroupFile {
    file(&group("g"), "f")
}

fn runs(of: &[(u32, u32)]) -> Vec<PieceRange> {
    of.iter().map(|(first, last)| PieceRange::new(PieceIndex(*first), PieceIndex(*last)).unwrap()).collect()
}

/// Opens a connection without pings for each peer.
fn connect(leases: &mut LeaseTable, peers: &[SwarmPeer]) {
    for (peer, connection) in peers.iter().zip(100..) {
        leases.open_connection(peer.session, ClientConnectionId(connection), START_MS);
    }
}

fn told(leases: &mut LeaseTable, seeders: &[SwarmPeer], asker: &UserId) -> Vec<u16> {
    let asker = AskingClient { user: asker, address: None, on_loopback: false };
    let choice = leases.choose_peers(&key(), LISTED, seeders, asker, START_MS);
    choice.peers().map(|candidate| candidate.peer.holder.address.port()).collect()
}

#[test]
fn a_ping_keeps_a_session_online_for_its_lease() {
    let mut leases = leases();
    let online = |leases: &LeaseTable, now_ms| leases.presence(session(1), now_ms).is_some();
    assert!(!online(&leases, START_MS));
    leases.open_connection(session(1), ClientConnectionId(1), START_MS);
    assert!(online(&leases, START_MS + 100 * LEASE_MS), "without a ping, while the connection is open");
    leases.record_ping(session(1), ClientConnectionId(1), START_MS);
    assert!(online(&leases, START_MS + LEASE_MS - 1));
    assert!(!online(&leases, START_MS + LEASE_MS));
    leases.close_connection(session(1), ClientConnectionId(1), START_MS + 1);
    assert!(online(&leases, START_MS + LEASE_MS - 1), "a lease outlives its connection");
}

#[test]
fn a_node_that_goes_offline_is_named_no_more_until_its_next_ping() {
    let mut leases = LeaseTable::new(START_MS);
    let online = |leases: &LeaseTable| leases.presence(session(1), START_MS).is_some();
    assert!(online(&leases), "presumed, just after an election");
    leases.end_lease(session(1), START_MS);
    assert!(!online(&leases));
    leases.record_ping(session(1), ClientConnectionId(1), START_MS);
    assert!(online(&leases));
    leases.open_connection(session(1), ClientConnectionId(2), START_MS);
    leases.end_lease(session(1), START_MS);
    assert!(!online(&leases), "neither the lease nor an open connection counts");
}

#[test]
fn a_connection_that_never_pings_is_online_while_open() {
    let mut leases = leases();
    leases.open_connection(session(1), ClientConnectionId(1), START_MS);
    leases.open_connection(session(1), ClientConnectionId(2), START_MS);
    leases.close_connection(session(1), ClientConnectionId(1), START_MS);
    assert!(leases.presence(session(1), START_MS).is_some());
    leases.close_connection(session(1), ClientConnectionId(2), START_MS);
    assert_eq!(leases.presence(session(1), START_MS), None);
}

#[test]
fn after_an_election_all_count_as_online_and_confirmed_ones_come_first() {
    let mut leases = LeaseTable::new(START_MS);
    let seeders = [peer("a", 1), peer("b", 2)];
    leases.record_ping(session(2), ClientConnectionId(1), START_MS);
    for _ in 0..4 {
        assert_eq!(told(&mut leases, &seeders, &user("z")), [2, 1]);
    }
    assert_eq!(leases.presence(session(1), START_MS + LEASE_MS - 1), Some(PeerPresence::Presumed));
    assert_eq!(leases.presence(session(1), START_MS + LEASE_MS), None);
}

#[test]
fn a_leecher_is_named_for_the_pieces_that_it_announced() {
    let mut leases = leases();
    let (seeder, leecher) = (peer("a", 1), peer("b", 2));
    connect(&mut leases, &[seeder.clone(), leecher.clone()]);
    leases.join_swarm(&key(), LISTED, leecher.clone(), START_MS);
    let seeders = [seeder];
    assert_eq!(told(&mut leases, &seeders, &user("z")), [1, 2], "a leecher of the swarm at once");
    let update = runs(&[(0, 1), (7, 7)]);
    assert_eq!(leases.record_pieces(&key(), LISTED, leecher.clone(), &update, START_MS), Ok(false));
    let asked_by = user("z");
    let asker = AskingClient { user: &asked_by, address: None, on_loopback: false };
    let choice = leases.choose_peers(&key(), LISTED, &seeders, asker, START_MS);
    let holders = |index| {
        let sharers = choice.sharers(9).into_iter().filter(|sharer| sharer.has(PieceIndex(index)));
        sharers.map(|sharer| sharer.address.port()).collect::<Vec<_>>()
    };
    assert_eq!([holders(0), holders(2), holders(7)], [vec![1, 2], vec![1], vec![1, 2]]);
    assert_eq!(leases.count_online(&key(), &seeders, START_MS), OnlineCounts { seeders: 1, leechers: 1 });
    assert_eq!(leases.record_pieces(&key(), LISTED, leecher, &runs(&[(2, 6)]), START_MS), Ok(true));
}

#[test]
fn updates_that_do_not_fit_change_nothing() {
    let mut leases = leases();
    let mut gained =
        |ranges: &[PieceRange]| leases.record_pieces(&key(), LISTED, peer("a", 1), ranges, START_MS);
    assert_eq!(gained(&runs(&[(0, 0), (3, 8)])), Err(BadUpdate::PastEnd { last: 8, pieces: 8 }));
    assert_eq!(gained(&runs(&[(0, 7), (0, 7)])), Err(BadUpdate::Overlap));
    let many = vec![PieceRange::single(PieceIndex(0)); UPDATE_MAX_RANGES + 1];
    assert_eq!(gained(&many), Err(BadUpdate::TooManyRanges(many.len())));
    assert_eq!(leases.count_online(&key(), &[], START_MS), OnlineCounts::default());
}

#[test]
fn a_client_is_not_told_itself_nor_loopback_from_elsewhere() {
    let mut leases = leases();
    let mut local = peer("b", 2);
    local.holder.address = SocketAddr::from(([127, 0, 0, 1], 2));
    let seeders = [peer("a", 1), local];
    connect(&mut leases, &seeders);
    let mut ports = |name: &str, port, on_loopback| -> BTreeSet<u16> {
        let user = user(name);
        let asker = AskingClient { user: &user, address: Some(address(port)), on_loopback };
        let choice = leases.choose_peers(&key(), LISTED, &seeders, asker, START_MS);
        choice.peers().map(|candidate| candidate.peer.holder.address.port()).collect()
    };
    assert_eq!(ports("z", 9, true), [1, 2].into());
    assert_eq!(ports("z", 9, false), [1].into());
    assert_eq!(ports("a", 1, true), [2].into());
    assert_eq!(ports("a", 9, true), [1, 2].into(), "another node of the same user is a peer");
}

#[test]
fn each_of_many_peers_is_told_in_turn() {
    let mut leases = leases();
    let seeders: Vec<SwarmPeer> = (1..=60).map(|number| peer(&format!("u{number}"), number)).collect();
    connect(&mut leases, &seeders);
    let mut seen = BTreeSet::new();
    let mut firsts = BTreeSet::new();
    for _ in 0..60 {
        let ports = told(&mut leases, &seeders, &user("z"));
        assert_eq!(ports.len(), PEERS_PER_ANSWER);
        firsts.insert(ports[0]);
        seen.extend(ports);
    }
    assert_eq!((seen.len(), firsts.len()), (60, 60));
}

#[test]
fn a_node_that_is_known_twice_at_one_address_is_told_once() {
    let at = |ip: &str, number| {
        let address = SocketAddr::new(ip.parse().unwrap(), 5);
        SwarmPeer { holder: NodeEndpoint { address, ..keyed(0, number) }, ..peer("a", number) }
    };
    for ip in ["10.0.0.2", "::ffff:10.0.0.2", "2001:db8::7"] {
        let mut leases = leases();
        let seeders = [at(ip, 1)];
        connect(&mut leases, &[at(ip, 1), at(ip, 2)]);
        leases.join_swarm(&key(), LISTED, at(ip, 2), START_MS);
        for _ in 0..2 {
            assert_eq!(told(&mut leases, &seeders, &user("z")), [5], "{ip}");
            let asker = AskingClient { user: &user("z"), address: None, on_loopback: false };
            let choice = leases.choose_peers(&key(), LISTED, &seeders, asker, START_MS);
            assert!(choice.peers().all(PeerCandidate::is_complete), "{ip}: the better entry stands");
        }
    }
    // Chosen so that their halves are swapped: two addresses all the same.
    let mut leases = leases();
    let seeders = [at("::2", 1), at("0:2::", 2)];
    connect(&mut leases, &seeders);
    assert_eq!(told(&mut leases, &seeders, &user("z")), [5, 5]);
}

#[test]
fn a_reported_peer_is_withheld_from_its_reporter_and_last_for_others_once_three_agree() {
    let mut leases = leases();
    let seeders = [peer("bad", 1), peer("good", 2)];
    let reporters: Vec<SwarmPeer> = (3..=5).map(|number| peer(&format!("r{number}"), number)).collect();
    connect(&mut leases, &seeders);
    let report = |leases: &mut LeaseTable, by: &str, port| {
        leases.record_report(&key(), &user(by), address(port), &seeders)
    };
    assert_eq!(report(&mut leases, "r3", 1), ReportOutcome::NotFetched);
    for reporter in &reporters {
        leases.join_swarm(&key(), LISTED, reporter.clone(), START_MS);
    }
    assert_eq!(report(&mut leases, "r3", 9), ReportOutcome::NoPeer);
    assert_eq!(report(&mut leases, "r3", 1), ReportOutcome::Noted);
    for _ in 0..5 {
        assert_eq!(report(&mut leases, "r3", 1), ReportOutcome::Again);
    }
    assert_eq!(report(&mut leases, "r4", 1), ReportOutcome::Noted);
    assert_eq!(told(&mut leases, &seeders, &user("r3")), [2]);
    let firsts: BTreeSet<u16> = (0..4).map(|_| told(&mut leases, &seeders, &user("z"))[0]).collect();
    assert_eq!(firsts, [1, 2].into(), "two do not suffice, nor one who repeats it");
    report(&mut leases, "r5", 1);
    for _ in 0..4 {
        assert_eq!(told(&mut leases, &seeders, &user("z")), [2, 1], "last, not gone");
    }
}

#[test]
fn what_a_command_removes_is_removed_from_the_leases() {
    let actor = Actor { user: user("b"), session: session(2) };
    let left = CommandOutcome::Left { new_owner: None, group_deleted: false };
    let boss = Actor { user: user("o"), session: session(9) };
    let removal = LogAction::RemoveMember { group: group("g"), user: user("b") };
    let cases = [
        (&actor, LogAction::Logout, CommandOutcome::LoggedOut, 0),
        (&actor, LogAction::LeaveGroup { group: group("g") }, left.clone(), 0),
        (&actor, LogAction::LeaveGroup { group: group("h") }, left, 1),
        (
            &actor,
            LogAction::Complete { file: key(), node: node(2), content: None },
            CommandOutcome::Completed,
            0,
        ),
        (
            &actor,
            LogAction::StopShare { file: file(&group("h"), "f"), node: node(2), content: None },
            CommandOutcome::ShareStopped,
            1,
        ),
        (&boss, LogAction::Logout, CommandOutcome::LoggedOut, 1),
        (&boss, removal, CommandOutcome::MemberRemoved, 0),
        (&boss, LogAction::RemoveFile { file: key() }, CommandOutcome::FileRemoved, 0),
    ];
    for (by, action, outcome, leechers) in cases {
        let mut leases = leases();
        connect(&mut leases, &[peer("b", 2)]);
        leases.join_swarm(&key(), LISTED, peer("b", 2), START_MS);
        let command = LogCommand::by(by.clone(), 0, None, action);
        leases.follow_command(&command, &outcome);
        assert_eq!(leases.count_online(&key(), &[], START_MS).leechers, leechers, "{command:?}");
    }
}

#[test]
fn one_users_requests_do_not_make_the_tracker_forget_what_others_asked_for() {
    let mut leases = leases();
    let first = peer("a", 2);
    leases.join_swarm(&key(), LISTED, first.clone(), START_MS);
    for number in 0..=ASKED_PER_FILE_MAX {
        let number = u16::try_from(number).unwrap();
        leases.join_swarm(&key(), LISTED, SwarmPeer { holder: node(number), ..peer("z", 3) }, START_MS);
    }
    let other = ListedContent { fold: [8; 32], ..LISTED };
    leases.join_swarm(&key(), other, peer("c", 4), START_MS);
    assert_eq!(leases.asked_content(&key(), &first), Some(LISTED));
}

#[test]
fn the_content_that_a_node_asked_for_outlives_the_file() {
    let mut leases = leases();
    let leecher = peer("b", 2);
    let replacement = ListedContent { fold: [8; 32], ..LISTED };
    connect(&mut leases, &[leecher.clone(), peer("c", 3)]);
    assert_eq!(leases.asked_content(&key(), &leecher), None);
    leases.join_swarm(&key(), LISTED, leecher.clone(), START_MS);
    let removal = LogCommand::by(
        Actor { user: user("o"), session: session(9) },
        0,
        None,
        LogAction::RemoveFile { file: key() },
    );
    leases.follow_command(&removal, &CommandOutcome::FileRemoved);
    assert_eq!(leases.removals.file_remover(&key()), Some(&user("o")));
    leases.join_swarm(&key(), replacement, peer("c", 3), START_MS);
    leases.sweep(START_MS + 2 * LEECHER_MEMORY_MS);
    assert_eq!(leases.asked_content(&key(), &leecher), Some(LISTED));
    // A later request may lack the key under which the node asked.
    let keyless = SwarmPeer { holder: node(77), ..leecher.clone() };
    assert_eq!(leases.asked_content(&key(), &keyless), Some(LISTED));
    assert_eq!(leases.count_online(&key(), &[], START_MS).leechers, 1, "of the listed content alone");
    assert!(!leases.leave_swarm(&key(), Some(Digest([6; 20])), &user("c"), node(3)));
    assert!(leases.leave_swarm(&key(), Some(LISTED.id), &user("c"), node(3)));
    leases.record_upload(&key(), replacement, &leecher);
    assert_eq!(leases.asked_content(&key(), &leecher), Some(replacement));
}

#[test]
fn a_short_absence_keeps_announced_pieces_and_a_long_one_does_not() {
    let mut leases = leases();
    let leecher = peer("b", 2);
    leases.record_pieces(&key(), LISTED, leecher.clone(), &runs(&[(0, 3)]), START_MS).unwrap();
    let away_ms = START_MS + LEASE_MS + LEECHER_MEMORY_MS;
    leases.sweep(away_ms);
    leases.record_ping(leecher.session, ClientConnectionId(1), away_ms);
    assert_eq!(leases.count_online(&key(), &[], away_ms).leechers, 1);
    let gone_ms = away_ms + LEASE_MS + LEECHER_MEMORY_MS + 1;
    leases.sweep(gone_ms);
    leases.record_ping(leecher.session, ClientConnectionId(1), gone_ms);
    assert_eq!(leases.count_online(&key(), &[], gone_ms).leechers, 0);
}

#[test]
fn reports_of_one_user_leave_room_for_those_of_others() {
    let mut leases = leases();
    let many = u8::try_from(REPORTS_PER_USER).unwrap() + 2;
    let seeders: Vec<SwarmPeer> = (1..=many).map(|number| peer(&format!("u{number}"), number)).collect();
    for (name, number) in [("r", 200), ("s", 201)] {
        leases.join_swarm(&key(), LISTED, peer(name, number), START_MS);
    }
    let mut report = |by: &str, port: u8, seeders: &[SwarmPeer]| {
        leases.record_report(&key(), &user(by), address(u16::from(port)), seeders)
    };
    for port in 1..many - 1 {
        assert_eq!(report("r", port, &seeders), ReportOutcome::Noted);
    }
    assert_eq!(report("r", many, &seeders), ReportOutcome::Full);
    assert_eq!(report("s", many, &seeders), ReportOutcome::Noted);
    // Reports of nodes that are gone make room.
    assert_eq!(report("r", many, &seeders[1..]), ReportOutcome::Noted);
}

#[test]
fn leechers_are_bounded_for_each_user_and_in_all() {
    let mut leases = leases();
    let at = |name: &str, port: u16| SwarmPeer { user: user(name), holder: node(port), session: session(1) };
    leases.open_connection(session(1), ClientConnectionId(1), START_MS);
    let per_user = u16::try_from(NODES_PER_USER_AND_FILE).unwrap();
    for port in 1..=per_user {
        leases.join_swarm(&key(), LISTED, at("a", port), START_MS);
    }
    // The first is heard of again, so the second makes room.
    leases.record_pieces(&key(), LISTED, at("a", 1), &runs(&[(0, 0)]), START_MS).unwrap();
    leases.join_swarm(&key(), LISTED, at("a", per_user + 1), START_MS);
    let leechers = |leases: &LeaseTable| leases.count_online(&key(), &[], START_MS).leechers;
    assert_eq!(leechers(&leases), NODES_PER_USER_AND_FILE);
    assert!(
        leases.leave_swarm(&key(), None, &user("a"), node(1))
            && !leases.leave_swarm(&key(), None, &user("a"), node(2))
    );
    for number in 0..LEECHERS_PER_SWARM {
        let port = u16::try_from(number).unwrap() + 1_000;
        leases.join_swarm(&key(), LISTED, at(&format!("u{number}"), port), START_MS);
    }
    assert_eq!(leechers(&leases), LEECHERS_PER_SWARM);
    let whole = runs(&[(0, PIECES.0 - 1)]);
    assert_eq!(leases.record_pieces(&key(), LISTED, at("late", 1), &whole, START_MS), Ok(false));
    assert_eq!(leechers(&leases), LEECHERS_PER_SWARM, "not listed");
    assert_eq!(
        leases.record_pieces(&key(), LISTED, at("a", 3), &whole, START_MS),
        Ok(true),
        "one that is goes on"
    );
}
