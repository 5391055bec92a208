//! Messages on their way to the task that writes a connection: whoever decides may be on another thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::proto::frame::{ByeCode, Message};

/// The outgoing messages of one connection that fetches.
///
/// Its length is bounded by the window: a message asks for pieces or cancels them, or is one of few tickets.
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

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// With a goodbye.
    Bye(ByeCode),
    /// It is over already.
    Gone,
}

impl RequestOutbox {
    /// Adds a message.
    pub(crate) fn push(&self, message: Message) {
        self.lock().messages.push(message);
        self.wake.notify_one();
    }

    /// Ends the connection after what is in the box; the first end counts.
    pub(crate) fn end(&self, end: ConnectionEnd) {
        self.lock().end.get_or_insert(end);
        self.wake.notify_one();
    }

    /// Waits until there is something to send, or the end.
    pub(crate) async fn take(&self) -> (Vec<Message>, Option<ConnectionEnd>) {
        loop {
            {
                let mut content = self.lock();
                if !content.messages.is_empty() || content.end.is_some() {
                    return (std::mem::take(&mut content.messages), content.end);
                }
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, OutboxContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
