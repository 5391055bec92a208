//! First outcomes: a request retried with the same session and request id changes nothing a second time. Another request
//! under an id that was used is refused, and changes nothing either: it never gets the outcome of the first.
//!
//! Invariant: of each session the last [`ANSWERS_PER_SESSION`] outcomes are kept, refusals too. They outlive the
//! session's end, so that a retried logout succeeds as the first one did, and go when the session expires.

use super::command::Command;
use super::id::{RequestId, SessionId};
use super::key::Key;
use super::limits::ANSWERS_PER_SESSION;
use super::outcome::{Outcome, Refusal};
use super::rows::{self, AnswerOrderRow, AnswerRow, SessionRow};
use super::tables::{Table, Tables};
use super::wish;

/// The session and the name under which a command's outcome is kept, and the session's row; `None` where none is kept.
fn slot(tables: &dyn Tables, command: &Command) -> Option<(SessionId, RequestId, SessionRow)> {
    let actor = command.by.as_ref()?;
    let request = command.request_id?;
    let session: SessionRow = rows::read(tables, &Key::session(actor.session))?;
    (session.user == actor.user).then_some((actor.session, request, session))
}

/// What the same request came to before; [`Refusal::OtherRequest`] where the id stood for another.
pub(super) fn first_answer(tables: &dyn Tables, command: &Command) -> Option<Result<Outcome, Refusal>> {
    let (session, request, _) = slot(tables, command)?;
    let row: AnswerRow = rows::read(tables, &Key::answer(session, request.as_bytes()))?;
    if row.wish == wish::digest(&command.action) {
        Some(row.answer)
    } else {
        Some(Err(Refusal::OtherRequest))
    }
}

/// Keeps an outcome and forgets the one that is [`ANSWERS_PER_SESSION`] older. That the session does not hold is not
/// kept.
pub(super) fn remember(tables: &mut dyn Tables, command: &Command, answer: &Result<Outcome, Refusal>) {
    if answer == &Err(Refusal::NotLoggedIn) {
        return;
    }
    let Some((session, request, mut row)) = slot(tables, command) else { return };
    let number = row.answers;
    if let Some(oldest) = number.checked_sub(ANSWERS_PER_SESSION)
        && let Some(AnswerOrderRow(forgotten)) = rows::take(tables, &Key::answer_order(session, oldest))
    {
        tables.remove(Table::Answers, &Key::answer(session, &forgotten).0);
    }
    let kept = AnswerRow { wish: wish::digest(&command.action), answer: answer.clone() };
    rows::write(tables, &Key::answer(session, request.as_bytes()), &kept);
    rows::write(tables, &Key::answer_order(session, number), &AnswerOrderRow(*request.as_bytes()));
    row.answers = number + 1;
    rows::write(tables, &Key::session(session), &row);
}

/// Forgets everything about a session that expired.
pub(super) fn forget_session(tables: &mut dyn Tables, session: SessionId) {
    let prefix = Key::session(session).prefix();
    for table in [Table::Answers, Table::AnswerOrder] {
        for key in rows::keys(tables, table, &prefix) {
            tables.remove(table, &key.0);
        }
    }
}
