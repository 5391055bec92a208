//! Nodes: client programs that listen for peers, and their identity.
//!
//! Invariant: a node is identified by its user and its peer key, or without a key by its user and its address. So a node
//! with a key keeps its shares at another address, and two nodes of one user are distinct.

use std::net::SocketAddr;

use engine::proto::ticket::PeerKey;
use serde::{Deserialize, Serialize};

use super::id::{SessionId, UserId};
use super::serde_forms;

/// Address and key of a node, as its client gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// Its public key; clients of the original protocol have none.
    #[serde(with = "serde_forms::peer_key")]
    pub peer_key: Option<PeerKey>,
}

/// Tells the nodes of one user apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeIdentity {
    /// By key, at any address.
    Key(PeerKey),
    /// By address, without a key.
    Address(SocketAddr),
}

impl NodeEndpoint {
    /// The node's identity among its user's nodes.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.peer_key.map_or(NodeIdentity::Address(self.address), NodeIdentity::Key)
    }
}

/// A node that has a file or part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmPeer {
    /// The node's user.
    pub user: UserId,
    /// Address and key of the node.
    pub holder: NodeEndpoint,
    /// The session that keeps the node online.
    pub session: SessionId,
}
