//! The load: requests at a fixed rate, or as many as are answered.
//!
//! Under a fixed rate a request is due at its moment whatever became of those before it, and its latency counts from then:
//! a tracker that stops for a second has made a second's worth of requests late, and all of them show (Gil Tene, "How not
//! to measure latency"). Without one, every connection keeps a number of requests under way.

use std::time::Duration;

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::limits::{EVENTS, NAP_MS, PATIENCE_MS, READ_BYTES, SERIES_EVERY_MS, UNDERWAY_MAX};
use super::line::{Answered, Line, Underway};
use super::requests::Account;
use crate::clock;
use crate::mix::{Kind, Mix};
use crate::results::latency;

/// Every run draws the same requests.
const SEED: u64 = 11;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many a second, whatever becomes of them.
    Rate(f64),
    /// As many as are answered, with so many under way on each connection.
    Depth(usize),
}

/// What became of the requests.
pub(crate) struct Outcome {
    /// Requests that were due.
    pub(crate) due: u64,
    /// Answers, by number of kind.
    pub(crate) latencies: Vec<Histogram<u64>>,
    /// Answers that were refusals.
    pub(crate) refused: u64,
    /// Requests without an answer.
    pub(crate) unanswered: u64,
    /// From the first request to the last answer.
    pub(crate) lasted: Duration,
    /// Milliseconds since the start, and answers a second then.
    pub(crate) series: Vec<(f64, f64)>,
}

impl Outcome {
    /// Answers in all.
    pub(crate) fn answered(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }
}

/// The connections that carry the load.
pub(crate) struct Load<'a> {
    poll: Poll,
    lines: Vec<Line>,
    accounts: &'a [Account],
    scratch: Vec<u8>,
    /// Requests so far: some have to be like no other.
    asked: u64,
}

/// A load that is under way.
struct Under {
    outcome: Outcome,
    start_ns: u64,
    end_ns: u64,
    mark_ns: u64,
    marked: u64,
}

fn now_ns() -> u64 {
    u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> Load<'a> {
    /// Over open connections, shared out to the accounts.
    pub(crate) fn new(
        sockets: Vec<std::net::TcpStream>,
        accounts: &'a [Account],
    ) -> anyhow::Result<Load<'a>> {
        let poll = Poll::new()?;
        let mut lines = Vec::new();
        for (at, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut line = Line::new(mio::net::TcpStream::from_std(socket));
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut line.socket, Token(at), interest)?;
            lines.push(line);
        }
        Ok(Load { poll, lines, accounts, scratch: vec![0; READ_BYTES], asked: 0 })
    }

    /// Sends for `seconds`, then waits for what is under way.
    pub(crate) fn run(&mut self, mix: &Mix, pace: Pace, seconds: f64) -> anyhow::Result<Outcome> {
        let mut random = fastrand::Rng::with_seed(SEED);
        let start_ns = now_ns();
        let length_ns = u64::try_from(Duration::from_secs_f64(seconds).as_nanos())?;
        let mut under = Under {
            outcome: Outcome {
                due: 0,
                latencies: Kind::ALL.iter().map(|_| latency::histogram()).collect(),
                refused: 0,
                unanswered: 0,
                lasted: Duration::ZERO,
                series: Vec::new(),
            },
            start_ns,
            end_ns: start_ns + length_ns,
            mark_ns: start_ns,
            marked: 0,
        };
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = now_ns();
            let next_ns = match pace {
                Pace::Rate(rate) => self.send_due(mix, rate, &mut random, &mut under, now)?,
                Pace::Depth(depth) => self.fill_up(mix, depth, &mut random, &mut under, now)?,
            };
            let waiting: usize = self.lines.iter().map(|line| line.underway.len()).sum();
            if next_ns.is_none() && (waiting == 0 || now > under.end_ns + PATIENCE_MS * 1_000_000) {
                under.outcome.unanswered = waiting as u64;
                break;
            }
            self.poll.poll(&mut events, Some(nap(next_ns, now))).or_else(|fault| {
                if fault.kind() == std::io::ErrorKind::Interrupted { Ok(()) } else { Err(fault) }
            })?;
            self.take_answers(&events, &mut under)?;
        }
        under.outcome.lasted = Duration::from_nanos(now_ns() - start_ns);
        Ok(under.outcome)
    }

    /// Sends all requests that are due; gives when the next one is.
    fn send_due(
        &mut self,
        mix: &Mix,
        rate: f64,
        random: &mut fastrand::Rng,
        under: &mut Under,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        let between_ns = 1e9 / rate;
        let mut touched = 0..0;
        loop {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a moment of the run"
            )]
            let due_ns = under.start_ns + (under.outcome.due as f64 * between_ns) as u64;
            let first = usize::try_from(under.outcome.due)? % self.lines.len();
            let full = self.lines[first].underway.len() >= UNDERWAY_MAX;
            if due_ns >= under.end_ns || due_ns > now || full {
                self.flush(touched)?;
                let next_ns = if full { now } else { due_ns };
                return Ok((due_ns < under.end_ns).then_some(next_ns));
            }
            self.ask(first, mix.pick(random), due_ns);
            under.outcome.due += 1;
            if touched.is_empty() {
                touched.start = first;
            }
            touched.end = touched.start + (first + self.lines.len() - touched.start) % self.lines.len() + 1;
        }
    }

    /// Fills every connection up; nothing more is sent when the time is over.
    fn fill_up(
        &mut self,
        mix: &Mix,
        depth: usize,
        random: &mut fastrand::Rng,
        under: &mut Under,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        if now >= under.end_ns {
            return Ok(None);
        }
        for at in 0..self.lines.len() {
            // Half of a batch at a time: one request a packet would measure the packets.
            if self.lines[at].underway.len() > depth / 2 {
                continue;
            }
            while self.lines[at].underway.len() < depth {
                self.ask(at, mix.pick(random), now);
                under.outcome.due += 1;
            }
            self.lines[at].flush()?;
        }
        Ok(Some(under.end_ns))
    }

    fn ask(&mut self, at: usize, kind: Kind, due_ns: u64) {
        let account = &self.accounts[at % self.accounts.len()];
        self.asked += 1;
        account.append(kind, self.asked, &mut self.lines[at].unsent);
        self.lines[at].underway.push_back(Underway { kind, due_ns });
    }

    /// Sends what a run of connections has to send; the run may go around the end of the list.
    fn flush(&mut self, touched: std::ops::Range<usize>) -> anyhow::Result<()> {
        let count = self.lines.len();
        touched.take(count).try_for_each(|at| self.lines[at % count].flush())
    }

    fn take_answers(&mut self, events: &Events, under: &mut Under) -> anyhow::Result<()> {
        for event in events {
            let Some(line) = self.lines.get_mut(event.token().0) else { continue };
            if event.is_writable() {
                line.flush()?;
            }
            if event.is_readable() || event.is_read_closed() {
                let now = now_ns();
                line.receive(&mut self.scratch, |answered| note(under, answered, now))?;
            }
        }
        let now = now_ns();
        if now >= under.mark_ns + SERIES_EVERY_MS * 1_000_000 {
            let answered = under.outcome.answered();
            let rate = (answered - under.marked) as f64 * 1e9 / (now - under.mark_ns) as f64;
            under.outcome.series.push(((now - under.start_ns) as f64 / 1e6, rate));
            (under.mark_ns, under.marked) = (now, answered);
        }
        Ok(())
    }
}

fn note(under: &mut Under, answered: Answered, now: u64) {
    let Answered { request, success } = answered;
    let took_ns = now.saturating_sub(request.due_ns);
    under.outcome.latencies[request.kind as usize].saturating_record(took_ns);
    under.outcome.refused += u64::from(!success);
}

/// How long the kernel may be waited for.
fn nap(next_ns: Option<u64>, now: u64) -> Duration {
    let left_ms = next_ns.map_or(NAP_MS, |next| next.saturating_sub(now) / 1_000_000);
    Duration::from_millis(if left_ms < NAP_MS && next_ns.is_some() {
        0
    } else {
        left_ms.clamp(1, NAP_MS * 50)
    })
}
