//! `bench tracker`: what one tracker bears.
//!
//! ```text
//!   run ─► place (a tracker of its own, or one that runs)
//!     ├─► requests (accounts, sessions, texts) ─► idle connections: memory
//!     ├─► load: at a fixed rate by the mix ─► latency, CPU
//!     │    └─► line (one connection)  
//!     ├─► load: as many as are answered, each kind alone ─► requests a second, CPU
//!     └─► opentracker: the yardstick
//!   limits: the numbers
//! ```
//!
//! Tracker and load have CPUs of their own where there are two: the tracker one, the load the others.

mod limits;
mod line;
mod load;
mod opentracker;
mod place;
mod requests;

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::TrackerArgs;
use crate::mix::{Kind, Mix};
use crate::report;
use crate::results::sink::Sink;
use crate::topology::load::Load as OtherLoad;
use crate::topology::usage;
use limits::{FILES_EXTRA, PIPELINE_DEPTH};
use load::{Load, Outcome, Pace};
use place::Place;
use requests::Account;

/// Whose numbers these are.
const SHOAL: &str = "shoal";

/// Of the time at a fixed rate, the part that each search for a maximum takes.
const MAXIMUM_PART: f64 = 0.2;

/// Measures and reports.
pub(crate) fn run(args: &TrackerArgs) -> anyhow::Result<()> {
    allow_files(u64::from(args.connections))?;
    let active = args.active.min(args.connections);
    let settings = [
        ("connections", args.connections.to_string()),
        ("of them with load", active.to_string()),
        ("requests a second", args.rate.to_string()),
        ("seconds", args.seconds.to_string()),
        ("mix", args.mix.to_string()),
    ];
    let mut sink = Sink::begin(args.output.wanted(), "tracker", None, &settings)?;
    let place = Place::start(args)?;
    sink.setting("CPUs", place.cpus());
    let others = OtherLoad::start();
    let accounts = requests::prepare(place.address)?;
    let idle = idle(&mut sink, &place, &accounts, args.connections - active)?;
    let sockets = connections(place.address, active)?;
    let mut load = Load::new(sockets, &accounts)?;
    fixed_rate(&mut sink, &place, &mut load, args)?;
    if !args.no_maximum {
        maxima(&mut sink, &place, &mut load, args.seconds * MAXIMUM_PART)?;
    }
    sink.other_load(others.others());
    drop((load, idle));
    if args.rivals {
        opentracker::run(&mut sink, args.seconds * MAXIMUM_PART)?;
    }
    drop(place);
    report::conclude(sink)
}

/// Lets this process, and the tracker that it starts, have as many files open as connections need.
fn allow_files(connections: u64) -> anyhow::Result<()> {
    let wanted = connections + FILES_EXTRA;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        if limit.maximum.is_some_and(|maximum| maximum < wanted) {
            bail!(
                "{connections} connections need {wanted} open files, and the limit is {}: `ulimit -Hn {wanted}` as \
                 root, or a smaller --connections",
                limit.maximum.unwrap_or(wanted)
            );
        }
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).context("the limit of open files could not be raised")?;
    }
    Ok(())
}

fn connections(address: SocketAddr, count: u32) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let socket = TcpStream::connect(address).context("the tracker does not take connections")?;
            socket.set_nodelay(true)?;
            Ok(socket)
        })
        .collect()
}

/// Opens connections that show their session and then wait; how much memory they cost the tracker.
fn idle(sink: &mut Sink, place: &Place, accounts: &[Account], count: u32) -> anyhow::Result<Vec<TcpStream>> {
    let before = place.pid.map(usage::anonymous);
    let sockets = (0..count as usize)
        .map(|at| requests::idle(place.address, &accounts[at % accounts.len()]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let (Some(before), Some(pid)) = (before, place.pid) {
        let after = usage::anonymous(pid);
        sink.sample(["idle", SHOAL, "memory before"], 0, before as f64 / 1_048_576.0, "MiB")?;
        sink.sample(["idle", SHOAL, "memory"], 0, after as f64 / 1_048_576.0, "MiB")?;
        if count > 0 {
            let each = after.saturating_sub(before) as f64 / f64::from(count) / 1_024.0;
            sink.sample(["idle", SHOAL, "memory a connection"], 0, each, "KiB")?;
        }
    }
    Ok(sockets)
}

/// The mix, at its rate.
fn fixed_rate(sink: &mut Sink, place: &Place, load: &mut Load<'_>, args: &TrackerArgs) -> anyhow::Result<()> {
    let before = place.cpu();
    let outcome = load.run(&args.mix, Pace::Rate(f64::from(args.rate)), args.seconds)?;
    let workload = "fixed rate";
    for (kind, histogram) in Kind::ALL.iter().zip(&outcome.latencies) {
        if !histogram.is_empty() {
            sink.latency([workload, SHOAL, kind.name()], histogram)?;
        }
    }
    let of = |metric| [workload, SHOAL, metric];
    sink.sample(of("requests due"), 0, outcome.due as f64, "")?;
    sink.sample(of("requests answered"), 0, outcome.answered() as f64, "")?;
    cpu(sink, workload, place, before, &outcome)?;
    if let Some(pid) = place.pid {
        sink.sample(of("memory"), 0, usage::anonymous(pid) as f64 / 1_048_576.0, "MiB")?;
    }
    faults(sink, [workload, SHOAL], &outcome)?;
    sink.series([workload, SHOAL], "answers/s", outcome.series)
}

/// Each kind that is no login alone, as many as are answered.
fn maxima(sink: &mut Sink, place: &Place, load: &mut Load<'_>, seconds: f64) -> anyhow::Result<()> {
    for kind in [Kind::Ping, Kind::GetPeers, Kind::FirstPeers, Kind::UpdatePieces, Kind::Upload] {
        let before = place.cpu();
        let outcome = load.run(&Mix::only(kind), Pace::Depth(PIPELINE_DEPTH), seconds)?;
        let workload = format!("maximum {}", kind.name());
        let rate = outcome.answered() as f64 / outcome.lasted.as_secs_f64();
        let metric = if kind == Kind::Upload { "durable writes" } else { "requests" };
        sink.sample([&workload, SHOAL, metric], 0, rate, "1/s")?;
        cpu(sink, &workload, place, before, &outcome)?;
        faults(sink, [&workload, SHOAL], &outcome)?;
    }
    Ok(())
}

/// What the tracker's CPU spent on the requests.
fn cpu(
    sink: &mut Sink,
    workload: &str,
    place: &Place,
    before: Option<f64>,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let (Some(before), Some(after)) = (before, place.cpu()) else { return Ok(()) };
    let spent = (after - before) / outcome.answered().max(1) as f64 * 1e5;
    sink.sample([workload, SHOAL, "cpu"], 0, spent, "s/100k")?;
    sink.sample([workload, SHOAL, "cpu busy"], 0, (after - before) / outcome.lasted.as_secs_f64(), "CPUs")
}

fn faults(sink: &mut Sink, of: [&str; 2], outcome: &Outcome) -> anyhow::Result<()> {
    if outcome.refused > 0 {
        sink.failed(of, &format!("{} of {} answers were refusals", outcome.refused, outcome.answered()))?;
    }
    if outcome.unanswered > 0 {
        sink.failed(of, &format!("{} requests got no answer", outcome.unanswered))?;
    }
    Ok(())
}
