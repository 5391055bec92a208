//! Front ends at the socket: accepted, greeted, answered, each on a thread of its own.
//!
//! Invariants: at most `FRONTS_MAX` at a time; one that does not read or has gone holds up nobody; what was counted is
//! given back when its guard is dropped, by a panic too.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use super::desk::Desk;
use super::ending::Ending;
use super::events::Events;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Ask, Event, Tell};
use crate::front::wire;
use crate::limits;
use crate::lock::lock;

/// How many front ends there are, and how many of them wait for an answer.
#[derive(Default)]
pub(super) struct Fronts {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    open: usize,
    busy: usize,
}

impl Fronts {
    /// Waits until nobody waits for an answer, or the node's end.
    pub(super) fn wait_until_idle(&self, ending: &Ending) {
        let mut counts = lock(&self.counts);
        while counts.busy > 0 && !ending.is_over() {
            let heartbeat = Duration::from_millis(limits::PROGRESS_EVERY_MS);
            let waited = self.changed.wait_timeout(counts, heartbeat);
            counts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One more, if there is room, until what is given back is dropped.
    fn enter(self: &Arc<Self>) -> Option<Open> {
        let mut counts = lock(&self.counts);
        if counts.open >= limits::FRONTS_MAX {
            return None;
        }
        counts.open += 1;
        Some(Open { fronts: Arc::clone(self) })
    }

    /// One waits for an answer, until what is given back is dropped.
    fn answering(&self) -> Busy<'_> {
        self.change(|counts| counts.busy += 1);
        Busy { fronts: self }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
    }
}

/// A front end that is counted.
struct Open {
    fronts: Arc<Fronts>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.fronts.change(|counts| counts.open -= 1);
    }
}

/// A front end that waits for an answer.
struct Busy<'a> {
    fronts: &'a Fronts,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.fronts.change(|counts| counts.busy -= 1);
    }
}

/// Accepts front ends until the listener is shut down.
///
/// # Errors
/// A fault when the system gives no thread.
pub(super) fn accept(listener: UnixListener, desk: Arc<Desk>, fronts: Arc<Fronts>) -> Result<(), Fault> {
    let accept = move || {
        while !desk.core.ending.is_over() {
            match listener.accept() {
                Ok((stream, _)) => drop(serve(stream, &desk, &fronts)),
                // Shut down: the node takes nobody any more.
                Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                Err(error) => {
                    tracing::warn!("no front end can connect: {error}");
                    desk.core.ending.wait_for(Duration::from_millis(limits::PROGRESS_EVERY_MS));
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("accept".into())
        .spawn(accept)
        .map(drop)
        .map_err(|error| Fault::no_thread(&error))
}

/// Serves one front end, on a thread of its own.
///
/// # Errors
/// A fault when there are too many, which the front end is told as well.
pub(super) fn serve(mut stream: UnixStream, desk: &Arc<Desk>, fronts: &Arc<Fronts>) -> Result<(), Fault> {
    let Some(open) = fronts.enter() else {
        let fault = Fault::new(Exit::Other, format!("{} commands use this node already", limits::FRONTS_MAX))
            .fix("wait until one of them has ended");
        // Whoever does not hear it sees the connection end.
        let _ = wire::write_line(&mut stream, &Tell::Failed(fault.clone()));
        return Err(fault);
    };
    let desk = Arc::clone(desk);
    let spawned = std::thread::Builder::new().name("front".into()).spawn(move || {
        if let Err(error) = converse(&stream, &desk, &open.fronts) {
            tracing::debug!("a front end left: {error}");
        }
    });
    spawned.map(drop).map_err(|error| Fault::no_thread(&error))
}

fn converse(stream: &UnixStream, desk: &Desk, fronts: &Fronts) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(limits::FRONT_WRITE_MS)))?;
    let mut writer = stream;
    wire::write_line(
        &mut writer,
        &Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid: std::process::id() },
    )?;
    let mut reader = BufReader::new(stream);
    while let Some(ask) = next_ask(&mut reader, &mut writer)? {
        if ask == Ask::Watch {
            return watch(stream, desk);
        }
        let stop = ask == Ask::Stop;
        let busy = fronts.answering();
        let answer = desk.answer(ask, &Events::to(stream));
        let told = wire::write_line(&mut writer, &answer.map_or_else(Tell::Failed, Tell::Done));
        drop(busy);
        if stop {
            // After the answer, which the end of the process might outrun.
            desk.core.ending.end();
        }
        told?;
    }
    Ok(())
}

/// The next question; `None` at the end. Whoever asks what is no question is told so.
fn next_ask(reader: &mut impl BufRead, writer: &mut impl Write) -> std::io::Result<Option<Ask>> {
    wire::read_line(reader, limits::ASK_MAX_BYTES).inspect_err(|error| {
        if error.kind() == ErrorKind::InvalidData {
            let fault = Fault::new(Exit::Protocol, format!("the node does not understand this: {error}"))
                .fix("end the node (`client quit`) and start it again: it is to be of the same version");
            // The connection ends with what went wrong first.
            let _ = wire::write_line(writer, &Tell::Failed(fault));
        }
    })
}

/// Tells notices until either side ends.
fn watch(stream: &UnixStream, desk: &Desk) -> std::io::Result<()> {
    let notices = desk.core.notices.watch();
    let mut writer = stream;
    while !desk.core.ending.is_over() && !has_hung_up(stream) {
        match notices.recv_timeout(Duration::from_millis(limits::HEARTBEAT_MS)) {
            Ok(text) => wire::write_line(&mut writer, &Tell::Event(Event::Notice { text }))?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Whether the other side has closed: a watcher sends nothing, so only the end can be there to read.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut byte = [0_u8];
    matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_limited_and_given_back() {
        let fronts = Arc::<Fronts>::default();
        let mut inside: Vec<Open> = (0..limits::FRONTS_MAX).map(|_| fronts.enter().unwrap()).collect();
        assert!(fronts.enter().is_none());
        inside.pop();
        assert!(fronts.enter().is_some());
    }

    #[test]
    fn a_panic_gives_back_what_was_counted() {
        let fronts = Arc::<Fronts>::default();
        let panicking = Arc::clone(&fronts);
        let ended = std::thread::spawn(move || {
            let _open = panicking.enter().unwrap();
            let _busy = panicking.answering();
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        let counts = *lock(&fronts.counts);
        assert_eq!((counts.open, counts.busy), (0, 0));
    }

    #[test]
    fn the_end_is_told_from_silence() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
    }
}
