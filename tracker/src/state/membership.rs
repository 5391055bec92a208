//! Who is a member of which group: the question before every decision about a group or a file.
//!
//! Invariant: one who is told about a group's inside is a member; others learn only whether the group exists.

use super::acting::Acting;
use super::id::{GroupId, UserId};
use super::key::Key;
use super::outcome::Refusal;
use super::rows::{self, GroupRow, MemberRow};
use super::tables::Tables;

/// Whether a user is a member.
pub(super) fn is_member(tables: &dyn Tables, group: &GroupId, user: &UserId) -> bool {
    rows::stands::<MemberRow>(tables, &Key::member(group, user))
}

/// The group, if there is one.
pub(super) fn existing(tables: &dyn Tables, group: &GroupId) -> Result<GroupRow, Refusal> {
    rows::read(tables, &Key::group(group)).ok_or_else(|| Refusal::NoSuchGroup(group.clone()))
}

/// The group, if there is one and the actor is a member.
pub(super) fn of_member(tables: &dyn Tables, by: &Acting<'_>, group: &GroupId) -> Result<GroupRow, Refusal> {
    let row = existing(tables, group)?;
    if is_member(tables, group, &by.actor.user) { Ok(row) } else { Err(Refusal::NotMember(group.clone())) }
}
