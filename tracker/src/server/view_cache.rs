//! A cache of rows of the current view of the state. Nearly every request reads its session, a membership,
//! and a file with its seeders; reading the rows of 50 seeders costs more than the rest of an answer.
//!
//! Invariants: every entry was completely read from the current view, and is dropped with it. A missing row
//! is never cached, since a view that fails reads as if it were empty. A session's expiry is checked at each
//! look-up.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::state::id::{GroupFile, GroupId, SessionId, UserId};
use crate::state::leases::FileHolders;
use crate::state::node::SwarmPeer;
use crate::state::queries::{FileView, SessionView, StateQueries};

use super::limits::{KNOWN_FILE_ROWS, KNOWN_ROWS_MAX};

/// A file, and the peers that have all of it.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub(super) file: FileView,
    pub(super) seeders: Vec<SwarmPeer>,
}

impl ListedFile {
    pub(super) fn holders(&self) -> FileHolders<'_> {
        FileHolders { content: self.file.content(), uploader: &self.file.uploader, seeders: &self.seeders }
    }
}

#[derive(Debug, Default)]
pub(super) struct ViewCache {
    sessions: HashMap<SessionId, SessionView>,
    members: HashMap<GroupId, HashSet<UserId>>,
    files: HashMap<GroupFile, Rc<ListedFile>>,
    /// Rows that all entries were read from, roughly.
    rows: usize,
}

impl ViewCache {
    /// A session, if it is valid at `at_s`.
    pub(super) fn session(
        &mut self,
        queries: StateQueries<'_>,
        session: SessionId,
        at_s: u64,
    ) -> Option<SessionView> {
        if let Some(known) = self.sessions.get(&session) {
            return known.holds_at(at_s).then(|| known.clone());
        }
        let read = queries.session(session, at_s)?;
        if self.reserve_rows(1) {
            self.sessions.insert(session, read.clone());
        }
        Some(read)
    }

    /// Whether a session is valid at `at_s`.
    pub(super) fn session_holds(&mut self, queries: StateQueries<'_>, session: SessionId, at_s: u64) -> bool {
        match self.sessions.get(&session) {
            Some(known) => known.holds_at(at_s),
            None => self.session(queries, session, at_s).is_some(),
        }
    }

    pub(super) fn is_member(&mut self, queries: StateQueries<'_>, group: &GroupId, user: &UserId) -> bool {
        if self.members.get(group).is_some_and(|members| members.contains(user)) {
            return true;
        }
        let is_member = queries.is_member(group, user);
        if is_member && self.reserve_rows(1) {
            self.members.entry(group.clone()).or_default().insert(user.clone());
        }
        is_member
    }

    /// A file and its seeders. Cached only if, after reading them, `was_read` reports no failed read.
    pub(super) fn file(
        &mut self,
        queries: StateQueries<'_>,
        file: &GroupFile,
        was_read: impl FnOnce() -> bool,
    ) -> Option<Rc<ListedFile>> {
        if let Some(known) = self.files.get(file) {
            return Some(Rc::clone(known));
        }
        let listed = Rc::new(ListedFile { file: queries.file(file)?, seeders: queries.seeders(file) });
        if was_read() && self.reserve_rows(KNOWN_FILE_ROWS + listed.seeders.len()) {
            self.files.insert(file.clone(), Rc::clone(&listed));
        }
        Some(listed)
    }

    /// Drops everything, since the view was replaced.
    pub(super) fn forget(&mut self) {
        if self.rows > 0 {
            *self = ViewCache::default();
        }
    }

    /// Counts new rows, after dropping all others when they do not fit beside them. Whether they fit at all.
    fn reserve_rows(&mut self, rows: usize) -> bool {
        if rows > KNOWN_ROWS_MAX {
            return false;
        }
        if self.rows + rows > KNOWN_ROWS_MAX {
            self.forget();
        }
        self.rows += rows;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use engine::proto::manifest::{FileName, FileProof};
    use engine::proto::units::Digest;

    use crate::state::command::{LogAction, LogCommand, ManifestEnd, ManifestPart, Policy};
    use crate::state::id::Actor;
    use crate::state::machine::StateMachine;
    use crate::state::memory_tables::MemoryTables;
    use crate::state::node::NodeEndpoint;

    use super::*;

    const AT_S: u64 = 1_000;

    /// A state in which alice is logged in and shares a file in a group.
    struct Rig {
        machine: StateMachine<MemoryTables>,
        alice: Actor,
        file: GroupFile,
        known: ViewCache,
    }

    impl Rig {
        fn new() -> Rig {
            let user = UserId::new("alice").unwrap();
            let alice = Actor { user: user.clone(), session: SessionId([1; 16]) };
            let group = GroupId::new("g").unwrap();
            let file = GroupFile { group: group.clone(), name: FileName::new("f").unwrap() };
            let node = NodeEndpoint { address: SocketAddr::from(([10, 0, 0, 1], 1)), peer_key: None };
            let mut machine = StateMachine::<MemoryTables>::default();
            let password_hash = String::new();
            let create = LogAction::CreateUser { user: user.clone(), password_hash };
            machine.apply(&LogCommand::anonymous(AT_S, create)).unwrap();
            let password_epoch = machine.queries().account(&user).unwrap().password_epoch;
            let login = LogAction::Login { user, password_epoch, session: alice.session, node: Some(node) };
            machine.apply(&LogCommand::anonymous(AT_S, login)).unwrap();
            let mut rig = Rig { machine, alice, file: file.clone(), known: ViewCache::default() };
            rig.act(LogAction::CreateGroup { group, policy: Policy::Open });
            let digest = Digest([7; 20]);
            let manifest = ManifestEnd {
                upload: None,
                first: 0,
                part: ManifestPart::new(&[digest], None),
                length: None,
                proof: FileProof::Whole(digest),
            };
            rig.act(LogAction::Upload { file, manifest, node });
            rig
        }

        fn act(&mut self, action: LogAction) {
            self.machine.apply(&LogCommand::by(self.alice.clone(), AT_S, None, action)).unwrap();
        }

        fn session(&mut self, at_s: u64) -> Option<SessionView> {
            self.known.session(self.machine.queries(), self.alice.session, at_s)
        }

        fn is_member(&mut self) -> bool {
            self.known.is_member(self.machine.queries(), &self.file.group, &self.alice.user)
        }

        /// Number of seeders of the file.
        fn seeders(&mut self, was_read: bool) -> Option<usize> {
            let listed = self.known.file(self.machine.queries(), &self.file, || was_read)?;
            assert_eq!(listed.file.name, self.file.name);
            Some(listed.seeders.len())
        }
    }

    #[test]
    fn entries_stay_until_the_cache_is_cleared() {
        let mut rig = Rig::new();
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.seeders(true), Some(1));
        // The cache is not told that the view changes.
        rig.machine = StateMachine::default();
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.seeders(true), Some(1));
        rig.known.forget();
        assert!(!rig.is_member() && rig.session(AT_S).is_none());
        assert_eq!(rig.seeders(true), None);
    }

    #[test]
    fn missing_rows_and_failed_reads_are_not_cached() {
        let mut rig = Rig::new();
        let full = std::mem::take(&mut rig.machine);
        assert!(!rig.is_member() && rig.session(AT_S).is_none());
        assert_eq!(rig.seeders(true), None);
        rig.machine = full;
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.seeders(false), Some(1));
        rig.machine = StateMachine::default();
        assert_eq!(rig.seeders(false), None, "it was cached although a read had failed");
    }

    #[test]
    fn a_cached_session_expires() {
        let mut rig = Rig::new();
        let end_s = rig.session(AT_S).unwrap().expires_s;
        assert!(rig.session(end_s - 1).is_some());
        assert_eq!(rig.session(end_s), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut rig = Rig::new();
        assert!(rig.is_member());
        assert!(rig.known.reserve_rows(KNOWN_ROWS_MAX - 1));
        assert_eq!(rig.known.rows, KNOWN_ROWS_MAX);
        assert!(rig.session(AT_S).is_some());
        assert_eq!((rig.known.rows, rig.known.members.len(), rig.known.sessions.len()), (1, 0, 1));
        assert!(!rig.known.reserve_rows(KNOWN_ROWS_MAX + 1), "more than there is room for");
        assert_eq!((rig.known.rows, rig.known.sessions.len()), (1, 1), "and so nothing made room for it");
    }
}
