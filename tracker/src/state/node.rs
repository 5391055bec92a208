//! Nodes: the client processes that listen for peers, and how one is recognised again.
//!
//! Invariant: a node is known by its user and its peer key; one without a key by its user and its address. So a keyed
//! node that comes back at another address keeps its shares, and two nodes of one user are two.

use std::net::SocketAddr;

use engine::proto::ticket::PeerKey;
use serde::{Deserialize, Serialize};

use super::form;
use super::id::{SessionId, UserId};

/// Where a node listens and which key it owns, as far as it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// Its key; the original client has none.
    #[serde(with = "form::peer_key")]
    pub peer_key: Option<PeerKey>,
}

/// What tells a user's nodes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// By key, wherever it listens.
    Key(PeerKey),
    /// By address, for want of a key.
    Address(SocketAddr),
}

impl Holder {
    /// What the node is recognised by.
    #[must_use]
    pub fn place(&self) -> Place {
        self.peer_key.map_or(Place::Address(self.address), Place::Key)
    }
}

/// Somebody who has a file, or part of it, and can be asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose node it is.
    pub user: UserId,
    /// Where and under which key.
    pub holder: Holder,
    /// The session that keeps it online.
    pub session: SessionId,
}
