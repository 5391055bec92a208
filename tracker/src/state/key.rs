//! Keys: under what a row stands in its table.
//!
//! Invariants: the parts of a key are separated by a zero byte, which only parts of a fixed length can hold, so keys
//! sort part by part; numbers in keys are big-endian, so they sort as numbers. Ids and names in a key were checked
//! before they entered.

use std::net::IpAddr;

use engine::proto::manifest::FileName;
use engine::proto::ticket::PeerKey;

use super::id::{FileKey, GroupId, SessionId, UploadId, UserId};
use super::node::Place;

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

    /// What the keys of a user's shares of a file begin with.
    pub(super) fn shares_of_user(file: &FileKey, user: &UserId) -> Vec<u8> {
        Key::file(file).then(user.as_str().as_bytes()).prefix()
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

    /// Of the counter that numbers manifests.
    pub(super) fn manifests() -> Key {
        Key::of("manifests")
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

/// What was read out of a key, where only what was checked before stands.
fn known<T, E: std::fmt::Debug>(read: Result<T, E>) -> T {
    read.expect("keys are made by `Key` alone, of parts that were checked")
}

fn text(part: &[u8]) -> &str {
    known(std::str::from_utf8(part))
}

/// A user's name out of a key.
pub(super) fn user_id(part: &[u8]) -> UserId {
    known(UserId::new(text(part)))
}

/// Whose node stands under a key.
pub(super) fn user_of_node(node: &Key) -> UserId {
    user_id(cut(&node.0).0)
}

/// A group's name out of a key.
pub(super) fn group_id(part: &[u8]) -> GroupId {
    known(GroupId::new(text(part)))
}

/// A file's name out of a key.
pub(super) fn file_name(part: &[u8]) -> FileName {
    known(FileName::new(text(part)))
}

/// A session's id out of a key.
pub(super) fn session_id(part: &[u8]) -> SessionId {
    SessionId(known(part.try_into()))
}
