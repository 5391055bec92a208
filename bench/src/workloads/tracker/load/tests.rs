//! Loads on trackers that answer, stall, and answer late.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::super::connection::PipelinedConnection;
use super::*;

/// Longer than any pause of the machine.
const LONG: Duration = Duration::from_secs(600);

const SHORT: Duration = Duration::from_millis(50);

/// What a fake tracker has received, and whether it answers.
#[derive(Default)]
struct ReceivedRequests {
    requests: BTreeMap<String, u64>,
    answers: bool,
}

/// A tracker that answers every line, or none until it is told to. Its threads end with their connections.
struct FakeTracker {
    address: SocketAddr,
    received: Arc<(Mutex<ReceivedRequests>, Condvar)>,
}

impl FakeTracker {
    fn start(answers: bool) -> FakeTracker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new((
            Mutex::new(ReceivedRequests { answers, ..ReceivedRequests::default() }),
            Condvar::new(),
        ));
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&socket.unwrap(), &shared));
            }
        });
        FakeTracker { address, received }
    }

    fn answer_from_now_on(&self) {
        self.received.0.lock().unwrap().answers = true;
        self.received.1.notify_all();
    }

    fn load(
        &self,
        connections: usize,
        answer_timeout: Duration,
    ) -> RequestLoad<'static, PipelinedConnection> {
        let write: WriteRequest<'static> =
            Box::new(|_, kind, _, text| text.extend(format!("{}\n", kind.name()).bytes()));
        RequestLoad::open(self.address, connections, answer_timeout, write).unwrap()
    }
}

fn serve(socket: &TcpStream, (received, told): &(Mutex<ReceivedRequests>, Condvar)) {
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        let mut received = received.lock().unwrap();
        *received.requests.entry(line).or_default() += 1;
        drop(told.wait_while(received, |received| !received.answers).unwrap());
        // The client may have closed the connection.
        let mut socket = socket;
        let _ = socket.write_all(b"{\"status\":\"success\"}\n");
    }
}

fn counted(outcome: &LoadOutcome) -> u64 {
    outcome.latencies.iter().map(Histogram::len).sum()
}

#[test]
fn counts_match_what_the_tracker_received() {
    let fake = FakeTracker::start(true);
    let mut load = fake.load(3, LONG);
    let mix: RequestMix = "ping=3,get_peers=2,upload_file=1".parse().unwrap();
    let outcome = load.run(&mix, LoadPace::Rate(500.0), 0.1).unwrap();
    assert_eq!((outcome.due, outcome.answered, outcome.refused, outcome.unanswered), (50, 50, 0, 0));
    let received = fake.received.0.lock().unwrap().requests.clone();
    for kind in RequestKind::ALL {
        let found = outcome.latencies[kind as usize].len();
        assert_eq!(received.get(kind.name()).copied().unwrap_or(0), found, "{}", kind.name());
    }
    let before: u64 = received.values().sum();
    let outcome = load.run(&RequestMix::only(RequestKind::Ping), LoadPace::Depth(4), 0.05).unwrap();
    let received: u64 = fake.received.0.lock().unwrap().requests.values().sum();
    assert_eq!((outcome.due, outcome.answered), (received - before, received - before));
    assert_eq!(counted(&outcome), outcome.due);
}

#[test]
fn unanswered_requests_count_with_their_age() {
    let fake = FakeTracker::start(false);
    let mut load = fake.load(2, SHORT);
    let outcome = load.run(&RequestMix::only(RequestKind::Ping), LoadPace::Rate(1_000.0), 0.02).unwrap();
    assert_eq!((outcome.due, outcome.answered, outcome.unanswered), (20, 0, 20));
    let pings = &outcome.latencies[RequestKind::Ping as usize];
    assert_eq!(pings.len(), 20);
    // Each request was due before the end, so its age exceeds the timeout. Histograms keep three digits.
    assert!(pings.min() >= span_ns(SHORT) / 1_000 * 999, "{}", pings.min());
    let outcome = load.run(&RequestMix::only(RequestKind::Ping), LoadPace::Depth(4), 0.02).unwrap();
    assert_eq!((outcome.due, outcome.answered, outcome.unanswered), (8, 0, 8));
    assert_eq!(counted(&outcome), 8);
}

#[test]
fn a_blocked_connection_does_not_prolong_the_run() {
    let fake = FakeTracker::start(false);
    let mut load = fake.load(1, SHORT);
    let due = 10 * IN_FLIGHT_MAX as u64;
    let outcome =
        load.run(&RequestMix::only(RequestKind::Ping), LoadPace::Rate(due as f64 * 20.0), 0.05).unwrap();
    assert_eq!((outcome.due, outcome.answered, outcome.unanswered), (due, 0, due));
    assert_eq!(counted(&outcome), due);
}

#[test]
fn late_answers_do_not_count_in_the_next_run() {
    let fake = FakeTracker::start(false);
    let mut load = fake.load(2, SHORT);
    let stalled = load.run(&RequestMix::only(RequestKind::Ping), LoadPace::Rate(1_000.0), 0.01).unwrap();
    assert_eq!(stalled.unanswered, 10);
    fake.answer_from_now_on();
    load.answer_timeout = LONG;
    let outcome = load.run(&RequestMix::only(RequestKind::GetPeers), LoadPace::Rate(1_000.0), 0.01).unwrap();
    assert_eq!((outcome.due, outcome.answered, outcome.unanswered), (10, 10, 0));
    assert_eq!(outcome.latencies[RequestKind::GetPeers as usize].len(), 10);
}

#[test]
fn requests_that_are_due_at_once_are_all_sent() {
    let fake = FakeTracker::start(true);
    let mut load = fake.load(2, LONG);
    // In the second run both connections are established, so nothing but the pass itself sends.
    for due in [2, 3] {
        let pace = LoadPace::Rate(1_000_000_000.0);
        let outcome = load.run(&RequestMix::only(RequestKind::Ping), pace, due as f64 / 1e9).unwrap();
        assert_eq!((outcome.due, outcome.answered, outcome.unanswered), (due, due, 0));
    }
}
