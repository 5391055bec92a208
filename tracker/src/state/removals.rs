//! Who removed which file or member: the leader's memory, so that a refusal can say it. Not replicated.
//!
//! Invariants: at most [`REMOVALS_KEPT`] of each kind are kept; the oldest are forgotten. No decision depends on them.

use std::collections::VecDeque;

use super::id::{GroupFile, GroupId, UserId};
use super::limits::REMOVALS_KEPT;

/// The latest removals.
#[derive(Clone, Debug, Default)]
pub struct RemovalLog {
    files: RecentRemovals<GroupFile>,
    members: RecentRemovals<(GroupId, UserId)>,
}

impl RemovalLog {
    pub(super) fn record_file(&mut self, file: GroupFile, by: UserId) {
        self.files.record(file, by);
    }

    pub(super) fn record_member(&mut self, group: GroupId, member: UserId, by: UserId) {
        self.members.record((group, member), by);
    }

    /// Forgets the removal of a user who is a member again.
    pub(super) fn forget_member(&mut self, group: &GroupId, member: &UserId) {
        self.members.entries.retain(|((of, user), _)| of != group || user != member);
    }

    /// The user who removed the file that was listed last under a name.
    #[must_use]
    pub fn file_remover(&self, file: &GroupFile) -> Option<&UserId> {
        self.files.find(file)
    }

    /// The owner who removed a member from a group.
    #[must_use]
    pub fn member_remover(&self, group: &GroupId, member: &UserId) -> Option<&UserId> {
        self.members.find(&(group.clone(), member.clone()))
    }
}

/// Removals of one kind, the latest last.
#[derive(Clone, Debug)]
struct RecentRemovals<T> {
    entries: VecDeque<(T, UserId)>,
}

impl<T> Default for RecentRemovals<T> {
    fn default() -> RecentRemovals<T> {
        RecentRemovals { entries: VecDeque::new() }
    }
}

impl<T: PartialEq> RecentRemovals<T> {
    fn record(&mut self, removed: T, by: UserId) {
        self.entries.retain(|(earlier, _)| *earlier != removed);
        if self.entries.len() == REMOVALS_KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back((removed, by));
    }

    fn find(&self, removed: &T) -> Option<&UserId> {
        self.entries.iter().find(|(entry, _)| entry == removed).map(|(_, by)| by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_removals_are_kept() {
        let mut log = RemovalLog::default();
        let group = |number: usize| GroupId::new(&format!("g{number}")).unwrap();
        let [bob, owner, other] = ["bob", "owner", "other"].map(|name| UserId::new(name).unwrap());
        for number in 0..=REMOVALS_KEPT {
            log.record_member(group(number), bob.clone(), owner.clone());
        }
        assert_eq!(log.member_remover(&group(0), &bob), None);
        assert_eq!(log.member_remover(&group(1), &bob), Some(&owner));
        log.record_member(group(1), bob.clone(), other.clone());
        assert_eq!(log.member_remover(&group(1), &bob), Some(&other));
        assert_eq!(log.member_remover(&group(2), &bob), Some(&owner), "a repeated removal takes no room");
        log.forget_member(&group(1), &bob);
        assert_eq!(log.member_remover(&group(1), &bob), None);
    }
}
