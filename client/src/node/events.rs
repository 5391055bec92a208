//! The way of events to one front end, while its question is being answered.
//!
//! Invariant: progress comes at most every `PROGRESS_EVERY_MS`; after the first failed write nothing more is written.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::clock;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Event, Tell};
use crate::front::wire;
use crate::limits;
use crate::lock::lock;

/// A front end that hears events. Shared by the threads that work for it.
pub(crate) struct Events<'a> {
    sink: Mutex<Sink<'a>>,
}

struct Sink<'a> {
    stream: &'a UnixStream,
    last_progress: Option<Instant>,
    gone: bool,
}

impl<'a> Events<'a> {
    /// Events to the front end at the other end of `stream`.
    pub(crate) fn to(stream: &'a UnixStream) -> Events<'a> {
        Events { sink: Mutex::new(Sink { stream, last_progress: None, gone: false }) }
    }

    /// Tells one event.
    ///
    /// # Errors
    /// A fault when the front end is gone: whatever is done for it alone may stop.
    pub(crate) fn tell(&self, event: Event) -> Result<(), Fault> {
        lock(&self.sink).write(event)
    }

    /// Tells progress, unless some was told just now.
    ///
    /// # Errors
    /// As [`Events::tell`].
    pub(crate) fn progress(&self, event: impl FnOnce() -> Event) -> Result<(), Fault> {
        let mut sink = lock(&self.sink);
        let now = clock::now();
        let every = Duration::from_millis(limits::PROGRESS_EVERY_MS);
        if sink.last_progress.is_some_and(|last| now.duration_since(last) < every) {
            return if sink.gone { Err(front_gone()) } else { Ok(()) };
        }
        sink.last_progress = Some(now);
        sink.write(event())
    }
}

impl Sink<'_> {
    fn write(&mut self, event: Event) -> Result<(), Fault> {
        if !self.gone {
            self.gone = wire::write_line(&mut self.stream, &Tell::Event(event)).is_err();
        }
        if self.gone { Err(front_gone()) } else { Ok(()) }
    }
}

fn front_gone() -> Fault {
    Fault::new(Exit::Interrupted, "whoever asked went away")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Event {
        Event::Notice { text: "n".into() }
    }

    #[test]
    fn progress_is_thinned_and_a_lost_front_end_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let events = Events::to(&ours);
        let mut made = 0;
        for _ in 0..100 {
            events
                .progress(|| {
                    made += 1;
                    notice()
                })
                .unwrap();
        }
        assert!(made < 100, "every one of 100 events at once was sent");
        drop(theirs);
        assert_eq!(events.tell(notice()).unwrap_err().exit, Exit::Interrupted);
        assert!(events.progress(notice).is_err());
    }
}
