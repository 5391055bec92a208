//! Who may act: a user in a valid session; and whether that user is a member of a group.
//!
//! Invariants: a session is valid while its row exists, names the actor's user, has not ended and has not expired; a
//! [`VerifiedActor`] exists only for such a session. Non-members learn only whether a group exists.

use super::id::{Actor, GroupId, UserId};
use super::node::NodeEndpoint;
use super::outcome::CommandRefusal;
use super::row_key::RowKey;
use super::rows::{self, GroupRow, MemberRow, SessionRow};
use super::tables::Tables;

/// A user whose session was checked and is valid.
#[derive(Clone, Debug)]
pub(super) struct VerifiedActor<'a> {
    /// The user and the session.
    pub(super) actor: &'a Actor,
    /// The session's row.
    pub(super) session: SessionRow,
    /// The command's time, in seconds since the Unix epoch.
    pub(super) at_s: u64,
}

impl<'a> VerifiedActor<'a> {
    /// The actor, if its session is valid at `at_s`.
    pub(super) fn find(
        tables: &dyn Tables,
        actor: &'a Actor,
        at_s: u64,
    ) -> Result<VerifiedActor<'a>, CommandRefusal> {
        let session: Option<SessionRow> = rows::read_row(tables, &RowKey::session(actor.session));
        match session.filter(|row| row.user == actor.user && row.holds_at(at_s)) {
            Some(session) => Ok(VerifiedActor { actor, session, at_s }),
            None => Err(CommandRefusal::NotLoggedIn),
        }
    }

    /// The node that a command means. Commands after the login need not repeat the key.
    pub(super) fn node(&self, claimed: NodeEndpoint) -> NodeEndpoint {
        let known = self.session.node.and_then(|node| node.peer_key);
        NodeEndpoint { address: claimed.address, peer_key: claimed.peer_key.or(known) }
    }
}

impl SessionRow {
    /// Whether the session counts at a time, in seconds since the Unix epoch.
    pub(super) fn holds_at(&self, at_s: u64) -> bool {
        !self.ended && at_s < self.expires_s
    }
}

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
