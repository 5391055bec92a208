//! Users, sessions, passwords, retried requests.

use super::*;
use crate::state::limits::{ANSWERS_PER_SESSION, SESSION_LIFE_S, SESSIONS_PER_USER};

fn change(password_epoch: u32) -> LogAction {
    LogAction::ChangePassword { password_epoch, password_hash: "new".into() }
}

#[test]
fn a_user_name_is_given_once() {
    let mut rig = Rig::default();
    rig.user("alice", 1);
    let again = LogAction::CreateUser { user: user("alice"), password_hash: "other".into() };
    assert_eq!(rig.anonymous(again), Err(CommandRefusal::UserExists(user("alice"))));
    assert_eq!(rig.queries().account(&user("alice")).unwrap().password_hash, "hash of alice");
    assert_eq!(rig.queries().account(&user("bob")), None);
}

#[test]
fn commands_need_a_session_that_holds() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let bob = rig.user("bob", 2);
    let create = || LogAction::CreateGroup { group: group("g"), policy: Policy::Open };
    assert_eq!(rig.anonymous(create()), Err(CommandRefusal::NotLoggedIn));
    let stolen = Actor { user: bob.user.clone(), session: alice.session };
    assert_eq!(rig.act(&stolen, create()), Err(CommandRefusal::NotLoggedIn));
    let unknown = Actor { user: bob.user.clone(), session: SessionId([99; 16]) };
    assert_eq!(rig.act(&unknown, create()), Err(CommandRefusal::NotLoggedIn));

    assert_eq!(rig.act(&alice, LogAction::Logout), Ok(CommandOutcome::LoggedOut));
    assert_eq!(rig.act(&alice, create()), Err(CommandRefusal::NotLoggedIn));
    assert_eq!(rig.queries().session(alice.session, 0), None);
    rig.at_s = SESSION_LIFE_S;
    assert_eq!(rig.act(&bob, create()), Err(CommandRefusal::NotLoggedIn));
}

#[test]
fn a_login_is_refused_after_the_checked_password_changed() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    assert_eq!(rig.act(&alice, change(0)), Ok(CommandOutcome::PasswordChanged { password_epoch: 1 }));
    let session = SessionId([77; 16]);
    let late = LogAction::Login { user: user("alice"), password_epoch: 0, session, node: None };
    assert_eq!(rig.anonymous(late), Err(CommandRefusal::PasswordChanged));
    assert_eq!(rig.act(&alice, change(0)), Err(CommandRefusal::PasswordChanged));
    let unknown = LogAction::Login { user: user("mallory"), password_epoch: 0, session, node: None };
    assert_eq!(rig.anonymous(unknown), Err(CommandRefusal::NoSuchUser(user("mallory"))));
}

#[test]
fn a_new_password_ends_the_other_sessions_only() {
    let mut rig = Rig::default();
    let one = rig.user("alice", 1);
    let two = rig.user("alice", 2);
    let bob = rig.user("bob", 3);
    let shared = file(&rig.group("g", &[&one, &bob]), "f");
    rig.act(&one, upload(&shared, 1, 1)).unwrap();
    rig.act(&two, upload(&shared, 1, 2)).unwrap();
    assert_eq!(rig.queries().whoami(&one, 0).unwrap().sessions, 2);

    rig.act(&one, change(0)).unwrap();
    assert!(rig.queries().session(one.session, 0).is_some());
    assert!(rig.queries().session(two.session, 0).is_none());
    assert!(rig.queries().session(bob.session, 0).is_some());
    assert_eq!(rig.holders(&shared), [1], "the ended session's node is offline");
    assert_eq!(rig.queries().whoami(&one, 0).unwrap().sessions, 1);
    assert_eq!(rig.queries().whoami(&two, 0), None);
}

#[test]
fn shares_are_offline_from_logout_until_the_nodes_next_login() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let other = rig.user("alice", 2);
    let shared = file(&rig.group("g", &[&alice]), "f");
    rig.act(&alice, upload(&shared, 1, 1)).unwrap();
    rig.act(&other, upload(&shared, 1, 2)).unwrap();

    rig.act(&alice, LogAction::Logout).unwrap();
    assert_eq!(rig.holders(&shared), [2], "another session of the user goes on");
    rig.user("alice", 3);
    assert_eq!(rig.holders(&shared), [2], "another node's login brings nothing back");
    let again = rig.user("alice", 1);
    assert_eq!(rig.holders(&shared), [1, 2]);
    rig.act(&again, LogAction::Logout).unwrap();
    assert_eq!(rig.holders(&shared), [2]);
}

#[test]
fn a_node_with_a_key_keeps_its_shares_at_another_address() {
    let mut rig = Rig::default();
    let alice = rig.user_at("alice", keyed(1, 7));
    let shared = file(&rig.group("g", &[&alice]), "f");
    // The key of the login counts when the upload does not repeat it.
    rig.act(&alice, upload(&shared, 1, 1)).unwrap();
    rig.act(&alice, LogAction::Logout).unwrap();
    let again = rig.user_at("alice", keyed(9, 7));
    assert_eq!(rig.holders(&shared), [9]);
    rig.act(&again, LogAction::Resume { node: node(10) }).unwrap();
    assert_eq!(rig.holders(&shared), [10]);
    assert_eq!(rig.queries().session(again.session, 0).unwrap().node, Some(keyed(10, 7)));
}

#[test]
fn a_new_login_takes_the_node_over_from_an_old_session() {
    let mut rig = Rig::default();
    let old = rig.user("alice", 1);
    let shared = file(&rig.group("g", &[&old]), "f");
    rig.act(&old, upload(&shared, 1, 1)).unwrap();
    let new = rig.user("alice", 1);
    assert_eq!(rig.queries().seeders(&shared)[0].session, new.session);
    rig.act(&old, LogAction::Logout).unwrap();
    assert_eq!(rig.holders(&shared), [1], "the old session no longer keeps the node");
}

#[test]
fn a_retried_request_gets_its_first_outcome() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let create = |name| LogAction::CreateGroup { group: group(name), policy: Policy::Open };
    assert_eq!(rig.act_as_request(&alice, "1", create("g")), Ok(CommandOutcome::GroupCreated));
    assert_eq!(rig.act_as_request(&alice, "1", create("g")), Ok(CommandOutcome::GroupCreated));
    let refused = Err(CommandRefusal::GroupExists(group("g")));
    assert_eq!(rig.act_as_request(&alice, "2", create("g")), refused);
    rig.act(&alice, LogAction::LeaveGroup { group: group("g") }).unwrap();
    assert_eq!(rig.act_as_request(&alice, "2", create("g")), refused, "refusals are outcomes too");
    assert!(rig.queries().group(&group("g"), &alice.user).is_none());

    let other = rig.user("alice", 1);
    assert_eq!(
        rig.act_as_request(&other, "1", create("g")),
        Ok(CommandOutcome::GroupCreated),
        "ids are a session's own"
    );
    assert_eq!(rig.act_as_request(&alice, "bye", LogAction::Logout), Ok(CommandOutcome::LoggedOut));
    assert_eq!(rig.act_as_request(&alice, "bye", LogAction::Logout), Ok(CommandOutcome::LoggedOut));
}

#[test]
fn another_request_under_a_used_id_is_refused() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let create = |name| LogAction::CreateGroup { group: group(name), policy: Policy::Open };
    assert_eq!(rig.act_as_request(&alice, "1", create("g1")), Ok(CommandOutcome::GroupCreated));
    assert_eq!(rig.act_as_request(&alice, "1", create("g2")), Err(CommandRefusal::OtherRequest));
    assert!(rig.queries().group(&group("g2"), &alice.user).is_none());
    assert_eq!(
        rig.act_as_request(&alice, "1", create("g1")),
        Ok(CommandOutcome::GroupCreated),
        "the first stays"
    );

    let shared = file(&group("g1"), "f");
    let uploaded = Ok(CommandOutcome::Uploaded { new_file: true });
    assert_eq!(rig.act_as_request(&alice, "2", upload(&shared, 1, 1)), uploaded);
    assert_eq!(rig.act_as_request(&alice, "2", upload(&shared, 1, 9)), uploaded, "the node may have moved");
    assert_eq!(rig.act_as_request(&alice, "2", upload(&shared, 2, 1)), Err(CommandRefusal::OtherRequest));
}

#[test]
fn only_the_last_outcomes_are_kept() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let create = LogAction::CreateGroup { group: group("g"), policy: Policy::Open };
    let join = || LogAction::JoinGroup { group: group("g") };
    rig.act_as_request(&alice, "first", create.clone()).unwrap();
    for id in 1..ANSWERS_PER_SESSION {
        rig.act_as_request(&alice, &id.to_string(), join()).unwrap_err();
    }
    assert_eq!(rig.act_as_request(&alice, "first", create.clone()), Ok(CommandOutcome::GroupCreated));
    rig.act_as_request(&alice, "one too many", join()).unwrap_err();
    assert_eq!(rig.act_as_request(&alice, "first", create), Err(CommandRefusal::GroupExists(group("g"))));
}

#[test]
fn expired_sessions_leave_nothing_and_take_their_nodes_offline() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    rig.at_s = 1;
    let bob = rig.user("bob", 2);
    let shared = file(&rig.group("g", &[&bob, &alice]), "f");
    rig.act_as_request(&alice, "1", upload(&shared, 1, 1)).unwrap();
    rig.act(&bob, upload(&shared, 1, 2)).unwrap();

    rig.at_s = SESSION_LIFE_S;
    assert_eq!(rig.anonymous(LogAction::Expire), Ok(CommandOutcome::Expired));
    assert_eq!(rig.holders(&shared), [2]);
    assert!(rig.queries().session(bob.session, rig.at_s).is_some());
    assert!(rig.queries().session(alice.session, 0).is_none());
    rig.user("alice", 1);
    assert_eq!(rig.holders(&shared), [1, 2]);
}

#[test]
fn one_login_too_many_removes_an_ended_session_first_then_the_oldest() {
    let mut rig = Rig::default();
    let alice = rig.user("alice", 1);
    let first = rig.user("alice", 2);
    let log_in = |rig: &mut Rig, number: usize| {
        rig.at_s += 1;
        let mut session = SessionId([0; 16]);
        session.0[..8].copy_from_slice(&number.to_be_bytes());
        let login = LogAction::Login { user: user("alice"), password_epoch: 0, session, node: None };
        assert_eq!(rig.anonymous(login), Ok(CommandOutcome::LoggedIn));
        Actor { user: user("alice"), session }
    };
    let others: Vec<Actor> = (3..=SESSIONS_PER_USER).map(|number| log_in(&mut rig, number)).collect();
    rig.act(&others[0], LogAction::Logout).unwrap();
    let known = |rig: &Rig, actor: &Actor| rig.queries().session(actor.session, rig.at_s).is_some();
    log_in(&mut rig, 1_000);
    assert!(known(&rig, &alice) && known(&rig, &first), "the ended session made room");
    log_in(&mut rig, 1_001);
    log_in(&mut rig, 1_002);
    assert!(!known(&rig, &alice) && !known(&rig, &first) && known(&rig, &others[1]));
    assert_eq!(rig.queries().whoami(&others[1], rig.at_s).unwrap().sessions, SESSIONS_PER_USER);
}

#[test]
fn the_next_expiry_is_that_of_the_oldest_session() {
    let mut rig = Rig::default();
    assert_eq!(rig.queries().next_session_expiry_s(), u64::MAX);
    rig.user("alice", 1);
    rig.at_s = 50;
    rig.user("bob", 2);
    assert_eq!(rig.queries().next_session_expiry_s(), SESSION_LIFE_S);
    rig.at_s = SESSION_LIFE_S;
    rig.anonymous(LogAction::Expire).unwrap();
    assert_eq!(rig.queries().next_session_expiry_s(), 50 + SESSION_LIFE_S);
}
