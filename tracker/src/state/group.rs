//! Groups: who is a member, who owns, who waits to be taken in.
//!
//! Invariants: a group has a member; its owner is one; the count and the order of age agree with the memberships. The
//! last member's leaving takes the group and its files along.

use super::acting::Acting;
use super::command::Policy;
use super::id::{FileKey, GroupId, UserId};
use super::key::Key;
use super::outcome::{Outcome, Refusal};
use super::rows::{self, AgeRow, GroupRow, MemberRow, RequestRow};
use super::tables::{Table, Tables};
use super::{file, membership, share};

pub(super) fn create(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    group: &GroupId,
    policy: Policy,
) -> Result<Outcome, Refusal> {
    if membership::existing(tables, group).is_ok() {
        return Err(Refusal::GroupExists(group.clone()));
    }
    let owner = by.actor.user.clone();
    let row = GroupRow { owner: owner.clone(), policy, created_s: by.at_s, members: 0, next_joined: 0 };
    add_member(tables, group, row, &owner);
    Ok(Outcome::GroupCreated)
}

pub(super) fn join(tables: &mut dyn Tables, by: &Acting<'_>, group: &GroupId) -> Result<Outcome, Refusal> {
    let row = membership::existing(tables, group)?;
    let user = &by.actor.user;
    if membership::is_member(tables, group, user) {
        return Err(Refusal::AlreadyMember(group.clone()));
    }
    let pending = row.policy == Policy::Approval;
    if !pending {
        add_member(tables, group, row, user);
    } else if tables.get(Table::Requests, &Key::member(group, user).0).is_none() {
        rows::write(tables, &Key::member(group, user), &RequestRow { asked_s: by.at_s });
    }
    Ok(Outcome::Joined { pending })
}

pub(super) fn accept(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    group: &GroupId,
    user: &UserId,
) -> Result<Outcome, Refusal> {
    let row = owned(tables, by, group)?;
    take_request(tables, group, user)?;
    add_member(tables, group, row, user);
    Ok(Outcome::RequestAccepted)
}

pub(super) fn reject(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    group: &GroupId,
    user: &UserId,
) -> Result<Outcome, Refusal> {
    owned(tables, by, group)?;
    take_request(tables, group, user)?;
    Ok(Outcome::RequestRejected)
}

pub(super) fn remove_member(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    group: &GroupId,
    user: &UserId,
) -> Result<Outcome, Refusal> {
    let row = owned(tables, by, group)?;
    if row.owner == *user {
        return Err(Refusal::OwnerStays(group.clone()));
    }
    if end_membership(tables, group, row, user).is_none() {
        return Err(Refusal::NoSuchMember { group: group.clone(), user: user.clone() });
    }
    Ok(Outcome::MemberRemoved)
}

pub(super) fn leave(tables: &mut dyn Tables, by: &Acting<'_>, group: &GroupId) -> Result<Outcome, Refusal> {
    let row = membership::of_member(tables, by, group)?;
    let user = &by.actor.user;
    let owned = row.owner == *user;
    let left = end_membership(tables, group, row, user);
    let mut row = left.ok_or_else(|| Refusal::NotMember(group.clone()))?;
    let Some(earliest) = earliest(tables, group) else {
        delete(tables, group);
        return Ok(Outcome::Left { new_owner: None, group_deleted: true });
    };
    if !owned {
        return Ok(Outcome::Left { new_owner: None, group_deleted: false });
    }
    row.owner = earliest.clone();
    rows::write(tables, &Key::group(group), &row);
    Ok(Outcome::Left { new_owner: Some(earliest), group_deleted: false })
}

/// The group, if there is one and the actor owns it. A stranger learns that it is no member, a member that it is no
/// owner.
fn owned(tables: &dyn Tables, by: &Acting<'_>, group: &GroupId) -> Result<GroupRow, Refusal> {
    let row = membership::of_member(tables, by, group)?;
    if row.owner == by.actor.user { Ok(row) } else { Err(Refusal::NotOwner(group.clone())) }
}

fn take_request(tables: &mut dyn Tables, group: &GroupId, user: &UserId) -> Result<(), Refusal> {
    match rows::take::<RequestRow>(tables, &Key::member(group, user)) {
        Some(_) => Ok(()),
        None => Err(Refusal::NoSuchRequest { group: group.clone(), user: user.clone() }),
    }
}

fn add_member(tables: &mut dyn Tables, group: &GroupId, mut row: GroupRow, user: &UserId) {
    let joined = row.next_joined;
    rows::write(tables, &Key::member(group, user), &MemberRow { joined });
    rows::write(tables, &Key::member_by_age(group, joined), &AgeRow { user: user.clone() });
    row.members += 1;
    row.next_joined += 1;
    rows::write(tables, &Key::group(group), &row);
}

/// Ends a membership with its shares; the group's row as it is then, or `None` when there was no such membership.
fn end_membership(
    tables: &mut dyn Tables,
    group: &GroupId,
    mut row: GroupRow,
    user: &UserId,
) -> Option<GroupRow> {
    let member: MemberRow = rows::take(tables, &Key::member(group, user))?;
    tables.remove(Table::MembersByAge, &Key::member_by_age(group, member.joined).0);
    share::withdraw(tables, group, user);
    row.members -= 1;
    rows::write(tables, &Key::group(group), &row);
    Some(row)
}

fn earliest(tables: &dyn Tables, group: &GroupId) -> Option<UserId> {
    let mut first = None;
    rows::page::<AgeRow>(tables, &Key::group(group).prefix(), None, 1, |_, row| first = Some(row.user));
    first
}

/// Takes an empty group off, with its files and the requests to join it.
fn delete(tables: &mut dyn Tables, group: &GroupId) {
    for name in file::names(tables, group) {
        file::delete(tables, &FileKey { group: group.clone(), name });
    }
    for request in rows::keys(tables, Table::Requests, &Key::group(group).prefix()) {
        tables.remove(Table::Requests, &request.0);
    }
    tables.remove(Table::Groups, &Key::group(group).0);
}
