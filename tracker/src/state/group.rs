//! Groups: members, owner, and requests to join.
//!
//! Invariants: a group has at least one member, and its owner is a member. The member count and the index by age agree
//! with the memberships. When the last member leaves, the group and its files are removed.

use super::access::VerifiedActor;
use super::command::Policy;
use super::id::{GroupFile, GroupId, UserId};
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal};
use super::row_key::RowKey;
use super::rows::{self, GroupRow, JoinRequestRow, MemberByJoinRow, MemberRow};
use super::tables::{Table, Tables};
use super::{access, file, share};

pub(super) fn create_group(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
    policy: Policy,
) -> ApplyResult {
    if access::existing_group(tables, group).is_ok() {
        return Err(CommandRefusal::GroupExists(group.clone()));
    }
    let owner = by.actor.user.clone();
    let row = GroupRow { owner: owner.clone(), policy, created_s: by.at_s, members: 0, next_joined: 0 };
    add_member(tables, group, row, &owner);
    Ok(CommandOutcome::GroupCreated)
}

pub(super) fn join_group(tables: &mut dyn Tables, by: &VerifiedActor<'_>, group: &GroupId) -> ApplyResult {
    let row = access::existing_group(tables, group)?;
    let user = &by.actor.user;
    if access::is_member(tables, group, user) {
        return Err(CommandRefusal::AlreadyMember(group.clone()));
    }
    let pending = row.policy == Policy::Approval;
    if !pending {
        add_member(tables, group, row, user);
    } else if tables.get(Table::JoinRequests, &RowKey::member(group, user).0).is_none() {
        rows::write_row(tables, &RowKey::member(group, user), &JoinRequestRow { asked_s: by.at_s });
    }
    Ok(CommandOutcome::Joined { pending })
}

pub(super) fn accept_request(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
    user: &UserId,
) -> ApplyResult {
    let row = owned_group(tables, by, group)?;
    take_request(tables, group, user)?;
    add_member(tables, group, row, user);
    Ok(CommandOutcome::RequestAccepted)
}

pub(super) fn reject_request(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
    user: &UserId,
) -> ApplyResult {
    owned_group(tables, by, group)?;
    take_request(tables, group, user)?;
    Ok(CommandOutcome::RequestRejected)
}

pub(super) fn remove_member(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
    user: &UserId,
) -> ApplyResult {
    let row = owned_group(tables, by, group)?;
    if row.owner == *user {
        return Err(CommandRefusal::OwnerStays(group.clone()));
    }
    if end_membership(tables, group, row, user).is_none() {
        return Err(CommandRefusal::NoSuchMember { group: group.clone(), user: user.clone() });
    }
    Ok(CommandOutcome::MemberRemoved)
}

pub(super) fn leave_group(tables: &mut dyn Tables, by: &VerifiedActor<'_>, group: &GroupId) -> ApplyResult {
    let row = access::group_of_member(tables, by, group)?;
    let user = &by.actor.user;
    let owned = row.owner == *user;
    let left = end_membership(tables, group, row, user);
    let mut row = left.ok_or_else(|| CommandRefusal::NotMember(group.clone()))?;
    let Some(earliest) = earliest_member(tables, group) else {
        assert_eq!(row.members, 0, "a group without a first member has no members");
        delete_group(tables, group);
        return Ok(CommandOutcome::Left { new_owner: None, group_deleted: true });
    };
    if !owned {
        return Ok(CommandOutcome::Left { new_owner: None, group_deleted: false });
    }
    row.owner = earliest.clone();
    rows::write_row(tables, &RowKey::group(group), &row);
    Ok(CommandOutcome::Left { new_owner: Some(earliest), group_deleted: false })
}

/// The group, if the actor owns it. A non-member learns only that it is no member.
fn owned_group(
    tables: &dyn Tables,
    by: &VerifiedActor<'_>,
    group: &GroupId,
) -> Result<GroupRow, CommandRefusal> {
    let row = access::group_of_member(tables, by, group)?;
    if row.owner == by.actor.user { Ok(row) } else { Err(CommandRefusal::NotOwner(group.clone())) }
}

fn take_request(tables: &mut dyn Tables, group: &GroupId, user: &UserId) -> Result<(), CommandRefusal> {
    match rows::take_row::<JoinRequestRow>(tables, &RowKey::member(group, user)) {
        Some(_) => Ok(()),
        None => Err(CommandRefusal::NoSuchRequest { group: group.clone(), user: user.clone() }),
    }
}

fn add_member(tables: &mut dyn Tables, group: &GroupId, mut row: GroupRow, user: &UserId) {
    let joined = row.next_joined;
    rows::write_row(tables, &RowKey::member(group, user), &MemberRow { joined });
    rows::write_row(tables, &RowKey::member_by_age(group, joined), &MemberByJoinRow { user: user.clone() });
    row.members += 1;
    row.next_joined += 1;
    rows::write_row(tables, &RowKey::group(group), &row);
}

/// Ends a membership and its shares. Returns the group's updated row, or `None` when there was no such membership.
fn end_membership(
    tables: &mut dyn Tables,
    group: &GroupId,
    mut row: GroupRow,
    user: &UserId,
) -> Option<GroupRow> {
    let member: MemberRow = rows::take_row(tables, &RowKey::member(group, user))?;
    let indexed = tables.remove(Table::MembersByJoining, &RowKey::member_by_age(group, member.joined).0);
    assert!(indexed, "a member is in the index by age");
    assert!(row.members > 0, "a group with a member counts it");
    share::remove_member_shares(tables, group, user);
    row.members -= 1;
    rows::write_row(tables, &RowKey::group(group), &row);
    Some(row)
}

fn earliest_member(tables: &dyn Tables, group: &GroupId) -> Option<UserId> {
    let mut first = None;
    rows::visit_page::<MemberByJoinRow>(tables, &RowKey::group(group).prefix(), None, 1, |_, row| {
        first = Some(row.user);
    });
    first
}

/// Removes an empty group with its files and requests.
fn delete_group(tables: &mut dyn Tables, group: &GroupId) {
    for name in file::file_names(tables, group) {
        file::delete_file(tables, &GroupFile { group: group.clone(), name });
    }
    for request in rows::collect_keys(tables, Table::JoinRequests, &RowKey::group(group).prefix()) {
        tables.remove(Table::JoinRequests, &request.0);
    }
    tables.remove(Table::Groups, &RowKey::group(group).0);
}
