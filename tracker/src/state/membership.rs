//! Who is a member of which group: the question before every decision about a group or a file.
//!
//! Invariant: one who is told about a group's inside is a member; others learn only whether the group exists.

use super::actor::VerifiedActor;
use super::id::{GroupId, UserId};
use super::outcome::CommandRefusal;
use super::row_key::RowKey;
use super::rows::{self, GroupRow, MemberRow};
use super::tables::Tables;

/// Whether a user is a member.
pub(super) fn is_member(tables: &dyn Tables, group: &GroupId, user: &UserId) -> bool {
    rows::row_exists::<MemberRow>(tables, &RowKey::member(group, user))
}

/// The group, if there is one.
pub(super) fn existing_group(tables: &dyn Tables, group: &GroupId) -> Result<GroupRow, CommandRefusal> {
    rows::read_row(tables, &RowKey::group(group)).ok_or_else(|| CommandRefusal::NoSuchGroup(group.clone()))
}

/// The group, if there is one and the actor is a member.
pub(super) fn group_of_member(
    tables: &dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
) -> Result<GroupRow, CommandRefusal> {
    let row = existing_group(tables, group)?;
    if is_member(tables, group, &by.actor.user) {
        Ok(row)
    } else {
        Err(CommandRefusal::NotMember(group.clone()))
    }
}
