//! What the node has to say without having been asked, to every prompt that watches.
//!
//! Invariant: a watcher that does not read loses notices; it never holds up the node.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use engine::lock::lock;

use crate::limits;
use crate::printable::make_printable;

/// Those who watch.
#[derive(Debug, Default)]
pub(crate) struct NoticeBoard {
    watchers: Mutex<Vec<SyncSender<String>>>,
}

impl NoticeBoard {
    /// Tells everybody who watches, and the log. Peers and trackers had a say in some of it, so all of it is made fit
    /// for a terminal.
    pub(crate) fn post(&self, text: &str) {
        let text = make_printable(text);
        tracing::info!("{text}");
        lock(&self.watchers)
            .retain(|watcher| !matches!(watcher.try_send(text.clone()), Err(TrySendError::Disconnected(_))));
    }

    /// Hears everything from now on.
    pub(crate) fn subscribe(&self) -> Receiver<String> {
        let (sender, receiver) = sync_channel(limits::NOTICES_QUEUED);
        lock(&self.watchers).push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_does_not_read_holds_up_nobody() {
        let notices = NoticeBoard::default();
        let lazy = notices.subscribe();
        let gone = notices.subscribe();
        drop(gone);
        for n in 0..=limits::NOTICES_QUEUED {
            notices.post(&n.to_string());
        }
        assert_eq!(lazy.try_iter().count(), limits::NOTICES_QUEUED);
        notices.post("again");
        assert_eq!(lazy.try_recv().as_deref(), Ok("again"));
        assert_eq!(lock(&notices.watchers).len(), 1);
    }
}
