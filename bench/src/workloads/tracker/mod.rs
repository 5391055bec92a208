//! `bench tracker`: what one tracker bears.
//!
//! ```text
//!   run ─► place (a tracker of its own, or one that runs; CPUs)
//!     ├─► requests (accounts, sessions, texts) ─► idle connections: memory, and whether they stay
//!     └─► rounds: Shoal's tracker, then opentracker, the yardstick
//!            ├─► load: at a fixed rate by the mix ─► latency, CPU
//!            ├─► load: as many as are answered, each kind alone ─► requests a second, CPU
//!            │    └─► line (connections: one for many requests, or one for each)
//!            └─► figures (what comes of a load, in records)
//!   limits: the numbers
//! ```
//!
//! Trackers and load have CPUs of their own where there are two: the trackers one, the load the others.

mod figures;
mod limits;
mod line;
mod load;
mod opentracker;
mod place;
mod requests;

use std::time::Duration;

use anyhow::{Context as _, bail};
use engine::proto::geometry::Geometry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::cli::TrackerArgs;
use crate::mix::{Kind, Mix};
use crate::report;
use crate::results::sink::Sink;
use crate::topology::load::Load as OtherLoad;
use crate::topology::{ending, usage, warm};
use figures::{Figures, Subject};
use limits::{FILES_EXTRA, PATIENCE_MS, PIPELINE_DEPTH, ROUND_BYTES};
use line::Pipelined;
use load::{Load, Pace};
use opentracker::{LOOK_UPS, Opentracker};
use place::{Cpus, Place};
use requests::{Account, Idle};

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
        ("uploads describe files of", format!("{} bytes", args.size.bytes())),
        ("rounds", args.runs.to_string()),
        ("warm-up rounds", args.warmup.to_string()),
    ];
    let folder = match &args.dir {
        Some(dir) => TempDir::with_prefix_in("shoal-bench-", dir),
        None => TempDir::with_prefix("shoal-bench-"),
    };
    let folder = folder.context("there is no place for the tracker's state: choose another --dir")?;
    ending::clean_up_on_signal(folder.path().to_owned())?;
    // Both look at the CPUs, and so before the harness leaves one of them to trackers.
    let cpus = Cpus::of_the_run();
    let mut sink = Sink::begin(args.output.wanted(), "tracker", None, &settings)?;
    warm::touch(ROUND_BYTES);
    let place = Place::start(args, folder.path(), &cpus)?;
    sink.setting("CPUs", place.cpus());
    let accounts = requests::prepare(place.address, upload_pieces(args.size.bytes())?)?;
    let idle = open_idle(&mut sink, &place, &accounts, args.connections - active)?;
    let mut rival = match args.rivals {
        true => Opentracker::start(&mut sink, folder.path(), &cpus, args)?,
        false => None,
    };
    let mut figures = Figures::of_rounds(&mut sink, args.runs);
    let carried_out = rounds(&mut figures, args, &place, &accounts, &mut rival);
    figures.end()?;
    let carried_out = carried_out.or_else(|fault| {
        sink.failed(["rounds", SHOAL], &format!("{fault:#}"))?;
        anyhow::Ok(false)
    })?;
    let stayed = check_idle(&mut sink, &place, &idle)?;
    drop((idle, rival, place));
    report::conclude(sink)?;
    if !(carried_out && stayed) {
        bail!("the tracker left requests or connections without an answer: the lines `failed` say which");
    }
    Ok(())
}

/// Pieces that uploads describe.
fn upload_pieces(bytes: u64) -> anyhow::Result<usize> {
    let geometry = Geometry::new(bytes).context("no file is as long as this --size")?;
    let pieces = usize::try_from(geometry.pieces().0)?;
    let most = tracker::api::limits::PIECES_PER_MESSAGE;
    if pieces > most {
        bail!("a --size of {pieces} pieces, but one upload_file describes {most} at most");
    }
    Ok(pieces)
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

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Opens connections that show their session and then wait; how much memory they cost the tracker.
fn open_idle<'a>(
    sink: &mut Sink,
    place: &Place,
    accounts: &'a [Account],
    count: u32,
) -> anyhow::Result<Idle<'a>> {
    let before = place.pid.map(usage::anonymous);
    let idle = Idle::open(place.address, accounts, count as usize)?;
    sink.sample(["idle", SHOAL, "connections open"], 0, idle.open_count() as f64, "")?;
    if let (Some(before), Some(pid)) = (before, place.pid) {
        let after = usage::anonymous(pid);
        sink.sample(["idle", SHOAL, "memory before"], 0, mebibytes(before), "MiB")?;
        sink.sample(["idle", SHOAL, "memory"], 0, mebibytes(after), "MiB")?;
        if count > 0 {
            let each = |bytes: u64| bytes as f64 / f64::from(count) / 1_024.0;
            sink.sample(
                ["idle", SHOAL, "memory a connection"],
                0,
                each(after.saturating_sub(before)),
                "KiB",
            )?;
            // Nothing can hide in this one: neither memory that was free before, nor what is shared by all.
            sink.sample(["idle", SHOAL, "all memory, a connection"], 0, each(after), "KiB")?;
        }
    }
    Ok(idle)
}

/// Whether the connections that waited are still open after the load, and still have answers.
fn check_idle(sink: &mut Sink, place: &Place, idle: &Idle<'_>) -> anyhow::Result<bool> {
    let (open, answering) = (idle.open_count(), idle.answering_count());
    sink.sample(["after the load", SHOAL, "connections open"], 0, open as f64, "")?;
    sink.sample(["after the load", SHOAL, "connections answering"], 0, answering as f64, "")?;
    if let Some(pid) = place.pid {
        sink.sample(["after the load", SHOAL, "memory"], 0, mebibytes(usage::anonymous(pid)), "MiB")?;
    }
    let all = idle.count();
    if open < all || answering < all {
        let why = format!("of {all} connections that waited, {open} are open and {answering} get answers");
        sink.failed(["idle", SHOAL], &why)?;
    }
    Ok(open == all && answering == all)
}

/// All rounds; whether every request to Shoal's tracker was carried out.
fn rounds(
    figures: &mut Figures<'_>,
    args: &TrackerArgs,
    place: &Place,
    accounts: &[Account],
    rival: &mut Option<Opentracker>,
) -> anyhow::Result<bool> {
    let lines = args.active.min(args.connections) as usize;
    let patience = Duration::from_millis(PATIENCE_MS);
    let write = Box::new(|line: usize, kind, number, text: &mut Vec<u8>| {
        accounts[line % accounts.len()].append(kind, number, text);
    });
    let mut load: Load<'_, Pipelined> = Load::open(place.address, lines, patience, write)?;
    let mut carried_out = true;
    for round in 0..args.warmup + args.runs {
        let counted = round.checked_sub(args.warmup);
        warm::touch(ROUND_BYTES);
        let others = OtherLoad::start();
        carried_out &= shoal(figures, args, place, &mut load, counted)?;
        if rival.is_some() {
            carried_out &= look_ups(figures, args, place, &mut load, counted)?;
        }
        if let Some(rival_now) = rival
            && let Err(fault) = rival_now.round(figures, counted, args, args.seconds * MAXIMUM_PART)
        {
            figures.sink.failed(["rounds", "opentracker"], &format!("{fault:#}"))?;
            *rival = None;
        }
        if counted.is_some() {
            figures.sink.other_load(others.others());
        }
    }
    Ok(carried_out)
}

/// Shoal under look-ups alone at the fixed rate, which is all that the rival is asked.
fn look_ups(
    figures: &mut Figures<'_>,
    args: &TrackerArgs,
    place: &Place,
    load: &mut Load<'_, Pipelined>,
    round: Option<u32>,
) -> anyhow::Result<bool> {
    let cpu = || place.cpu();
    let fixed = Subject { workload: LOOK_UPS, who: SHOAL, rate: None, names: &Kind::name, cpu: &cpu };
    let pace = Pace::Rate(f64::from(args.rate));
    figures.measure(&fixed, round, || load.run(&Mix::only(Kind::GetPeers), pace, args.seconds))
}

/// Shoal's part of a round: the mix at its rate, then each kind that is no login alone, as many as are answered.
fn shoal(
    figures: &mut Figures<'_>,
    args: &TrackerArgs,
    place: &Place,
    load: &mut Load<'_, Pipelined>,
    round: Option<u32>,
) -> anyhow::Result<bool> {
    let cpu = || place.cpu();
    let fixed = Subject { workload: "fixed rate", who: SHOAL, rate: None, names: &Kind::name, cpu: &cpu };
    let pace = Pace::Rate(f64::from(args.rate));
    let mut carried_out = figures.measure(&fixed, round, || load.run(&args.mix, pace, args.seconds))?;
    if let (Some(pid), Some(round)) = (place.pid, round) {
        let memory = mebibytes(usage::anonymous(pid));
        figures.sink.sample(["fixed rate", SHOAL, "memory"], round, memory, "MiB")?;
    }
    if args.no_maximum {
        return Ok(carried_out);
    }
    for kind in [Kind::Ping, Kind::GetPeers, Kind::FirstPeers, Kind::UpdatePieces, Kind::Upload] {
        let workload = format!("maximum {}", kind.name());
        let rate = if kind == Kind::Upload { "durable writes" } else { "requests" };
        let most = Subject { workload: &workload, rate: Some(rate), ..fixed };
        let pace = Pace::Depth(PIPELINE_DEPTH);
        let run = || load.run(&Mix::only(kind), pace, args.seconds * MAXIMUM_PART);
        carried_out &= figures.measure(&most, round, run)?;
    }
    Ok(carried_out)
}
