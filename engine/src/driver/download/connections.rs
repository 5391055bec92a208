//! The connections of one download: those still to be made, and the messages waiting on each.
//!
//! ```text
//!   TransferAction ─► DownloadConnections ─┬─► ConnectRequest  made by the download's own task
//!                                          └─► RequestOutbox   sent by the connection's writing task
//! ```
//!
//! Invariant: a connection has an outbox from its `Connect` until the transfer closes it or it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock::lock;
use crate::proto::action::{PeerAddress, TransferAction};
use crate::proto::frame::{ByeCode, Message};
use crate::proto::picker::ConnectionId;

/// A connection that the download's own task has to make.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// The number by which the transfer knows the connection.
    pub(crate) connection: ConnectionId,
    /// The peer to connect to.
    pub(crate) peer: PeerAddress,
    /// The download has other connections to this peer.
    pub(crate) is_additional: bool,
    /// Time allowed for connecting, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Messages to send once the file is open there.
    pub(crate) outbox: Arc<RequestOutbox>,
}

/// The outboxes of all connections, and the connections that are still to be made.
#[derive(Debug, Default)]
pub(super) struct DownloadConnections {
    outboxes: BTreeMap<ConnectionId, Arc<RequestOutbox>>,
    to_connect: Vec<ConnectRequest>,
}

impl DownloadConnections {
    /// Carries out what the transfer decided.
    pub(super) fn apply(&mut self, actions: Vec<TransferAction>) {
        for action in actions {
            match action {
                TransferAction::Connect { connection, peer, is_additional, timeout_ms } => {
                    let outbox = Arc::new(RequestOutbox::default());
                    self.outboxes.insert(connection, Arc::clone(&outbox));
                    let request = ConnectRequest { connection, peer, is_additional, timeout_ms, outbox };
                    self.to_connect.push(request);
                }
                TransferAction::Send { connection, message } => self.send(connection, message),
                TransferAction::Close { connection, code } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        outbox.end(ConnectionEnd::Bye(code));
                    }
                }
            }
        }
    }

    /// Queues a message; a connection that has ended gets none.
    pub(super) fn send(&self, connection: ConnectionId, message: Message) {
        if let Some(outbox) = self.outboxes.get(&connection) {
            outbox.push(message);
        }
    }

    /// Drops the outbox of a connection that has ended.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.outboxes.remove(&connection);
    }

    /// Whether [`DownloadConnections::take_connects`] would return any.
    pub(super) fn has_connects(&self) -> bool {
        !self.to_connect.is_empty()
    }

    /// The connections to make since the last call.
    pub(super) fn take_connects(&mut self) -> Vec<ConnectRequest> {
        std::mem::take(&mut self.to_connect)
    }
}

/// Messages of one connection, pushed by any thread and sent by the connection's writing task.
///
/// The request window bounds its length: a message requests or cancels pieces, or is one of few tickets.
#[derive(Debug, Default)]
pub(crate) struct RequestOutbox {
    content: Mutex<OutboxContent>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct OutboxContent {
    messages: Vec<Message>,
    end: Option<ConnectionEnd>,
}

/// How the writing task ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// It sends a goodbye first.
    Bye(ByeCode),
    /// The connection is lost already; nothing is sent.
    Gone,
}

impl RequestOutbox {
    fn push(&self, message: Message) {
        lock(&self.content).messages.push(message);
        self.wake.notify_one();
    }

    /// Ends the connection after the queued messages. The first end counts.
    pub(crate) fn end(&self, end: ConnectionEnd) {
        lock(&self.content).end.get_or_insert(end);
        self.wake.notify_one();
    }

    /// Waits until there are messages, or the end.
    pub(crate) async fn take(&self) -> (Vec<Message>, Option<ConnectionEnd>) {
        loop {
            {
                let mut content = lock(&self.content);
                if !content.messages.is_empty() || content.end.is_some() {
                    return (std::mem::take(&mut content.messages), content.end);
                }
            }
            self.wake.notified().await;
        }
    }
}
