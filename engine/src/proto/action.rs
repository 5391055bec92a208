//! What a transfer wants done: the driver carries it out and tells what came of it.

use std::net::SocketAddr;

use super::frame::{ByeCode, Message};
use super::picker::ConnectionId;
use super::ticket::PeerKey;

/// Where a peer listens, and the key that it must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Where.
    pub address: SocketAddr,
    /// Who.
    pub key: PeerKey,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferAction {
    /// Open a connection under this number; `Transfer::opened` or `Transfer::closed` follows.
    Connect {
        /// Its number from now on.
        connection: ConnectionId,
        /// Whom to call.
        peer: PeerAddress,
        /// It has connections already: this one makes it faster, and no more.
        is_additional: bool,
    },
    /// Send a message on an open connection.
    Send {
        /// Which.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Say goodbye and end a connection; `Transfer::closed` does not follow.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        code: ByeCode,
    },
}
