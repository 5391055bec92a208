//! What the trackers refuse, as faults: the one place where their codes become exit codes.

use tracker::api::failure::{Failure, FailureCode};

use crate::exit::{Exit, Fault};
use crate::printable::printable;

/// The fault for a refusal; the tracker's own advice goes first. Its words are made fit for a terminal. `named`: it refuses
/// the very request, and not the connection.
pub(super) fn fault(failure: Failure, named: bool) -> Fault {
    let exit = exit_of(failure.code);
    let fix = failure.fix.map_or_else(|| advice(failure.code).to_owned(), |fix| printable(&fix));
    let refused = named.then_some(failure.code);
    Fault { exit, message: printable(&failure.message), fix: Some(fix), refused }
}

fn exit_of(code: FailureCode) -> Exit {
    match code {
        FailureCode::BadRequest => Exit::Usage,
        FailureCode::NotLoggedIn | FailureCode::WrongPassword => Exit::NotLoggedIn,
        FailureCode::NotMember | FailureCode::NotAllowed => Exit::NotAllowed,
        FailureCode::NotFound => Exit::NotFound,
        FailureCode::AlreadyExists | FailureCode::OtherContent => Exit::Exists,
        FailureCode::NoLeader => Exit::NoTracker,
        FailureCode::Protocol | FailureCode::Syntax | FailureCode::UnknownCommand => Exit::Protocol,
        FailureCode::TooLarge
        | FailureCode::Timeout
        | FailureCode::Busy
        | FailureCode::Unavailable
        | FailureCode::Internal
        | FailureCode::Other => Exit::Other,
    }
}

fn advice(code: FailureCode) -> &'static str {
    match code {
        FailureCode::NotLoggedIn => "login USER",
        FailureCode::WrongPassword => "try again; `create_user USER` makes a new user",
        FailureCode::NotMember => "join_group GROUP",
        FailureCode::NotAllowed => "ask the group's owner (`list_groups` shows who that is)",
        FailureCode::NotFound => "`list_groups` and `list_files GROUP` show what there is",
        FailureCode::AlreadyExists | FailureCode::OtherContent => "choose another name",
        FailureCode::Busy | FailureCode::NoLeader | FailureCode::Timeout | FailureCode::Unavailable => {
            "try again in a moment"
        }
        FailureCode::Protocol | FailureCode::Syntax | FailureCode::UnknownCommand => {
            "client and tracker are of different versions: bring both to the same"
        }
        FailureCode::BadRequest | FailureCode::TooLarge => "`help COMMAND` shows what a command takes",
        FailureCode::Internal | FailureCode::Other => "try again; if it stays, the tracker's log says why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_exits_and_the_trackers_advice_goes_first() {
        for (code, exit) in [
            (FailureCode::WrongPassword, Exit::NotLoggedIn),
            (FailureCode::NotMember, Exit::NotAllowed),
            (FailureCode::NotFound, Exit::NotFound),
            (FailureCode::OtherContent, Exit::Exists),
            (FailureCode::NoLeader, Exit::NoTracker),
            (FailureCode::BadRequest, Exit::Usage),
            (FailureCode::Protocol, Exit::Protocol),
            (FailureCode::Internal, Exit::Other),
        ] {
            assert_eq!(fault(Failure::new(code, "m"), false).refused, None);
            let fault = fault(Failure::new(code, "m"), true);
            assert_eq!((fault.exit, fault.refused), (exit, Some(code)));
        }
        let advised = fault(Failure::new(FailureCode::NotFound, "m").with_fix("do this"), true);
        assert_eq!(advised.fix.as_deref(), Some("do this"));
        assert!(fault(Failure::new(FailureCode::NotLoggedIn, "m"), true).fix.is_some());
    }

    #[test]
    fn what_a_tracker_writes_never_steers_the_terminal() {
        let hostile = "\u{1b}]0;owned\u{7}\u{202e}".repeat(1_000);
        let fault = fault(Failure::new(FailureCode::Other, hostile.clone()).with_fix(hostile), true);
        for text in [Some(fault.message), fault.fix] {
            assert!(
                text.is_some_and(|text| text.len() <= 1_024 && text.starts_with("\\u{1b}]0;owned\\u{7}"))
            );
        }
    }
}
