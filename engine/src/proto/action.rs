//! Actions that a transfer returns: the driver carries them out and reports the result.

use std::net::SocketAddr;

use super::frame::{ByeCode, Message};
use super::picker::ConnectionId;
use super::ticket::PeerKey;

/// The address of a peer, and the key that it must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// Address on which the peer accepts connections.
    pub address: SocketAddr,
    /// Key that the tracker named for the peer.
    pub key: PeerKey,
}

/// A peer as the trackers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedPeer {
    /// Where it listens, and its key.
    pub address: PeerAddress,
    /// It has the whole file.
    pub is_seeder: bool,
}

/// A peer of which nothing more is known.
impl From<&PeerAddress> for NamedPeer {
    fn from(address: &PeerAddress) -> NamedPeer {
        NamedPeer { address: *address, is_seeder: false }
    }
}

/// An action for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferAction {
    /// Open a connection; `Transfer::connection_opened` or `Transfer::connection_closed` must follow.
    Connect {
        /// Id of the new connection.
        connection: ConnectionId,
        /// Peer to connect to.
        peer: PeerAddress,
        /// The peer has connections already, and this one only makes the transfer faster.
        is_additional: bool,
        /// Time allowed for connecting, in milliseconds.
        timeout_ms: u64,
    },
    /// Send a message on an open connection.
    Send {
        /// An open connection.
        connection: ConnectionId,
        /// Message to send.
        message: Message,
    },
    /// Send a goodbye and close a connection; `Transfer::connection_closed` is not called for it.
    Close {
        /// Connection to close.
        connection: ConnectionId,
        /// Reason to send.
        code: ByeCode,
    },
}
