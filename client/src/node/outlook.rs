//! What a try to bring something back leaves to do.

use crate::exit::{Exit, Fault};

/// What is left to do after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Something that a file, a directory, a busy tracker or another command holds up.
    Something,
    /// Something that waits for a tracker.
    Trackers,
}

/// What a fault leaves to do; `None` when a tracker's own refusal makes asking again useless. Nothing else is final: the
/// trackers' file may be missing for a moment, another program may answer at their address, nobody may be logged in until
/// the next login rings.
pub(super) fn later(fault: &Fault) -> Option<Left> {
    match fault.exit {
        _ if fault.refused => None,
        Exit::NoTracker => Some(Left::Trackers),
        _ => Some(Left::Something),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trackers_own_refusal_is_final() {
        let of = |exit| later(&Fault::new(exit, "why"));
        assert_eq!(of(Exit::NoTracker), Some(Left::Trackers));
        for exit in
            [Exit::Other, Exit::Usage, Exit::Protocol, Exit::LocalIo, Exit::NotFound, Exit::NotLoggedIn]
        {
            assert_eq!(of(exit), Some(Left::Something), "{exit:?}");
        }
        let refused = Fault { refused: true, ..Fault::new(Exit::NotFound, "why") };
        assert_eq!(later(&refused), None);
        assert!(Left::Trackers > Left::Something && Left::Something > Left::Nothing);
    }
}
