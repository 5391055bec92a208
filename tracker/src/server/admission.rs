//! Admission: owns the memory budgets of all connections and every list of connections that wait for room.
//!
//! The three budgets are separate: requests of logged-in clients, answers to them, and everything that
//! anonymous clients hold. Invariants: each sum equals what its connections held when they were last
//! measured; a connection that was forgotten is in no sum and in no list.

use std::collections::{BTreeSet, VecDeque};

use super::limits::{ANONYMOUS_MAX_BYTES, ANSWERS_MAX_BYTES, INPUT_MAX_BYTES};
use super::slots::ConnectionToken;
use super::timers::TimerQueue;

/// What one connection holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBytes {
    pub(super) is_anonymous: bool,
    /// Requests, complete or partial.
    pub(super) input_bytes: usize,
    /// Unsent answers, and room reserved for an answer that is being made.
    pub(super) answer_bytes: usize,
}

/// Decides what may be read and which answers may be started.
#[derive(Debug)]
pub(super) struct RequestAdmission {
    answer_bytes: usize,
    input_bytes: usize,
    anonymous_bytes: usize,
    /// Requests that wait for room for their answer, oldest first.
    parked: VecDeque<ConnectionToken>,
    /// Requests for lists of which some pages are built, each with room for all of its answer. One page is built per
    /// round of the loop.
    lists: VecDeque<ConnectionToken>,
    /// An answer did not fit in this round.
    has_shortage: bool,
    /// Logged-in clients whose large request waits for input memory.
    starved: BTreeSet<ConnectionToken>,
    /// The one of them that is read although the budget is exceeded, so that at least one request completes.
    fed: Option<ConnectionToken>,
    /// Partial requests of anonymous clients, by the time at which they were first seen.
    partial: TimerQueue<ConnectionToken>,
}

impl RequestAdmission {
    pub(super) fn new() -> RequestAdmission {
        RequestAdmission {
            answer_bytes: 0,
            input_bytes: 0,
            anonymous_bytes: 0,
            parked: VecDeque::new(),
            lists: VecDeque::new(),
            has_shortage: false,
            starved: BTreeSet::new(),
            fed: None,
            partial: TimerQueue::new(),
        }
    }

    /// Replaces what one connection held `before` with what it holds now.
    pub(super) fn recount(&mut self, before: HeldBytes, after: HeldBytes) {
        *self.input_sum(before) -= before.input_bytes;
        *self.answer_sum(before) -= before.answer_bytes;
        *self.input_sum(after) += after.input_bytes;
        *self.answer_sum(after) += after.answer_bytes;
    }

    fn input_sum(&mut self, held: HeldBytes) -> &mut usize {
        if held.is_anonymous { &mut self.anonymous_bytes } else { &mut self.input_bytes }
    }

    fn answer_sum(&mut self, held: HeldBytes) -> &mut usize {
        if held.is_anonymous { &mut self.anonymous_bytes } else { &mut self.answer_bytes }
    }

    /// Whether there is room for an answer of about this size. One larger than the budget fits when half of
    /// the budget is free.
    fn fits(&self, answer_bytes: usize) -> bool {
        self.answer_bytes + answer_bytes.min(ANSWERS_MAX_BYTES / 2) <= ANSWERS_MAX_BYTES
    }

    fn answers_are_full(&self) -> bool {
        self.answer_bytes > ANSWERS_MAX_BYTES
    }

    fn input_is_full(&self) -> bool {
        self.input_bytes > INPUT_MAX_BYTES
    }

    fn anonymous_is_full(&self) -> bool {
        self.anonymous_bytes > ANONYMOUS_MAX_BYTES
    }

    /// Starts a round of the loop: a shortage counts until the next one.
    pub(super) fn start_round(&mut self) {
        self.has_shortage = false;
    }

    /// Whether answers wait for room, or more bytes of unsent answers are held than the budget allows. Then a
    /// client's next request waits until the client has taken all of its earlier answers.
    pub(super) fn is_crowded(&self) -> bool {
        self.answers_are_full() || self.has_shortage || !self.parked.is_empty()
    }

    /// Whether an answer of about this size may be started: it fits, and no earlier request waits for room.
    pub(super) fn can_start(&self, answer_bytes: usize) -> bool {
        self.parked.is_empty() && self.fits(answer_bytes)
    }

    pub(super) fn park(&mut self, token: ConnectionToken) {
        self.parked.push_back(token);
    }

    pub(super) fn first_parked(&self) -> Option<ConnectionToken> {
        self.parked.front().copied()
    }

    /// Takes the first parked request out if an answer of this size fits, and notes the shortage if not.
    pub(super) fn unpark_first(&mut self, answer_bytes: usize) -> bool {
        let fits = self.fits(answer_bytes);
        if fits {
            self.parked.pop_front();
        }
        self.has_shortage |= !fits;
        fits
    }

    /// Queues a list for its next page.
    pub(super) fn queue_list(&mut self, token: ConnectionToken) {
        self.lists.push_back(token);
    }

    /// Takes out the list whose next page is to be built.
    pub(super) fn next_list(&mut self) -> Option<ConnectionToken> {
        self.lists.pop_front()
    }

    /// Whether only small requests are read from this client, if it is logged in.
    pub(super) fn is_restricted(&self, token: ConnectionToken) -> bool {
        self.input_is_full() && self.fed != Some(token)
    }

    pub(super) fn starve(&mut self, token: ConnectionToken) {
        self.starved.insert(token);
    }

    /// Takes out a client whose large request may be read on: all of them while there is room, else one at a
    /// time.
    pub(super) fn next_fed(&mut self) -> Option<ConnectionToken> {
        let is_full = self.input_is_full();
        if is_full && self.fed.is_some() {
            return None;
        }
        let token = self.starved.pop_first()?;
        if is_full {
            self.fed = Some(token);
        }
        Some(token)
    }

    /// Notes whether a connection has received part of a request. The partial requests of anonymous clients
    /// are kept by age.
    pub(super) fn note_partial(
        &mut self,
        token: ConnectionToken,
        is_partial: bool,
        is_anonymous: bool,
        now_ms: u64,
    ) {
        if !is_partial || !is_anonymous {
            self.partial.cancel(token);
        } else if !self.partial.is_set(token) {
            self.partial.set(token, now_ms);
        }
        if !is_partial && self.fed == Some(token) {
            self.fed = None;
        }
    }

    /// Takes out the oldest partial request while anonymous clients exceed their budget.
    pub(super) fn next_to_end(&mut self) -> Option<ConnectionToken> {
        if self.anonymous_is_full() { self.partial.pop(u64::MAX) } else { None }
    }

    /// Takes a closed connection, which held this much, out of all sums and lists.
    pub(super) fn forget(&mut self, token: ConnectionToken, held: HeldBytes) {
        self.recount(held, HeldBytes::default());
        self.partial.cancel(token);
        self.starved.remove(&token);
        self.parked.retain(|parked| *parked != token);
        self.lists.retain(|listed| *listed != token);
        if self.fed == Some(token) {
            self.fed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::SlotMap;
    use super::*;

    fn held(is_anonymous: bool, input_bytes: usize, answer_bytes: usize) -> HeldBytes {
        HeldBytes { is_anonymous, input_bytes, answer_bytes }
    }

    /// Counts a new connection.
    fn add(admission: &mut RequestAdmission, held: HeldBytes) {
        admission.recount(HeldBytes::default(), held);
    }

    fn tokens<const N: usize>() -> [ConnectionToken; N] {
        let mut slots = SlotMap::new();
        [(); N].map(|()| slots.insert(|token| token))
    }

    #[test]
    fn budgets_are_separate() {
        let mut admission = RequestAdmission::new();
        add(&mut admission, held(true, 1, ANONYMOUS_MAX_BYTES));
        assert!(admission.anonymous_is_full() && !admission.answers_are_full());
        add(&mut admission, held(true, ANONYMOUS_MAX_BYTES + 1, 0));
        assert!(
            admission.anonymous_is_full() && !admission.input_is_full() && admission.fits(ANSWERS_MAX_BYTES)
        );
        add(&mut admission, held(false, 0, ANSWERS_MAX_BYTES));
        assert!(!admission.input_is_full() && admission.fits(0) && !admission.fits(1));
        assert!(!admission.answers_are_full());
    }

    #[test]
    fn login_moves_input_and_closing_removes_everything() {
        let mut admission = RequestAdmission::new();
        let [token] = tokens();
        let (before, after) = (held(true, 100, 7), held(false, 60, 9));
        add(&mut admission, before);
        admission.recount(before, after);
        assert_eq!((admission.anonymous_bytes, admission.input_bytes, admission.answer_bytes), (0, 60, 9));
        admission.forget(token, after);
        assert_eq!((admission.anonymous_bytes, admission.input_bytes, admission.answer_bytes), (0, 0, 0));
    }

    #[test]
    fn an_answer_larger_than_the_budget_fits_when_half_is_free() {
        let mut admission = RequestAdmission::new();
        assert!(admission.fits(usize::MAX));
        add(&mut admission, held(false, 0, ANSWERS_MAX_BYTES / 2 + 1));
        assert!(!admission.fits(usize::MAX));
    }

    #[test]
    fn one_large_request_is_read_while_input_is_full() {
        let mut admission = RequestAdmission::new();
        let [first, second] = tokens();
        add(&mut admission, held(false, INPUT_MAX_BYTES + 1, 0));
        admission.starve(first);
        admission.starve(second);
        assert_eq!((admission.next_fed(), admission.next_fed()), (Some(first), None));
        assert!(!admission.is_restricted(first) && admission.is_restricted(second));
        admission.note_partial(first, false, false, 0);
        assert_eq!(admission.next_fed(), Some(second));
        admission.forget(second, HeldBytes::default());
        assert!(admission.is_restricted(second));
    }

    #[test]
    fn the_oldest_partial_request_ends_first() {
        let mut admission = RequestAdmission::new();
        let [older, newer] = tokens();
        admission.note_partial(newer, true, true, 2);
        admission.note_partial(older, true, true, 1);
        admission.note_partial(older, true, true, 3);
        assert_eq!(admission.next_to_end(), None, "the budget is not exceeded");
        add(&mut admission, held(true, ANONYMOUS_MAX_BYTES + 1, 0));
        assert_eq!(admission.next_to_end(), Some(older));
        admission.note_partial(newer, true, false, 4);
        assert_eq!(admission.next_to_end(), None, "a client that logged in is not anonymous");
    }
}
