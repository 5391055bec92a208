//! The load: requests at a fixed rate, or at the maximum rate.
//!
//! At a fixed rate each request is due at a fixed time, independent of earlier answers, and its latency counts from
//! then. A tracker that pauses for a second delays a second's worth of requests, and all of these delays are recorded
//! (Gil Tene, "How not to measure latency"). At the maximum rate every connection keeps a number of requests in
//! flight.
//!
//! Invariants: a run ends at most its answer timeout after the last request was due. Every due request is in the
//! histograms, an unanswered one with its age at the end. Late answers of one run never count in the next: their
//! connections are replaced.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use super::connection::{InFlightRequest, LoadAnswer, LoadConnection};
use crate::clock;
use crate::limits::{EVENTS, IN_FLIGHT_MAX, POLL_MIN_MS, READ_BYTES, SERIES_EVERY_MS};
use crate::mix::{RequestKind, RequestMix};
use crate::results::latency;

/// Makes every run draw the same requests.
const SEED: u64 = 11;

/// The rate of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LoadPace {
    /// Requests a second, independent of answers.
    Rate(f64),
    /// The maximum rate, with this many requests in flight on each connection.
    Depth(usize),
}

/// The outcome of a load.
pub(crate) struct LoadOutcome {
    pub(crate) due: u64,
    /// Indexed by kind: from when each request was due until its answer, or until the end of the run.
    pub(crate) latencies: Vec<Histogram<u64>>,
    pub(crate) answered: u64,
    /// Refusals among the answers.
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    /// From the first request to the last answer.
    pub(crate) lasted: Duration,
    /// Milliseconds since the start, and answers a second then.
    pub(crate) series: Vec<(f64, f64)>,
}

/// Appends the text of a request, given the index of the connection, the kind, and a number that is unique within the
/// load.
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
    /// Requests so far, as a source of unique numbers.
    issued: u64,
}

/// The state of a running load.
struct RunningLoad {
    outcome: LoadOutcome,
    /// Requests that connections have taken.
    issued: u64,
    start_ns: u64,
    end_ns: u64,
    last_answer_ns: u64,
    series_ns: u64,
    series_answered: u64,
}

fn now_ns() -> u64 {
    u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX)
}

fn span_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a, L: LoadConnection> RequestLoad<'a, L> {
    /// Opens the connections. A request counts as unanswered if its answer does not come within `answer_timeout` of the last
    /// due time.
    pub(crate) fn open(
        address: SocketAddr,
        lines: usize,
        answer_timeout: Duration,
        write: WriteRequest<'a>,
    ) -> anyhow::Result<RequestLoad<'a, L>> {
        let poll = Poll::new()?;
        let lines = (0..lines)
            .map(|at| L::open(address, poll.registry(), Token(at)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (scratch, text) = (vec![0; READ_BYTES], Vec::new());
        Ok(RequestLoad { address, poll, connections: lines, write, answer_timeout, scratch, text, issued: 0 })
    }

    /// Sends for `seconds`, then waits for the remaining answers.
    pub(crate) fn run(
        &mut self,
        mix: &RequestMix,
        pace: LoadPace,
        seconds: f64,
    ) -> anyhow::Result<LoadOutcome> {
        self.reconnect_pending()?;
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut running = RunningLoad::new(now_ns(), span_ns(Duration::from_secs_f64(seconds)));
        let last_ns = running.end_ns + span_ns(self.answer_timeout);
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = now_ns();
            if now >= last_ns {
                break;
            }
            let next_ns = match pace {
                LoadPace::Rate(rate) => self.send_due(mix, rate, &mut random, &mut running, now)?,
                LoadPace::Depth(depth) => {
                    self.fill_connections(mix, depth, &mut random, &mut running, now)?
                }
            };
            if next_ns.is_none() && running.issued == running.outcome.answered {
                break;
            }
            self.poll.poll(&mut events, Some(poll_timeout(next_ns, now))).or_else(|fault| {
                if fault.kind() == std::io::ErrorKind::Interrupted { Ok(()) } else { Err(fault) }
            })?;
            self.take_answers(&events, &mut running)?;
        }
        let now = now_ns();
        for request in self.connections.iter().flat_map(LoadConnection::in_flight) {
            running.record_unanswered(*request, now);
        }
        if let LoadPace::Rate(rate) = pace {
            while let Some(due_ns) = running.due_ns(rate) {
                // This request was due but never sent, since no connection had room.
                running.issued += 1;
                running.record_unanswered(InFlightRequest { kind: mix.draw_kind(&mut random), due_ns }, now);
            }
        }
        running.outcome.due = running.issued;
        running.outcome.lasted = Duration::from_nanos(running.last_answer_ns - running.start_ns);
        Ok(running.outcome)
    }

    /// Replaces connections with unanswered requests: late answers must not count in the next run.
    fn reconnect_pending(&mut self) -> anyhow::Result<()> {
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if !connection.in_flight().is_empty() {
                *connection = L::open(self.address, self.poll.registry(), Token(at))?;
            }
        }
        Ok(())
    }

    /// Sends all requests that are due; gives when the next one is due, or `None` after the last.
    fn send_due(
        &mut self,
        mix: &RequestMix,
        rate: f64,
        random: &mut fastrand::Rng,
        running: &mut RunningLoad,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        let mut queued = 0..0;
        loop {
            let first = usize::try_from(running.issued)? % self.connections.len();
            let next = running.due_ns(rate);
            let full = self.connections[first].in_flight().len() >= IN_FLIGHT_MAX;
            let Some(due_ns) = next.filter(|due_ns| *due_ns <= now && !full) else {
                self.flush(queued)?;
                // An answer makes room, and wakes the loop by an event.
                return Ok(
                    next.map(|due_ns| due_ns.max(now + if full { POLL_MIN_MS * 1_000_000 } else { 0 }))
                );
            };
            self.issue_request(first, InFlightRequest { kind: mix.draw_kind(random), due_ns });
            running.issued += 1;
            if queued.is_empty() {
                queued.start = first;
            }
            // Of many requests in one pass, several go to the same connection.
            let count = self.connections.len();
            queued.end = queued.end.max(queued.start + (first + count - queued.start) % count + 1);
        }
    }

    /// Fills every connection up to the depth; after the end of the run it sends nothing.
    fn fill_connections(
        &mut self,
        mix: &RequestMix,
        depth: usize,
        random: &mut fastrand::Rng,
        running: &mut RunningLoad,
        now: u64,
    ) -> anyhow::Result<Option<u64>> {
        if now >= running.end_ns {
            return Ok(None);
        }
        for at in 0..self.connections.len() {
            // Refills in batches of half the depth: one request per packet would measure packets.
            if self.connections[at].in_flight().len() > depth / 2 {
                continue;
            }
            while self.connections[at].in_flight().len() < depth {
                self.issue_request(at, InFlightRequest { kind: mix.draw_kind(random), due_ns: now });
                running.issued += 1;
            }
            self.connections[at].flush()?;
        }
        Ok(Some(running.end_ns))
    }

    fn issue_request(&mut self, at: usize, request: InFlightRequest) {
        self.issued += 1;
        self.text.clear();
        (self.write)(at, request.kind, self.issued, &mut self.text);
        self.connections[at].queue_request(request, &self.text);
    }

    /// Flushes a range of connections, which may wrap around the end of the list.
    fn flush(&mut self, queued: std::ops::Range<usize>) -> anyhow::Result<()> {
        let count = self.connections.len();
        queued.take(count).try_for_each(|at| self.connections[at % count].flush())
    }

    fn take_answers(&mut self, events: &Events, running: &mut RunningLoad) -> anyhow::Result<()> {
        for event in events {
            let Some(connection) = self.connections.get_mut(event.token().0) else { continue };
            if event.is_writable() {
                connection.flush()?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                // A new time for each answer: later answers of the same read are not counted too early.
                connection
                    .receive(&mut self.scratch, &mut |answered| running.record_answer(answered, now_ns()))?;
            }
        }
        running.add_series_point(now_ns());
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
        RunningLoad {
            outcome,
            issued: 0,
            start_ns,
            end_ns,
            last_answer_ns: start_ns,
            series_ns: start_ns,
            series_answered: 0,
        }
    }

    /// When the next request of a fixed rate is due; `None` after the last.
    fn due_ns(&self, rate: f64) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and far below 2^64 ns"
        )]
        let due_ns = self.start_ns + (self.issued as f64 * 1e9 / rate) as u64;
        (due_ns < self.end_ns).then_some(due_ns)
    }

    fn record_answer(&mut self, answered: LoadAnswer, now: u64) {
        self.record_latency(answered.request, now);
        self.last_answer_ns = now;
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
        if now >= self.series_ns + SERIES_EVERY_MS * 1_000_000 {
            let rate =
                (self.outcome.answered - self.series_answered) as f64 * 1e9 / (now - self.series_ns) as f64;
            self.outcome.series.push(((now - self.start_ns) as f64 / 1e6, rate));
            (self.series_ns, self.series_answered) = (now, self.outcome.answered);
        }
    }
}

/// How long to wait for events. Zero when the next request is due within `POLL_MIN_MS`, since the kernel may wake this
/// thread too late.
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
