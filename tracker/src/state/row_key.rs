//! The keys of rows in their tables.
//!
//! Invariants: a zero byte separates the parts of a key, and only parts of fixed length can contain one, so keys sort part
//! by part. Numbers in keys are big-endian, so they sort as numbers. Ids and names in keys are valid.

use std::net::IpAddr;

use engine::proto::manifest::FileName;
use engine::proto::ticket::PeerKey;

use super::id::{GroupFile, GroupId, SessionId, UploadId, UserId};
use super::node::NodeIdentity;

/// A key, built part by part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey(pub(super) Vec<u8>);

impl RowKey {
    fn from_text(part: &str) -> RowKey {
        assert!(!part.contains('\0'), "a zero byte ends a part of a key: {part:?}");
        RowKey(part.as_bytes().to_vec())
    }

    fn from_bytes(bytes: &[u8]) -> RowKey {
        RowKey(bytes.to_vec())
    }

    fn then(mut self, part: &[u8]) -> RowKey {
        self.0.push(0);
        self.0.extend_from_slice(part);
        self
    }

    /// The prefix of all keys whose first parts are this key.
    pub(super) fn prefix(self) -> Vec<u8> {
        self.then(&[]).0
    }

    pub(super) fn user(user: &UserId) -> RowKey {
        RowKey::from_text(user.as_str())
    }

    pub(super) fn group(group: &GroupId) -> RowKey {
        RowKey::from_text(group.as_str())
    }

    pub(super) fn session(session: SessionId) -> RowKey {
        RowKey::from_bytes(&session.0)
    }

    pub(super) fn user_session(user: &UserId, session: SessionId) -> RowKey {
        RowKey::user(user).then(&session.0)
    }

    pub(super) fn node(user: &UserId, identity: NodeIdentity) -> RowKey {
        RowKey::user(user).then(&identity_bytes(identity))
    }

    /// `node` is the key of the node's own row.
    pub(super) fn session_node(session: SessionId, node: &RowKey) -> RowKey {
        RowKey::session(session).then(&node.0)
    }

    /// The key of the node's own row, from a key of [`RowKey::session_node`].
    pub(super) fn node_in_session(index: &RowKey) -> RowKey {
        RowKey::from_bytes(&index.0[SESSION_PART_BYTES..])
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

    /// `node` is the key of the node's own row.
    pub(super) fn share(file: &GroupFile, node: &RowKey) -> RowKey {
        RowKey::file(file).then(&node.0)
    }

    /// Prefix of the keys of a user's shares of a file.
    pub(super) fn shares_of_user(file: &GroupFile, user: &UserId) -> Vec<u8> {
        RowKey::file(file).then(user.as_str().as_bytes()).prefix()
    }

    /// `node` is the key of the node's own row.
    pub(super) fn share_by_user(file: &GroupFile, node: &RowKey) -> RowKey {
        let (user, identity) = split_first_part(&node.0);
        RowKey::group(&file.group).then(user).then(file.name.as_str().as_bytes()).then(identity)
    }

    /// Prefixes of the keys of [`RowKey::session_node`] for a session's nodes without a peer key.
    pub(super) fn keyless_nodes(session: SessionId, user: &UserId) -> [Vec<u8>; 2] {
        [ADDRESS_V4, ADDRESS_V6]
            .map(|letter| RowKey::session_node(session, &RowKey::user(user).then(letter)).0)
    }

    /// From a key of [`RowKey::share`]: the key of the same share by user, and the key of its node.
    pub(super) fn share_of_file(&self, file: &GroupFile) -> (RowKey, RowKey) {
        let node = RowKey::from_bytes(&self.0[RowKey::file(file).prefix().len()..]);
        (RowKey::share_by_user(file, &node), node)
    }

    /// From a key of [`RowKey::share_by_user`]: the key of the same share by file, and the key of its node.
    pub(super) fn share_of_user(&self, group: &GroupId, user: &UserId) -> (RowKey, RowKey) {
        let (name, identity) = split_first_part(&self.0[RowKey::member(group, user).prefix().len()..]);
        let node = RowKey::user(user).then(identity);
        (RowKey::group(group).then(name).then(&node.0), node)
    }

    /// Key of the counter that numbers manifests.
    pub(super) fn manifests() -> RowKey {
        RowKey::from_text("manifests")
    }

    pub(super) fn manifest_row(manifest: u64, row: u32) -> RowKey {
        let mut key = RowKey::from_bytes(&manifest.to_be_bytes());
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

/// Bytes of a session's id and the zero byte behind it.
const SESSION_PART_BYTES: usize = 16 + 1;

/// Splits a key into its first part and the rest.
fn split_first_part(key: &[u8]) -> (&[u8], &[u8]) {
    let end =
        key.iter().position(|byte| *byte == 0).expect("a key of several parts has a zero byte between them");
    (&key[..end], &key[end + 1..])
}

/// Letters before an IP in a key, by the family of the address.
const ADDRESS_V4: &[u8] = b"4";
const ADDRESS_V6: &[u8] = b"6";

/// A node's identity as bytes: a letter, then the key, or the IP (v4 mapped to v6) and the port.
fn identity_bytes(identity: NodeIdentity) -> Vec<u8> {
    match identity {
        NodeIdentity::Key(PeerKey(key)) => [&b"k"[..], &key].concat(),
        NodeIdentity::Address(address) => {
            let (letter, ip) = match address.ip() {
                IpAddr::V4(ip) => (ADDRESS_V4, ip.to_ipv6_mapped()),
                IpAddr::V6(ip) => (ADDRESS_V6, ip),
            };
            [letter, &ip.octets(), &address.port().to_be_bytes()].concat()
        }
    }
}

/// Unwraps a value that was valid when the key was made.
fn checked_part<T, E: std::fmt::Debug>(read: Result<T, E>) -> T {
    read.expect("keys are made by `Key` alone, of parts that were checked")
}

fn part_text(part: &[u8]) -> &str {
    checked_part(std::str::from_utf8(part))
}

pub(super) fn user_id(part: &[u8]) -> UserId {
    checked_part(UserId::new(part_text(part)))
}

/// The user of the node under a key.
pub(super) fn user_of_node(node: &RowKey) -> UserId {
    user_id(split_first_part(&node.0).0)
}

pub(super) fn group_id(part: &[u8]) -> GroupId {
    checked_part(GroupId::new(part_text(part)))
}

pub(super) fn file_name(part: &[u8]) -> FileName {
    checked_part(FileName::new(part_text(part)))
}

pub(super) fn session_id(part: &[u8]) -> SessionId {
    SessionId(checked_part(part.try_into()))
}
