//! The loop: waits for the kernel, the timers, the workers and the signals, and gives every connection its turn.
//!
//! Invariant: readiness is announced once (edge-triggered), so whatever stops early stays in `ready` or `starved`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::replica::Replica;

use super::admission::MemoryBudgets;
use super::bodies;
use super::clock::{ClockReading, ServerClock};
use super::connection::ClientConnection;
use super::dispatch::{Caller, Service};
use super::keys::DerivedKeys;
use super::limits::{
    ACCEPT_RETRY_MS, BODIES_WAITING, BODY_THREADS, CONNECTIONS_MAX, EVENTS, PASSWORD_THREADS,
    PASSWORDS_WAITING, READ_BYTES, SWEEP_MS,
};
use super::passwords;
use super::replicated_state::ReplicatedState;
use super::slots::{ConnectionToken, SlotMap};
use super::timers::TimerQueue;
use super::workers::WorkerPool;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LoopTimer {
    /// An answer that was delayed.
    DelayedAnswer(ConnectionToken),
    /// A look at whether a connection still waits for its client.
    StallCheck(ConnectionToken),
    /// The end of draining.
    DrainEnd(ConnectionToken),
    /// Another try to accept.
    AcceptRetry,
    /// Forgetting what is long past.
    Sweep,
}

/// A tracker that serves.
pub struct Server {
    pub(super) poll: Poll,
    pub(super) connections: SlotMap<ClientConnection>,
    /// Connections with something to do at once.
    pub(super) ready: BTreeSet<ConnectionToken>,
    /// Passwords handed over and not done, with the places that they came from.
    pub(super) hashing: BTreeMap<ConnectionToken, IpAddr>,
    /// Members whose large request waits until others' are done.
    pub(super) starved: BTreeSet<ConnectionToken>,
    /// The one of them that is read all the same, so that there is always one that ends.
    pub(super) fed: Option<ConnectionToken>,
    /// Half requests of strangers, the oldest first.
    pub(super) halves: BTreeSet<(u64, ConnectionToken)>,
    /// Requests that wait for room among the answers, in the order in which they came.
    pub(super) parked: VecDeque<ConnectionToken>,
    /// Lists to be built, one page each time round.
    pub(super) lists: VecDeque<ConnectionToken>,
    /// Whether an answer or a list waits for room that others' answers take.
    pub(super) wants_room: bool,
    /// Large bodies that wait for a place among those handed over.
    pub(super) queued: VecDeque<ConnectionToken>,
    pub(super) timers: TimerQueue<LoopTimer>,
    pub(super) service: Service,
    pub(super) passwords: WorkerPool<passwords::PasswordJob, passwords::PasswordResult>,
    pub(super) bodies: WorkerPool<bodies::BodyJob, bodies::BodyResult>,
    /// What all connections hold.
    pub(super) budgets: MemoryBudgets,
    /// Where every read lands first.
    pub(super) scratch: Vec<u8>,
    /// A buffer for answers, lent to one connection after the other; never more than one.
    pub(super) spare: Vec<u8>,
    listener: TcpListener,
    signals: Signals,
    clock: ServerClock,
    quit: Arc<AtomicBool>,
}

impl Server {
    /// A server over a listening socket, the replica of its state, and the root of its cluster's keys.
    ///
    /// # Errors
    /// What the system said when it refused a descriptor or a thread, or when the state could not be read.
    pub fn new(mut listener: TcpListener, replica: Replica, root: &[u8; 32]) -> io::Result<Server> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let passwords = WorkerPool::start(
            "password",
            PASSWORD_THREADS,
            PASSWORDS_WAITING,
            &waker,
            passwords::run_password_job,
        )?;
        let bodies = WorkerPool::start("body", BODY_THREADS, BODIES_WAITING, &waker, bodies::run_body_job)?;
        let quit = Arc::new(AtomicBool::new(false));
        watch_terminal(&quit, &waker)?;
        let clock = ServerClock::new();
        let now = clock.now();
        let proposals =
            ReplicatedState::new(replica, Arc::clone(&waker), now.ms).map_err(io::Error::other)?;
        let service = Service::new(DerivedKeys::derive(root), listener.local_addr()?, proposals);
        let mut timers = TimerQueue::new();
        timers.set(LoopTimer::Sweep, now.ms + SWEEP_MS);
        Ok(Server {
            poll,
            connections: SlotMap::new(),
            ready: BTreeSet::new(),
            hashing: BTreeMap::new(),
            starved: BTreeSet::new(),
            fed: None,
            halves: BTreeSet::new(),
            parked: VecDeque::new(),
            lists: VecDeque::new(),
            wants_room: false,
            queued: VecDeque::new(),
            timers,
            service,
            passwords,
            bodies,
            budgets: MemoryBudgets::default(),
            scratch: vec![0; READ_BYTES],
            spare: Vec::new(),
            listener,
            signals,
            clock,
            quit,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until a signal or the terminal ends it.
    ///
    /// # Errors
    /// What the system said when it could no longer be waited for.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let wait = self.wait(self.clock.now());
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = self.clock.now();
            let mut ending = self.quit.load(Ordering::Acquire);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    WAKER => {}
                    SIGNALS => ending |= self.signals.pending().next().is_some(),
                    _ => self.note(event),
                }
            }
            if ending {
                tracing::info!("ending");
                return Ok(());
            }
            self.take_results(now);
            self.fire(now);
            for token in std::mem::take(&mut self.ready) {
                self.turn(token, now);
            }
            self.feed(now);
            self.wants_room = false;
            self.begin_parked(now);
            self.build_lists(now);
        }
    }

    /// How long the kernel may be waited for.
    fn wait(&self, now: ClockReading) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.next_ms().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now.ms)))
    }

    fn note(&mut self, event: &Event) {
        let Some(token) = ConnectionToken::from_event(event.token()) else { return };
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.ready.insert(token);
    }

    fn fire(&mut self, now: ClockReading) {
        while let Some(timer) = self.timers.pop(now.ms) {
            match timer {
                LoopTimer::DelayedAnswer(token) => self.delay_ended(token, now),
                LoopTimer::StallCheck(token) => self.check_stall(token, now),
                LoopTimer::DrainEnd(token) => self.close(token, now),
                LoopTimer::AcceptRetry => self.accept(now),
                LoopTimer::Sweep => {
                    self.service.sweep(now);
                    self.timers.set(LoopTimer::Sweep, now.ms + SWEEP_MS);
                }
            }
        }
    }

    /// Accepts all that wait. Where the system has no room, it is tried again by timer, for nothing announces that
    /// there is room again.
    fn accept(&mut self, now: ClockReading) {
        while self.connections.len() < CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((socket, peer)) => self.admit(socket, peer, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        tracing::warn!(%error, "cannot accept connections for the moment");
                        break;
                    }
                },
            }
        }
        self.timers.set(LoopTimer::AcceptRetry, now.ms + ACCEPT_RETRY_MS);
    }

    fn admit(&mut self, socket: mio::net::TcpStream, peer: SocketAddr, now: ClockReading) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone at once");
            return;
        }
        let make = |token| ClientConnection::new(socket, Caller::new(token, peer.ip()), now.ms);
        let token = self.connections.insert(make);
        let Some(connection) = self.connections.get_mut(token) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll.registry().register(&mut connection.socket, token.event_token(), interest)
        {
            tracing::warn!(%error, "a connection could not be watched");
            self.connections.remove(token);
            return;
        }
        self.ready.insert(token);
    }
}

/// Ends the server when somebody types `quit` at the terminal that it was started from.
fn watch_terminal(quit: &Arc<AtomicBool>, waker: &Arc<Waker>) -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let (quit, waker) = (Arc::clone(quit), Arc::clone(waker));
    let watch = move || {
        let typed = io::stdin().lines().map_while(Result::ok).any(|line| line.trim() == "quit");
        if typed {
            quit.store(true, Ordering::Release);
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the loop cannot be woken");
            }
        }
    };
    thread::Builder::new().name("terminal".to_owned()).spawn(watch).map(drop)
}
