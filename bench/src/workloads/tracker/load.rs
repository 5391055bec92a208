//! The load: requests at a fixed rate, or as many as are answered.
//!
//! Under a fixed rate a request is due at its moment whatever became of those before it, and its latency counts from then:
//! a tracker that stops for a second has made a second's worth of requests late, and all of them show (Gil Tene, "How not
//! to measure latency"). Without one, every connection keeps a number of requests under way.
//!
//! Invariants: a run ends at most its patience after the last request was due, whatever the tracker does; every request that
//! was due is in the histograms, one without an answer with its age at the end; what one run leaves unanswered is answered on
//! connections that are gone by the next.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use super::connection::{InFlightRequest, LoadAnswer, LoadConnection};
use crate::clock;
use crate::limits::{EVENTS, IN_FLIGHT_MAX, POLL_MIN_MS, READ_BYTES, SERIES_EVERY_MS};
use crate::mix::{RequestKind, RequestMix};
use crate::results::latency;

/// Every run draws the same requests.
const SEED: u64 = 11;

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LoadPace {
    /// So many a second, whatever becomes of them.
    Rate(f64),
    /// As many as are answered, with so many under way on each connection.
    Depth(usize),
}

/// What became of the requests.
pub(crate) struct LoadOutcome {
    /// Requests that were due.
    pub(crate) due: u64,
    /// From when each was due, by number of kind: until its answer, or until the end of those without one.
    pub(crate) latencies: Vec<Histogram<u64>>,
    /// Answers.
    pub(crate) answered: u64,
    /// Of them, refusals.
    pub(crate) refused: u64,
    /// Requests without an answer.
    pub(crate) unanswered: u64,
    /// From the first request to the last answer.
    pub(crate) lasted: Duration,
    /// Milliseconds since the start, and answers a second then.
    pub(crate) series: Vec<(f64, f64)>,
}

/// Writes the text of a request: of which line, of which kind, the how-manieth of the load.
pub(crate) type WriteRequest<'a> = Box<dyn Fn(usize, RequestKind, u64, &mut Vec<u8>) + 'a>;

/// The connections that carry the load.
pub(crate) struct RequestLoad<'a, L> {
    address: SocketAddr,
    poll: Poll,
    connections: Vec<L>,
    write: WriteRequest<'a>,
    answer_timeout: Duration,
    scratch: Vec<u8>,
    text: Vec<u8>,
    /// Requests so far: some have to be like no other.
    asked: u64,
}

/// A load that is under way.
struct RunningLoad {
    outcome: LoadOutcome,
    /// Requests that lines have taken.
    asked: u64,
    start_ns: u64,
    end_ns: u64,
    answer_ns: u64,
    mark_ns: u64,
    marked: u64,
}

fn now_ns() -> u64 {
    u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX)
}

fn span_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a, L: LoadConnection> RequestLoad<'a, L> {
    /// Over so many connections; a request without an answer for `patience` after the last one was due is given up.
    pub(crate) fn open(
        address: SocketAddr,
        lines: usize,
        patience: Duration,
        write: WriteRequest<'a>,
    ) -> anyhow::Result<RequestLoad<'a, L>> {
        let poll = Poll::new()?;
        let lines = (0..lines)
            .map(|at| L::open(address, poll.registry(), Token(at)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (scratch, text) = (vec![0; READ_BYTES], Vec::new());
        Ok(RequestLoad {
            address,
            poll,
            connections: lines,
            write,
            answer_timeout: patience,
            scratch,
            text,
            asked: 0,
        })
    }

    /// Sends for `seconds`, then waits for what is under way.
    pub(crate) fn run(
        &mut self,
        mix: &RequestMix,
        pace: LoadPace,
        seconds: f64,
    ) -> anyhow::Result<LoadOutcome> {
        self.reconnect_pending()?;
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut under = RunningLoad::new(now_ns(), span_ns(Duration::from_secs_f64(seconds)));
        let last_ns = under.end_ns + span_ns(self.answer_timeout);
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = now_ns();
            if now >= last_ns {
                break;
            }
            let next_ns = match pace {
                LoadPace::Rate(rate) => self.send_due(mix, rate, &mut random, &mut under, now)?,
                LoadPace::Depth(depth) => self.fill_connections(mix, depth, &mut random, &mut under, now)?,
            };
            if next_ns.is_none() && under.asked == under.outcome.answered {
                break;
            }
            self.poll.poll(&mut events, Some(poll_timeout(next_ns, now))).or_else(|fault| {
                if fault.kind() == std::io::ErrorKind::Interrupted { Ok(()) } else { Err(fault) }
            })?;
            self.take_answers(&events, &mut under)?;
        }
        let now = now_ns();
        for request in self.connections.iter().flat_map(LoadConnection::in_flight) {
            under.record_unanswered(*request, now);
        }
        if let LoadPace::Rate(rate) = pace {
            while let Some(due_ns) = under.due_ns(rate) {
                // Due, and never sent: nothing that could carry it had room.
                under.asked += 1;
                under.record_unanswered(InFlightRequest { kind: mix.draw_kind(&mut random), due_ns }, now);
            }
        }
        under.outcome.due = under.asked;
        under.outcome.lasted = Duration::from_nanos(under.answer_ns - under.start_ns);
        Ok(under.outcome)
    }

    /// Makes those connections anew that still wait for answers: they will come, and are none of the next run's.
    fn reconnect_pending(&mut self) -> anyhow::Result<()> {
        for (at, line) in self.connections.iter_mut().enumerate() {
            if !line.in_flight().is_empty() {
                *line = L::open(self.address, self.poll.registry(), Token(at))?;
            }
        }
        Ok(())
    }

    /// Sends all requests that are due; gives when to go on, or nothing when the last one was sent.
    fn send_due(
        &mut self,
        mix: &RequestMix,
        rate: f64,
        random: &mut fastrand::Rng,
        under: &mut RunningLoad,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        let mut touched = 0..0;
        loop {
            let first = usize::try_from(under.asked)? % self.connections.len();
            let next = under.due_ns(rate);
            let full = self.connections[first].in_flight().len() >= IN_FLIGHT_MAX;
            let Some(due_ns) = next.filter(|due_ns| *due_ns <= now && !full) else {
                self.flush(touched)?;
                // Room comes with an answer, which the kernel tells of.
                return Ok(
                    next.map(|due_ns| due_ns.max(now + if full { POLL_MIN_MS * 1_000_000 } else { 0 }))
                );
            };
            self.ask(first, InFlightRequest { kind: mix.draw_kind(random), due_ns });
            under.asked += 1;
            if touched.is_empty() {
                touched.start = first;
            }
            touched.end =
                touched.start + (first + self.connections.len() - touched.start) % self.connections.len() + 1;
        }
    }

    /// Fills every connection up; nothing more is sent when the time is over.
    fn fill_connections(
        &mut self,
        mix: &RequestMix,
        depth: usize,
        random: &mut fastrand::Rng,
        under: &mut RunningLoad,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        if now >= under.end_ns {
            return Ok(None);
        }
        for at in 0..self.connections.len() {
            // Half of a batch at a time: one request a packet would measure the packets.
            if self.connections[at].in_flight().len() > depth / 2 {
                continue;
            }
            while self.connections[at].in_flight().len() < depth {
                self.ask(at, InFlightRequest { kind: mix.draw_kind(random), due_ns: now });
                under.asked += 1;
            }
            self.connections[at].flush()?;
        }
        Ok(Some(under.end_ns))
    }

    fn ask(&mut self, at: usize, request: InFlightRequest) {
        self.asked += 1;
        self.text.clear();
        (self.write)(at, request.kind, self.asked, &mut self.text);
        self.connections[at].queue_request(request, &self.text);
    }

    /// Sends what a run of connections has to send; the run may go around the end of the list.
    fn flush(&mut self, touched: std::ops::Range<usize>) -> anyhow::Result<()> {
        let count = self.connections.len();
        touched.take(count).try_for_each(|at| self.connections[at % count].flush())
    }

    fn take_answers(&mut self, events: &Events, under: &mut RunningLoad) -> anyhow::Result<()> {
        for event in events {
            let Some(line) = self.connections.get_mut(event.token().0) else { continue };
            if event.is_writable() {
                line.flush()?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                // What arrives while the rest is read is no older than it is.
                line.receive(&mut self.scratch, &mut |answered| under.record_answer(answered, now_ns()))?;
            }
        }
        under.add_series_point(now_ns());
        Ok(())
    }
}

impl RunningLoad {
    fn new(start_ns: u64, length_ns: u64) -> RunningLoad {
        let outcome = LoadOutcome {
            due: 0,
            latencies: RequestKind::ALL.iter().map(|_| latency::new_histogram()).collect(),
            answered: 0,
            refused: 0,
            unanswered: 0,
            lasted: Duration::ZERO,
            series: Vec::new(),
        };
        let end_ns = start_ns + length_ns;
        RunningLoad { outcome, asked: 0, start_ns, end_ns, answer_ns: start_ns, mark_ns: start_ns, marked: 0 }
    }

    /// When the next request of a fixed rate is due; nothing after the last.
    fn due_ns(&self, rate: f64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a moment of the run")]
        let due_ns = self.start_ns + (self.asked as f64 * 1e9 / rate) as u64;
        (due_ns < self.end_ns).then_some(due_ns)
    }

    fn record_answer(&mut self, answered: LoadAnswer, now: u64) {
        self.record_latency(answered.request, now);
        self.answer_ns = now;
        self.outcome.answered += 1;
        self.outcome.refused += u64::from(!answered.success);
    }

    fn record_unanswered(&mut self, request: InFlightRequest, now: u64) {
        self.record_latency(request, now);
        self.outcome.unanswered += 1;
    }

    fn record_latency(&mut self, request: InFlightRequest, now: u64) {
        let took_ns = now.saturating_sub(request.due_ns);
        self.outcome.latencies[request.kind as usize].saturating_record(took_ns);
    }

    fn add_series_point(&mut self, now: u64) {
        if now >= self.mark_ns + SERIES_EVERY_MS * 1_000_000 {
            let rate = (self.outcome.answered - self.marked) as f64 * 1e9 / (now - self.mark_ns) as f64;
            self.outcome.series.push(((now - self.start_ns) as f64 / 1e6, rate));
            (self.mark_ns, self.marked) = (now, self.outcome.answered);
        }
    }
}

/// How long the kernel may be waited for.
fn poll_timeout(next_ns: Option<u64>, now: u64) -> Duration {
    let left_ms = next_ns.map_or(POLL_MIN_MS, |next| next.saturating_sub(now) / 1_000_000);
    Duration::from_millis(if left_ms < POLL_MIN_MS && next_ns.is_some() {
        0
    } else {
        left_ms.clamp(1, POLL_MIN_MS * 50)
    })
}

#[cfg(test)]
mod tests;
