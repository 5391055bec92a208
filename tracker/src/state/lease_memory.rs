//! How many bytes the leases remember of each user's nodes, and whose are forgotten first.
//!
//! Invariants: a node of a file is charged to its user. A user has at most [`LEASE_USER_MAX_BYTES`], all users together have
//! [`LEASE_MAX_BYTES`], once what [`LeaseMemory::next_to_forget`] names is forgotten. What one user makes the tracker
//! remember is forgotten before what users with less have.

use std::collections::{BTreeMap, BTreeSet};

use super::id::{GroupFile, UserId};
use super::limits::{LEASE_MAX_BYTES, LEASE_USER_MAX_BYTES};
use super::node::NodeIdentity;

/// User and identity of a node.
pub(super) type NodeKey = (UserId, NodeIdentity);

/// The bytes that are remembered of each user's nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseMemory {
    users: BTreeMap<UserId, UserMemory>,
    /// The users by their bytes.
    by_bytes: BTreeSet<(usize, UserId)>,
    bytes: usize,
    /// Grows with each charge; the node with the lowest number was heard of longest ago.
    heard: u64,
}

#[derive(Clone, Debug, Default)]
struct UserMemory {
    bytes: usize,
    nodes: BTreeMap<FileNode, NodeCharge>,
    by_age: BTreeMap<u64, FileNode>,
}

/// A node of one user, and a file about which it is remembered.
type FileNode = (GroupFile, NodeIdentity);

#[derive(Clone, Copy, Debug)]
struct NodeCharge {
    bytes: usize,
    heard: u64,
}

impl LeaseMemory {
    /// Sets what is remembered of a node that was heard of now.
    pub(super) fn charge(&mut self, file: &GroupFile, node: &NodeKey, bytes: usize) {
        self.heard += 1;
        let heard = self.heard;
        self.set(file, node, Some(NodeCharge { bytes, heard }));
    }

    /// Sets what is still remembered of a node; 0 ends its charge.
    pub(super) fn reduce(&mut self, file: &GroupFile, node: &NodeKey, bytes: usize) {
        let place = (file.clone(), node.1);
        let known = self.users.get(&node.0).and_then(|memory| memory.nodes.get(&place));
        if let Some(charge) = known {
            let charge = NodeCharge { bytes, ..*charge };
            self.set(file, node, (bytes > 0).then_some(charge));
        }
    }

    fn set(&mut self, file: &GroupFile, node: &NodeKey, charge: Option<NodeCharge>) {
        let (user, place) = (&node.0, (file.clone(), node.1));
        let memory = self.users.entry(user.clone()).or_default();
        self.by_bytes.remove(&(memory.bytes, user.clone()));
        let before = match charge {
            Some(charge) => memory.nodes.insert(place.clone(), charge),
            None => memory.nodes.remove(&place),
        };
        if let Some(before) = before {
            memory.by_age.remove(&before.heard);
            memory.bytes -= before.bytes;
            self.bytes -= before.bytes;
        }
        if let Some(charge) = charge {
            memory.by_age.insert(charge.heard, place);
            memory.bytes += charge.bytes;
            self.bytes += charge.bytes;
        }
        assert_eq!(memory.nodes.len(), memory.by_age.len(), "{user}: each node has one age");
        if memory.nodes.is_empty() {
            self.users.remove(user);
        } else {
            self.by_bytes.insert((memory.bytes, user.clone()));
        }
    }

    /// The node to forget next, while a user or all users together have too much: of the user with the most bytes, the one heard
    /// of longest ago.
    pub(super) fn next_to_forget(&self) -> Option<(GroupFile, NodeKey)> {
        let (most, user) = self.by_bytes.last()?;
        if *most <= LEASE_USER_MAX_BYTES && self.bytes <= LEASE_MAX_BYTES {
            return None;
        }
        let (_, (file, identity)) = self.users[user].by_age.first_key_value()?;
        Some((file.clone(), (user.clone(), *identity)))
    }

    /// The nodes of a user, with the files about which they are remembered.
    pub(super) fn nodes_of(&self, user: &UserId) -> Vec<(GroupFile, NodeKey)> {
        let nodes = self.users.get(user).into_iter().flat_map(|memory| memory.nodes.keys());
        nodes.map(|(file, identity)| (file.clone(), (user.clone(), *identity))).collect()
    }

    /// Bytes that are remembered of all users.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are remembered of one user.
    #[cfg(test)]
    pub(super) fn bytes_of(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, |memory| memory.bytes)
    }
}
