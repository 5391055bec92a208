//! Silence of a peer, and silence caused by this node: whether a connection keeps its requests.

use super::super::stall::LOCAL_STALL_MS;
use super::super::*;
use super::simulated::Behaviour::Silent;
use super::simulated::{Swarm, distinct};

/// Interval in which the transfer is polled.
const POLL_MS: u64 = 100;

/// Requests pieces from a silent peer and polls for `ms`. Returns whether the peer still has all requests.
fn keeps_its_requests(ms: u64, mut poll: impl FnMut(&mut Transfer, Moment)) -> bool {
    let mut swarm = Swarm::new(&distinct(20), &[(Silent, 1)]);
    swarm.carry_out();
    let asked = swarm.transfer.scheduler.picker.in_flight();
    assert!(asked > 0);
    let until = swarm.ms + ms;
    while swarm.ms < until {
        swarm.ms += POLL_MS;
        let now = swarm.now();
        poll(&mut swarm.transfer, now);
    }
    swarm.transfer.scheduler.picker.in_flight() == asked
}

#[test]
fn a_silent_peer_loses_its_requests() {
    assert!(keeps_its_requests(3_000, |transfer, now| transfer.poll(now, false)));
    assert!(!keeps_its_requests(3_200, |transfer, now| transfer.poll(now, false)));
}

#[test]
fn silence_during_a_local_stall_is_excused() {
    let stalls = |transfer: &mut Transfer, now: Moment| transfer.poll(now, true);
    assert!(keeps_its_requests(9_000, stalls));
    assert!(!keeps_its_requests(20_000, stalls), "a disk that hangs does not excuse peers for ever");
}

#[test]
fn silence_starts_anew_after_a_local_stall() {
    let once = |transfer: &mut Transfer, now: Moment| transfer.poll(now, now.ms() == 2_900);
    assert!(keeps_its_requests(5_000, once));
    assert!(!keeps_its_requests(6_200, once));
    // The transfer is not polled for a while.
    let gap = |transfer: &mut Transfer, now: Moment| {
        if !(1_000..4_000 + LOCAL_STALL_MS).contains(&now.ms()) {
            transfer.poll(now, false);
        }
    };
    assert!(keeps_its_requests(7_000, gap));
    assert!(!keeps_its_requests(8_400, gap));
}

#[test]
fn a_peer_that_waits_for_this_node_is_not_silent() {
    let held_up = |from: u64, to: u64| {
        move |transfer: &mut Transfer, now: Moment| {
            if [from, to].contains(&now.ms()) {
                let all = transfer.scheduler.connections.ids();
                all.into_iter().for_each(|id| transfer.set_receive_paused(now, id, now.ms() == from));
            }
            transfer.poll(now, false);
        }
    };
    assert!(keeps_its_requests(6_000, held_up(1_000, 5_000)));
    assert!(
        !keeps_its_requests(8_200, held_up(1_000, 5_000)),
        "reading was resumed, and the peer stays silent"
    );
    assert!(keeps_its_requests(9_000, held_up(1_000, 60_000)));
    assert!(!keeps_its_requests(20_000, held_up(1_000, 60_000)), "a pause does not excuse a peer for ever");
}
