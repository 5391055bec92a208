//! What a try to bring something back leaves to do; the one place where refusals are told final or passing.

use tracker::api::failure::FailureCode;

use crate::exit::{ClientFault, ExitCause};

/// What is left to do after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PendingWork {
    /// Nothing.
    Nothing,
    /// Something that a file, a directory, a busy tracker or another command holds up.
    Retry,
    /// Something that waits for a tracker.
    Trackers,
}

/// What a fault leaves to do; `None` when a tracker's own refusal makes asking again useless. Nothing else is final: the
/// trackers' file may be missing for a moment, another program may answer at their address, nobody may be logged in until
/// the next login rings.
pub(super) fn pending_after(fault: &ClientFault) -> Option<PendingWork> {
    if fault.refusal_code.is_some_and(is_final) { None } else { Some(classify_transient(fault)) }
}

/// As [`pending_after`], for the listing of a file: its message is the same each time, so that it is no use either to send again what
/// is no request to the trackers, or larger than one may be.
pub(super) fn pending_after_listing(fault: &ClientFault) -> Option<PendingWork> {
    let unfit = matches!(fault.refusal_code, Some(FailureCode::BadRequest | FailureCode::TooLarge));
    if unfit { None } else { pending_after(fault) }
}

fn classify_transient(fault: &ClientFault) -> PendingWork {
    match fault.exit {
        ExitCause::NoTracker => PendingWork::Trackers,
        _ => PendingWork::Retry,
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

    fn refused(code: FailureCode) -> ClientFault {
        ClientFault { refusal_code: Some(code), ..ClientFault::new(ExitCause::Other, "why") }
    }

    #[test]
    fn only_a_trackers_own_refusal_is_final() {
        let of = |exit| pending_after(&ClientFault::new(exit, "why"));
        assert_eq!(of(ExitCause::NoTracker), Some(PendingWork::Trackers));
        for exit in [
            ExitCause::Other,
            ExitCause::Usage,
            ExitCause::Protocol,
            ExitCause::LocalIo,
            ExitCause::NotFound,
            ExitCause::NotLoggedIn,
        ] {
            assert_eq!(of(exit), Some(PendingWork::Retry), "{exit:?}");
        }
        for code in [FailureCode::NotMember, FailureCode::NotFound, FailureCode::OtherContent] {
            assert_eq!(
                (pending_after(&refused(code)), pending_after_listing(&refused(code))),
                (None, None),
                "{code}"
            );
        }
        for code in [FailureCode::Busy, FailureCode::Unavailable, FailureCode::Protocol, FailureCode::Other] {
            assert_eq!(pending_after_listing(&refused(code)), Some(PendingWork::Retry), "{code}");
        }
        assert!(PendingWork::Trackers > PendingWork::Retry && PendingWork::Retry > PendingWork::Nothing);
    }

    #[test]
    fn what_is_no_request_is_final_for_a_listing_alone() {
        for code in [FailureCode::BadRequest, FailureCode::TooLarge] {
            assert_eq!(pending_after(&refused(code)), Some(PendingWork::Retry), "{code}");
            assert_eq!(pending_after_listing(&refused(code)), None, "{code}");
        }
    }
}
