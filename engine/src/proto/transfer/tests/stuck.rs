//! A transfer reaches a peer that has the missing pieces, however other peers behave.

use super::simulated::Behaviour::{CorruptAt, Deaf, Honest, Vanishing};
use super::simulated::{Swarm, distinct};
use super::*;

#[test]
fn a_call_without_a_result_is_repeated() {
    let mut swarm = Swarm::new(&distinct(20), &[(Deaf, 1)]);
    swarm.run(1_000);
    swarm.peers[0].behaviour = Honest;
    swarm.prove();
}

#[test]
fn peers_that_share_a_wrong_piece_do_not_wait_for_each_other() {
    let wrong = CorruptAt(PieceIndex(7));
    let mut swarm = Swarm::new(&distinct(20), &[(wrong, 1), (wrong, 1)]);
    swarm.run(60_000);
    let status = swarm.transfer.status();
    assert!(matches!(status, TransferStatus::NoPeers { after_bad_pieces: true, .. }), "{status:?}");
}

#[test]
fn a_peer_without_the_last_pieces_takes_no_slot_from_one_that_has_them() {
    let mut swarm = Swarm::new(&distinct(20), &[(Vanishing(3), 1), (Honest, 1)]);
    swarm.peers[1].has.remove(PieceIndex(19));
    swarm.run(5_000);
    assert_eq!(swarm.transfer.held().count(), PieceCount(19));
    swarm.peers[0].behaviour = Honest;
    swarm.prove();
}

#[test]
fn peers_without_pieces_make_way_for_one_that_has_them() {
    let mut swarm = Swarm::new(&distinct(20), &[(Honest, 1); 41]);
    let nothing = Bitfield::empty(PieceCount(20));
    swarm.peers[..40].iter_mut().for_each(|peer| peer.has = nothing.clone());
    swarm.prove();
    assert!(swarm.ms < 10_000, "{} ms", swarm.ms);
}

#[test]
fn additional_connections_are_marked() {
    let mut swarm = Swarm::new(&distinct(200), &[(Honest, 1)]);
    let mut marks = Vec::new();
    while marks.len() < 4 {
        let actions = swarm.transfer.take_actions();
        let additional_mark = |action: &TransferAction| match action {
            TransferAction::Connect { is_additional, .. } => Some(*is_additional),
            _ => None,
        };
        marks.extend(actions.iter().filter_map(additional_mark));
        actions.into_iter().for_each(|action| swarm.perform(action));
    }
    assert_eq!(marks, [false, true, true, true]);
}
