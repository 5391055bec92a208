//! Accepts front ends at the socket, and serves each on a thread of its own.
//!
//! At most `FRONT_ENDS_MAX` are connected at a time. One that does not read or has gone blocks no other. Guards keep the
//! counts right, after a panic too.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::lock::lock;
use rustix::net::{RecvFlags, recv};

use super::requests::RequestHandler;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::json_lines;
use crate::ipc::protocol::{NodeEvent, NodeMessage, NodeRequest};
use crate::limits;
use crate::node::events::EventStream;
use crate::node::shutdown::Latch;

/// Counts connected front ends and those that wait for an answer.
#[derive(Default)]
pub(crate) struct FrontEnds {
    counts: Mutex<FrontEndCounts>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct FrontEndCounts {
    open: usize,
    busy: usize,
}

impl FrontEnds {
    /// Waits until no front end waits for an answer, or until the node ends.
    pub(crate) fn wait_until_idle(&self, ending: &Latch) {
        let mut counts = lock(&self.counts);
        while counts.busy > 0 && !ending.is_set() {
            let heartbeat = Duration::from_millis(limits::PROGRESS_EVERY_MS);
            let waited = self.changed.wait_timeout(counts, heartbeat);
            counts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Counts a front end until the guard is dropped; `None` if there are too many.
    fn register(self: &Arc<Self>) -> Option<OpenGuard> {
        let mut counts = lock(&self.counts);
        if counts.open >= limits::FRONT_ENDS_MAX {
            return None;
        }
        counts.open += 1;
        Some(OpenGuard { front_ends: Arc::clone(self) })
    }

    /// Counts a pending request until the guard is dropped.
    fn mark_busy(&self) -> BusyGuard<'_> {
        self.change(|counts| counts.busy += 1);
        BusyGuard { front_ends: self }
    }

    fn change(&self, change: impl FnOnce(&mut FrontEndCounts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
    }
}

struct OpenGuard {
    front_ends: Arc<FrontEnds>,
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.front_ends.change(|counts| counts.open -= 1);
    }
}

struct BusyGuard<'a> {
    front_ends: &'a FrontEnds,
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.front_ends.change(|counts| counts.busy -= 1);
    }
}

/// Accepts front ends until the listener is shut down.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn accept_front_ends(
    listener: UnixListener,
    requests: Arc<RequestHandler>,
    front_ends: Arc<FrontEnds>,
) -> Result<(), ClientFault> {
    let accept = move || {
        while !requests.core.shutdown.is_set() {
            match listener.accept() {
                Ok((stream, _)) => drop(serve_front_end(stream, &requests, &front_ends)),
                // The listener was shut down.
                Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                Err(error) => {
                    tracing::warn!("no front end can connect: {error}");
                    requests.core.shutdown.wait_timeout(Duration::from_millis(limits::PROGRESS_EVERY_MS));
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("accept".into())
        .spawn(accept)
        .map(drop)
        .map_err(|error| ClientFault::no_thread(&error))
}

/// Serves one front end on a thread of its own.
///
/// # Errors
/// When there are too many front ends (which the front end is told too), or the system gives no thread.
pub(crate) fn serve_front_end(
    mut stream: UnixStream,
    requests: &Arc<RequestHandler>,
    front_ends: &Arc<FrontEnds>,
) -> Result<(), ClientFault> {
    let Some(open) = front_ends.register() else {
        let fault = ClientFault::new(
            ExitCause::Other,
            format!("{} commands already use this node", limits::FRONT_ENDS_MAX),
        )
        .fix("wait until one of them ends");
        // A front end that misses the message sees the connection close.
        let _ = json_lines::write_line(&mut stream, &NodeMessage::Failed(fault.clone()));
        return Err(fault);
    };
    let requests = Arc::clone(requests);
    let spawned = std::thread::Builder::new().name("front".into()).spawn(move || {
        if let Err(error) = serve_requests(&stream, &requests, &open.front_ends) {
            tracing::debug!("a front end left: {error}");
        }
    });
    spawned.map(drop).map_err(|error| ClientFault::no_thread(&error))
}

fn serve_requests(
    stream: &UnixStream,
    requests: &RequestHandler,
    front_ends: &FrontEnds,
) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(limits::IPC_WRITE_TIMEOUT_MS)))?;
    let mut writer = stream;
    json_lines::write_line(
        &mut writer,
        &NodeMessage::Hello { protocol: limits::IPC_VERSION, pid: std::process::id() },
    )?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, &mut writer)? {
        if request == NodeRequest::Watch {
            return stream_notices(stream, requests);
        }
        let stop = request == NodeRequest::Stop;
        let busy = front_ends.mark_busy();
        let answer = requests.handle(request, &EventStream::new(stream));
        let told =
            json_lines::write_line(&mut writer, &answer.map_or_else(NodeMessage::Failed, NodeMessage::Done));
        drop(busy);
        if stop {
            // Only after the answer, which would be lost if the process ended first.
            requests.core.shutdown.set();
        }
        told?;
    }
    Ok(())
}

/// Reads the next request; `None` at the end. An invalid one is answered with an error.
fn read_request(reader: &mut impl BufRead, writer: &mut impl Write) -> std::io::Result<Option<NodeRequest>> {
    json_lines::read_line(reader, limits::IPC_REQUEST_MAX_BYTES).inspect_err(|error| {
        if error.kind() == ErrorKind::InvalidData {
            let fault = ClientFault::new(
                ExitCause::Protocol,
                format!("the node cannot parse the request: {error}"),
            )
            .fix("restart the node (`client quit`, then `client serve`): both must have the same version");
            // The read error is returned, not a later write error.
            let _ = json_lines::write_line(writer, &NodeMessage::Failed(fault));
        }
    })
}

/// Sends notices until either side ends.
fn stream_notices(stream: &UnixStream, requests: &RequestHandler) -> std::io::Result<()> {
    let notices = requests.core.notices.subscribe();
    let mut writer = stream;
    while !requests.core.shutdown.is_set() && !has_hung_up(stream) {
        match notices.recv_timeout(Duration::from_millis(limits::HEARTBEAT_MS)) {
            Ok(text) => json_lines::write_line(&mut writer, &NodeMessage::Event(NodeEvent::Notice { text }))?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Whether the front end has closed. It sends nothing while it watches, so only the end can be readable.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut byte = [0_u8];
    matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_ends_are_limited_and_released() {
        let front_ends = Arc::<FrontEnds>::default();
        let mut inside: Vec<OpenGuard> =
            (0..limits::FRONT_ENDS_MAX).map(|_| front_ends.register().unwrap()).collect();
        assert!(front_ends.register().is_none());
        inside.pop();
        assert!(front_ends.register().is_some());
    }

    #[test]
    fn a_panic_releases_the_counts() {
        let front_ends = Arc::<FrontEnds>::default();
        let panicking = Arc::clone(&front_ends);
        let ended = std::thread::spawn(move || {
            let _open = panicking.register().unwrap();
            let _busy = panicking.mark_busy();
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        let counts = *lock(&front_ends.counts);
        assert_eq!((counts.open, counts.busy), (0, 0));
    }

    #[test]
    fn a_hang_up_is_distinguished_from_silence() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
    }
}
