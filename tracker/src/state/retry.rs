//! Retries: a request repeated in the same session under the same request id gets its first outcome again and changes
//! nothing. A different request under a used id is refused.
//!
//! Invariant: the last [`ANSWERS_PER_SESSION`] outcomes of each session are kept, refusals too. They outlive a logout, so
//! a retried logout succeeds like the first, and are removed when the session expires.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::command::{LogAction, LogCommand, ManifestEnd};
use super::id::{RequestId, SessionId};
use super::limits::ANSWERS_PER_SESSION;
use super::outcome::{ApplyResult, CommandRefusal};
use super::row_key::RowKey;
use super::rows::{self, OutcomeOrderRow, OutcomeRow, SessionRow};
use super::tables::{Table, Tables};

/// Session and request id under which a command's outcome is kept, and the session's row; `None` when it is not kept.
fn outcome_slot(tables: &dyn Tables, command: &LogCommand) -> Option<(SessionId, RequestId, SessionRow)> {
    let actor = command.by.as_ref()?;
    let request = command.request_id?;
    let session: SessionRow = rows::read_row(tables, &RowKey::session(actor.session))?;
    (session.user == actor.user).then_some((actor.session, request, session))
}

/// The first outcome of the same request; [`CommandRefusal::OtherRequest`] when the id was used for another one.
pub(super) fn first_answer(tables: &dyn Tables, command: &LogCommand) -> Option<ApplyResult> {
    let (session, request, _) = outcome_slot(tables, command)?;
    let row: OutcomeRow = rows::read_row(tables, &RowKey::answer(session, request.as_bytes()))?;
    if row.request_digest == digest_request(&command.action) {
        Some(row.answer)
    } else {
        Some(Err(CommandRefusal::OtherRequest))
    }
}

/// Keeps an outcome and removes the one that is [`ANSWERS_PER_SESSION`] older. A refusal because the session is not
/// valid is not kept.
pub(super) fn remember_outcome(tables: &mut dyn Tables, command: &LogCommand, answer: &ApplyResult) {
    if answer == &Err(CommandRefusal::NotLoggedIn) {
        return;
    }
    let Some((session, request, mut row)) = outcome_slot(tables, command) else { return };
    let number = row.answers;
    if let Some(oldest) = number.checked_sub(ANSWERS_PER_SESSION)
        && let Some(OutcomeOrderRow(forgotten)) =
            rows::take_row(tables, &RowKey::answer_order(session, oldest))
    {
        tables.remove(Table::Outcomes, &RowKey::answer(session, &forgotten).0);
    }
    let kept = OutcomeRow { request_digest: digest_request(&command.action), answer: answer.clone() };
    rows::write_row(tables, &RowKey::answer(session, request.as_bytes()), &kept);
    rows::write_row(tables, &RowKey::answer_order(session, number), &OutcomeOrderRow(*request.as_bytes()));
    row.answers = number + 1;
    rows::write_row(tables, &RowKey::session(session), &row);
}

/// Removes all outcomes of an expired session.
pub(super) fn forget_session(tables: &mut dyn Tables, session: SessionId) {
    let prefix = RowKey::session(session).prefix();
    for table in [Table::Outcomes, Table::OutcomeOrder] {
        for key in rows::collect_keys(tables, table, &prefix) {
            tables.remove(table, &key.0);
        }
    }
}

/// SHA-256 over the JSON of what the client asked for.
///
/// It leaves out what the server adds to each try: a node's address and key, the random name of an upload's parts, a
/// password's salted hash. So a retry has the digest of its first try.
fn digest_request(action: &LogAction) -> [u8; 32] {
    match action {
        LogAction::CreateUser { user, .. } => digest_json(&("create_user", user)),
        LogAction::Login { user, .. } => digest_json(&("login", user)),
        LogAction::ChangePassword { .. } => digest_json(&("change_password",)),
        LogAction::Resume { .. } => digest_json(&("resume",)),
        LogAction::UploadPart { first, part, .. } => digest_json(&("upload_part", first, part)),
        LogAction::Upload { file, manifest, .. } => {
            digest_json(&("upload", file, ManifestEnd { upload: None, ..manifest.clone() }))
        }
        LogAction::Complete { file, .. } => digest_json(&("complete", file)),
        LogAction::StopShare { file, .. } => digest_json(&("stop_share", file)),
        LogAction::Logout
        | LogAction::CreateGroup { .. }
        | LogAction::JoinGroup { .. }
        | LogAction::AcceptRequest { .. }
        | LogAction::RejectRequest { .. }
        | LogAction::RemoveMember { .. }
        | LogAction::LeaveGroup { .. }
        | LogAction::RemoveFile { .. }
        | LogAction::Expire => digest_json(action),
    }
}

fn digest_json(request: &impl Serialize) -> [u8; 32] {
    let json = serde_json::to_vec(request).expect("actions have string keys and nothing that can fail");
    Sha256::digest(json).into()
}
