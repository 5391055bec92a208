//! The loop: waits for the kernel, the timers, the workers and the signals, and hands on what they announce.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::{Resource, getrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::replica::Replica;

use super::clock::{ClockReading, ServerClock, SteadyTime};
use super::connection::ClientConnection;
use super::connections::LoopTimer;
use super::dispatch::{Caller, Service};
use super::keys::DerivedKeys;
use super::limits::{ACCEPT_PAUSE_MS, ACCEPT_RETRY_MS, ACCEPTS_PER_ROUND, EVENTS, SWEEP_MS};
use super::places::PlaceLimits;
use super::replicated_state::ReplicatedState;
use super::requests::RequestPipeline;
use super::slots::ConnectionToken;
use super::turns::TurnScheduler;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);

/// A tracker that serves clients.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    signals: Signals,
    clock: ServerClock,
    time: SteadyTime,
    /// Set when `quit` is typed at the terminal.
    quit: Arc<AtomicBool>,
    turns: TurnScheduler,
}

impl Server {
    /// A server on a listening socket, over the replica of its state. `root` is the secret from which the
    /// cluster's keys are derived, and `per_address` the number of connections that one address may have if not its
    /// share of all.
    ///
    /// # Errors
    /// What the system says when it refuses a descriptor or a thread, or when the state cannot be read.
    pub fn new(
        mut listener: TcpListener,
        replica: Replica,
        root: &[u8; 32],
        per_address: Option<usize>,
    ) -> io::Result<Server> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let quit = Arc::new(AtomicBool::new(false));
        watch_terminal(&quit, &waker)?;
        let clock = ServerClock::new();
        let now = clock.now();
        let state = ReplicatedState::new(replica, Arc::clone(&waker), now.ms).map_err(io::Error::other)?;
        let limits = PlaceLimits::new(getrlimit(Resource::Nofile).current, per_address);
        let service = Service::new(DerivedKeys::derive(root), listener.local_addr()?, state);
        let mut turns = TurnScheduler::new(RequestPipeline::new(service, &waker)?, limits);
        turns.connections.timers.set(LoopTimer::Sweep, now.ms + SWEEP_MS);
        Ok(Server { poll, listener, signals, clock, time: SteadyTime::new(now), quit, turns })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until a signal or the terminal ends it.
    ///
    /// # Errors
    /// What the system says when it can no longer be waited for.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.poll_timeout(self.clock.now());
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = self.time.advance(self.clock.now());
            let mut is_ending = self.quit.load(Ordering::Acquire);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    WAKER => {}
                    SIGNALS => is_ending |= self.signals.pending().next().is_some(),
                    _ => self.note_readiness(event),
                }
            }
            if is_ending {
                tracing::info!("ending");
                return Ok(());
            }
            self.turns.take_results(now);
            self.fire_timers(now);
            self.turns.run_round(now);
        }
    }

    /// How long the poll may wait: not at all while a connection is ready, else until the next timer.
    fn poll_timeout(&self, now: ClockReading) -> Option<Duration> {
        let connections = &self.turns.connections;
        if !connections.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        connections.timers.next_ms().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now.ms)))
    }

    fn note_readiness(&mut self, event: &Event) {
        let Some(token) = ConnectionToken::from_event(event.token()) else { return };
        let Some(connection) = self.turns.connections.get_mut(token) else { return };
        connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.turns.connections.ready.insert(token);
    }

    fn fire_timers(&mut self, now: ClockReading) {
        while let Some(timer) = self.turns.connections.timers.pop(now.ms) {
            match timer {
                LoopTimer::StallCheck(token) => self.turns.check_stall(token, now),
                LoopTimer::DrainEnd(token) => self.turns.close(token, now),
                LoopTimer::AcceptRetry => self.accept(now),
                LoopTimer::Sweep => {
                    self.turns.requests.service.sweep(now);
                    self.turns.connections.timers.set(LoopTimer::Sweep, now.ms + SWEEP_MS);
                }
            }
        }
    }

    /// Accepts connections that wait; the excess ends. No event announces the rest, nor that the system has room again,
    /// so a timer goes on with them.
    fn accept(&mut self, now: ClockReading) {
        let mut pause_ms = ACCEPT_PAUSE_MS;
        for _ in 0..ACCEPTS_PER_ROUND {
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    self.add_connection(socket, peer, now);
                    self.turns.close_excess(now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        tracing::warn!(%error, "cannot accept connections at the moment; trying again");
                        pause_ms = ACCEPT_RETRY_MS;
                        break;
                    }
                },
            }
        }
        self.turns.connections.timers.set(LoopTimer::AcceptRetry, now.ms + pause_ms);
    }

    fn add_connection(&mut self, socket: TcpStream, peer: SocketAddr, now: ClockReading) {
        let connections = &mut self.turns.connections;
        let make = |token| ClientConnection::new(socket, Caller::new(token, peer.ip()), now.ms);
        let token = connections.slots.insert(make);
        let Some(connection) = connections.slots.get_mut(token) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll.registry().register(&mut connection.socket, token.event_token(), interest)
        {
            tracing::warn!(%error, "cannot watch a new connection; it is closed");
            connections.slots.remove(token);
            return;
        }
        connections.places.enter(token, peer.ip(), now.ms);
        connections.ready.insert(token);
    }
}

/// Ends the server when `quit` is typed at the terminal that it was started from.
fn watch_terminal(quit: &Arc<AtomicBool>, waker: &Arc<Waker>) -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let (quit, waker) = (Arc::clone(quit), Arc::clone(waker));
    let watch = move || {
        let has_quit = io::stdin().lines().map_while(Result::ok).any(|line| line.trim() == "quit");
        if has_quit {
            quit.store(true, Ordering::Release);
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "cannot wake the loop");
            }
        }
    };
    thread::Builder::new().name("terminal".to_owned()).spawn(watch).map(drop)
}
