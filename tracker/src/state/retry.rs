//! First outcomes: a request retried with the same session and request id changes nothing a second time. Another request
//! under an id that was used is refused, and changes nothing either: it never gets the outcome of the first.
//!
//! Invariant: of each session the last [`ANSWERS_PER_SESSION`] outcomes are kept, refusals too. They outlive the
//! session's end, so that a retried logout succeeds as the first one did, and go when the session expires.

use super::command::LogCommand;
use super::id::{RequestId, SessionId};
use super::limits::ANSWERS_PER_SESSION;
use super::outcome::{CommandOutcome, CommandRefusal};
use super::request_digest;
use super::row_key::RowKey;
use super::rows::{self, AnswerOrderRow, AnswerRow, SessionRow};
use super::tables::{Table, Tables};

/// The session and the name under which a command's outcome is kept, and the session's row; `None` where none is kept.
fn outcome_slot(tables: &dyn Tables, command: &LogCommand) -> Option<(SessionId, RequestId, SessionRow)> {
    let actor = command.by.as_ref()?;
    let request = command.request_id?;
    let session: SessionRow = rows::read_row(tables, &RowKey::session(actor.session))?;
    (session.user == actor.user).then_some((actor.session, request, session))
}

/// What the same request came to before; [`CommandRefusal::OtherRequest`] where the id stood for another.
pub(super) fn first_answer(
    tables: &dyn Tables,
    command: &LogCommand,
) -> Option<Result<CommandOutcome, CommandRefusal>> {
    let (session, request, _) = outcome_slot(tables, command)?;
    let row: AnswerRow = rows::read_row(tables, &RowKey::answer(session, request.as_bytes()))?;
    if row.wish == request_digest::digest_request(&command.action) {
        Some(row.answer)
    } else {
        Some(Err(CommandRefusal::OtherRequest))
    }
}

/// Keeps an outcome and forgets the one that is [`ANSWERS_PER_SESSION`] older. That the session does not hold is not
/// kept.
pub(super) fn remember_outcome(
    tables: &mut dyn Tables,
    command: &LogCommand,
    answer: &Result<CommandOutcome, CommandRefusal>,
) {
    if answer == &Err(CommandRefusal::NotLoggedIn) {
        return;
    }
    let Some((session, request, mut row)) = outcome_slot(tables, command) else { return };
    let number = row.answers;
    if let Some(oldest) = number.checked_sub(ANSWERS_PER_SESSION)
        && let Some(AnswerOrderRow(forgotten)) =
            rows::take_row(tables, &RowKey::answer_order(session, oldest))
    {
        tables.remove(Table::Answers, &RowKey::answer(session, &forgotten).0);
    }
    let kept = AnswerRow { wish: request_digest::digest_request(&command.action), answer: answer.clone() };
    rows::write_row(tables, &RowKey::answer(session, request.as_bytes()), &kept);
    rows::write_row(tables, &RowKey::answer_order(session, number), &AnswerOrderRow(*request.as_bytes()));
    row.answers = number + 1;
    rows::write_row(tables, &RowKey::session(session), &row);
}

/// Forgets everything about a session that expired.
pub(super) fn forget_session(tables: &mut dyn Tables, session: SessionId) {
    let prefix = RowKey::session(session).prefix();
    for table in [Table::Answers, Table::AnswerOrder] {
        for key in rows::collect_keys(tables, table, &prefix) {
            tables.remove(table, &key.0);
        }
    }
}
