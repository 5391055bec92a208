//! Groups: policies, requests, removal, leaving, hand-over.

use super::*;

fn groups_of(rig: &Rig, who: &Actor) -> Vec<(String, String, u64, bool)> {
    let view = |group: crate::state::queries::GroupView| {
        (group.group.to_string(), group.owner.to_string(), group.members, group.is_member)
    };
    rig.queries().groups(&who.user, None, usize::MAX).into_iter().map(view).collect()
}

#[test]
fn the_creator_owns_an_open_group_that_others_join() {
    let mut rig = Rig::default();
    let (alice, bob) = (rig.user("alice", 1), rig.user("bob", 2));
    let g = rig.group("g", &[&alice]);
    assert_eq!(groups_of(&rig, &bob), [("g".into(), "alice".into(), 1, false)]);
    let join = LogAction::JoinGroup { group: g.clone() };
    assert_eq!(rig.act(&bob, join.clone()), Ok(CommandOutcome::Joined { pending: false }));
    assert_eq!(groups_of(&rig, &bob), [("g".into(), "alice".into(), 2, true)]);
    assert_eq!(rig.act(&bob, join), Err(CommandRefusal::AlreadyMember(g.clone())));
    let again = LogAction::CreateGroup { group: g.clone(), policy: Policy::Open };
    assert_eq!(rig.act(&bob, again), Err(CommandRefusal::GroupExists(g)));
    let nowhere = LogAction::JoinGroup { group: group("x") };
    assert_eq!(rig.act(&bob, nowhere), Err(CommandRefusal::NoSuchGroup(group("x"))));
}

#[test]
fn lists_come_in_pages_by_name() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    for name in ["b", "a", "a.b", "c"] {
        rig.group(name, &[&alice]);
    }
    let page = |after: Option<&str>, count| -> Vec<String> {
        let after = after.map(group);
        let views = rig.queries().groups(&alice.user, after.as_ref(), count);
        views.iter().map(|view| view.group.to_string()).collect()
    };
    assert_eq!(page(None, 2), ["a", "a.b"]);
    assert_eq!(page(Some("a.b"), 9), ["b", "c"]);
    assert_eq!(page(Some("aa"), 1), ["b"], "the group before the page need not exist");
    assert_eq!(page(Some("c"), 9), [""; 0]);
}

#[test]
fn a_group_with_approval_admits_users_that_its_owner_accepts() {
    let mut rig = Rig::default();
    let (alice, bob, carol) = (rig.user("alice", 1), rig.user("bob", 2), rig.user("carol", 3));
    let g = group("g");
    rig.act(&alice, LogAction::CreateGroup { group: g.clone(), policy: Policy::Approval }).unwrap();
    let join = || LogAction::JoinGroup { group: g.clone() };
    let accept = |user: &Actor| LogAction::AcceptRequest { group: g.clone(), user: user.user.clone() };
    let reject = |user: &Actor| LogAction::RejectRequest { group: g.clone(), user: user.user.clone() };
    for who in [&bob, &carol, &carol] {
        assert_eq!(rig.act(who, join()), Ok(CommandOutcome::Joined { pending: true }));
    }
    assert_eq!(rig.queries().requests(&g, None, 9), [user("bob"), user("carol")]);
    assert!(!rig.queries().is_member(&g, &bob.user));
    assert_eq!(rig.act(&bob, accept(&bob)), Err(CommandRefusal::NotMember(g.clone())));

    assert_eq!(rig.act(&alice, accept(&bob)), Ok(CommandOutcome::RequestAccepted));
    assert!(rig.queries().is_member(&g, &bob.user));
    assert_eq!(rig.act(&bob, accept(&carol)), Err(CommandRefusal::NotOwner(g.clone())));
    assert_eq!(rig.act(&bob, reject(&carol)), Err(CommandRefusal::NotOwner(g.clone())));
    assert_eq!(rig.act(&alice, reject(&carol)), Ok(CommandOutcome::RequestRejected));
    let none = Err(CommandRefusal::NoSuchRequest { group: g.clone(), user: carol.user.clone() });
    assert_eq!(rig.act(&alice, accept(&carol)), none);
    assert_eq!(rig.act(&alice, reject(&carol)), none);
    assert_eq!(rig.queries().members(&g), [user("alice"), user("bob")]);
}

#[test]
fn a_removed_member_has_no_shares_left_there() {
    let mut rig = Rig::default();
    let (alice, bob) = (rig.user("alice", 1), rig.user("bob", 2));
    let g = rig.group("g", &[&alice, &bob]);
    let elsewhere = file(&rig.group("h", &[&bob]), "f");
    let (f, own) = (file(&g, "f"), file(&g, "own"));
    rig.act(&alice, upload(&f, 1, 1)).unwrap();
    rig.act(&bob, upload(&f, 1, 2)).unwrap();
    rig.act(&bob, upload(&own, 2, 2)).unwrap();
    rig.act(&bob, upload(&elsewhere, 1, 2)).unwrap();

    let remove = |who: &Actor| LogAction::RemoveMember { group: g.clone(), user: who.user.clone() };
    assert_eq!(rig.act(&bob, remove(&alice)), Err(CommandRefusal::NotOwner(g.clone())));
    assert_eq!(rig.act(&alice, remove(&alice)), Err(CommandRefusal::OwnerStays(g.clone())));
    assert_eq!(rig.act(&alice, remove(&bob)), Ok(CommandOutcome::MemberRemoved));
    let none = CommandRefusal::NoSuchMember { group: g.clone(), user: bob.user.clone() };
    assert_eq!(rig.act(&alice, remove(&bob)), Err(none));
    assert_eq!(rig.holders(&f), [1]);
    assert_eq!(rig.holders(&own), [0; 0], "listed, without a seeder");
    assert!(rig.queries().file(&own).is_some());
    assert_eq!(rig.holders(&elsewhere), [2]);
    let complete = LogAction::Complete { file: f, node: node(2), content: None };
    assert_eq!(rig.act(&bob, complete), Err(CommandRefusal::NotMember(g)));
}

#[test]
fn the_earliest_member_becomes_owner_and_the_last_removes_the_group() {
    let mut rig = Rig::default();
    let (zoe, bob, alice) = (rig.user("zoe", 1), rig.user("bob", 2), rig.user("alice", 3));
    let g = rig.group("g", &[&zoe, &bob, &alice]);
    let f = file(&g, "f");
    rig.act(&zoe, upload(&f, 1, 1)).unwrap();
    rig.act(&alice, upload(&f, 1, 3)).unwrap();
    let leave = || LogAction::LeaveGroup { group: g.clone() };
    let left = |new_owner: Option<&str>| CommandOutcome::Left {
        new_owner: new_owner.map(user),
        group_deleted: false,
    };

    assert_eq!(rig.act(&zoe, leave()), Ok(left(Some("bob"))), "by age, not by name");
    assert_eq!(rig.act(&zoe, leave()), Err(CommandRefusal::NotMember(g.clone())));
    assert_eq!(rig.holders(&f), [3]);
    rig.act(&zoe, LogAction::JoinGroup { group: g.clone() }).unwrap();
    assert_eq!(rig.act(&alice, leave()), Ok(left(None)));
    assert_eq!(rig.act(&bob, leave()), Ok(left(Some("zoe"))));
    let gone = CommandOutcome::Left { new_owner: None, group_deleted: true };
    assert_eq!(rig.act(&zoe, leave()), Ok(gone));
    assert_eq!(rig.queries().file(&f), None);

    rig.group("g", &[&alice]);
    assert_eq!(rig.queries().files(&g, None, 9), [], "a new group of that name begins empty");
    assert_eq!(rig.queries().members(&g), [user("alice")]);
}

#[test]
fn a_deleted_group_leaves_no_request_behind() {
    let mut rig = Rig::default();
    let (alice, bob) = (rig.user("alice", 1), rig.user("bob", 2));
    let g = group("g");
    let create = || LogAction::CreateGroup { group: g.clone(), policy: Policy::Approval };
    rig.act(&alice, create()).unwrap();
    rig.act(&bob, LogAction::JoinGroup { group: g.clone() }).unwrap();
    rig.act(&alice, LogAction::LeaveGroup { group: g.clone() }).unwrap();
    rig.act(&alice, create()).unwrap();
    assert_eq!(rig.queries().requests(&g, None, 9), []);
}
