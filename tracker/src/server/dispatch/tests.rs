//! Tests of requests without a loop: with a real log, and with every step taken by hand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::units::Digest;
use mio::{Events, Poll, Token, Waker};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::answers::CommandAnswer;
use crate::api::failure::FailureCode;
use crate::api::limits::LIST_MAX_ENTRIES;
use crate::api::request::Request;
use crate::replica::{FoundingOptions, LogDirectory, Replica, ReplicaOptions, prepare_log};
use crate::state::command::{LogAction, LogCommand, ManifestEnd, ManifestPart, Policy};
use crate::state::id::{GroupFile, GroupId};
use crate::state::limits::{MANIFEST_ROW_PIECES, PEERS_PER_USER, SESSION_LIFE_S};
use crate::state::node::NodeEndpoint;

use super::super::address_check::{self, CheckScratch};
use super::super::clock::ClockReading;
use super::super::keys::DerivedKeys;
use super::super::limits::{
    ANSWER_PEER_BYTES, ANSWER_PIECE_BYTES, LIST_BATCH_FILES, LIST_ENTRY_BYTES, LIST_PAGE_ROWS,
    SESSIONS_KEPT_MS, USER_ATTEMPTS_MAX, VIEW_RETRY_MS,
};
use super::super::password_queue::PasswordClass;
use super::super::passwords::{self, HashingMemory, PasswordResult};
use super::super::replicated_state::ReplicatedState;
use super::super::slots::{ConnectionToken, SlotMap};
use super::*;

const NOW: ClockReading = ClockReading { ms: 1_000, unix_s: 1_000_000 };

struct Rig {
    service: Service,
    poll: Poll,
    hasher: HashingMemory,
    tokens: SlotMap<ConnectionToken>,
    _dir: TempDir,
}

/// The answer to a request, and how it was made.
struct Answered {
    reply: Reply,
    /// Number of continuations in a later turn.
    pages: usize,
    /// It was built on a worker thread.
    by_worker: bool,
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let own = SocketAddr::from(([127, 0, 0, 1], 0));
        let founding =
            FoundingOptions { root: dir.path(), lines: &[own], own_line: own, found_anyway: false };
        let ready = prepare_log(&founding).unwrap();
        let options = ReplicaOptions::at(&own.to_string(), &ready.key.cluster);
        let replica = Replica::start(LogDirectory(ready.dir), options).unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let proposals = ReplicatedState::new(replica, waker, NOW.ms).unwrap();
        let service = Service::new(DerivedKeys::derive(&[0; 32]), own, proposals);
        Rig { service, poll, hasher: HashingMemory::default(), tokens: SlotMap::new(), _dir: dir }
    }

    fn caller(&mut self) -> Caller {
        Caller::new(self.tokens.insert(|token| token), [127, 0, 0, 1].into())
    }

    /// A client that is logged in as a new user and shares at a port.
    fn user(&mut self, name: &str) -> Caller {
        let mut caller = self.caller();
        for word in ["create_user", "login"] {
            self.ok(&mut caller, word, json!({"user_id": name, "passwd": "secret"}));
        }
        caller
    }

    fn begin(&mut self, caller: &mut Caller, word: &str, args: Value) -> StepResult {
        self.service.begin_request(caller, request(word, args), NOW)
    }

    fn ask(&mut self, caller: &mut Caller, word: &str, args: Value) -> Answered {
        let step = self.begin(caller, word, args);
        self.finish(caller, step)
    }

    fn ok(&mut self, caller: &mut Caller, word: &str, args: Value) -> CommandAnswer {
        self.ask(caller, word, args).reply.unwrap().answer
    }

    /// Takes this step and all that follow.
    fn finish(&mut self, caller: &mut Caller, mut step: StepResult) -> Answered {
        let (mut pages, mut by_worker) = (0, false);
        loop {
            let reply = match step {
                Err(failure) => Err(failure),
                Ok(RequestStep::Answer(success)) => Ok(*success),
                Ok(RequestStep::BuildAnswer(build)) => {
                    by_worker = true;
                    Ok(build())
                }
                Ok(RequestStep::ContinueList(next)) => {
                    pages += 1;
                    step = next(&mut self.service, caller, (), NOW);
                    continue;
                }
                Ok(RequestStep::Password(_, job, next)) => {
                    let done = passwords::run_password_job(&mut self.hasher, job);
                    step = next(&mut self.service, caller, done, NOW);
                    continue;
                }
                Ok(RequestStep::CheckAddress(job, next)) => {
                    let called = address_check::run_address_check(&mut CheckScratch::default(), job);
                    step = next(&mut self.service, caller, called, NOW);
                    continue;
                }
                Ok(RequestStep::Propose(change, next)) => {
                    self.service.state().propose(caller.connection, *change);
                    let decision = self.decisions(1).pop().unwrap();
                    step = next(&mut self.service, caller, decision, NOW);
                    continue;
                }
            };
            return Answered { reply, pages, by_worker };
        }
    }

    /// Waits for this many decisions.
    fn decisions(&mut self, count: usize) -> Vec<Decision> {
        let mut events = Events::with_capacity(1);
        let mut decisions = Vec::new();
        while decisions.len() < count {
            match self.service.state().next_decided(NOW.ms) {
                Some(decided) => decisions.push(decided.outcome.unwrap()),
                None => self.poll.poll(&mut events, None).unwrap(),
            }
        }
        decisions
    }

    /// Applies many actions of one user.
    fn change_all(&mut self, caller: &Caller, actions: impl Iterator<Item = LogAction>) {
        let actor = caller.session.as_ref().unwrap().actor.clone();
        let changes: Vec<LogCommand> =
            actions.map(|action| LogCommand::by(actor.clone(), NOW.unix_s, None, action)).collect();
        for some in changes.chunks(1_000) {
            for change in some {
                self.service.state().propose(caller.connection, change.clone());
            }
            assert!(self.decisions(some.len()).iter().all(Result::is_ok));
        }
    }
}

fn request(word: &str, args: Value) -> Request {
    let mut request = json!({"command": word, "sender_ip": "127.0.0.1", "sender_port": "5001"});
    for beside in ["piecewise_sha", "fileSha"] {
        if let Some(value) = args.get(beside) {
            request[beside] = value.clone();
        }
    }
    request["command_args"] = args;
    Request::parse(request.to_string().as_bytes()).unwrap()
}

fn upload(name: &str, pieces: usize) -> Value {
    let digests: Vec<String> = (0..pieces).map(|piece| format!("{piece:040x}")).collect();
    json!({"group_id": "g", "file_name": name, "piecewise_sha": digests, "fileSha": "ff".repeat(20)})
}

#[test]
fn passwords_are_guessed_at_a_limited_rate() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    let change = |old: &str| json!({"passwd": old, "new_passwd": "other"});
    // A password that had no place in the queue is no attempt.
    for _ in 0..2 * USER_ATTEMPTS_MAX {
        let Ok(RequestStep::Password(PasswordClass::KnownLogin, _, next)) =
            rig.begin(&mut caller, "change_password", change("guess"))
        else {
            panic!("the password is not compared")
        };
        let refused = next(&mut rig.service, &mut caller, PasswordResult::Refused, NOW);
        assert_eq!(refused.err().unwrap().code, FailureCode::Busy);
    }
    for _ in 0..USER_ATTEMPTS_MAX {
        let failure = rig.ask(&mut caller, "change_password", change("guess")).reply.unwrap_err();
        assert_eq!(failure.code, FailureCode::WrongPassword);
    }
    let mut refused = |word: &str, args: Value| {
        let step = rig.begin(&mut caller, word, args);
        let failure = step.err().expect("no password is looked at");
        assert_eq!(failure.code, FailureCode::Busy, "{word}");
    };
    refused("change_password", change("secret"));
    refused("login", json!({"user_id": "alice", "passwd": "secret"}));
    refused("create_user", json!({"user_id": "alice", "passwd": "secret"}));
    let create = json!({"user_id": "bob", "passwd": "secret"});
    rig.ok(&mut caller, "create_user", create.clone());
    for _ in 0..USER_ATTEMPTS_MAX {
        let failure = rig.ask(&mut caller, "create_user", create.clone()).reply.unwrap_err();
        assert_eq!(failure.code, FailureCode::AlreadyExists, "a taken name counts");
    }
    assert_eq!(rig.ask(&mut caller, "create_user", create).reply.unwrap_err().code, FailureCode::Busy);
}

#[test]
fn a_failed_read_logs_no_client_out() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    for word in ["whoami", "ping"] {
        rig.service.state().fail_reads();
        rig.ask(&mut caller, word, json!({}));
        assert!(caller.is_logged_in(), "{word}");
        // The loop checks this before it answers.
        assert!(!rig.service.state().check_reads(NOW.ms + VIEW_RETRY_MS));
        assert!(rig.service.state().check_reads(NOW.ms));
        rig.ok(&mut caller, word, json!({}));
        rig.service.state().forget_retry();
    }
}

#[test]
fn a_new_view_is_not_requested_too_often() {
    let mut rig = Rig::new();
    rig.service.state().fail_reads();
    assert!(!rig.service.state().check_reads(NOW.ms));
    assert!(rig.service.state().check_reads(NOW.ms), "the first failure gets a new view at once");
    rig.service.state().fail_reads();
    for at_ms in [0, VIEW_RETRY_MS - 1, VIEW_RETRY_MS] {
        assert!(!rig.service.state().check_reads(NOW.ms + at_ms), "{at_ms}");
    }
    assert!(rig.service.state().check_reads(NOW.ms));
}

#[test]
fn the_end_of_a_session_is_noticed_by_every_command() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    let logout = || std::iter::once(LogAction::Logout);
    // The session ends between its check and the command that records its node's new address.
    let moved = json!({"command": "list_groups", "sender_ip": "127.0.0.1", "sender_port": "5002"});
    let moved = Request::parse(moved.to_string().as_bytes()).unwrap();
    let step = rig.service.begin_request(&mut caller, moved, NOW);
    assert!(matches!(step, Ok(RequestStep::Propose(..))));
    rig.change_all(&caller, logout());
    let answered = rig.finish(&mut caller, step);
    assert_eq!(answered.reply.unwrap_err().code, FailureCode::NotLoggedIn);
    // A ping does not revive a session that has ended.
    let mut other = rig.user("bob");
    rig.change_all(&other, logout());
    rig.ok(&mut other, "ping", json!({}));
    assert!(!other.is_logged_in());
}

#[test]
fn lists_are_built_page_by_page_and_complete() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    let groups = 2 * LIST_PAGE_ROWS + 1;
    let group = |number| GroupId::new(&format!("g{number:06}")).unwrap();
    let create = |number| LogAction::CreateGroup { group: group(number), policy: Policy::Open };
    rig.change_all(&caller, (0..groups).map(create));
    let answered = rig.ask(&mut caller, "list_groups", json!({}));
    assert_eq!(answered.pages, 2);
    let CommandAnswer::Groups(listed) = answered.reply.unwrap().answer else { panic!("no list") };
    assert_eq!(listed.groups_list, (0..groups).map(group).collect::<Vec<_>>());
    assert_eq!(listed.groups.len(), groups);
}

#[test]
fn a_list_longer_than_an_answer_may_be_is_refused_and_comes_in_parts() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    let groups = LIST_MAX_ENTRIES as usize + 1;
    let group = |number| GroupId::new(&format!("g{number:06}")).unwrap();
    let create = |number| LogAction::CreateGroup { group: group(number), policy: Policy::Open };
    rig.change_all(&caller, (0..groups).map(create));
    for args in [json!({}), json!({"count": groups})] {
        let most = LIST_MAX_ENTRIES as usize * LIST_ENTRY_BYTES;
        let room = rig.service.answer_room(&caller, &request("list_groups", args.clone()), NOW);
        assert_eq!(room, AnswerRoom::Bytes(most), "no list is built beyond its room");
        let failure = rig.ask(&mut caller, "list_groups", args).reply.unwrap_err();
        assert_eq!(failure.code, FailureCode::TooLarge);
        assert!(failure.fix.unwrap().contains("`after`"));
    }
    let mut names = |args: Value| {
        let CommandAnswer::Groups(list) = rig.ok(&mut caller, "list_groups", args) else { panic!("no list") };
        list.groups_list
    };
    let first = names(json!({"count": LIST_MAX_ENTRIES}));
    assert_eq!(first, (0..groups - 1).map(group).collect::<Vec<_>>());
    assert_eq!(names(json!({"after": first[groups - 2]})), [group(groups - 1)]);
    assert_eq!(names(json!({"after": "g000007", "count": 2})), [group(8), group(9)]);
}

#[test]
fn a_new_name_that_hides_characters_is_refused_and_a_listed_one_is_kept() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    rig.ok(&mut caller, "create_group", json!({"group_id": "g"}));
    for name in ["a\u{200B}b", "a\u{FE0F}", "\u{3000}"] {
        let failure = rig.ask(&mut caller, "upload_file", upload(name, 2)).reply.unwrap_err();
        assert_eq!(failure.code, FailureCode::BadRequest, "{name:?}: {failure}");
        let mut part = upload(name, MANIFEST_ROW_PIECES as usize);
        part["upload_id"] = "u".into();
        part["more"] = true.into();
        let failure = rig.ask(&mut caller, "upload_file", part).reply.unwrap_err();
        assert_eq!(failure.code, FailureCode::BadRequest, "{name:?} in parts: {failure}");
    }
    // A file that an earlier version listed.
    let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("old\u{200B}").unwrap() };
    let part = ManifestPart::new(&[Digest([0; 20])], None);
    let proof = FileProof::Whole(Digest([0; 20]));
    let manifest = ManifestEnd { upload: None, first: 0, part, length: None, proof };
    let node = NodeEndpoint { address: ([127, 0, 0, 1], 5_001).into(), peer_key: None };
    rig.change_all(&caller, std::iter::once(LogAction::Upload { file, manifest, node }));
    let mut again = upload("old\u{200B}", 1);
    again["fileSha"] = "00".repeat(20).into();
    rig.ok(&mut caller, "upload_file", again);
    let mut stranger = rig.user("bob");
    let failure = rig.ask(&mut stranger, "upload_file", upload("old\u{200B}", 2)).reply.unwrap_err();
    assert_eq!(failure.code, FailureCode::NotMember);
    rig.ok(&mut caller, "remove_file", json!({"group_id": "g", "file_name": "old\u{200B}"}));
}

#[test]
fn list_files_starts_after_a_name_and_ends_after_a_count() {
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    rig.ok(&mut caller, "create_group", json!({"group_id": "g"}));
    let files = 2 * LIST_BATCH_FILES + 1;
    for number in 0..files {
        rig.ok(&mut caller, "upload_file", upload(&format!("f{number:04}"), 2));
    }
    let mut names = |args: Value| {
        let CommandAnswer::Files(files) = rig.ok(&mut caller, "list_files", args) else { panic!("no list") };
        assert!(files.files.iter().all(|file| file.seeders == 1));
        files.files_list.iter().map(|name| name.as_str()[1..].parse().unwrap()).collect::<Vec<usize>>()
    };
    assert_eq!(names(json!({"group_id": "g"})), (0..files).collect::<Vec<_>>());
    let most = LIST_BATCH_FILES + 1;
    assert_eq!(names(json!({"group_id": "g", "count": most})), (0..most).collect::<Vec<_>>());
    assert_eq!(names(json!({"group_id": "g", "after": "f0001", "count": 3})), [2, 3, 4]);
    assert_eq!(names(json!({"group_id": "g", "count": 0})), [0; 0]);
}

#[test]
fn the_size_of_an_answer_is_estimated_before_it_is_begun() {
    const PIECES: usize = 3_000;
    const PEERS: usize = PEERS_PER_USER;
    let mut rig = Rig::new();
    let mut caller = rig.user("alice");
    rig.ok(&mut caller, "create_group", json!({"group_id": "g"}));
    rig.ok(&mut caller, "upload_file", upload("f", PIECES));
    for port in 0..PEERS - 1 {
        let mut share = json!({"command": "upload_file", "sender_ip": "127.0.0.1"});
        share["sender_port"] = (6_000 + port).to_string().into();
        let Value::Object(beside) = upload("f", PIECES) else { unreachable!() };
        let key = format!("{port:064x}");
        share["command_args"] = json!({"group_id": "g", "file_name": "f", "peer_key": key});
        share["piecewise_sha"] = beside["piecewise_sha"].clone();
        share["fileSha"] = beside["fileSha"].clone();
        let share = Request::parse(share.to_string().as_bytes()).unwrap();
        let step = rig.service.begin_request(&mut caller, share, NOW);
        rig.finish(&mut caller, step).reply.unwrap();
    }
    let args = json!({"group_id": "g", "file_name": "f"});
    let whole = request("download_file", args.clone());
    let expected = PIECES * (ANSWER_PIECE_BYTES + PEERS * ANSWER_PEER_BYTES);
    assert_eq!(rig.service.answer_room(&caller, &whole, NOW), AnswerRoom::Bytes(expected));
    // Not for an anonymous client, nor with a token that the cluster did not sign.
    let anonymous = rig.caller();
    assert_eq!(rig.service.answer_room(&anonymous, &whole, NOW), AnswerRoom::Negligible);
    let forged = Request { session: Some("AAAA".to_owned()), ..whole };
    assert_eq!(rig.service.answer_room(&anonymous, &forged, NOW), AnswerRoom::Negligible);

    let answered = rig.ask(&mut caller, "download_file", args.clone());
    assert!(answered.by_worker, "an answer of this size is built by a worker");
    let CommandAnswer::Download(answer) = answered.reply.unwrap().answer else { panic!("no description") };
    let chunks = answer.chunk_metadata.unwrap();
    // The client's own node is not listed.
    assert_eq!((chunks.peers.len(), chunks.chunks.len()), (PEERS - 1, PIECES));
    assert!(chunks.chunks.values().all(|named| named.iter().collect::<BTreeSet<_>>().len() == PEERS - 1));
    let mut little = args;
    little["count"] = 10.into();
    assert!(!rig.ask(&mut caller, "download_file", little).by_worker);
}

#[test]
fn a_sweep_proposes_nothing_while_nothing_has_expired_and_no_session_soon_after_the_start() {
    let mut rig = Rig::new();
    let at = |ms, unix_s| ClockReading { ms, unix_s };
    assert!(!rig.service.state().has_expired_rows(NOW));
    rig.user("alice");
    let end_s = NOW.unix_s + SESSION_LIFE_S;
    assert!(!rig.service.state().has_expired_rows(at(SESSIONS_KEPT_MS, end_s - 1)));
    assert!(!rig.service.state().has_expired_rows(at(SESSIONS_KEPT_MS - 1, end_s)));
    let past = at(SESSIONS_KEPT_MS, end_s);
    assert!(rig.service.state().has_expired_rows(past));
    rig.service.sweep(past);
    let mut events = Events::with_capacity(1);
    while rig.service.state().has_expired_rows(past) {
        rig.poll.poll(&mut events, None).unwrap();
        assert!(rig.service.state().next_decided(NOW.ms).is_none());
    }
}
