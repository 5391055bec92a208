//! What a try to bring something back leaves to do.

use crate::exit::{Exit, Fault};

/// What is left to do after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Something that a file, a directory or a busy tracker holds up.
    Something,
    /// Something that waits for a tracker.
    Trackers,
}

/// What a refusal leaves to do; `None` when asking again would not help.
pub(super) fn later(fault: &Fault) -> Option<Left> {
    match fault.exit {
        Exit::NoTracker => Some(Left::Trackers),
        // The trackers are busy or in trouble; or nobody is logged in any more, and the next login rings.
        Exit::Other | Exit::NotLoggedIn => Some(Left::Something),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let of = |exit| later(&Fault::new(exit, "why"));
        assert_eq!(of(Exit::NoTracker), Some(Left::Trackers));
        assert_eq!(of(Exit::Other), Some(Left::Something));
        assert_eq!(of(Exit::NotFound), None);
        assert!(Left::Trackers > Left::Something && Left::Something > Left::Nothing);
    }
}
