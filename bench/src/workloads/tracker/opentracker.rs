//! opentracker, a minimal BitTorrent tracker, under the same load by HTTP announces.
//!
//! It has no accounts, checks no membership, signs no tickets and writes nothing to disk. It closes each connection
//! after its answer, so each announce needs a new one. Its figures show what such a tracker reaches on this machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use super::connection::OneShotConnection;
use super::figures::{LoadFigures, LoadSubject};
use super::load::{LoadPace, RequestLoad};
use super::loaded_tracker::RunCpus;
use crate::limits::{ANNOUNCING_PEERS, ANSWER_TIMEOUT_MS, PIPELINE_DEPTH};
use crate::mix::{RequestKind, RequestMix};
use crate::results::sink::RecordSink;
use crate::topology::spawned::{self, SpawnedProgram};
use crate::topology::usage;
use crate::{cli::TrackerArgs, clock};

const PROGRAM: &str = "opentracker";

/// The workload of look-ups alone at the fixed rate: opentracker can only look up peers.
pub(crate) const LOOK_UPS: &str = "fixed rate, look-ups alone";

/// The workload of its maximum rate.
const MAXIMUM: &str = "maximum announce";

const INFO_HASH: &[u8; 20] = b"shoalshoalshoalshoal";

/// An opentracker started for the run, and the load on it.
pub(crate) struct OpentrackerRival {
    tracker: SpawnedProgram,
    load: RequestLoad<'static, OneShotConnection>,
}

impl OpentrackerRival {
    /// Starts it in a folder below `folder`, on the CPU of Shoal's tracker. If it cannot start, the reason is
    /// recorded.
    pub(crate) fn start(
        sink: &mut RecordSink,
        folder: &Path,
        cpus: &RunCpus,
        args: &TrackerArgs,
    ) -> anyhow::Result<Option<OpentrackerRival>> {
        let lines = args.active.min(args.connections) as usize;
        match start_opentracker(folder, cpus, lines) {
            Ok(started) => return Ok(Some(started)),
            Err(fault) if is_missing(&fault) => sink.record_skipped(
                [LOOK_UPS, PROGRAM],
                "opentracker is not installed: `apt install opentracker`, or scripts/bench-rivals.sh",
            )?,
            Err(fault) => sink.record_failed([LOOK_UPS, PROGRAM], &format!("{fault:#}"))?,
        }
        Ok(None)
    }

    /// One round: the fixed rate, then the maximum rate.
    pub(crate) fn run_round(
        &mut self,
        figures: &mut LoadFigures<'_>,
        round: Option<u32>,
        args: &TrackerArgs,
        maximum_s: f64,
    ) -> anyhow::Result<()> {
        let pid = self.tracker.pid();
        let cpu = move || usage::cpu_of(pid).map(|cpu| cpu.0);
        // Announces count as look-ups: they ask for the peers of a file.
        let mix = RequestMix::only(RequestKind::GetPeers);
        let names = |_| "announce";
        let fixed = LoadSubject {
            workload: LOOK_UPS,
            tracker_name: PROGRAM,
            rate_metric: None,
            kind_name: &names,
            cpu_seconds: &cpu,
        };
        let pace = LoadPace::Rate(f64::from(args.rate));
        figures.measure(&fixed, round, || self.load.run(&mix, pace, args.seconds))?;
        if !args.no_maximum {
            let most = LoadSubject { workload: MAXIMUM, rate_metric: Some("requests"), ..fixed };
            let pace = LoadPace::Depth(PIPELINE_DEPTH);
            figures.measure(&most, round, || self.load.run(&mix, pace, maximum_s))?;
        }
        Ok(())
    }
}

fn is_missing(fault: &anyhow::Error) -> bool {
    fault.downcast_ref::<std::io::Error>().is_some_and(|fault| fault.kind() == ErrorKind::NotFound)
}

fn start_opentracker(folder: &Path, cpus: &RunCpus, lines: usize) -> anyhow::Result<OpentrackerRival> {
    let folder = spawned::create_empty_folder(folder.join(PROGRAM))?;
    // Debian's build serves listed torrents only, and refuses others with status 200.
    let hash: String = INFO_HASH.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(folder.join("listed"), format!("{hash}\n"))?;
    // It does not take port 0, so it gets a port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(PROGRAM);
    command.args(["-i", "127.0.0.1", "-p", &address.port().to_string(), "-w", "listed", "-d"]).arg(&folder);
    command.current_dir(&folder);
    let (mut tracker, _) = cpus.start_apart(|| SpawnedProgram::start(PROGRAM, &command, &folder))?;
    let mut ended = false;
    let up = clock::wait_until(Duration::from_millis(ANSWER_TIMEOUT_MS), || {
        ended = tracker.has_ended();
        ended || TcpStream::connect(address).is_ok()
    });
    // If its port was taken, it has exited, and another program answers on that port.
    if ended || !up || tracker.has_ended() {
        bail!("opentracker does not listen{}", tracker.failure_output());
    }
    Ok(OpentrackerRival {
        tracker,
        load: open_load(address, lines, Duration::from_millis(ANSWER_TIMEOUT_MS))?,
    })
}

fn open_load(
    address: SocketAddr,
    lines: usize,
    answer_timeout: Duration,
) -> anyhow::Result<RequestLoad<'static, OneShotConnection>> {
    RequestLoad::open(
        address,
        lines,
        answer_timeout,
        Box::new(|_, _, number, text| write_announce(number, text)),
    )
}

/// Appends the announce of one of the peers.
fn write_announce(number: u64, text: &mut Vec<u8>) {
    let peer = number % ANNOUNCING_PEERS;
    text.extend_from_slice(b"GET /announce?info_hash=");
    text.extend_from_slice(INFO_HASH);
    let rest = format!(
        "&peer_id=-SH0001-{peer:012}&port={}&uploaded=0&downloaded=0&left=1&compact=1 HTTP/1.1\r\nHost: bench\r\n\r\n",
        10_000 + peer
    );
    text.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc;

    use super::*;

    /// An HTTP tracker that gives this answer on each connection, and reports every request.
    fn fake(body: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                socket.write_all(answer.as_bytes()).unwrap();
                if tell.send(String::from_utf8(request).unwrap()).is_err() {
                    return;
                }
            }
        });
        (address, told)
    }

    #[test]
    fn each_announce_opens_a_connection_and_is_counted() {
        let (address, told) = fake("d8:completei0ee");
        let mut load = open_load(address, 4, Duration::from_secs(600)).unwrap();
        let outcome = load.run(&RequestMix::only(RequestKind::GetPeers), LoadPace::Rate(400.0), 0.1).unwrap();
        assert_eq!((outcome.due, outcome.answered, outcome.refused, outcome.unanswered), (40, 40, 0, 0));
        assert_eq!(outcome.latencies[RequestKind::GetPeers as usize].len(), 40);
        let heard: Vec<String> = told.try_iter().collect();
        assert_eq!(heard.len(), 40);
        assert!(heard[0].starts_with("GET /announce?info_hash=shoalshoalshoalshoal&peer_id=-SH0001-0"));
        let outcome = load.run(&RequestMix::only(RequestKind::GetPeers), LoadPace::Depth(2), 0.05).unwrap();
        assert_eq!((outcome.answered, outcome.due), (told.try_iter().count() as u64, outcome.answered));
    }

    #[test]
    fn refused_announces_are_counted_as_refusals() {
        let (address, _told) = fake("d14:failure reason3:no.e");
        let mut load = open_load(address, 2, Duration::from_secs(600)).unwrap();
        let outcome =
            load.run(&RequestMix::only(RequestKind::GetPeers), LoadPace::Rate(200.0), 0.05).unwrap();
        assert_eq!((outcome.answered, outcome.refused), (10, 10));
    }
}
