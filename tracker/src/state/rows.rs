//! Rows: what stands in the tables, under which keys, and how it becomes bytes.
//!
//! Invariants: the parts of a key are separated by a zero byte, which only parts of a fixed length can hold, so keys sort
//! part by part; numbers in keys are big-endian, so they sort as numbers. Values are JSON with fields in a fixed order,
//! but for manifests (see [`manifest`](super::manifest)): equal rows are equal bytes. A row that cannot be read was not
//! written by this code, and stops the process.

use std::net::IpAddr;
use std::ops::ControlFlow;

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::ticket::PeerKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::command::Policy;
use super::form;
use super::id::{FileKey, GroupId, SessionId, UploadId, UserId};
use super::node::{Holder, Place};
use super::outcome::{Outcome, Refusal};
use super::tables::{Table, Tables, Visit};

/// A key, built part by part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) Vec<u8>);

impl Key {
    fn of(part: &str) -> Key {
        Key(part.as_bytes().to_vec())
    }

    fn raw(bytes: &[u8]) -> Key {
        Key(bytes.to_vec())
    }

    fn then(mut self, part: &[u8]) -> Key {
        self.0.push(0);
        self.0.extend_from_slice(part);
        self
    }

    /// What all keys begin with that have this one as their first parts.
    pub(super) fn prefix(self) -> Vec<u8> {
        self.then(&[]).0
    }

    pub(super) fn user(user: &UserId) -> Key {
        Key::of(user.as_str())
    }

    pub(super) fn group(group: &GroupId) -> Key {
        Key::of(group.as_str())
    }

    pub(super) fn session(session: SessionId) -> Key {
        Key::raw(&session.0)
    }

    pub(super) fn user_session(user: &UserId, session: SessionId) -> Key {
        Key::user(user).then(&session.0)
    }

    pub(super) fn node(user: &UserId, place: Place) -> Key {
        Key::user(user).then(&place_bytes(place))
    }

    /// `node` is the key of the node's own row.
    pub(super) fn session_node(session: SessionId, node: &Key) -> Key {
        Key::session(session).then(&node.0)
    }

    /// The key of the node's own row, out of one of [`Key::session_node`].
    pub(super) fn node_in_session(index: &Key) -> Key {
        Key::raw(&index.0[SESSION_PART_BYTES..])
    }

    pub(super) fn member(group: &GroupId, user: &UserId) -> Key {
        Key::group(group).then(user.as_str().as_bytes())
    }

    pub(super) fn member_by_age(group: &GroupId, joined: u64) -> Key {
        Key::group(group).then(&joined.to_be_bytes())
    }

    pub(super) fn file(file: &FileKey) -> Key {
        Key::group(&file.group).then(file.name.as_str().as_bytes())
    }

    pub(super) fn share(file: &FileKey, user: &UserId, place: Place) -> Key {
        Key::file(file).then(&Key::node(user, place).0)
    }

    pub(super) fn share_by_user(file: &FileKey, user: &UserId, place: Place) -> Key {
        Key::member(&file.group, user).then(file.name.as_str().as_bytes()).then(&place_bytes(place))
    }

    /// Out of a key of [`Key::share`]: the same share by user, and the key of its node.
    pub(super) fn share_of_file(&self, file: &FileKey) -> (Key, Key) {
        let node = Key::raw(&self.0[Key::file(file).prefix().len()..]);
        let (user, place) = cut(&node.0);
        (Key::group(&file.group).then(user).then(file.name.as_str().as_bytes()).then(place), node)
    }

    /// Out of a key of [`Key::share_by_user`]: the same share by file, and the key of its node.
    pub(super) fn share_of_user(&self, group: &GroupId, user: &UserId) -> (Key, Key) {
        let (name, place) = cut(&self.0[Key::member(group, user).prefix().len()..]);
        let node = Key::user(user).then(place);
        (Key::group(group).then(name).then(&node.0), node)
    }

    pub(super) fn manifest_row(manifest: u64, row: u32) -> Key {
        let mut key = Key::raw(&manifest.to_be_bytes());
        key.0.extend_from_slice(&row.to_be_bytes());
        key
    }

    pub(super) fn upload(user: &UserId, upload: &UploadId) -> Key {
        Key::user(user).then(upload.as_str().as_bytes())
    }

    pub(super) fn answer(session: SessionId, request: &[u8; 32]) -> Key {
        Key::session(session).then(request)
    }

    pub(super) fn answer_order(session: SessionId, number: u64) -> Key {
        Key::session(session).then(&number.to_be_bytes())
    }
}

/// A session's id and the zero byte behind it.
const SESSION_PART_BYTES: usize = 16 + 1;

/// The first part of a key, and the rest.
fn cut(key: &[u8]) -> (&[u8], &[u8]) {
    let end =
        key.iter().position(|byte| *byte == 0).expect("a key of several parts has a zero byte between them");
    (&key[..end], &key[end + 1..])
}

/// A place as bytes of fixed form: a letter, then the key, or the address (v6, v4 ones mapped) and the port.
fn place_bytes(place: Place) -> Vec<u8> {
    match place {
        Place::Key(PeerKey(key)) => [&b"k"[..], &key].concat(),
        Place::Address(address) => {
            let (letter, ip) = match address.ip() {
                IpAddr::V4(ip) => (b"4", ip.to_ipv6_mapped()),
                IpAddr::V6(ip) => (b"6", ip),
            };
            [&letter[..], &ip.octets(), &address.port().to_be_bytes()].concat()
        }
    }
}

/// A typed row of one table.
pub(super) trait Row: Serialize + DeserializeOwned {
    /// Where it stands.
    const TABLE: Table;
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRow {
    pub(super) password_hash: String,
    pub(super) password_epoch: u32,
    pub(super) created_s: u64,
}

/// A session. An ended one stays until it expires, so that a retried request still gets its first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub(super) user: UserId,
    /// The password's epoch at login.
    pub(super) password_epoch: u32,
    pub(super) expires_s: u64,
    pub(super) ended: bool,
    /// The node that logged in or came back last.
    pub(super) node: Option<Holder>,
    /// How many outcomes were remembered so far.
    pub(super) answers: u64,
}

/// A node that shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRow {
    /// Where it listens now.
    pub(super) holder: Holder,
    /// The session that keeps it online.
    pub(super) session: SessionId,
    /// Whether that session ended: offline until the next login.
    pub(super) logged_out: bool,
    /// How many files it shares; the row goes with the last.
    pub(super) shares: u64,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRow {
    pub(super) owner: UserId,
    pub(super) policy: Policy,
    pub(super) created_s: u64,
    pub(super) members: u64,
    /// The number of the next one to join: the order of age.
    pub(super) next_joined: u64,
}

/// A membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberRow {
    pub(super) joined: u64,
}

/// The same, earliest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AgeRow {
    pub(super) user: UserId,
}

/// A request to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestRow {
    pub(super) asked_s: u64,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRow {
    pub(super) uploader: UserId,
    pub(super) uploaded_s: u64,
    /// In bytes, where the uploader said it.
    pub(super) length: Option<u64>,
    pub(super) pieces: u32,
    #[serde(with = "form::proof")]
    pub(super) proof: FileProof,
    pub(super) has_chain: bool,
    /// Under which number its manifest stands.
    pub(super) manifest: u64,
    /// What all its piece digests come to.
    #[serde(with = "form::hex_bytes")]
    pub(super) fold: [u8; 32],
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadRow {
    pub(super) manifest: u64,
    /// How many pieces have come.
    pub(super) next: u32,
    pub(super) has_chain: bool,
    #[serde(with = "form::hex_bytes")]
    pub(super) fold: [u8; 32],
    /// When the last part came.
    pub(super) part_s: u64,
}

/// The first outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnswerRow {
    pub(super) answer: Result<Outcome, Refusal>,
}

/// Which request's outcome was remembered under a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnswerOrderRow(#[serde(with = "form::hex_bytes")] pub(super) [u8; 32]);

/// A number given out so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter(pub(super) u64);

macro_rules! rows {
    ($($row:ident in $table:ident),* $(,)?) => {$(
        impl Row for $row {
            const TABLE: Table = Table::$table;
        }
    )*};
}

rows!(
    UserRow in Users, SessionRow in Sessions, NodeRow in Nodes, GroupRow in Groups, MemberRow in Members,
    AgeRow in MembersByAge, RequestRow in Requests, FileRow in Files, UploadRow in Uploads, AnswerRow in Answers,
    AnswerOrderRow in AnswerOrder, Counter in Counters,
);

fn parse<R: Row>(value: &[u8]) -> R {
    serde_json::from_slice(value).expect("rows are written by `write` alone, in this very form")
}

/// Reads a row.
pub(super) fn read<R: Row>(tables: &dyn Tables, key: &Key) -> Option<R> {
    tables.get(R::TABLE, &key.0).map(|value| parse(&value))
}

/// Writes a row.
pub(super) fn write<R: Row>(tables: &mut dyn Tables, key: &Key, row: &R) {
    let value = serde_json::to_vec(row).expect("rows have string keys and nothing that can fail");
    tables.put(R::TABLE, &key.0, &value);
}

/// Takes a row out; what it was.
pub(super) fn take<R: Row>(tables: &mut dyn Tables, key: &Key) -> Option<R> {
    let row = read(tables, key);
    tables.remove(R::TABLE, &key.0);
    row
}

/// Writes a row that is nothing but its key.
pub(super) fn mark(tables: &mut dyn Tables, table: Table, key: &Key) {
    tables.put(table, &key.0, &[]);
}

/// Visits the keys that begin with `prefix`, from `from` on; the visitor gets what follows the prefix, and the value.
pub(super) fn visit_raw(tables: &dyn Tables, table: Table, prefix: &[u8], from: &[u8], visit: Visit<'_>) {
    let start = from.max(prefix);
    tables.scan(table, start, &mut |key, value| match key.strip_prefix(prefix) {
        Some(rest) => visit(rest, value),
        None => ControlFlow::Break(()),
    });
}

/// The same with typed rows, all of them.
pub(super) fn visit<R: Row>(tables: &dyn Tables, prefix: &[u8], mut each: impl FnMut(&[u8], R)) {
    visit_raw(tables, R::TABLE, prefix, prefix, &mut |rest, value| {
        each(rest, parse(value));
        ControlFlow::Continue(())
    });
}

/// Typed rows after a key, at most `count`: pages of a list.
pub(super) fn page<R: Row>(
    tables: &dyn Tables,
    prefix: &[u8],
    after: Option<&Key>,
    count: usize,
    mut each: impl FnMut(&[u8], R),
) {
    // The least key above `after` is `after` with a zero byte behind it.
    let from = after.map(|after| [&after.0[..], &[0]].concat()).unwrap_or_default();
    let mut left = count;
    visit_raw(tables, R::TABLE, prefix, &from, &mut |rest, value| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        each(rest, parse(value));
        ControlFlow::Continue(())
    });
}

/// The keys that begin with `prefix`, whole: for removing them, since rows cannot change while they are visited.
pub(super) fn keys(tables: &dyn Tables, table: Table, prefix: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    visit_raw(tables, table, prefix, prefix, &mut |rest, _| {
        keys.push(Key([prefix, rest].concat()));
        ControlFlow::Continue(())
    });
    keys
}

/// Text out of a key.
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).expect("ids and file names enter keys as UTF-8")
}

/// A user's name out of a key.
pub(super) fn user_id(part: &[u8]) -> UserId {
    UserId::new(text(part)).expect("ids in keys were checked when they entered")
}

/// A group's name out of a key.
pub(super) fn group_id(part: &[u8]) -> GroupId {
    GroupId::new(text(part)).expect("ids in keys were checked when they entered")
}

/// Whose node stands under a key.
pub(super) fn user_of_node(node: &Key) -> UserId {
    user_id(cut(&node.0).0)
}

/// A file's name out of a key.
pub(super) fn file_name(part: &[u8]) -> FileName {
    FileName::new(text(part)).expect("names in keys were checked when they entered")
}

/// The next number of the one counter, which numbers manifests.
pub(super) fn next_manifest(tables: &mut dyn Tables) -> u64 {
    let key = Key::of("manifests");
    let next = read(tables, &key).map_or(0, |Counter(next)| next);
    write(tables, &key, &Counter(next + 1));
    next
}
