//! The yardstick: opentracker, under announces by HTTP.
//!
//! It keeps no accounts, proves no membership, signs no tickets and writes nothing to a disk, and each announce comes over a
//! connection of its own, as BitTorrent clients make them. The numbers say what a tracker that does only that is worth here.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::limits::PATIENCE_MS;
use super::place::apart;
use crate::clock;
use crate::results::latency;
use crate::results::sink::Sink;
use crate::topology::spawned::Spawned;
use crate::topology::usage;

/// The program.
const PROGRAM: &str = "opentracker";

/// The workload's name in records.
const WORKLOAD: &str = "maximum announce";

/// Peers that announce.
const PEERS: u64 = 1_000;

/// Runs announces one after the other for `seconds`.
pub(crate) fn run(sink: &mut Sink, seconds: f64) -> anyhow::Result<()> {
    match measure(sink, seconds) {
        Ok(()) => Ok(()),
        Err(fault) if is_missing(&fault) => sink.skipped(
            [WORKLOAD, PROGRAM],
            "opentracker is not installed: `apt install opentracker`, or scripts/bench-rivals.sh",
        ),
        Err(fault) => sink.failed([WORKLOAD, PROGRAM], &format!("{fault:#}")),
    }
}

fn is_missing(fault: &anyhow::Error) -> bool {
    fault.downcast_ref::<std::io::Error>().is_some_and(|fault| fault.kind() == ErrorKind::NotFound)
}

fn measure(sink: &mut Sink, seconds: f64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // It takes no port 0: the system names a free one, which is its own a moment later.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(PROGRAM);
    command.args(["-i", "127.0.0.1", "-p", &address.port().to_string(), "-d"]).arg(folder.path());
    command.current_dir(folder.path());
    let (tracker, _) = apart(|| Spawned::start(PROGRAM, &command, folder.path()))?;
    let up = clock::within(Duration::from_millis(PATIENCE_MS), || TcpStream::connect(address).is_ok());
    if !up {
        bail!("opentracker does not listen{}", tracker.last_words());
    }
    let before = usage::cpu_of(tracker.pid()).map_or(0.0, |cpu| cpu.0);
    let mut histogram = latency::histogram();
    let began = clock::now();
    let mut count = 0;
    while (clock::now() - began).as_secs_f64() < seconds {
        let (took, answer) = clock::timed(|| announce(address, count % PEERS));
        answer?;
        histogram.saturating_record(u64::try_from(took.as_nanos())?);
        count += 1;
    }
    let lasted = (clock::now() - began).as_secs_f64();
    let spent = usage::cpu_of(tracker.pid()).map_or(0.0, |cpu| cpu.0) - before;
    sink.sample([WORKLOAD, PROGRAM, "requests"], 0, count as f64 / lasted, "1/s")?;
    sink.sample([WORKLOAD, PROGRAM, "cpu"], 0, spent / count.max(1) as f64 * 1e5, "s/100k")?;
    sink.sample([WORKLOAD, PROGRAM, "cpu busy"], 0, spent / lasted, "CPUs")?;
    sink.latency([WORKLOAD, PROGRAM, "announce"], &histogram)
}

/// One announce over a connection of its own.
fn announce(address: SocketAddr, peer: u64) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(address).context("opentracker does not take connections")?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(PATIENCE_MS)))?;
    let request = format!(
        "GET /announce?info_hash=shoalshoalshoalshoal&peer_id=-SH0001-{peer:012}&port={}&uploaded=0&downloaded=0&left=1&compact=1 HTTP/1.1\r\nHost: bench\r\n\r\n",
        10_000 + peer
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") && !answer.starts_with(b"HTTP/1.0 200") {
        bail!("opentracker refused an announce: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
