//! Silence that is a peer's, and silence that is this node's own: who keeps what it was asked for.

use super::super::silence::LOCAL_STALL_MS;
use super::super::*;
use super::simulated::Behaviour::Silent;
use super::simulated::{Swarm, distinct};

/// How often a driver looks after time.
const POLL_MS: u64 = 100;

/// Asks a peer that says nothing, and looks after time for so long; whether the peer still has all that it was asked for.
fn keeps_its_requests(ms: u64, mut look: impl FnMut(&mut Transfer, Moment)) -> bool {
    let mut swarm = Swarm::new(&distinct(20), &[(Silent, 1)]);
    swarm.carry_out();
    let asked = swarm.transfer.picker.in_flight();
    assert!(asked > 0);
    let until = swarm.ms + ms;
    while swarm.ms < until {
        swarm.ms += POLL_MS;
        let now = swarm.now();
        look(&mut swarm.transfer, now);
    }
    swarm.transfer.picker.in_flight() == asked
}

#[test]
fn a_silent_peer_keeps_nothing() {
    assert!(keeps_its_requests(3_000, |transfer, now| transfer.poll(now, false)));
    assert!(!keeps_its_requests(3_200, |transfer, now| transfer.poll(now, false)));
}

#[test]
fn what_a_node_does_not_take_is_no_silence_of_the_peers() {
    let stalls = |transfer: &mut Transfer, now: Moment| transfer.poll(now, true);
    assert!(keeps_its_requests(9_000, stalls));
    assert!(!keeps_its_requests(20_000, stalls), "a disk that hangs excuses nobody for ever");
}

#[test]
fn peers_have_their_time_again_after_a_stall() {
    let once = |transfer: &mut Transfer, now: Moment| transfer.poll(now, now.ms() == 2_900);
    assert!(keeps_its_requests(5_000, once));
    assert!(!keeps_its_requests(6_200, once));
    // Nobody looked.
    let gap = |transfer: &mut Transfer, now: Moment| {
        if !(1_000..4_000 + LOCAL_STALL_MS).contains(&now.ms()) {
            transfer.poll(now, false);
        }
    };
    assert!(keeps_its_requests(7_000, gap));
    assert!(!keeps_its_requests(8_400, gap));
}

#[test]
fn a_peer_that_has_to_wait_for_this_node_is_not_silent() {
    let held_up = |from: u64, to: u64| {
        move |transfer: &mut Transfer, now: Moment| {
            if [from, to].contains(&now.ms()) {
                let all: Vec<ConnectionId> = transfer.connections.keys().copied().collect();
                all.into_iter().for_each(|id| transfer.set_receive_paused(now, id, now.ms() == from));
            }
            transfer.poll(now, false);
        }
    };
    assert!(keeps_its_requests(6_000, held_up(1_000, 5_000)));
    assert!(!keeps_its_requests(8_200, held_up(1_000, 5_000)), "then it may speak, and does not");
    assert!(keeps_its_requests(9_000, held_up(1_000, 60_000)));
    assert!(!keeps_its_requests(20_000, held_up(1_000, 60_000)), "nor is it waited for without end");
}
