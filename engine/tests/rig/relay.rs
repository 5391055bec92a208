//! A long link between two nodes, in user space: what comes in on one side goes out on the other after a delay, and no
//! faster than the link's rate. All connections through it share that rate, as they would share a line.
//!
//! ```text
//!   caller ◄──► accept ──► reader ─► (when it is due, bytes) ─► writer ──► callee      one pair of threads each way
//! ```
//!
//! Invariants: a reader always reads, so that it is the sender's window and no buffer of the relay that limits what is
//! under way; bytes of one connection stay in order; every thread ends with its connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program needs another part of it")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::rig::PATIENCE;
use crate::rig::clock::Timer;

/// Read at once: half a millisecond of a line of 1 Gbit/s.
const READ_BYTES: usize = 64 * 1024;

/// What a connection gets through before the gate is looked at: greetings and a small bit field.
const OPENING_BYTES: u64 = 4 * 1024;

/// What the line is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// One way.
    pub(crate) delay: Duration,
    /// Bytes a second, in each direction.
    pub(crate) rate: u64,
    /// Nothing but openings comes back to the caller before so many bytes are under way to it.
    pub(crate) gate_bytes: u64,
}

impl Line {
    /// What it holds while both ends keep it full, in bytes.
    pub(crate) fn product_bytes(&self) -> u64 {
        self.rate * u64::try_from((2 * self.delay).as_micros()).unwrap() / 1_000_000
    }
}

/// A relay, listening.
pub(crate) struct Relay {
    /// Where to call.
    pub(crate) address: SocketAddr,
    listener: Arc<TcpListener>,
    back: Arc<Way>,
}

/// One direction of the line.
struct Way {
    line: Line,
    timer: Timer,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    /// When the last byte that came in has been put on the line.
    free_at: Duration,
    under_way: u64,
    peak: u64,
    open: bool,
}

impl Relay {
    /// Starts one in front of `callee`.
    pub(crate) fn start(callee: SocketAddr, line: Line) -> Relay {
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let way = |gate_bytes| {
            let state = Mutex::new(State { open: gate_bytes == 0, ..State::default() });
            Arc::new(Way { line, timer: Timer::start(), state, more: Condvar::new() })
        };
        let (there, back) = (way(0), way(line.gate_bytes));
        let relay = Relay { address, listener: Arc::clone(&listener), back: Arc::clone(&back) };
        std::thread::spawn(move || {
            while let Ok((caller, _)) = listener.accept() {
                if let Ok(callee) = TcpStream::connect(callee) {
                    carry(&caller, &callee, &there);
                    carry(&callee, &caller, &back);
                }
            }
        });
        relay
    }

    /// The most bytes that were under way to the callers at one time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.back.state.lock().unwrap().peak
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ends the accept that is under way.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both);
    }
}

/// Bytes, and when they are through.
type Due = (Duration, Vec<u8>);

/// Carries what `from` sends to `to`, until it ends or either is gone.
fn carry(from: &TcpStream, to: &TcpStream, way: &Arc<Way>) {
    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    to.set_nodelay(true).unwrap();
    let (send, due) = channel();
    let (reading, writing) = (Arc::clone(way), Arc::clone(way));
    std::thread::spawn(move || {
        let _ = reading.read(&from, &send);
    });
    std::thread::spawn(move || {
        let _ = writing.write(&due, &to);
        // Whatever ended it, both ends hear of it; what is under way the other way is lost with it.
        let _ = to.shutdown(Shutdown::Both);
        writing.drop_rest(&due);
    });
}

impl Way {
    fn read(&self, mut from: &TcpStream, send: &Sender<Due>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let due = self.enters(count as u64);
            if send.send((due, buffer[..count].to_vec())).is_err() {
                return Ok(());
            }
        }
    }

    /// Counts bytes that come in; when they are through.
    fn enters(&self, bytes: u64) -> Duration {
        let now = self.timer.now();
        let mut state = self.state.lock().unwrap();
        state.free_at = state.free_at.max(now) + Duration::from_micros(bytes * 1_000_000 / self.line.rate);
        state.under_way += bytes;
        state.peak = state.peak.max(state.under_way);
        if !state.open && state.under_way >= self.line.gate_bytes {
            state.open = true;
            self.more.notify_all();
        }
        state.free_at + self.line.delay
    }

    fn write(&self, due: &Receiver<Due>, mut to: &TcpStream) -> io::Result<()> {
        let mut written = 0;
        for (due, bytes) in due {
            if written > OPENING_BYTES {
                self.pass_gate()?;
            }
            self.timer.wait_until(due);
            let sent = to.write_all(&bytes);
            self.leaves(bytes.len());
            sent?;
            written += bytes.len() as u64;
        }
        Ok(())
    }

    fn pass_gate(&self) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let waited = self.more.wait_timeout_while(state, PATIENCE, |state| !state.open).unwrap();
        if waited.1.timed_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn leaves(&self, bytes: usize) {
        self.state.lock().unwrap().under_way -= bytes as u64;
    }

    fn drop_rest(&self, due: &Receiver<Due>) {
        due.iter().for_each(|(_, bytes)| self.leaves(bytes.len()));
    }
}
