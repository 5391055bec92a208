//! Which peers an answer names first when accounts pretend: shares of an answer, trust, reports, false keys.

use std::collections::BTreeSet;

use super::leases::{LISTED, START_MS, connect, key, leases, peer, runs, session, shared, told};
use super::*;
use crate::state::leases::{AskingClient, LeaseTable, ReportOutcome};
use crate::state::limits::{NODES_PER_USER_AND_FILE, PEERS_PER_ANSWER, PEERS_PER_USER, REPORTS_TO_SORT_LAST};
use crate::state::node::SwarmPeer;

const TRUE_PORT: u16 = 60_000;

/// A node with a key whose session is online.
fn seeder(leases: &mut LeaseTable, name: &str, port: u16, number: u8) -> SwarmPeer {
    let seeder = SwarmPeer { holder: keyed(port, number), ..peer(name, number) };
    connect(leases, std::slice::from_ref(&seeder));
    seeder
}

/// The seeder that has the file, and as many false ones of each of these accounts as one may have.
fn crowd(leases: &mut LeaseTable, accounts: u8) -> Vec<SwarmPeer> {
    let mut seeders = vec![seeder(leases, "true", TRUE_PORT, 1)];
    for account in 0..accounts {
        let first = seeder(leases, &format!("m{account}"), 0, account + 10);
        let ports = 1_000 * u16::from(account) + 1..;
        let false_ones = ports.take(NODES_PER_USER_AND_FILE).map(|port| SwarmPeer {
            holder: NodeEndpoint { address: address(port), ..first.holder },
            ..first.clone()
        });
        seeders.extend(false_ones);
    }
    seeders
}

/// Has users report a port who fetched the file and, where they have it, are among the seeders.
fn report_by(leases: &mut LeaseTable, reporters: &[SwarmPeer], port: u16, seeders: &[SwarmPeer]) {
    for reporter in reporters {
        leases.join_swarm(&key(), LISTED, reporter.clone());
        let report = leases.record_report(&key(), &reporter.user, address(port), seeders);
        assert_eq!(report, ReportOutcome::Noted);
    }
}

fn reporters(leases: &mut LeaseTable) -> Vec<SwarmPeer> {
    let numbers = 200..200 + u8::try_from(REPORTS_TO_SORT_LAST).unwrap();
    numbers.map(|number| seeder(leases, &format!("r{number}"), u16::from(number), number)).collect()
}

#[test]
fn one_users_nodes_fill_a_share_of_an_answer() {
    let mut leases = leases();
    let seeders = crowd(&mut leases, 1);
    for _ in 0..100 {
        let ports = told(&mut leases, &seeders, &user("z"));
        assert_eq!(ports.len(), PEERS_PER_USER + 1);
        assert!(ports.contains(&TRUE_PORT));
    }
    // The peers of each piece in the classic view are chosen from the same ones.
    let asker = AskingClient { user: &user("z"), address: None, on_loopback: false };
    let sharers = leases.choose_peers(&key(), shared(&seeders), asker, START_MS).sharers(usize::MAX);
    assert_eq!(sharers.len(), PEERS_PER_USER + 1);
}

#[test]
fn a_proven_holder_comes_before_a_crowd_and_reports_do_not_push_it_out() {
    let mut leases = leases();
    let mut seeders = crowd(&mut leases, 20);
    leases.record_proof(session(1), keyed(TRUE_PORT, 1));
    assert_eq!(told(&mut leases, &seeders, &user("z"))[0], TRUE_PORT);
    let puppets = reporters(&mut leases);
    seeders.extend(puppets.clone());
    report_by(&mut leases, &puppets, TRUE_PORT, &seeders);
    assert_eq!(told(&mut leases, &seeders, &user("z"))[0], TRUE_PORT);
    // Among proven holders it comes after those that were not reported.
    let other = seeder(&mut leases, "other", 7_000, 2);
    leases.record_proof(session(2), other.holder);
    seeders.push(other);
    assert_eq!(told(&mut leases, &seeders, &user("z"))[..2], [7_000, TRUE_PORT]);
    // A node that moved has to prove its new address.
    seeders[0].holder = keyed(TRUE_PORT + 1, 1);
    assert_eq!(told(&mut leases, &seeders, &user("z"))[0], 7_000);
    assert_ne!(told(&mut leases, &seeders, &user("z"))[1], TRUE_PORT + 1);
}

#[test]
fn the_node_of_the_user_who_listed_the_file_is_never_pushed_back() {
    let mut leases = leases();
    let mut seeders = crowd(&mut leases, 20);
    seeders.push(seeder(&mut leases, "o", 7_000, 2));
    let puppets = reporters(&mut leases);
    seeders.extend(puppets.clone());
    report_by(&mut leases, &puppets, 7_000, &seeders);
    assert_eq!(told(&mut leases, &seeders, &user("z"))[0], 7_000);
}

#[test]
fn nothing_keeps_a_peer_out_of_every_answer() {
    let mut leases = leases();
    let mut seeders = crowd(&mut leases, 20);
    let puppets = reporters(&mut leases);
    seeders.extend(puppets.clone());
    report_by(&mut leases, &puppets, TRUE_PORT, &seeders);
    let answers: Vec<Vec<u16>> = (0..100).map(|_| told(&mut leases, &seeders, &user("z"))).collect();
    assert!(answers.iter().all(|ports| ports.len() == PEERS_PER_ANSWER && ports[0] != TRUE_PORT));
    assert!(answers.iter().any(|ports| ports.contains(&TRUE_PORT)));
}

#[test]
fn reports_count_from_users_who_got_the_file_from_others() {
    let mut leases = leases();
    let mut seeders = vec![seeder(&mut leases, "bad", 1, 1), seeder(&mut leases, "good", 2, 2)];
    assert_eq!(leases.record_report(&key(), &user("r"), address(1), &seeders), ReportOutcome::NotFetched);
    let fetching = reporters(&mut leases);
    report_by(&mut leases, &fetching, 1, &seeders);
    for _ in 0..5 {
        let again = leases.record_report(&key(), &fetching[0].user, address(1), &seeders);
        assert_eq!(again, ReportOutcome::Again);
    }
    assert_eq!(leases.record_report(&key(), &fetching[0].user, address(9), &seeders), ReportOutcome::NoPeer);
    let holders = |leases: &mut LeaseTable, seeders: &[SwarmPeer], by: &str| -> Vec<u16> {
        told(leases, seeders, &user(by)).into_iter().filter(|port| [1, 2].contains(port)).collect()
    };
    assert_eq!(holders(&mut leases, &seeders, "r200"), [2], "hidden from the reporter at once");
    let firsts: BTreeSet<u16> = (0..10).map(|_| holders(&mut leases, &seeders, "z")[0]).collect();
    assert_eq!(firsts, [1, 2].into(), "reporters without the file do not count for others");
    seeders.extend(fetching[1..].iter().cloned());
    let firsts: BTreeSet<u16> = (0..10).map(|_| holders(&mut leases, &seeders, "z")[0]).collect();
    assert_eq!(firsts, [1, 2].into(), "nor do too few with it");
    seeders.push(fetching[0].clone());
    for _ in 0..10 {
        assert_eq!(holders(&mut leases, &seeders, "z"), [2, 1], "last, not gone");
    }
}

#[test]
fn a_seeder_that_never_named_the_content_comes_last() {
    let mut leases = leases();
    let seeders = [seeder(&mut leases, "a", 1, 1), seeder(&mut leases, "b", 2, 2)];
    leases.record_seeder(&key(), LISTED, &seeders[0], false);
    for _ in 0..4 {
        assert_eq!(told(&mut leases, &seeders, &user("z")), [2, 1]);
    }
    leases.record_seeder(&key(), LISTED, &seeders[0], true);
    let firsts: BTreeSet<u16> = (0..4).map(|_| told(&mut leases, &seeders, &user("z"))[0]).collect();
    assert_eq!(firsts, [1, 2].into());
}

#[test]
fn false_keys_at_an_address_do_not_displace_the_true_one() {
    let mut leases = leases();
    let mut seeders: Vec<SwarmPeer> =
        (10..30).map(|number| seeder(&mut leases, &format!("m{number}"), TRUE_PORT, number)).collect();
    seeders.insert(10, seeder(&mut leases, "true", TRUE_PORT, 1));
    let keys = |leases: &mut LeaseTable, seeders: &[SwarmPeer]| -> BTreeSet<u8> {
        let asker = AskingClient { user: &user("z"), address: None, on_loopback: false };
        let choice = leases.choose_peers(&key(), shared(seeders), asker, START_MS);
        choice.peers().map(|candidate| candidate.peer.holder.peer_key.unwrap().0[0]).collect()
    };
    assert!(keys(&mut leases, &seeders).contains(&1), "beside the others while none is proven");
    leases.record_proof(session(1), keyed(TRUE_PORT, 1));
    assert_eq!(keys(&mut leases, &seeders), [1].into());
    // A program that listened there before has lost the address.
    leases.record_proof(session(10), keyed(TRUE_PORT, 10));
    leases.record_proof(session(1), keyed(TRUE_PORT, 1));
    assert_eq!(keys(&mut leases, &seeders), [1].into());
    let asker = AskingClient { user: &user("z"), address: None, on_loopback: false };
    leases.record_pieces(&key(), LISTED, peer("l", 99), &runs(&[(0, 1)]), START_MS).unwrap();
    let sharers = leases.choose_peers(&key(), shared(&seeders[..5]), asker, START_MS).sharers(9);
    let addresses: BTreeSet<SocketAddr> = sharers.iter().map(|sharer| sharer.address).collect();
    assert_eq!(addresses.len(), sharers.len(), "an address without a key is named once");
}
