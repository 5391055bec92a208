//! What connections hold, counted in three budgets that do not eat into each other: input of those who are logged in, their
//! answers that were not sent, and all that is strangers'.
//!
//! Invariant: each sum is that of what its connections held when they were counted last; a connection is taken out with
//! what it was put in with.

use super::limits::{ANSWERS_MAX_BYTES, INPUT_MAX_BYTES, STRANGERS_INPUT_MAX_BYTES};

/// What one connection holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBytes {
    /// Whether nobody is logged in on it.
    pub(super) is_anonymous: bool,
    /// Requests, whole or half.
    pub(super) input_bytes: usize,
    /// Answers, unsent or with room set aside.
    pub(super) answer_bytes: usize,
}

/// The sums over all connections.
#[derive(Debug, Default)]
pub(super) struct MemoryBudgets {
    answer_bytes: usize,
    input_bytes: usize,
    anonymous_bytes: usize,
}

impl MemoryBudgets {
    /// Counts a connection anew.
    pub(super) fn recount(&mut self, before: HeldBytes, after: HeldBytes) {
        *self.input_of(before) -= before.input_bytes;
        *self.answers_of(before) -= before.answer_bytes;
        *self.input_of(after) += after.input_bytes;
        *self.answers_of(after) += after.answer_bytes;
    }

    fn input_of(&mut self, held: HeldBytes) -> &mut usize {
        if held.is_anonymous { &mut self.anonymous_bytes } else { &mut self.input_bytes }
    }

    fn answers_of(&mut self, held: HeldBytes) -> &mut usize {
        if held.is_anonymous { &mut self.anonymous_bytes } else { &mut self.answer_bytes }
    }

    /// Whether an answer of about this size can be begun now. One larger than the whole budget can when half of it is free.
    pub(super) fn fits(&self, answer_bytes: usize) -> bool {
        self.answer_bytes + answer_bytes.min(ANSWERS_MAX_BYTES / 2) <= ANSWERS_MAX_BYTES
    }

    /// Whether so many answers wait to be sent that a client's next one waits until it has taken those that it has.
    pub(super) fn answers_are_full(&self) -> bool {
        self.answer_bytes > ANSWERS_MAX_BYTES
    }

    /// Whether members send more than is kept: only small requests are read then.
    pub(super) fn input_is_full(&self) -> bool {
        self.input_bytes > INPUT_MAX_BYTES
    }

    /// Whether strangers' half requests have to end.
    pub(super) fn anonymous_is_full(&self) -> bool {
        self.anonymous_bytes > STRANGERS_INPUT_MAX_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(stranger: bool, input_bytes: usize, answer_bytes: usize) -> HeldBytes {
        HeldBytes { is_anonymous: stranger, input_bytes, answer_bytes }
    }

    #[test]
    fn no_budget_eats_into_another() {
        let mut budgets = MemoryBudgets::default();
        budgets.recount(HeldBytes::default(), held(true, 1, STRANGERS_INPUT_MAX_BYTES));
        assert!(budgets.anonymous_is_full() && !budgets.answers_are_full());
        budgets.recount(HeldBytes::default(), held(true, STRANGERS_INPUT_MAX_BYTES + 1, 0));
        assert!(budgets.anonymous_is_full() && !budgets.input_is_full() && budgets.fits(ANSWERS_MAX_BYTES));
        budgets.recount(HeldBytes::default(), held(false, 0, ANSWERS_MAX_BYTES));
        assert!(!budgets.input_is_full() && budgets.fits(0) && !budgets.fits(1));
        assert!(!budgets.answers_are_full());
    }

    #[test]
    fn a_login_moves_input_and_an_end_takes_all_out() {
        let mut budgets = MemoryBudgets::default();
        let (before, after) = (held(true, 100, 7), held(false, 60, 9));
        budgets.recount(HeldBytes::default(), before);
        budgets.recount(before, after);
        assert_eq!((budgets.anonymous_bytes, budgets.input_bytes, budgets.answer_bytes), (0, 60, 9));
        budgets.recount(after, HeldBytes::default());
        assert_eq!((budgets.anonymous_bytes, budgets.input_bytes, budgets.answer_bytes), (0, 0, 0));
    }

    #[test]
    fn an_answer_above_the_budget_is_not_put_off_for_ever() {
        let mut budgets = MemoryBudgets::default();
        assert!(budgets.fits(usize::MAX));
        budgets.recount(HeldBytes::default(), held(false, 0, ANSWERS_MAX_BYTES / 2 + 1));
        assert!(!budgets.fits(usize::MAX));
    }
}
