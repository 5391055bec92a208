//! What the writers of the kill test write. A world is a fixed sequence of acknowledged changes, with the expected state after
//! each of them.
//!
//! A world outlives trackers: after a kill its writer continues at the next tracker, and sends an unanswered write again
//! under the same request id.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::real::Client;

/// Pieces of the first part of a file: one row, so that the part is an entry of its own.
const PART_PIECES: usize = 4_096;

/// Pieces of a whole file.
const FILE_PIECES: usize = PART_PIECES + 10;

/// One of this many groups of a writer keeps its file. Enough to check again, and the log stays small over a thousand kills.
const KEEPS_EVERY: usize = 8;

const OLD_PASSWORD: &str = "password123";
const NEW_PASSWORD: &str = "another password";

/// Two members, each with a session, and the addresses of their nodes.
pub(crate) struct Members {
    pub(crate) owner: Member,
    pub(crate) guest: Member,
}

pub(crate) struct Member {
    pub(crate) user: &'static str,
    pub(crate) session: String,
    pub(crate) port: u16,
}

/// Kind of a world.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A group, its guest, and a file that stays or is removed at the end.
    Group { removes: bool },
    /// An account.
    Account,
}

/// One world, and the progress of its writer.
pub(crate) struct World {
    name: String,
    kind: Kind,
    /// Number of acknowledged changes.
    acknowledged: usize,
    /// Whether one more change was sent and not answered.
    unanswered: bool,
    /// Token of the account's own session, once its login was acknowledged.
    session: Option<String>,
}

/// The observed state of a world.
pub(crate) type Seen = Value;

impl World {
    /// The world with this number of a writer: the first is an account, the others are groups.
    pub(crate) fn new(writer: usize, number: usize) -> World {
        let kind = if writer == 0 {
            Kind::Account
        } else {
            Kind::Group { removes: !number.is_multiple_of(KEEPS_EVERY) }
        };
        let name = format!("w{writer}-{number}");
        World { name, kind, acknowledged: 0, unanswered: false, session: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    pub(crate) fn is_done(&self) -> bool {
        self.acknowledged + 1 == expected(self.kind).len()
    }

    /// Makes the next change, or repeats the unanswered one; `None` when the tracker is gone.
    pub(crate) fn advance(&mut self, client: &mut Client, members: &Members) -> Option<()> {
        let request = self.request(members);
        let is_retry = std::mem::replace(&mut self.unanswered, true);
        let answer = client.ask(&request)?;
        let granted = answer["status"] == "success" || (is_retry && self.was_granted(&answer));
        assert!(granted, "{}, change {}: {answer}", self.name, self.acknowledged + 1);
        if let Some(session) = answer["session"].as_str() {
            self.session = Some(session.to_owned());
        }
        self.acknowledged += 1;
        self.unanswered = false;
        Some(())
    }

    /// Whether the answer to a repeated write shows that it was made the first time. Most repeats give the first outcome. Creating
    /// an account needs no session and remembers none, and then the name is taken by this world.
    fn was_granted(&self, answer: &Value) -> bool {
        self.kind == Kind::Account && self.acknowledged == 0 && answer["code"] == "already_exists"
    }

    /// Compares the observed state with the acknowledged changes: all of those, and an unanswered change as a whole or not.
    pub(crate) fn check(&self, seen: &Seen) {
        let states = expected(self.kind);
        let certain = *seen == states[self.acknowledged];
        let possible = self.unanswered && *seen == states[self.acknowledged + 1];
        assert!(
            certain || possible,
            "{} after {} changes{}: expected {}, seen {seen}",
            self.name,
            self.acknowledged,
            if self.unanswered { " and an unanswered one" } else { "" },
            states[self.acknowledged],
        );
    }

    /// The state of the world on a tracker that has just started. There every node that shares counts as online.
    pub(crate) fn look(&self, address: SocketAddr, members: &Members) -> Seen {
        let mut client = Client::connect(address);
        let mut ask = |command: &str, args: Value, session: Option<&str>| {
            let request = json!({ "command": command, "command_args": args, "session": session });
            client.ask(&request).expect("the tracker is not killed during a check")
        };
        if self.kind == Kind::Account {
            let mut enters = |passwd: &str| {
                ask("login", json!({ "user_id": self.name, "passwd": passwd }), None)["status"] == "success"
            };
            // In this order the right password clears the count of wrong ones.
            let passwords = if self.acknowledged < 3 {
                [NEW_PASSWORD, OLD_PASSWORD]
            } else {
                [OLD_PASSWORD, NEW_PASSWORD]
            };
            let attempts = passwords.map(|password| (password, enters(password)));
            let enters = |password| attempts.contains(&(password, true));
            let stays = self
                .session
                .as_deref()
                .map(|session| ask("whoami", json!({}), Some(session))["status"] == "success");
            // Without a token the session cannot be checked.
            let stays = stays.unwrap_or(self.acknowledged == 2);
            return json!({ "old": enters(OLD_PASSWORD), "new": enters(NEW_PASSWORD), "session": stays });
        }
        let session = Some(members.owner.session.as_str());
        let group = json!({ "group_id": self.name });
        let files = ask("list_files", group.clone(), session);
        if files["code"] == "not_found" {
            return Value::Null;
        }
        let asking = ask("list_requests", group.clone(), session)["pending_list"].clone();
        let groups = ask("list_groups", json!({}), session);
        let of_group = |group: &&Value| group["group_id"] == self.name.as_str();
        let members = groups["groups"].as_array().unwrap().iter().find(of_group).unwrap()["members"].clone();
        let seeders: Vec<&Value> =
            files["files"].as_array().unwrap().iter().map(|file| &file["seeders"]).collect();
        if seeders.is_empty() {
            return json!({ "members": members, "asking": asking, "seeders": seeders });
        }
        let args = json!({ "group_id": self.name, "file_name": "file", "view": "compact" });
        let file = ask("download_file", args, session);
        let is_whole =
            file["file_chunks"] == joined(0..FILE_PIECES).as_str() && file["fileSha"] == file_sha();
        json!({ "members": members, "asking": asking, "seeders": seeders, "whole": is_whole })
    }

    fn request(&self, members: &Members) -> Value {
        let (command, args, by_owner, pieces) = match self.kind {
            Kind::Account => return self.account_request(),
            Kind::Group { .. } => self.group_request(members),
        };
        let member = if by_owner { &members.owner } else { &members.guest };
        let mut request = json!({
            "command": command, "command_args": args, "session": member.session, "sender_ip": "127.0.0.1",
            "sender_port": member.port, "request_id": format!("{}-{}", self.name, self.acknowledged),
        });
        if let Some(pieces) = pieces {
            let is_last = pieces.end == FILE_PIECES;
            request["piecewise_sha"] = joined(pieces).into();
            if is_last {
                request["fileSha"] = file_sha().into();
            }
        }
        request
    }

    /// The next change of a group: command, arguments, whether the owner sends it, and its pieces.
    fn group_request(
        &self,
        members: &Members,
    ) -> (&'static str, Value, bool, Option<std::ops::Range<usize>>) {
        let with = |more: Value| {
            let mut args = json!({ "group_id": self.name });
            args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            args
        };
        let file = || with(json!({ "file_name": "file" }));
        match self.acknowledged {
            0 => ("create_group", with(json!({ "policy": "approval" })), true, None),
            1 => ("join_group", with(json!({})), false, None),
            2 => ("accept_request", with(json!({ "user_id": members.guest.user })), true, None),
            3 => {
                let more = json!({ "file_name": "file", "upload_id": self.name, "first": 0, "more": true });
                ("upload_file", with(more), true, Some(0..PART_PIECES))
            }
            4 => {
                let more = json!({ "file_name": "file", "upload_id": self.name, "first": PART_PIECES });
                ("upload_file", with(more), true, Some(PART_PIECES..FILE_PIECES))
            }
            5 => ("update_pieces", with(json!({ "file_name": "file", "complete": true })), false, None),
            6 => ("stop_share", file(), true, None),
            7 if self.kind == (Kind::Group { removes: true }) => ("remove_file", file(), true, None),
            7 => ("upload_file", file(), true, Some(0..FILE_PIECES)),
            8 => ("leave_group", with(json!({})), false, None),
            number => unreachable!("a world has no change {number}"),
        }
    }

    fn account_request(&self) -> Value {
        let password = json!({ "user_id": self.name, "passwd": OLD_PASSWORD });
        let (command, args) = match self.acknowledged {
            0 => ("create_user", password),
            1 => ("login", password),
            2 => ("change_password", json!({ "passwd": OLD_PASSWORD, "new_passwd": NEW_PASSWORD })),
            3 => ("logout", json!({})),
            number => unreachable!("an account has no change {number}"),
        };
        let id = format!("{}-{}", self.name, self.acknowledged);
        json!({ "command": command, "command_args": args, "session": self.session, "request_id": id })
    }
}

/// The expected states of a world, before its first change and after each.
fn expected(kind: Kind) -> Vec<Seen> {
    let account = |old, new, session| json!({ "old": old, "new": new, "session": session });
    let group = |members, asking: &[&str], seeders: &[u32]| {
        let mut group = json!({ "members": members, "asking": asking, "seeders": seeders });
        if !seeders.is_empty() {
            group["whole"] = true.into();
        }
        group
    };
    match kind {
        Kind::Account => vec![
            account(false, false, false),
            account(true, false, false),
            account(true, false, true),
            account(false, true, true),
            account(false, true, false),
        ],
        Kind::Group { removes } => vec![
            Value::Null,
            group(1, &[], &[]),
            group(1, &["bob"], &[]),
            group(2, &[], &[]),
            group(2, &[], &[]),
            group(2, &[], &[1]),
            group(2, &[], &[2]),
            group(2, &[], &[1]),
            group(2, &[], if removes { &[] } else { &[2] }),
            group(1, &[], if removes { &[] } else { &[1] }),
        ],
    }
}

/// Digests of pieces as one base64 string. All differ, so that none can replace another.
fn joined(pieces: std::ops::Range<usize>) -> String {
    let digest = |piece: usize| {
        let mut digest = [0x5A; 20];
        digest[..8].copy_from_slice(&(piece as u64).to_be_bytes());
        digest
    };
    BASE64.encode(pieces.flat_map(digest).collect::<Vec<u8>>())
}

fn file_sha() -> String {
    "9c".repeat(20)
}
