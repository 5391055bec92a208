//! Decides by its fault whether work that failed is tried again. The only place where a refusal counts as
//! final or passing.

use engine::stats::WithdrawalCause;
use tracker::api::failure::FailureCode;

use crate::exit::{ClientFault, ExitCause};

/// What a round of recovery leaves to do, in ascending order of its pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PendingWork {
    /// Nothing.
    Nothing,
    /// Something that waits for a file, a directory, a busy tracker or another command.
    Retry,
    /// Something that waits for a reachable tracker.
    Trackers,
}

/// The work that a fault leaves; `None` when a tracker's own refusal is final. No other fault is: the
/// trackers' file may be missing for a moment, another program may answer at a tracker's address, and a login
/// wakes recovery.
pub(super) fn pending_after(fault: &ClientFault) -> Option<PendingWork> {
    if fault.refusal_code.is_some_and(is_final) { None } else { Some(classify_transient(fault)) }
}

/// What a tracker's refusal of a request about a file means for its download; `None` when it does not end it.
pub(super) fn withdrawal_cause(fault: &ClientFault) -> Option<WithdrawalCause> {
    match fault.refusal_code? {
        FailureCode::NotFound => Some(WithdrawalCause::Removed),
        FailureCode::OtherContent => Some(WithdrawalCause::Replaced),
        FailureCode::NotMember => Some(WithdrawalCause::NotMember),
        _ => None,
    }
}

/// As [`pending_after`], for the listing of a file. Its message is the same each time, so a malformed or too
/// large one is refused for good.
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

/// Whether the answer stays the same until a user changes something. Overload, mistakes of this program and
/// codes of another version may pass, and an expired login comes back with the next one.
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
    fn a_malformed_request_is_final_only_for_a_listing() {
        for code in [FailureCode::BadRequest, FailureCode::TooLarge] {
            assert_eq!(pending_after(&refused(code)), Some(PendingWork::Retry), "{code}");
            assert_eq!(pending_after_listing(&refused(code)), None, "{code}");
        }
    }
}
