//! Queries over tables whose reads fail from some moment on, as those of a disk do. They must not panic.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::*;
use crate::state::tables::{Table, Tables, Visit};

/// Tables of which only a number of rows can be read.
struct Failing<'a> {
    rows: &'a MemoryTables,
    left: Cell<usize>,
}

impl Failing<'_> {
    fn reads(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

impl Tables for Failing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if self.reads() { self.rows.get(table, key) } else { None }
    }

    fn put(&mut self, _: Table, _: &[u8], _: &[u8]) {
        unreachable!("queries change nothing");
    }

    fn remove(&mut self, _: Table, _: &[u8]) -> bool {
        unreachable!("queries change nothing");
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>) {
        self.rows.scan(table, from, &mut |key, value| {
            if self.reads() { visit(key, value) } else { ControlFlow::Break(()) }
        });
    }
}

#[test]
fn a_read_that_fails_at_any_moment_ends_no_query() {
    const ENOUGH: usize = 1_000;
    let mut rig = Rig::default();
    let (alice, bob) = (rig.user("alice", 1), rig.user("bob", 2));
    let group = rig.group("g", &[&alice, &bob]);
    let key = file(&group, "f");
    for (actor, port) in [(&alice, 1), (&bob, 2)] {
        rig.act(actor, upload(&key, 7, port)).unwrap();
    }
    let asked = LogAction::CreateGroup { group: super::group("asked"), policy: Policy::Approval };
    rig.act(&alice, asked).unwrap();
    let join = LogAction::JoinGroup { group: super::group("asked") };
    rig.act_as_request(&bob, "1", join.clone()).unwrap();
    let joined = LogCommand::by(bob.clone(), rig.at_s, Some(RequestId::of("1")), join);
    let asked = super::group("asked");
    let at_s = rig.at_s;
    type Query<'a> = Box<dyn Fn(StateQueries<'_>) -> bool + 'a>;
    // Each says whether it found what exists.
    let queries: Vec<(&str, Query<'_>)> = vec![
        ("account", Box::new(|of| of.account(&alice.user).is_some())),
        ("first_answer", Box::new(|of| of.first_answer(&joined).is_some())),
        (
            "session",
            Box::new(|of| of.session(alice.session, at_s).is_some_and(|session| session.shares == 1)),
        ),
        ("whoami", Box::new(|of| of.whoami(&alice, at_s).is_some_and(|whoami| whoami.sessions == 1))),
        ("is_member", Box::new(|of| of.is_member(&group, &bob.user))),
        ("group", Box::new(|of| of.group(&group, &bob.user).is_some_and(|group| group.is_member))),
        (
            "groups",
            Box::new(|of| of.groups(&alice.user, None, ENOUGH).iter().filter(|g| g.is_member).count() == 2),
        ),
        ("members", Box::new(|of| of.members(&group).len() == 2)),
        ("requests", Box::new(|of| of.requests(&asked, None, ENOUGH).len() == 1)),
        ("files", Box::new(|of| of.files(&group, None, ENOUGH).len() == 1)),
        ("file", Box::new(|of| of.file(&key).is_some())),
        ("pieces", Box::new(|of| of.pieces(&key, 0, 2).is_some_and(|pieces| pieces.digests.len() == 2))),
        ("holders", Box::new(|of| of.seeders(&key).len() == 2)),
    ];
    let tables = rig.machine.tables();
    for (name, query) in queries {
        let whole = Failing { rows: tables, left: Cell::new(ENOUGH) };
        assert!(query(StateQueries::new(&whole)), "{name} finds what exists");
        let reads = ENOUGH - whole.left.get();
        assert!(reads > 0, "{name} reads");
        for left in 0..reads {
            let failing = Failing { rows: tables, left: Cell::new(left) };
            assert!(
                !query(StateQueries::new(&failing)),
                "{name} finds everything, though read {left} failed"
            );
        }
    }
}
