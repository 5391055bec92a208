//! What was read of the state's present view, as values: nearly every request asks again for its session, a membership, and a
//! file with those who hold it, and reading 50 holders' rows costs more than the rest of an answer.
//!
//! Invariants: what is here was read whole from the view that stands, and is forgotten with it. That something is not there is
//! never kept: a view that fails reads as if it were empty. A session is held against the clock each time.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::state::id::{FileKey, GroupId, SessionId, UserId};
use crate::state::node::Peer;
use crate::state::queries::{FileView, Queries, Session};

use super::limits::{KNOWN_FILE_ROWS, KNOWN_ROWS_MAX};

/// A file and who holds it completely.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) file: FileView,
    pub(super) holders: Vec<Peer>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Known {
    sessions: HashMap<SessionId, Session>,
    members: HashMap<GroupId, HashSet<UserId>>,
    files: HashMap<FileKey, Rc<Listed>>,
    /// Rows that all this was read from, about.
    rows: usize,
}

impl Known {
    /// A session, if it holds at `at_s`.
    pub(super) fn session(&mut self, queries: Queries<'_>, session: SessionId, at_s: u64) -> Option<Session> {
        if let Some(known) = self.sessions.get(&session) {
            return known.holds_at(at_s).then(|| known.clone());
        }
        let read = queries.session(session, at_s)?;
        if self.makes_room(1) {
            self.sessions.insert(session, read.clone());
        }
        Some(read)
    }

    /// Whether a session holds at `at_s`.
    pub(super) fn holds(&mut self, queries: Queries<'_>, session: SessionId, at_s: u64) -> bool {
        match self.sessions.get(&session) {
            Some(known) => known.holds_at(at_s),
            None => self.session(queries, session, at_s).is_some(),
        }
    }

    /// Whether a user is a member of a group.
    pub(super) fn is_member(&mut self, queries: Queries<'_>, group: &GroupId, user: &UserId) -> bool {
        if self.members.get(group).is_some_and(|members| members.contains(user)) {
            return true;
        }
        let is_member = queries.is_member(group, user);
        if is_member && self.makes_room(1) {
            self.members.entry(group.clone()).or_default().insert(user.clone());
        }
        is_member
    }

    /// A file and who holds it; kept only if, after that, everything `was_read`.
    pub(super) fn file(
        &mut self,
        queries: Queries<'_>,
        file: &FileKey,
        was_read: impl FnOnce() -> bool,
    ) -> Option<Rc<Listed>> {
        if let Some(known) = self.files.get(file) {
            return Some(Rc::clone(known));
        }
        let listed = Rc::new(Listed { file: queries.file(file)?, holders: queries.holders(file) });
        if was_read() && self.makes_room(KNOWN_FILE_ROWS + listed.holders.len()) {
            self.files.insert(file.clone(), Rc::clone(&listed));
        }
        Some(listed)
    }

    /// Forgets everything: the view is another one.
    pub(super) fn forget(&mut self) {
        if self.rows > 0 {
            *self = Known::default();
        }
    }

    /// Counts rows in, in place of all others when they do not fit beside them; whether they fit at all.
    fn makes_room(&mut self, rows: usize) -> bool {
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

    use crate::state::command::{Action, Command, ManifestEnd, ManifestPart, Policy};
    use crate::state::id::Actor;
    use crate::state::machine::Machine;
    use crate::state::memory::MemoryTables;
    use crate::state::node::Holder;

    use super::*;

    const AT_S: u64 = 1_000;

    /// Alice in a session, in a group where she shares a file.
    struct Rig {
        machine: Machine<MemoryTables>,
        alice: Actor,
        file: FileKey,
        known: Known,
    }

    impl Rig {
        fn new() -> Rig {
            let user = UserId::new("alice").unwrap();
            let alice = Actor { user: user.clone(), session: SessionId([1; 16]) };
            let group = GroupId::new("g").unwrap();
            let file = FileKey { group: group.clone(), name: FileName::new("f").unwrap() };
            let node = Holder { address: SocketAddr::from(([10, 0, 0, 1], 1)), peer_key: None };
            let mut machine = Machine::<MemoryTables>::default();
            let password_hash = String::new();
            let create = Action::CreateUser { user: user.clone(), password_hash };
            machine.apply(&Command::anonymous(AT_S, create)).unwrap();
            let password_epoch = machine.queries().account(&user).unwrap().password_epoch;
            let login = Action::Login { user, password_epoch, session: alice.session, node: Some(node) };
            machine.apply(&Command::anonymous(AT_S, login)).unwrap();
            let mut rig = Rig { machine, alice, file: file.clone(), known: Known::default() };
            rig.act(Action::CreateGroup { group, policy: Policy::Open });
            let digest = Digest([7; 20]);
            let manifest = ManifestEnd {
                upload: None,
                first: 0,
                part: ManifestPart::new(&[digest], None),
                length: None,
                proof: FileProof::Whole(digest),
            };
            rig.act(Action::Upload { file, manifest, node });
            rig
        }

        fn act(&mut self, action: Action) {
            self.machine.apply(&Command::by(self.alice.clone(), AT_S, None, action)).unwrap();
        }

        fn session(&mut self, at_s: u64) -> Option<Session> {
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
        rig.machine = Machine::default();
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
        rig.machine = Machine::default();
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
        assert!(rig.known.makes_room(KNOWN_ROWS_MAX - 1));
        assert_eq!(rig.known.rows, KNOWN_ROWS_MAX);
        assert!(rig.session(AT_S).is_some());
        assert_eq!((rig.known.rows, rig.known.members.len(), rig.known.sessions.len()), (1, 0, 1));
        assert!(!rig.known.makes_room(KNOWN_ROWS_MAX + 1), "more than there is room for");
        assert_eq!((rig.known.rows, rig.known.sessions.len()), (1, 1), "and so nothing made room for it");
    }
}
