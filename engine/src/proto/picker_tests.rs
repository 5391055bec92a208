//! The choices of the picker, and its invariant under random use.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn picker(pieces: u32) -> PiecePicker {
    PiecePicker::new(Bitfield::full(PieceCount(pieces)), 7)
}

fn set(pieces: u32, members: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut field = Bitfield::empty(PieceCount(pieces));
    members.into_iter().for_each(|index| {
        field.insert(PieceIndex(index));
    });
    field
}

fn all(pieces: u32) -> Bitfield {
    Bitfield::full(PieceCount(pieces))
}

#[test]
fn runs_are_requested_from_a_complete_holder() {
    let mut picker = picker(1_000);
    let mut cursor = None;
    let first = picker.pick(A, &all(1_000), &mut cursor, None, 8);
    let second = picker.pick(A, &all(1_000), &mut cursor, None, 8);
    assert!(join_requests(&first, 64).len() <= 2, "one run, or two around the end of the file: {first:?}");
    assert_eq!(second[0].0, (first[7].0 + 1) % 1_000, "the run goes on");
}

#[test]
fn runs_start_at_a_piece_that_no_partial_holder_has() {
    let mut picker = picker(100);
    (0..100).filter(|index| *index != 42).for_each(|index| picker.add_partial_holder(PieceIndex(index)));
    assert_eq!(picker.pick(A, &all(100), &mut None, None, 1), [PieceIndex(42)]);
}

#[test]
fn runs_end_at_a_piece_that_a_partial_holder_has() {
    let mut picker = picker(100);
    (12..40).for_each(|index| picker.add_partial_holder(PieceIndex(index)));
    let mut cursor = Some(PieceIndex(10));
    let picked = picker.pick(A, &all(100), &mut cursor, None, 72);
    assert_eq!(picked[..2], [PieceIndex(10), PieceIndex(11)]);
    assert!(picked.iter().all(|index| !(12..40).contains(&index.0)), "72 are new: {picked:?}");
    let picked = picker.pick(A, &all(100), &mut Some(PieceIndex(20)), None, 8);
    assert_eq!(picked, (20..28).map(PieceIndex).collect::<Vec<_>>(), "every piece left has a partial holder");
}

#[test]
fn the_rarest_pieces_are_requested_from_a_partial_holder() {
    let mut picker = picker(100);
    let has = set(100, [3, 50, 51, 90]);
    for index in [3, 3, 50, 90, 90, 51] {
        picker.add_partial_holder(PieceIndex(index));
    }
    let picked: BTreeSet<_> = picker.pick(A, &has, &mut None, None, 2).into_iter().collect();
    assert_eq!(picked, BTreeSet::from([PieceIndex(50), PieceIndex(51)]));
    assert_eq!(picker.pick(A, &has, &mut None, None, 9).len(), 2, "only pieces that the peer has");
    assert!(!picker.needs_from(&has));
}

#[test]
fn an_avoided_piece_stays_needed() {
    let mut picker = picker(3);
    let picked = picker.pick(A, &all(3), &mut None, Some(PieceIndex(1)), 9);
    assert_eq!(picked.len(), 2);
    assert_eq!(picker.pick(B, &all(3), &mut None, None, 9), [PieceIndex(1)]);
}

#[test]
fn an_abandoned_piece_is_needed_again() {
    let mut picker = picker(1);
    picker.pick(A, &all(1), &mut None, None, 1);
    assert_eq!(picker.needed(), PieceCount(0));
    picker.abandon(B, PieceIndex(0));
    assert_eq!(picker.needed(), PieceCount(0), "the piece was not requested on B");
    picker.abandon(A, PieceIndex(0));
    assert_eq!(picker.needed(), PieceCount(1));
}

#[test]
fn deferred_pieces_are_requested_last() {
    let mut picker = picker(20);
    for index in 5..15 {
        let mut cursor = Some(PieceIndex(index));
        assert_eq!(picker.pick(A, &all(20), &mut cursor, None, 1), [PieceIndex(index)]);
        picker.defer(A, PieceIndex(index));
    }
    let picked: BTreeSet<_> =
        picker.pick(A, &all(20), &mut Some(PieceIndex(3)), None, 10).into_iter().collect();
    assert_eq!(picked, (0..5).chain(15..20).map(PieceIndex).collect());
    assert_eq!(picker.pick(B, &all(20), &mut None, None, 20).len(), 10, "what is left");
}

#[test]
fn the_last_pieces_are_requested_twice_within_limits() {
    let mut picker = picker(10);
    picker.pick(A, &all(10), &mut None, None, 9);
    assert_eq!(picker.pick_duplicate(B, &all(10), None, |_| true), None, "one piece is still needed");
    picker.pick(A, &all(10), &mut None, None, 1);
    assert_eq!(
        picker.pick_duplicate(B, &all(10), None, |asked| asked != A),
        None,
        "A has all requests and does not lag"
    );
    let twice: Vec<_> =
        std::iter::from_fn(|| picker.pick_duplicate(B, &all(10), None, |asked| asked == A)).collect();
    assert_eq!(twice.len(), ENDGAME_MIN_PIECES as usize);
    assert_eq!(picker.piece_arrived(A, twice[0]), PieceArrival::Wanted);
    assert_eq!(picker.piece_arrived(B, twice[0]), PieceArrival::Duplicate);
    assert_eq!(picker.complete_piece(twice[0]), [A, B]);
}

#[test]
fn a_late_piece_is_used_once() {
    let mut picker = picker(1);
    picker.pick(A, &all(1), &mut None, None, 1);
    picker.abandon(A, PieceIndex(0));
    assert_eq!(picker.piece_arrived(A, PieceIndex(0)), PieceArrival::Wanted);
    assert_eq!(picker.pick(B, &all(1), &mut None, None, 1), []);
    picker.retry_piece(PieceIndex(0));
    assert_eq!(picker.pick(B, &all(1), &mut None, None, 1), [PieceIndex(0)]);
}

#[test]
fn requests_join_runs_up_to_a_limit() {
    let picked: Vec<_> = [0, 1, 2, 7, 8].map(PieceIndex).into();
    let expected =
        [(PieceIndex(0), PieceCount(2)), (PieceIndex(2), PieceCount(1)), (PieceIndex(7), PieceCount(2))];
    assert_eq!(join_requests(&picked, 2), expected);
}

proptest! {
    /// Every piece is needed, in flight or held, for any sequence of events.
    #[test]
    fn no_piece_is_ever_lost(seed in any::<u64>(), steps in proptest::collection::vec((0u8..6, 0u32..40, 0u64..3), 0..300)) {
        let pieces = 40;
        let mut picker = PiecePicker::new(all(pieces), seed);
        let mut held = Bitfield::empty(PieceCount(pieces));
        let mut pending: BTreeSet<(u64, PieceIndex)> = BTreeSet::new();
        let mut landed: BTreeSet<PieceIndex> = BTreeSet::new();
        let partial = set(pieces, (0..pieces).filter(|index| index % 3 != 0));
        for (step, index, number) in steps {
            let connection = ConnectionId(number);
            let has = if number == 0 { all(pieces) } else { partial.clone() };
            let index = PieceIndex(index);
            match step {
                0 | 1 => {
                    let picked = picker.pick(connection, &has, &mut None, None, 5);
                    prop_assert!(picked.iter().all(|index| has.has(*index) && !held.has(*index)));
                    pending.extend(picked.into_iter().map(|index| (number, index)));
                }
                2 => pending.extend(picker.pick_duplicate(connection, &has, None, |asked| asked != connection).map(|index| (number, index))),
                3 if pending.remove(&(number, index)) => picker.abandon(connection, index),
                4 if pending.remove(&(number, index)) && picker.piece_arrived(connection, index) == PieceArrival::Wanted => {
                    landed.insert(index);
                }
                5 if landed.remove(&index) => {
                    if number == 0 {
                        picker.retry_piece(index);
                        pending.retain(|(_, other)| *other != index);
                    } else {
                        picker.complete_piece(index);
                        held.insert(index);
                    }
                }
                _ => {}
            }
            let under_way: BTreeSet<_> = pending.iter().map(|(_, index)| *index).filter(|index| !held.has(*index)).collect();
            let in_flight = under_way.union(&landed).count();
            prop_assert_eq!(picker.needed().as_usize() + in_flight + held.count().as_usize(), pieces as usize);
        }
    }
}
