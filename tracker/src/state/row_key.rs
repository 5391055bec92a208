//! Keys: under what a row stands in its table.
//!
//! Invariants: the parts of a key are separated by a zero byte, which only parts of a fixed length can hold, so keys
//! sort part by part; numbers in keys are big-endian, so they sort as numbers. Ids and names in a key were checked
//! before they entered.

use std::net::IpAddr;

use engine::proto::manifest::FileName;
use engine::proto::ticket::PeerKey;

use super::id::{GroupFile, GroupId, SessionId, UploadId, UserId};
use super::node::NodeIdentity;

/// A key, built part by part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey(pub(super) Vec<u8>);

impl RowKey {
    fn of(part: &str) -> RowKey {
        RowKey(part.as_bytes().to_vec())
    }

    fn raw(bytes: &[u8]) -> RowKey {
        RowKey(bytes.to_vec())
    }

    fn then(mut self, part: &[u8]) -> RowKey {
        self.0.push(0);
        self.0.extend_from_slice(part);
        self
    }

    /// What all keys begin with that have this one as their first parts.
    pub(super) fn prefix(self) -> Vec<u8> {
        self.then(&[]).0
    }

    pub(super) fn user(user: &UserId) -> RowKey {
        RowKey::of(user.as_str())
    }

    pub(super) fn group(group: &GroupId) -> RowKey {
        RowKey::of(group.as_str())
    }

    pub(super) fn session(session: SessionId) -> RowKey {
        RowKey::raw(&session.0)
    }

    pub(super) fn user_session(user: &UserId, session: SessionId) -> RowKey {
        RowKey::user(user).then(&session.0)
    }

    pub(super) fn node(user: &UserId, place: NodeIdentity) -> RowKey {
        RowKey::user(user).then(&place_bytes(place))
    }

    /// `node` is the key of the node's own row.
    pub(super) fn session_node(session: SessionId, node: &RowKey) -> RowKey {
        RowKey::session(session).then(&node.0)
    }

    /// The key of the node's own row, out of one of [`RowKey::session_node`].
    pub(super) fn node_in_session(index: &RowKey) -> RowKey {
        RowKey::raw(&index.0[SESSION_PART_BYTES..])
    }

    pub(super) fn member(group: &GroupId, user: &UserId) -> RowKey {
        RowKey::group(group).then(user.as_str().as_bytes())
    }

    pub(super) fn member_by_age(group: &GroupId, joined: u64) -> RowKey {
        RowKey::group(group).then(&joined.to_be_bytes())
    }

    pub(super) fn file(file: &GroupFile) -> RowKey {
        RowKey::group(&file.group).then(file.name.as_str().as_bytes())
    }

    pub(super) fn share(file: &GroupFile, user: &UserId, place: NodeIdentity) -> RowKey {
        RowKey::file(file).then(&RowKey::node(user, place).0)
    }

    /// What the keys of a user's shares of a file begin with.
    pub(super) fn shares_of_user(file: &GroupFile, user: &UserId) -> Vec<u8> {
        RowKey::file(file).then(user.as_str().as_bytes()).prefix()
    }

    pub(super) fn share_by_user(file: &GroupFile, user: &UserId, place: NodeIdentity) -> RowKey {
        RowKey::member(&file.group, user).then(file.name.as_str().as_bytes()).then(&place_bytes(place))
    }

    /// Out of a key of [`RowKey::waiting_bytes`]: the same share by user, and the key of its node.
    pub(super) fn share_of_file(&self, file: &GroupFile) -> (RowKey, RowKey) {
        let node = RowKey::raw(&self.0[RowKey::file(file).prefix().len()..]);
        let (user, place) = split_first_part(&node.0);
        (RowKey::group(&file.group).then(user).then(file.name.as_str().as_bytes()).then(place), node)
    }

    /// Out of a key of [`RowKey::share_by_user`]: the same share by file, and the key of its node.
    pub(super) fn share_of_user(&self, group: &GroupId, user: &UserId) -> (RowKey, RowKey) {
        let (name, place) = split_first_part(&self.0[RowKey::member(group, user).prefix().len()..]);
        let node = RowKey::user(user).then(place);
        (RowKey::group(group).then(name).then(&node.0), node)
    }

    /// Of the counter that numbers manifests.
    pub(super) fn manifests() -> RowKey {
        RowKey::of("manifests")
    }

    pub(super) fn manifest_row(manifest: u64, row: u32) -> RowKey {
        let mut key = RowKey::raw(&manifest.to_be_bytes());
        key.0.extend_from_slice(&row.to_be_bytes());
        key
    }

    pub(super) fn upload(user: &UserId, upload: &UploadId) -> RowKey {
        RowKey::user(user).then(upload.as_str().as_bytes())
    }

    pub(super) fn answer(session: SessionId, request: &[u8; 32]) -> RowKey {
        RowKey::session(session).then(request)
    }

    pub(super) fn answer_order(session: SessionId, number: u64) -> RowKey {
        RowKey::session(session).then(&number.to_be_bytes())
    }
}

/// A session's id and the zero byte behind it.
const SESSION_PART_BYTES: usize = 16 + 1;

/// The first part of a key, and the rest.
fn split_first_part(key: &[u8]) -> (&[u8], &[u8]) {
    let end =
        key.iter().position(|byte| *byte == 0).expect("a key of several parts has a zero byte between them");
    (&key[..end], &key[end + 1..])
}

/// A place as bytes of fixed form: a letter, then the key, or the address (v6, v4 ones mapped) and the port.
fn place_bytes(place: NodeIdentity) -> Vec<u8> {
    match place {
        NodeIdentity::Key(PeerKey(key)) => [&b"k"[..], &key].concat(),
        NodeIdentity::Address(address) => {
            let (letter, ip) = match address.ip() {
                IpAddr::V4(ip) => (b"4", ip.to_ipv6_mapped()),
                IpAddr::V6(ip) => (b"6", ip),
            };
            [&letter[..], &ip.octets(), &address.port().to_be_bytes()].concat()
        }
    }
}

/// What was read out of a key, where only what was checked before stands.
fn checked_part<T, E: std::fmt::Debug>(read: Result<T, E>) -> T {
    read.expect("keys are made by `Key` alone, of parts that were checked")
}

fn part_text(part: &[u8]) -> &str {
    checked_part(std::str::from_utf8(part))
}

/// A user's name out of a key.
pub(super) fn user_id(part: &[u8]) -> UserId {
    checked_part(UserId::new(part_text(part)))
}

/// Whose node stands under a key.
pub(super) fn user_of_node(node: &RowKey) -> UserId {
    user_id(split_first_part(&node.0).0)
}

/// A group's name out of a key.
pub(super) fn group_id(part: &[u8]) -> GroupId {
    checked_part(GroupId::new(part_text(part)))
}

/// A file's name out of a key.
pub(super) fn file_name(part: &[u8]) -> FileName {
    checked_part(FileName::new(part_text(part)))
}

/// A session's id out of a key.
pub(super) fn session_id(part: &[u8]) -> SessionId {
    SessionId(checked_part(part.try_into()))
}
