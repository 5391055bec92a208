//! What a front end is told besides answers: the events of its own request, and notices that concern every
//! user of the node.
//!
//! Always true: a front end that does not read delays nothing. Progress comes at most every
//! `PROGRESS_EVERY_MS`; after a failed write nothing more is written; notices that a watcher does not take
//! are dropped.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use engine::lock::lock;

use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::json_lines;
use crate::ipc::protocol::{NodeEvent, NodeMessage};
use crate::limits;
use crate::printable::make_printable;

/// Events to one front end, while its request is handled. Shared by the threads that work on the request.
pub(crate) struct EventStream<'a> {
    sink: Mutex<EventSink<'a>>,
}

struct EventSink<'a> {
    stream: &'a UnixStream,
    last_progress: Option<Instant>,
    is_gone: bool,
}

impl<'a> EventStream<'a> {
    /// Events to the front end at the other end of `stream`.
    pub(crate) fn new(stream: &'a UnixStream) -> EventStream<'a> {
        EventStream { sink: Mutex::new(EventSink { stream, last_progress: None, is_gone: false }) }
    }

    /// Sends an event.
    ///
    /// # Errors
    /// The front end is gone. Work for it alone may stop.
    pub(crate) fn send(&self, event: NodeEvent) -> Result<(), ClientFault> {
        lock(&self.sink).write(event)
    }

    /// Sends progress, unless some was sent just now.
    ///
    /// # Errors
    /// As [`EventStream::send`].
    pub(crate) fn send_progress(&self, event: impl FnOnce() -> NodeEvent) -> Result<(), ClientFault> {
        let mut sink = lock(&self.sink);
        let now = clock::now();
        let every = Duration::from_millis(limits::PROGRESS_EVERY_MS);
        if sink.last_progress.is_some_and(|last| now.duration_since(last) < every) {
            return if sink.is_gone { Err(front_end_gone_fault()) } else { Ok(()) };
        }
        sink.last_progress = Some(now);
        sink.write(event())
    }
}

impl EventSink<'_> {
    fn write(&mut self, event: NodeEvent) -> Result<(), ClientFault> {
        if !self.is_gone {
            self.is_gone = json_lines::write_line(&mut self.stream, &NodeMessage::Event(event)).is_err();
        }
        if self.is_gone { Err(front_end_gone_fault()) } else { Ok(()) }
    }
}

fn front_end_gone_fault() -> ClientFault {
    ClientFault::new(ExitCause::Interrupted, "the command that asked for this has ended")
}

/// Notices to all front ends that watch.
#[derive(Debug, Default)]
pub(crate) struct NoticeBoard {
    watchers: Mutex<Vec<SyncSender<String>>>,
}

impl NoticeBoard {
    /// Sends a notice to all watchers and to the log. Parts of it may come from peers and trackers, so all of
    /// it is made safe for a terminal.
    pub(crate) fn post(&self, text: &str) {
        let text = make_printable(text);
        tracing::info!("{text}");
        lock(&self.watchers)
            .retain(|watcher| !matches!(watcher.try_send(text.clone()), Err(TrySendError::Disconnected(_))));
    }

    /// All notices from now on.
    pub(crate) fn subscribe(&self) -> Receiver<String> {
        let (sender, receiver) = sync_channel(limits::NOTICES_QUEUED);
        lock(&self.watchers).push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> NodeEvent {
        NodeEvent::Notice { text: "n".into() }
    }

    #[test]
    fn progress_is_thinned_and_a_lost_front_end_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let events = EventStream::new(&ours);
        let mut made = 0;
        for _ in 0..100 {
            events
                .send_progress(|| {
                    made += 1;
                    notice()
                })
                .unwrap();
        }
        assert!(made < 100, "all of 100 events at once were sent");
        drop(theirs);
        assert_eq!(events.send(notice()).unwrap_err().exit, ExitCause::Interrupted);
        assert!(events.send_progress(notice).is_err());
    }

    #[test]
    fn a_watcher_that_does_not_read_loses_notices_and_delays_nothing() {
        let notices = NoticeBoard::default();
        let slow = notices.subscribe();
        let gone = notices.subscribe();
        drop(gone);
        for n in 0..=limits::NOTICES_QUEUED {
            notices.post(&n.to_string());
        }
        assert_eq!(slow.try_iter().count(), limits::NOTICES_QUEUED);
        notices.post("again");
        assert_eq!(slow.try_recv().as_deref(), Ok("again"));
        assert_eq!(lock(&notices.watchers).len(), 1);
    }
}
