//! Random runs of commands: compared with a simple model of memberships and shares, on two machines, with retries.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::state::limits::ROW_MAX_BYTES;
use crate::state::tables::{Table, Tables};

const USERS: [&str; 3] = ["a", "b", "c"];
const GROUPS: [&str; 2] = ["g", "h"];
const FILES: [&str; 2] = ["x", "y"];

/// One command as numbers: user, action, group, file, other user, and an optional request id.
#[derive(Clone, Debug)]
struct Step {
    who: usize,
    what: u8,
    group: usize,
    file: usize,
    other: usize,
    request: Option<u8>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (0..3usize, 0..14u8, 0..2usize, 0..2usize, 0..3usize, proptest::option::weighted(0.3, 0..20u8))
            .prop_map(|(who, what, group, file, other, request)| Step {
                who,
                what,
                group,
                file,
                other,
                request,
            });
    proptest::collection::vec(step, 0..120)
}

/// Makes the command of each step; sessions are numbered by the logins so far.
#[derive(Default)]
struct Script {
    sessions: [u8; 3],
    logins: u8,
}

impl Script {
    fn login(&mut self, who: usize) -> LogCommand {
        self.logins += 1;
        self.sessions[who] = self.logins;
        let session = SessionId([self.logins; 16]);
        let node = Some(own_node(who));
        LogCommand::anonymous(
            0,
            LogAction::Login { user: user(USERS[who]), password_epoch: 0, session, node },
        )
    }

    fn command(&mut self, step: &Step, at_s: u64) -> LogCommand {
        let group = group(GROUPS[step.group]);
        let file = file(&group, FILES[step.file]);
        let other = user(USERS[step.other]);
        let node = own_node(step.who);
        let action = match step.what {
            0 => return self.login(step.who),
            1 => LogAction::Logout,
            2 => LogAction::CreateGroup { group, policy: Policy::Open },
            3 => LogAction::CreateGroup { group, policy: Policy::Approval },
            4 | 5 => LogAction::JoinGroup { group },
            6 => LogAction::AcceptRequest { group, user: other },
            7 => LogAction::RejectRequest { group, user: other },
            8 => LogAction::RemoveMember { group, user: other },
            9 => LogAction::LeaveGroup { group },
            10 => LogAction::Complete { file, node, content: None },
            11 => LogAction::StopShare { file, node, content: None },
            12 => LogAction::RemoveFile { file },
            _ => {
                LogAction::Upload { file, manifest: manifest(u8::try_from(step.other / 2).unwrap(), 2), node }
            }
        };
        let session = SessionId([self.sessions[step.who]; 16]);
        let actor = Actor { user: user(USERS[step.who]), session };
        LogCommand::by(actor, at_s, step.request.map(|id| RequestId::of(&id.to_string())), action)
    }
}

/// The nodes of two users have keys, the third's has none.
fn own_node(who: usize) -> NodeEndpoint {
    let number = u8::try_from(who).unwrap();
    if who == 2 { node(2) } else { keyed(u16::from(number), number) }
}

fn begin() -> (StateMachine<MemoryTables>, Script, Vec<LogCommand>) {
    let mut script = Script::default();
    let mut log = Vec::new();
    for (who, name) in USERS.iter().enumerate() {
        let create = LogAction::CreateUser { user: user(name), password_hash: "h".into() };
        log.extend([LogCommand::anonymous(0, create), script.login(who)]);
    }
    let mut machine = StateMachine::default();
    for command in &log {
        machine.apply(command).unwrap();
    }
    (machine, script, log)
}

/// Memberships and shares as they should be.
#[derive(Default, PartialEq, Debug)]
struct Model {
    members: BTreeMap<GroupId, Vec<UserId>>,
    shares: BTreeSet<(GroupFile, UserId)>,
}

impl Model {
    /// Applies what a successful command does to memberships and shares.
    fn follow(&mut self, command: &LogCommand, outcome: &CommandOutcome) {
        let Some(by) = command.by.as_ref().map(|by| by.user.clone()) else { return };
        match (&command.action, outcome) {
            (LogAction::CreateGroup { group, .. } | LogAction::JoinGroup { group }, outcome)
                if *outcome != (CommandOutcome::Joined { pending: true }) =>
            {
                self.members.entry(group.clone()).or_default().push(by);
            }
            (LogAction::AcceptRequest { group, user }, _) => {
                self.members.get_mut(group).unwrap().push(user.clone());
            }
            (LogAction::RemoveMember { group, user }, _) => self.part(group, user),
            (LogAction::LeaveGroup { group }, _) => self.part(group, &by),
            (LogAction::Upload { file, .. } | LogAction::Complete { file, .. }, _) => {
                self.shares.insert((file.clone(), by));
            }
            (LogAction::StopShare { file, .. }, _) => {
                self.shares.remove(&(file.clone(), by));
            }
            (LogAction::RemoveFile { file }, _) => self.shares.retain(|(shared, _)| shared != file),
            _ => {}
        }
    }

    fn part(&mut self, group: &GroupId, user: &UserId) {
        self.members.get_mut(group).unwrap().retain(|member| member != user);
        self.members.retain(|_, members| !members.is_empty());
        self.shares.retain(|(file, sharer)| file.group != *group || sharer != user);
    }
}

/// Checks what must hold after each command.
fn check(machine: &StateMachine<MemoryTables>, model: &Model) {
    let queries = machine.queries();
    let outsider = user("outsider");
    let groups = queries.groups(&outsider, None, usize::MAX);
    assert!(groups.iter().map(|view| &view.group).eq(model.members.keys()));
    for view in &groups {
        let mut members = model.members[&view.group].clone();
        assert!(members.contains(&view.owner), "the owner of {} is a member", view.group);
        members.sort();
        assert_eq!(queries.members(&view.group), members);
        assert_eq!(view.members, members.len() as u64);
        assert!(queries.requests(&view.group, None, usize::MAX).iter().all(|user| !members.contains(user)));
    }
    for (file, sharer) in &model.shares {
        assert!(queries.file(file).is_some());
        assert!(queries.is_member(&file.group, sharer), "{sharer} shares {file} and is no member");
    }
    let rows = |table| keys(machine.tables(), table).len();
    assert_eq!(rows(Table::Shares), model.shares.len());
    assert_eq!(rows(Table::SharesByUser), model.shares.len());
    let sharers: BTreeSet<&UserId> = model.shares.iter().map(|(_, user)| user).collect();
    assert_eq!(rows(Table::Nodes), sharers.len(), "a node's row goes with its last share");
    assert_eq!(rows(Table::SessionNodes), sharers.len());
    assert_eq!(rows(Table::Members), rows(Table::MembersByJoining));
    assert_eq!(rows(Table::Manifests), rows(Table::Files));
}

fn keys(tables: &MemoryTables, table: Table) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    tables.scan(table, &[], &mut |key, value| {
        assert!(key.len() + value.len() <= ROW_MAX_BYTES);
        keys.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    });
    keys
}

proptest! {
    #[test]
    fn the_state_follows_the_model_and_refusals_change_nothing(steps in steps()) {
        let (mut machine, mut script, _) = begin();
        let mut model = Model::default();
        for (step, at_s) in steps.iter().zip(0..) {
            let mut command = script.command(step, at_s);
            command.request_id = None;
            let before = machine.tables().clone();
            match machine.apply(&command) {
                Ok(outcome) => model.follow(&command, &outcome),
                Err(_) => prop_assert_eq!(&before, machine.tables()),
            }
            check(&machine, &model);
        }
    }

    #[test]
    fn seeders_are_the_sharing_nodes_whose_session_holds(steps in steps()) {
        let (mut machine, mut script, _) = begin();
        let mut online = BTreeSet::from(USERS.map(user));
        let mut model = Model::default();
        for step in &steps {
            let mut command = script.command(step, 0);
            command.request_id = None;
            let Ok(outcome) = machine.apply(&command) else { continue };
            model.follow(&command, &outcome);
            match &command.action {
                LogAction::Login { user, .. } => { online.insert(user.clone()); }
                LogAction::Logout => { online.remove(&command.by.clone().unwrap().user); }
                _ => {}
            }
        }
        for (group_name, file_name) in GROUPS.into_iter().flat_map(|g| FILES.map(|f| (g, f))) {
            let key = file(&group(group_name), file_name);
            let holders: BTreeSet<UserId> = machine.queries().seeders(&key).into_iter().map(|p| p.user).collect();
            let shares = model.shares.iter().filter(|(shared, _)| *shared == key).map(|(_, user)| user.clone());
            prop_assert_eq!(holders, shares.filter(|user| online.contains(user)).collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn a_retried_command_gets_its_first_answer_and_changes_nothing(steps in steps()) {
        let (mut machine, mut script, _) = begin();
        let mut first: BTreeMap<(SessionId, RequestId), (LogCommand, ApplyResult)> = BTreeMap::new();
        for (step, at_s) in steps.iter().zip(0..) {
            let command = script.command(step, at_s);
            let slot = command.by.as_ref().map(|by| by.session).zip(command.request_id);
            let before = machine.tables().clone();
            let answer = machine.apply(&command);
            let Some(slot) = slot else { continue };
            if let Some((known, known_answer)) = first.get(&slot) {
                prop_assert_eq!(&before, machine.tables());
                if answer == Err(CommandRefusal::OtherRequest) {
                    prop_assert!(known.action != command.action, "{:?} was taken for another", command);
                } else {
                    prop_assert_eq!(&answer, known_answer);
                    let same_kind = std::mem::discriminant(&known.action) == std::mem::discriminant(&command.action);
                    prop_assert!(same_kind, "{:?} got the answer of {:?}", command, known);
                }
            } else if answer != Err(CommandRefusal::NotLoggedIn) {
                first.insert(slot, (command, answer));
            }
            for (first, answer) in first.values() {
                let again = LogCommand { at_s, ..first.clone() };
                let before = machine.tables().clone();
                prop_assert_eq!(&machine.apply(&again), answer);
                prop_assert_eq!(&before, machine.tables());
            }
        }
    }

    #[test]
    fn the_same_log_gives_the_same_bytes_also_from_its_json(steps in steps()) {
        let (mut machine, mut script, mut log) = begin();
        for (step, at_s) in steps.iter().zip(0..) {
            log.push(script.command(step, at_s));
            let _ = machine.apply(log.last().unwrap());
        }
        let mut replayed = StateMachine::<MemoryTables>::default();
        for command in &log {
            let text = serde_json::to_string(command).unwrap();
            let _ = replayed.apply(&serde_json::from_str(&text).unwrap());
        }
        prop_assert_eq!(machine.tables(), replayed.tables());
    }
}
