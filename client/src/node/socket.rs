//! Front ends at the socket: accepted, greeted, answered, each on a thread of its own.
//!
//! Invariant: at most `FRONTS_MAX` at a time; one that does not read or has gone holds up nobody.

use std::io::BufReader;
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

    /// One more, if there is room.
    fn enter(&self) -> bool {
        let mut counts = lock(&self.counts);
        let room = counts.open < limits::FRONTS_MAX;
        counts.open += usize::from(room);
        room
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
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
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return,
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
        .map_err(|error| no_thread(&error))
}

/// Serves one front end, on a thread of its own.
///
/// # Errors
/// A fault when there are too many, which the front end is told as well.
pub(super) fn serve(mut stream: UnixStream, desk: &Arc<Desk>, fronts: &Arc<Fronts>) -> Result<(), Fault> {
    if !fronts.enter() {
        let fault = Fault::new(Exit::Other, format!("{} commands use this node already", limits::FRONTS_MAX))
            .fix("wait until one of them has ended");
        // Whoever does not hear it sees the connection end.
        let _ = wire::write_line(&mut stream, &Tell::Failed(fault.clone()));
        return Err(fault);
    }
    let (desk, leaving) = (Arc::clone(desk), Arc::clone(fronts));
    let spawned = std::thread::Builder::new().name("front".into()).spawn(move || {
        if let Err(error) = converse(&stream, &desk, &leaving) {
            tracing::debug!("a front end left: {error}");
        }
        leaving.change(|counts| counts.open -= 1);
    });
    spawned.map(drop).map_err(|error| {
        fronts.change(|counts| counts.open -= 1);
        no_thread(&error)
    })
}

fn converse(stream: &UnixStream, desk: &Desk, fronts: &Fronts) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(limits::FRONT_WRITE_MS)))?;
    let mut writer = stream;
    wire::write_line(
        &mut writer,
        &Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid: std::process::id() },
    )?;
    let mut reader = BufReader::new(stream);
    while let Some(ask) = wire::read_line(&mut reader, limits::ASK_MAX_BYTES)? {
        if ask == Ask::Watch {
            return watch(stream, desk);
        }
        let stop = ask == Ask::Stop;
        fronts.change(|counts| counts.busy += 1);
        let answer = desk.answer(ask, &Events::to(stream));
        let told = wire::write_line(&mut writer, &answer.map_or_else(Tell::Failed, Tell::Done));
        fronts.change(|counts| counts.busy -= 1);
        if stop {
            // After the answer, which the end of the process might outrun.
            desk.core.ending.end();
        }
        told?;
    }
    Ok(())
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

fn no_thread(error: &std::io::Error) -> Fault {
    Fault::new(Exit::Other, format!("the system gives no thread: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_limited_and_given_back() {
        let fronts = Fronts::default();
        assert!((0..limits::FRONTS_MAX).all(|_| fronts.enter()));
        assert!(!fronts.enter());
        fronts.change(|counts| counts.open -= 1);
        assert!(fronts.enter());
    }

    #[test]
    fn the_end_is_told_from_silence() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
    }
}
