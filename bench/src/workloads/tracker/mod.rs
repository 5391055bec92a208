//! `bench tracker`: a tracker under load.
//!
//! ```text
//!   run_tracker ─► loaded_tracker (started for the run, or running; CPUs)
//!     ├─► requests (accounts, sessions, texts) ─► idle connections: memory, and whether they stay open
//!     └─► run_rounds: Shoal's tracker, then opentracker
//!            ├─► load: the mix at a fixed rate ─► latency, CPU
//!            ├─► load: each kind alone at the maximum rate ─► requests a second, CPU
//!            │    └─► connection (one for many requests, or one for each)
//!            └─► figures (outcomes of loads, as records)
//! ```
//!
//! With two CPUs or more, trackers have one CPU and the load has the others.

mod connection;
mod figures;
mod load;
mod loaded_tracker;
mod opentracker;
mod requests;

use std::time::Duration;

use anyhow::{Context as _, bail};
use engine::proto::geometry::Geometry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::cli::TrackerArgs;
use crate::limits::{ANSWER_TIMEOUT_MS, FILES_EXTRA, MAXIMUM_SHARE, PIPELINE_DEPTH, ROUND_BYTES};
use crate::mix::{RequestKind, RequestMix};
use crate::report;
use crate::results::sink::RecordSink;
use crate::topology::other_load::OtherLoad;
use crate::topology::{shutdown, usage, warm_up};
use connection::PipelinedConnection;
use figures::{LoadFigures, LoadSubject};
use load::{LoadPace, RequestLoad};
use loaded_tracker::{LoadedTracker, RunCpus};
use opentracker::{LOOK_UPS, OpentrackerRival};
use requests::{BenchAccount, IdleConnections};

const SHOAL: &str = "shoal";

/// Runs `bench tracker`.
pub(crate) fn run_tracker(args: &TrackerArgs) -> anyhow::Result<()> {
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
    let folder = folder.context("cannot create a folder for the tracker's state: choose another --dir")?;
    shutdown::clean_up_on_signal(folder.path().to_owned())?;
    // Both read the CPUs, and must do so before one is reserved for trackers.
    let cpus = RunCpus::read();
    let mut sink = RecordSink::begin(args.output.record_output(), "tracker", None, &settings)?;
    warm_up::touch_memory(ROUND_BYTES);
    let tracker = LoadedTracker::start(args, folder.path(), &cpus)?;
    sink.add_setting("CPUs", tracker.cpus());
    let accounts = requests::prepare_accounts(tracker.address, upload_pieces(args.size.bytes())?)?;
    let idle = open_idle(&mut sink, &tracker, &accounts, args.connections - active)?;
    let mut rival = match args.rivals {
        true => OpentrackerRival::start(&mut sink, folder.path(), &cpus, args)?,
        false => None,
    };
    let mut figures = LoadFigures::new(&mut sink, args.runs);
    let carried_out = run_rounds(&mut figures, args, &tracker, &accounts, &mut rival);
    figures.finish()?;
    let carried_out = carried_out.or_else(|fault| {
        sink.record_failed(["rounds", SHOAL], &format!("{fault:#}"))?;
        anyhow::Ok(false)
    })?;
    let stayed = check_idle(&mut sink, &tracker, &idle)?;
    drop((idle, rival, tracker));
    report::finish_run(sink)?;
    if !(carried_out && stayed) {
        bail!("the tracker did not answer all requests and connections: see the `failed` lines");
    }
    Ok(())
}

/// Pieces of the files that uploads describe.
fn upload_pieces(bytes: u64) -> anyhow::Result<usize> {
    let geometry = Geometry::new(bytes).context("--size is longer than any file")?;
    let pieces = usize::try_from(geometry.pieces().0)?;
    let most = tracker::api::limits::PIECES_PER_MESSAGE;
    if pieces > most {
        bail!("--size has {pieces} pieces, and one upload_file describes at most {most}");
    }
    Ok(pieces)
}

/// Raises the limit of open files for this process and the tracker that it starts.
fn allow_files(connections: u64) -> anyhow::Result<()> {
    // The tracker keeps an eighth of its descriptors for clients without a login.
    let wanted = connections + connections / 7 + FILES_EXTRA;
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
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Opens connections that authenticate once and then stay idle; records the tracker's memory for them.
fn open_idle<'a>(
    sink: &mut RecordSink,
    tracker: &LoadedTracker,
    accounts: &'a [BenchAccount],
    count: u32,
) -> anyhow::Result<IdleConnections<'a>> {
    let before = tracker.pid.map(usage::anonymous_bytes);
    let idle = IdleConnections::open(tracker.address, accounts, count as usize)?;
    sink.record_sample(["idle", SHOAL, "connections open"], 0, idle.open_count() as f64, "")?;
    if let (Some(before), Some(pid)) = (before, tracker.pid) {
        let after = usage::anonymous_bytes(pid);
        sink.record_sample(["idle", SHOAL, "memory before"], 0, mebibytes(before), "MiB")?;
        sink.record_sample(["idle", SHOAL, "memory"], 0, mebibytes(after), "MiB")?;
        if count > 0 {
            let each = |bytes: u64| bytes as f64 / f64::from(count) / 1_024.0;
            sink.record_sample(
                ["idle", SHOAL, "memory a connection"],
                0,
                each(after.saturating_sub(before)),
                "KiB",
            )?;
            // This figure hides neither memory that was free before nor memory that all connections share.
            sink.record_sample(["idle", SHOAL, "all memory, a connection"], 0, each(after), "KiB")?;
        }
    }
    Ok(idle)
}

/// Whether idle connections are still open after the load and still get answers.
fn check_idle(
    sink: &mut RecordSink,
    tracker: &LoadedTracker,
    idle: &IdleConnections<'_>,
) -> anyhow::Result<bool> {
    let (open, answering) = (idle.open_count(), idle.answering_count());
    sink.record_sample(["after the load", SHOAL, "connections open"], 0, open as f64, "")?;
    sink.record_sample(["after the load", SHOAL, "connections answering"], 0, answering as f64, "")?;
    if let Some(pid) = tracker.pid {
        sink.record_sample(
            ["after the load", SHOAL, "memory"],
            0,
            mebibytes(usage::anonymous_bytes(pid)),
            "MiB",
        )?;
    }
    let all = idle.count();
    if open < all || answering < all {
        let why = format!("of {all} idle connections {open} are still open and {answering} get answers");
        sink.record_failed(["idle", SHOAL], &why)?;
    }
    Ok(open == all && answering == all)
}

/// Runs all rounds; whether Shoal's tracker carried out every request.
fn run_rounds(
    figures: &mut LoadFigures<'_>,
    args: &TrackerArgs,
    tracker: &LoadedTracker,
    accounts: &[BenchAccount],
    rival: &mut Option<OpentrackerRival>,
) -> anyhow::Result<bool> {
    let connections = args.active.min(args.connections) as usize;
    let answer_timeout = Duration::from_millis(ANSWER_TIMEOUT_MS);
    let write = Box::new(|connection: usize, kind, number, text: &mut Vec<u8>| {
        accounts[connection % accounts.len()].append(kind, number, text);
    });
    let load = RequestLoad::open(tracker.address, connections, answer_timeout, write)?;
    let mut shoal = ShoalLoad { args, tracker, load };
    let mut carried_out = true;
    for round in 0..args.warmup + args.runs {
        let counted = round.checked_sub(args.warmup);
        warm_up::touch_memory(ROUND_BYTES);
        let other_load = OtherLoad::start();
        carried_out &= shoal.run_round(figures, counted)?;
        if rival.is_some() {
            // The only load that opentracker can take too.
            let look_ups = RequestMix::only(RequestKind::GetPeers);
            carried_out &= shoal.measure_fixed_rate(figures, LOOK_UPS, &look_ups, counted)?;
        }
        if let Some(rival_now) = rival
            && let Err(fault) = rival_now.run_round(figures, counted, args, args.seconds * MAXIMUM_SHARE)
        {
            figures.sink.record_failed(["rounds", "opentracker"], &format!("{fault:#}"))?;
            *rival = None;
        }
        if counted.is_some() {
            figures.sink.add_other_load(other_load.busy_cpus());
        }
    }
    Ok(carried_out)
}

/// The load on Shoal's tracker. Each measurement gives whether every request was carried out.
struct ShoalLoad<'a> {
    args: &'a TrackerArgs,
    tracker: &'a LoadedTracker,
    load: RequestLoad<'a, PipelinedConnection>,
}

impl ShoalLoad<'_> {
    /// The mix at its fixed rate, then each kind but logins alone at the maximum rate.
    fn run_round(&mut self, figures: &mut LoadFigures<'_>, round: Option<u32>) -> anyhow::Result<bool> {
        const KINDS: [RequestKind; 5] = [
            RequestKind::Ping,
            RequestKind::GetPeers,
            RequestKind::FirstGetPeers,
            RequestKind::UpdatePieces,
            RequestKind::UploadFile,
        ];
        let mut carried_out = self.measure_fixed_rate(figures, "fixed rate", &self.args.mix, round)?;
        if let (Some(pid), Some(round)) = (self.tracker.pid, round) {
            let memory = mebibytes(usage::anonymous_bytes(pid));
            figures.sink.record_sample(["fixed rate", SHOAL, "memory"], round, memory, "MiB")?;
        }
        for kind in KINDS.into_iter().filter(|_| !self.args.no_maximum) {
            let rate = if kind == RequestKind::UploadFile { "durable writes" } else { "requests" };
            let (workload, seconds) = (format!("maximum {}", kind.name()), self.args.seconds * MAXIMUM_SHARE);
            let (mix, pace) = (RequestMix::only(kind), LoadPace::Depth(PIPELINE_DEPTH));
            carried_out &= self.measure(figures, &workload, Some(rate), round, (&mix, pace, seconds))?;
        }
        Ok(carried_out)
    }

    fn measure_fixed_rate(
        &mut self,
        figures: &mut LoadFigures<'_>,
        workload: &str,
        mix: &RequestMix,
        round: Option<u32>,
    ) -> anyhow::Result<bool> {
        let pace = LoadPace::Rate(f64::from(self.args.rate));
        self.measure(figures, workload, None, round, (mix, pace, self.args.seconds))
    }

    fn measure(
        &mut self,
        figures: &mut LoadFigures<'_>,
        workload: &str,
        rate: Option<&str>,
        round: Option<u32>,
        (mix, pace, seconds): (&RequestMix, LoadPace, f64),
    ) -> anyhow::Result<bool> {
        let cpu = || self.tracker.cpu_seconds();
        let subject = LoadSubject {
            workload,
            tracker_name: SHOAL,
            rate_metric: rate,
            kind_name: &RequestKind::name,
            cpu_seconds: &cpu,
        };
        figures.measure(&subject, round, || self.load.run(mix, pace, seconds))
    }
}
