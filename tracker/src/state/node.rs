//! Nodes: the client processes that listen for peers, and how one is recognised again.
//!
//! Invariant: a node is known by its user and its peer key; one without a key by its user and its address. So a keyed
//! node that comes back at another address keeps its shares, and two nodes of one user are two.

use std::net::SocketAddr;

use engine::proto::ticket::PeerKey;
use serde::{Deserialize, Serialize};

use super::id::{SessionId, UserId};
use super::serde_forms;

/// Where a node listens and which key it owns, as far as it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// Its key; the original client has none.
    #[serde(with = "serde_forms::peer_key")]
    pub peer_key: Option<PeerKey>,
}

/// What tells a user's nodes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeIdentity {
    /// By key, wherever it listens.
    Key(PeerKey),
    /// By address, for want of a key.
    Address(SocketAddr),
}

impl NodeEndpoint {
    /// What the node is recognised by.
    #[must_use]
    pub fn identity(&self) -> NodeIdentity {
        self.peer_key.map_or(NodeIdentity::Address(self.address), NodeIdentity::Key)
    }
}

/// Somebody who has a file, or part of it, and can be asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmPeer {
    /// Whose node it is.
    pub user: UserId,
    /// Where and under which key.
    pub holder: NodeEndpoint,
    /// The session that keeps it online.
    pub session: SessionId,
}
