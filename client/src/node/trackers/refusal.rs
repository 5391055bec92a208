//! Converts trackers' refusals to client errors; the only place where their codes become exit codes.

use tracker::api::failure::{FailureCode, RequestFailure};

use crate::exit::{ClientFault, ExitCause};
use crate::printable::make_printable;

/// The error for a refusal. The tracker's own advice takes precedence; its text is made printable.
/// `names_request`: the refusal names the request's id; otherwise it concerns the connection and gives no code.
pub(super) fn refusal_fault(failure: RequestFailure, names_request: bool) -> ClientFault {
    let exit = exit_of(failure.code);
    let fix = failure
        .fix
        .map_or_else(|| default_advice(failure.code).to_owned(), |fix| mark_commands(&make_printable(&fix)));
    let refused = names_request.then_some(failure.code);
    ClientFault { exit, message: make_printable(&failure.message), fix: Some(fix), refusal_code: refused }
}

/// Commands in trackers' advice, and how many words may follow each (a file name may contain blanks). Trackers write commands
/// as at a prompt and without backticks.
const ADVISED: [(&str, usize); 9] = [
    ("login", 1),
    ("create_user", 1),
    ("join_group", 1),
    ("create_group", 1),
    ("list_groups", 0),
    ("list_files", 1),
    ("list_requests", 1),
    ("leave_group", 1),
    ("remove_file", 64),
];

/// Words that continue the sentence after a command.
const PROSE: [&str; 4] = ["with", "first", "shows", "or"];

/// Puts commands in a tracker's advice between backticks, as in the client's own messages.
fn mark_commands(advice: &str) -> String {
    if advice.contains('`') {
        return advice.to_owned();
    }
    let words: Vec<&str> = advice.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let Some((_, follow)) = ADVISED.iter().find(|(name, _)| name == word) else {
            out.push((*word).to_owned());
            at += 1;
            continue;
        };
        let mut end = at + 1;
        while end < words.len() && end <= at + follow && !PROSE.contains(&words[end]) {
            end += 1;
            if words[end - 1].ends_with(',') {
                break;
            }
        }
        let command = words[at..end].join(" ");
        out.push(match command.strip_suffix(',') {
            Some(command) => format!("`{command}`,"),
            None => format!("`{command}`"),
        });
        at = end;
    }
    out.join(" ")
}

fn exit_of(code: FailureCode) -> ExitCause {
    match code {
        FailureCode::BadRequest => ExitCause::Usage,
        FailureCode::NotLoggedIn | FailureCode::WrongPassword => ExitCause::NotLoggedIn,
        FailureCode::NotMember | FailureCode::NotAllowed => ExitCause::NotAllowed,
        FailureCode::NotFound => ExitCause::NotFound,
        FailureCode::AlreadyExists | FailureCode::OtherContent => ExitCause::Exists,
        FailureCode::NoLeader => ExitCause::NoTracker,
        FailureCode::Protocol | FailureCode::Syntax | FailureCode::UnknownCommand => ExitCause::Protocol,
        FailureCode::TooLarge
        | FailureCode::Timeout
        | FailureCode::Busy
        | FailureCode::Unavailable
        | FailureCode::Internal
        | FailureCode::Other => ExitCause::Other,
    }
}

fn default_advice(code: FailureCode) -> &'static str {
    match code {
        FailureCode::NotLoggedIn => "`login USER`, or `create_user USER` for a new account",
        FailureCode::WrongPassword => "try again with the right password",
        FailureCode::NotMember => "`join_group GROUP`",
        FailureCode::NotAllowed => "ask the group's owner (`list_groups --json` shows who that is)",
        FailureCode::NotFound => "`list_groups` and `list_files GROUP` show what there is",
        FailureCode::AlreadyExists | FailureCode::OtherContent => "choose another name",
        FailureCode::Busy | FailureCode::NoLeader | FailureCode::Timeout | FailureCode::Unavailable => {
            "try again in a moment"
        }
        FailureCode::Protocol | FailureCode::Syntax | FailureCode::UnknownCommand => {
            "client and tracker have different versions: use the same one for both"
        }
        FailureCode::BadRequest | FailureCode::TooLarge => "`help COMMAND` shows what a command takes",
        FailureCode::Internal | FailureCode::Other => "try again; if it persists, see the tracker's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_exits_and_the_trackers_advice_takes_precedence() {
        for (code, exit) in [
            (FailureCode::WrongPassword, ExitCause::NotLoggedIn),
            (FailureCode::NotMember, ExitCause::NotAllowed),
            (FailureCode::NotFound, ExitCause::NotFound),
            (FailureCode::OtherContent, ExitCause::Exists),
            (FailureCode::NoLeader, ExitCause::NoTracker),
            (FailureCode::BadRequest, ExitCause::Usage),
            (FailureCode::Protocol, ExitCause::Protocol),
            (FailureCode::Internal, ExitCause::Other),
        ] {
            assert_eq!(refusal_fault(RequestFailure::new(code, "m"), false).refusal_code, None);
            let fault = refusal_fault(RequestFailure::new(code, "m"), true);
            assert_eq!((fault.exit, fault.refusal_code), (exit, Some(code)));
        }
        let advised =
            refusal_fault(RequestFailure::new(FailureCode::NotFound, "m").with_fix("do this"), true);
        assert_eq!(advised.fix.as_deref(), Some("do this"));
        assert!(refusal_fault(RequestFailure::new(FailureCode::NotLoggedIn, "m"), true).fix.is_some());
    }

    #[test]
    fn commands_in_a_trackers_advice_are_marked() {
        for (said, shown) in [
            ("join_group g", "`join_group g`"),
            (
                "login alice, or create_user with another name",
                "`login alice`, or `create_user` with another name",
            ),
            (
                "login USER with the right password, or create_user USER first",
                "`login USER` with the right password, or `create_user USER` first",
            ),
            (
                "upload it under another name; or its owner can remove_file g my file first",
                "upload it under another name; or its owner can `remove_file g my file` first",
            ),
            (
                "you are in it: list_files g, or create_group with another name",
                "you are in it: `list_files g`, or `create_group` with another name",
            ),
            (
                "ask the group's owner: list_groups shows who",
                "ask the group's owner: `list_groups` shows who",
            ),
            ("the same again in a few seconds", "the same again in a few seconds"),
            ("`join_group g`", "`join_group g`"),
        ] {
            assert_eq!(mark_commands(said), shown);
        }
    }

    #[test]
    fn a_trackers_text_cannot_control_the_terminal() {
        let hostile = "\u{1b}]0;owned\u{7}\u{202e}".repeat(1_000);
        let fault =
            refusal_fault(RequestFailure::new(FailureCode::Other, hostile.clone()).with_fix(hostile), true);
        for text in [Some(fault.message), fault.fix] {
            assert!(
                text.is_some_and(|text| text.len() <= 1_024 && text.starts_with("\\u{1b}]0;owned\\u{7}"))
            );
        }
    }
}
