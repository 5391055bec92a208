//! A long link between two nodes, in user space: bytes leave after a delay, and no faster than the link's rate, which all
//! connections through it share.
//!
//! ```text
//!   caller ◄──► accept ──► reader ─► (due time, bytes) ─► writer ──► callee      one pair of threads each direction
//! ```
//!
//! Invariants: a reader always reads, so that the sender's window limits the bytes in flight and no buffer of the relay does;
//! bytes of one connection stay in order; every thread ends with its connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::rig::PATIENCE;
use crate::rig::clock::Timer;

/// Bytes of one read: half a millisecond at 1 Gbit/s.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that a connection passes before the gate applies: greetings and a small bit field.
const OPENING_BYTES: u64 = 4 * 1024;

/// Properties of the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkProfile {
    /// In one direction.
    pub(crate) delay: Duration,
    /// Bytes a second, in each direction.
    pub(crate) rate: u64,
    /// The caller gets only the opening bytes until this many bytes are in flight to it.
    pub(crate) gate_bytes: u64,
}

impl LinkProfile {
    /// Bandwidth-delay product: bytes in flight when the link is full.
    pub(crate) fn product_bytes(&self) -> u64 {
        self.rate * u64::try_from((2 * self.delay).as_micros()).unwrap() / 1_000_000
    }
}

/// A relay, listening.
pub(crate) struct Relay {
    /// Address to connect to.
    pub(crate) address: SocketAddr,
    listener: Arc<TcpListener>,
    back: Arc<LinkDirection>,
}

/// One direction of the link.
struct LinkDirection {
    profile: LinkProfile,
    timer: Timer,
    state: Mutex<DirectionState>,
    more: Condvar,
}

#[derive(Default)]
struct DirectionState {
    /// When the link has taken the last byte that came in.
    free_at: Duration,
    in_flight: u64,
    peak: u64,
    open: bool,
}

impl Relay {
    /// Starts a relay in front of `callee`.
    pub(crate) fn start(callee: SocketAddr, profile: LinkProfile) -> Relay {
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let direction = |gate_bytes| {
            let state = Mutex::new(DirectionState { open: gate_bytes == 0, ..DirectionState::default() });
            Arc::new(LinkDirection { profile, timer: Timer::start(), state, more: Condvar::new() })
        };
        let (there, back) = (direction(0), direction(profile.gate_bytes));
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

    /// Most bytes that were in flight to the callers at one time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.back.state.lock().unwrap().peak
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ends the accept that blocks.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both);
    }
}

/// Bytes, and when they arrive.
type Due = (Duration, Vec<u8>);

/// Carries the bytes from `from` to `to` until either side ends.
fn carry(from: &TcpStream, to: &TcpStream, direction: &Arc<LinkDirection>) {
    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    to.set_nodelay(true).unwrap();
    let (send, due) = channel();
    let (reading, writing) = (Arc::clone(direction), Arc::clone(direction));
    std::thread::spawn(move || {
        let _ = reading.read(&from, &send);
    });
    std::thread::spawn(move || {
        let _ = writing.write(&due, &to);
        // Ends both sides; bytes in flight in the other direction are lost.
        let _ = to.shutdown(Shutdown::Both);
        writing.drop_rest(&due);
    });
}

impl LinkDirection {
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

    /// Counts bytes that come in; returns when they arrive.
    fn enters(&self, bytes: u64) -> Duration {
        let now = self.timer.now();
        let mut state = self.state.lock().unwrap();
        state.free_at = state.free_at.max(now) + Duration::from_micros(bytes * 1_000_000 / self.profile.rate);
        state.in_flight += bytes;
        state.peak = state.peak.max(state.in_flight);
        if !state.open && state.in_flight >= self.profile.gate_bytes {
            state.open = true;
            self.more.notify_all();
        }
        state.free_at + self.profile.delay
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
        self.state.lock().unwrap().in_flight -= bytes as u64;
    }

    fn drop_rest(&self, due: &Receiver<Due>) {
        due.iter().for_each(|(_, bytes)| self.leaves(bytes.len()));
    }
}
