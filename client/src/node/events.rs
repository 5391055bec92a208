//! The way of events to one front end, while its question is being answered.
//!
//! Invariant: progress comes at most every `PROGRESS_EVERY_MS`; after the first failed write nothing more is written.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use engine::lock::lock;

use crate::clock;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::json_lines;
use crate::ipc::protocol::{NodeEvent, NodeMessage};
use crate::limits;

/// A front end that hears events. Shared by the threads that work for it.
pub(crate) struct EventStream<'a> {
    sink: Mutex<EventSink<'a>>,
}

struct EventSink<'a> {
    stream: &'a UnixStream,
    last_progress: Option<Instant>,
    gone: bool,
}

impl<'a> EventStream<'a> {
    /// Events to the front end at the other end of `stream`.
    pub(crate) fn new(stream: &'a UnixStream) -> EventStream<'a> {
        EventStream { sink: Mutex::new(EventSink { stream, last_progress: None, gone: false }) }
    }

    /// Tells one event.
    ///
    /// # Errors
    /// A fault when the front end is gone: whatever is done for it alone may stop.
    pub(crate) fn send(&self, event: NodeEvent) -> Result<(), ClientFault> {
        lock(&self.sink).write(event)
    }

    /// Tells progress, unless some was told just now.
    ///
    /// # Errors
    /// As [`EventStream::send`].
    pub(crate) fn send_progress(&self, event: impl FnOnce() -> NodeEvent) -> Result<(), ClientFault> {
        let mut sink = lock(&self.sink);
        let now = clock::now();
        let every = Duration::from_millis(limits::PROGRESS_EVERY_MS);
        if sink.last_progress.is_some_and(|last| now.duration_since(last) < every) {
            return if sink.gone { Err(front_end_gone_fault()) } else { Ok(()) };
        }
        sink.last_progress = Some(now);
        sink.write(event())
    }
}

impl EventSink<'_> {
    fn write(&mut self, event: NodeEvent) -> Result<(), ClientFault> {
        if !self.gone {
            self.gone = json_lines::write_line(&mut self.stream, &NodeMessage::Event(event)).is_err();
        }
        if self.gone { Err(front_end_gone_fault()) } else { Ok(()) }
    }
}

fn front_end_gone_fault() -> ClientFault {
    ClientFault::new(ExitCause::Interrupted, "whoever asked went away")
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
        assert!(made < 100, "every one of 100 events at once was sent");
        drop(theirs);
        assert_eq!(events.send(notice()).unwrap_err().exit, ExitCause::Interrupted);
        assert!(events.send_progress(notice).is_err());
    }
}
