//! What was read of the state's present view, as values: nearly every request asks again for its session, a membership, and a
//! file with those who hold it, and reading 50 holders' rows costs more than the rest of an answer.
//!
//! Invariants: what is here was read whole from the view that stands, and is forgotten with it. That something is not there is
//! never kept: a view that fails reads as if it were empty. A session is held against the clock each time.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::state::id::{GroupFile, GroupId, SessionId, UserId};
use crate::state::node::SwarmPeer;
use crate::state::queries::{FileView, SessionView, StateQueries};

use super::limits::{KNOWN_FILE_ROWS, KNOWN_ROWS_MAX};

/// A file and who holds it completely.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub(super) file: FileView,
    pub(super) holders: Vec<SwarmPeer>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct ViewCache {
    sessions: HashMap<SessionId, SessionView>,
    members: HashMap<GroupId, HashSet<UserId>>,
    files: HashMap<GroupFile, Rc<ListedFile>>,
    /// Rows that all this was read from, about.
    rows: usize,
}

impl ViewCache {
    /// A session, if it holds at `at_s`.
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

    /// Whether a session holds at `at_s`.
    pub(super) fn session_holds(&mut self, queries: StateQueries<'_>, session: SessionId, at_s: u64) -> bool {
        match self.sessions.get(&session) {
            Some(known) => known.holds_at(at_s),
            None => self.session(queries, session, at_s).is_some(),
        }
    }

    /// Whether a user is a member of a group.
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

    /// A file and who holds it; kept only if, after that, everything `was_read`.
    pub(super) fn file(
        &mut self,
        queries: StateQueries<'_>,
        file: &GroupFile,
        was_read: impl FnOnce() -> bool,
    ) -> Option<Rc<ListedFile>> {
        if let Some(known) = self.files.get(file) {
            return Some(Rc::clone(known));
        }
        let listed = Rc::new(ListedFile { file: queries.file(file)?, holders: queries.seeders(file) });
        if was_read() && self.reserve_rows(KNOWN_FILE_ROWS + listed.holders.len()) {
            self.files.insert(file.clone(), Rc::clone(&listed));
        }
        Some(listed)
    }

    /// Forgets everything: the view is another one.
    pub(super) fn forget(&mut self) {
        if self.rows > 0 {
            *self = ViewCache::default();
        }
    }

    /// Counts rows in, in place of all others when they do not fit beside them; whether they fit at all.
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

    /// Alice in a session, in a group where she shares a file.
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

        /// How many hold the file.
        fn holders(&mut self, was_read: bool) -> Option<usize> {
            let listed = self.known.file(self.machine.queries(), &self.file, || was_read)?;
            assert_eq!(listed.file.name, self.file.name);
            Some(listed.holders.len())
        }
    }

    #[test]
    fn what_was_read_stands_until_it_is_forgotten() {
        let mut rig = Rig::new();
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.holders(true), Some(1));
        // The view changes unnoticed.
        rig.machine = StateMachine::default();
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.holders(true), Some(1));
        rig.known.forget();
        assert!(!rig.is_member() && rig.session(AT_S).is_none());
        assert_eq!(rig.holders(true), None);
    }

    #[test]
    fn what_was_not_there_or_not_read_whole_is_asked_for_again() {
        let mut rig = Rig::new();
        let full = std::mem::take(&mut rig.machine);
        assert!(!rig.is_member() && rig.session(AT_S).is_none());
        assert_eq!(rig.holders(true), None);
        rig.machine = full;
        assert!(rig.is_member() && rig.session(AT_S).is_some());
        assert_eq!(rig.holders(false), Some(1));
        rig.machine = StateMachine::default();
        assert_eq!(rig.holders(false), None, "it was kept, though the view had failed");
    }

    #[test]
    fn a_known_session_ends_on_time() {
        let mut rig = Rig::new();
        let end_s = rig.session(AT_S).unwrap().expires_s;
        assert!(rig.session(end_s - 1).is_some());
        assert_eq!(rig.session(end_s), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
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
