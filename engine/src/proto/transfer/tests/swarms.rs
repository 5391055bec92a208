//! The time that whole swarms take, compared with the fluid limit, in virtual time.

use super::fluid::{Fluid, Outcome, Setting};

const MIB: u64 = 1024 * 1024;

/// A file of 256 MiB, and hosts that send 8 MiB/s each.
fn slow(seeders: usize, leechers: usize, seed: u64) -> Setting {
    Setting {
        pieces: 512,
        seeders,
        leechers,
        uplink: 8 * MIB / 1_000,
        delay_ms: 20,
        socket_bytes: 256 * 1024,
        stagger_ms: 30,
        unfairness: 150,
        step_ms: 5,
        seed,
    }
}

/// A file of 1 GiB, and hosts in one fast network.
fn fast(seeders: usize, leechers: usize, seed: u64) -> Setting {
    let swarm = slow(seeders, leechers, seed);
    let (uplink, socket_bytes) = (2_000 * MIB / 1_000, 4 * MIB);
    Setting { pieces: 2_048, uplink, delay_ms: 1, socket_bytes, stagger_ms: 0, step_ms: 1, ..swarm }
}

fn run(setting: Setting) -> (Outcome, Setting) {
    (Fluid::new(setting.clone()).run(600_000), setting)
}

/// Asserts that the last leecher takes at most `most_times` the limit, and that each seeder sends at most `most_copies` of the
/// file on average.
fn comes_near(setting: Setting, most_times: f64, most_copies: f64) {
    let (outcome, setting) = run(setting);
    let last_ms = outcome.finished_ms.iter().max().copied().unwrap_or(u64::MAX);
    let times = last_ms as f64 / setting.limit_ms();
    let sent: u64 = outcome.sent[..setting.seeders].iter().sum();
    let copies = sent as f64 / f64::from(setting.pieces) / setting.seeders as f64;
    assert!(
        times <= most_times && copies <= most_copies,
        "{times:.3} times the limit, {copies:.3} copies from each seeder: {setting:?}"
    );
}

#[test]
fn a_seeder_sends_little_more_than_one_copy() {
    for seed in 1..=3 {
        comes_near(slow(1, 16, seed), 1.2, 1.2);
    }
}

#[test]
fn sixteen_leechers_in_an_unfair_network_come_near_the_limit() {
    for (delay_ms, socket_bytes) in [(1, 64 * 1024), (100, MIB), (20, 4 * MIB)] {
        comes_near(Setting { delay_ms, socket_bytes, unfairness: 400, ..slow(1, 16, 4) }, 1.3, 1.3);
    }
}

#[test]
fn small_swarms_and_swarms_with_several_seeders_come_near_the_limit() {
    comes_near(slow(1, 4, 5), 1.2, 1.2);
    comes_near(slow(2, 16, 6), 1.3, 1.2);
    comes_near(slow(4, 12, 7), 1.3, 1.3);
}

#[test]
fn requests_of_a_single_leecher_are_never_deferred() {
    for seeders in 1..=3 {
        let (outcome, setting) = run(fast(seeders, 1, 8));
        assert_eq!(outcome.turned_away, 0);
        let times = outcome.finished_ms[0] as f64 / setting.limit_ms();
        assert!(times <= 1.25, "{times:.3} times the limit, from {seeders}: {:?}", outcome.sent);
    }
}

#[test]
fn two_leechers_share_a_fast_seeder() {
    comes_near(fast(1, 2, 9), 1.25, 1.22);
}
