//! What a try to bring something back leaves to do; the one place where refusals are told final or passing.

use tracker::api::failure::FailureCode;

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
    if fault.refused.is_some_and(is_final) { None } else { Some(passing(fault)) }
}

/// As [`later`], for the listing of a file: its message is the same each time, so that it is no use either to send again what
/// is no request to the trackers, or larger than one may be.
pub(super) fn later_listed(fault: &Fault) -> Option<Left> {
    let unfit = matches!(fault.refused, Some(FailureCode::BadRequest | FailureCode::TooLarge));
    if unfit { None } else { later(fault) }
}

fn passing(fault: &Fault) -> Left {
    match fault.exit {
        Exit::NoTracker => Left::Trackers,
        _ => Left::Something,
    }
}

/// Whether the answer stays the same until somebody changes something. What the trackers cannot do now, take for a mistake of
/// this program, or say in another version's words may pass; a login that has ended comes back with the user.
fn is_final(code: FailureCode) -> bool {
    match code {
        FailureCode::NotMember
        | FailureCode::NotAllowed
        | FailureCode::NotFound
        | FailureCode::AlreadyExists
        | FailureCode::OtherContent => true,
        FailureCode::NotLoggedIn
        | FailureCode::WrongPassword
        | FailureCode::Protocol
        | FailureCode::Syntax
        | FailureCode::BadRequest
        | FailureCode::UnknownCommand
        | FailureCode::TooLarge
        | FailureCode::Timeout
        | FailureCode::Busy
        | FailureCode::NoLeader
        | FailureCode::Unavailable
        | FailureCode::Internal
        | FailureCode::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: FailureCode) -> Fault {
        Fault { refused: Some(code), ..Fault::new(Exit::Other, "why") }
    }

    #[test]
    fn only_a_trackers_own_refusal_is_final() {
        let of = |exit| later(&Fault::new(exit, "why"));
        assert_eq!(of(Exit::NoTracker), Some(Left::Trackers));
        for exit in
            [Exit::Other, Exit::Usage, Exit::Protocol, Exit::LocalIo, Exit::NotFound, Exit::NotLoggedIn]
        {
            assert_eq!(of(exit), Some(Left::Something), "{exit:?}");
        }
        for code in [FailureCode::NotMember, FailureCode::NotFound, FailureCode::OtherContent] {
            assert_eq!((later(&refused(code)), later_listed(&refused(code))), (None, None), "{code}");
        }
        for code in [FailureCode::Busy, FailureCode::Unavailable, FailureCode::Protocol, FailureCode::Other] {
            assert_eq!(later_listed(&refused(code)), Some(Left::Something), "{code}");
        }
        assert!(Left::Trackers > Left::Something && Left::Something > Left::Nothing);
    }

    #[test]
    fn what_is_no_request_is_final_for_a_listing_alone() {
        for code in [FailureCode::BadRequest, FailureCode::TooLarge] {
            assert_eq!(later(&refused(code)), Some(Left::Something), "{code}");
            assert_eq!(later_listed(&refused(code)), None, "{code}");
        }
    }
}
