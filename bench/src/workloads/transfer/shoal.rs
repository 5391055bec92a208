//! Shoal as a contender: a tracker, a node for each seeder, and new nodes for the leechers of each round.
//!
//! The compared time runs from the start of `download_file` to its exit, when the file is durable. The leecher's node
//! runs before; its start time is a separate figure.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::clock;
use crate::contender::{Contender, RoundOutcome, TransferTerms, collect_succeeded};
use crate::limits::SEEDERS_BACK_MS;
use crate::results::latency;
use crate::topology::binaries::ShoalBinaries;
use crate::topology::shoal::{DownloadFigures, RunningDownload, ShoalNet, ShoalNode};
use crate::topology::spawned;
use crate::topology::spawned::ProgramExit;
use crate::topology::usage::{self, RoundPids, RoundWatch};

const GROUP: &str = "bench";

/// The client reports microseconds.
const NS_PER_US: u64 = 1_000;

/// Shoal with some options of the node.
pub(crate) struct ShoalContender {
    kind: String,
    reference: bool,
    terms: TransferTerms,
    file_name: String,
    shoal: ShoalNet,
    seeders: Vec<ShoalNode>,
    leechers: Vec<ShoalNode>,
    options: Vec<String>,
    /// How long the last started node of this round took to start and log in.
    node_start: Duration,
}

impl ShoalContender {
    /// Starts the tracker and the seeders, and shares the file from each.
    pub(crate) fn start(
        kind: &str,
        reference: bool,
        binaries: &ShoalBinaries,
        options: &[String],
        terms: &TransferTerms,
    ) -> anyhow::Result<ShoalContender> {
        let shoal = ShoalNet::start(binaries, &terms.folder.join(kind.replace([' ', '/'], "-")), options)?;
        let file_name =
            terms.file.path.file_name().and_then(|name| name.to_str()).context("the file has a name")?;
        let mut seeders = Vec::new();
        for number in 0..terms.seeders {
            let user = format!("seeder{number}");
            shoal.create_user(&user)?;
            let node = shoal.node(&user)?;
            node.run(&[if number == 0 { "create_group" } else { "join_group" }, GROUP])?;
            node.share(GROUP, &terms.file.path)?;
            seeders.push(node);
        }
        for number in 0..terms.leechers {
            let user = leecher_name(number);
            shoal.create_user(&user)?;
            let node = shoal.node(&user)?;
            node.run(&["join_group", GROUP])?;
            node.log_out()?;
        }
        if terms.is_source_cold {
            // The seeders have just hashed the file, and their mappings would keep it in the page cache.
            seeders.iter_mut().for_each(ShoalNode::stop);
        }
        let (kind, file_name) = (kind.to_owned(), file_name.to_owned());
        Ok(ShoalContender {
            kind,
            reference,
            terms: terms.clone(),
            file_name,
            shoal,
            seeders,
            leechers: Vec::new(),
            options: options.to_vec(),
            node_start: Duration::ZERO,
        })
    }
}

fn leecher_name(number: usize) -> String {
    format!("leecher{number}")
}

impl Contender for ShoalContender {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn is_reference(&self) -> bool {
        self.reference
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn pids(&self) -> Vec<u32> {
        // Between cold rounds the seeders are stopped, and their pids may be reused.
        let running_seeders = self.seeders.iter().filter(|_| !self.terms.is_source_cold);
        running_seeders.map(ShoalNode::pid).chain([self.shoal.tracker_pid()]).collect()
    }

    fn prepare_round(&mut self) -> anyhow::Result<()> {
        for number in 0..self.terms.leechers {
            let (took, node) = clock::time_work(|| self.shoal.node(&leecher_name(number)));
            self.node_start = took;
            self.leechers.push(node?);
        }
        if self.terms.is_source_cold { self.restart_seeders() } else { Ok(()) }
    }

    fn run_round(&mut self, into: &Path) -> anyhow::Result<RoundOutcome> {
        let sources: Vec<u32> = self.seeders.iter().map(ShoalNode::pid).collect();
        let receivers: Vec<u32> = self.leechers.iter().map(ShoalNode::pid).collect();
        let tracker = [self.shoal.tracker_pid()];
        let cpu_before = [&sources[..], &receivers, &tracker].map(usage::cpu_of_trees);
        let mut fetching = Vec::new();
        let mut copies = Vec::new();
        let began = clock::now();
        for (number, node) in self.leechers.iter().enumerate() {
            let folder = spawned::create_empty_folder(into.join(number.to_string()))?;
            copies.push(folder.join(&self.file_name));
            fetching.push(node.start_download(GROUP, &self.file_name, &folder)?);
        }
        let download_pids: Vec<u32> = fetching.iter().map(RunningDownload::pid).collect();
        let mut round_pids = RoundPids { sources: sources.clone(), receivers: receivers.clone() };
        round_pids.receivers.extend(&download_pids);
        let watch = RoundWatch::start(round_pids, &download_pids, self.terms.round_limit)?;
        let ended = fetching.into_iter().map(RunningDownload::finish).collect();
        let (fetched, ended): (Vec<DownloadFigures>, Vec<ProgramExit>) =
            collect_succeeded(ended, &watch)?.into_iter().unzip();
        let command = clock::now() - began;
        let peaks = watch.peaks();
        let [source_cpu, receiver_cpu, tracker_cpu] = [
            usage::cpu_of_trees(&sources) - cpu_before[0],
            usage::cpu_of_trees(&receivers) - cpu_before[1],
            usage::cpu_of_trees(&tracker) - cpu_before[2],
        ];
        let mut outcome = merge_figures(&fetched, self.terms.file.bytes)?;
        outcome.numbers.push(("tracker cpu".to_owned(), tracker_cpu.0, "s"));
        let exit = command.saturating_sub(outcome.durable.unwrap_or_default()).as_secs_f64() * 1e3;
        outcome.numbers.push(("from durable to the exit of the command".to_owned(), exit, "ms"));
        let start_ms = self.node_start.as_secs_f64() * 1e3;
        outcome.numbers.push((
            "start of a node with its login, before the command".to_owned(),
            start_ms,
            "ms",
        ));
        Ok(RoundOutcome {
            command,
            // Comparisons use the exit of the command as the durable time. The node's own durable time is the basis of
            // the figure above.
            durable: Some(command),
            copies,
            sources: sources.len(),
            source_cpu: Some(source_cpu),
            receiver_cpu: Some(ended.iter().map(|exit| exit.cpu).chain([receiver_cpu]).sum()),
            peaks: Some(peaks),
            ..outcome
        })
    }

    fn finish_round(&mut self) -> anyhow::Result<()> {
        if self.terms.is_source_cold {
            self.seeders.iter_mut().for_each(ShoalNode::stop);
        }
        self.leechers.drain(..).try_for_each(ShoalNode::log_out)
    }
}

impl ShoalContender {
    /// Restarts the seeders, so that no process has the file mapped, and waits until the tracker lists all of them.
    fn restart_seeders(&mut self) -> anyhow::Result<()> {
        for seeder in &mut self.seeders {
            seeder.restart(&self.options)?;
        }
        let leecher = self.leechers.first().context("a round has a leecher")?;
        let mut listed = Ok(0);
        let are_all_listed = clock::wait_until(Duration::from_millis(SEEDERS_BACK_MS), || {
            listed = leecher.seeders_of(GROUP, &self.file_name);
            listed.as_ref().map_or(true, |count| *count >= self.seeders.len())
        });
        let listed = listed?;
        if !are_all_listed {
            bail!("the tracker lists {listed} of {} restarted seeders", self.seeders.len());
        }
        Ok(())
    }
}

/// The figures of one round: times are those of the last leecher, latencies are merged, bytes added up.
fn merge_figures(fetched: &[DownloadFigures], bytes: u64) -> anyhow::Result<RoundOutcome> {
    let mut outcome = RoundOutcome::default();
    let mut all = latency::new_histogram();
    let (mut wire, mut duplicate, mut hashing, mut writing) = (0.0, 0.0, 0.0, 0.0);
    for figures in fetched {
        outcome.transfer = outcome.transfer.max(Some(figures.proven - figures.begun));
        outcome.complete = outcome.complete.max(Some(figures.proven));
        outcome.durable = outcome.durable.max(Some(figures.durable));
        add_latency(&mut all, &figures.row)?;
        let figure = |name: &str| figures.row["figures"][name].as_f64().unwrap_or(0.0);
        wire += figure("wire_bytes") - bytes as f64;
        hashing += figure("hashing_us") / 1e6;
        writing += figure("writing_us") / 1e6;
        duplicate += figures.row["duplicate_bytes"].as_f64().unwrap_or(0.0);
        let first_ms = figures.begun.as_secs_f64() * 1e3 + figure("first_verified_us") / 1e3;
        outcome.numbers.push(("first verified byte".to_owned(), first_ms, "ms"));
        let limited_by = figures.row["limited_by"].as_str().unwrap_or("nothing known");
        outcome.numbers.push((format!("limited by {limited_by}"), 1.0, "leechers"));
    }
    let moved = bytes.max(1) as f64 * fetched.len().max(1) as f64;
    let numbers = [
        ("beyond the file, as the node counts", wire / moved * 100.0, "%"),
        ("duplicates", duplicate / moved * 100.0, "%"),
        ("hashing threads", hashing / moved * 1e9, "s/GB"),
        ("writing threads", writing / moved * 1e9, "s/GB"),
    ];
    outcome.numbers.extend(numbers.map(|(name, value, unit)| (name.to_owned(), value, unit)));
    outcome.latency = (!all.is_empty()).then_some(all);
    outcome.progress = fetched.first().map(|one| one.progress.clone()).unwrap_or_default();
    Ok(outcome)
}

/// Adds the histogram of a download's final row, converted from microseconds to nanoseconds.
fn add_latency(all: &mut Histogram<u64>, row: &Value) -> anyhow::Result<()> {
    let latency = &row["figures"]["piece_latency"];
    let text = latency["histogram"].as_str().context("the client's final row has no histogram")?;
    let histogram = latency::decode_histogram(text).context("the client's histogram cannot be read")?;
    anyhow::ensure!(
        Some(histogram.len()) == latency["count"].as_u64(),
        "the client's histogram does not have its stated count"
    );
    for value in histogram.iter_recorded() {
        let count = value.count_since_last_iteration();
        all.saturating_record_n(value.value_iterated_to().saturating_mul(NS_PER_US), count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::serialization::{Serializer as _, V2Serializer};

    use super::*;

    fn fetched(proven_ms: u64, latencies_us: &[u64]) -> DownloadFigures {
        let mut histogram = Histogram::<u32>::new(2).unwrap();
        latencies_us.iter().for_each(|value| histogram.record(*value).unwrap());
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        let latency = serde_json::json!({"count": latencies_us.len(), "histogram": STANDARD.encode(bytes)});
        DownloadFigures {
            proven: Duration::from_millis(proven_ms),
            durable: Duration::from_millis(proven_ms + 1),
            progress: vec![],
            row: serde_json::json!({
                "duplicate_bytes": 10, "limited_by": "network",
                "figures": {"wire_bytes": 1_020, "first_verified_us": 2_000, "piece_latency": latency}
            }),
            begun: Duration::from_millis(1),
        }
    }

    #[test]
    fn several_leechers_give_one_outcome() {
        let outcome = merge_figures(&[fetched(5, &[100]), fetched(9, &[300, 300])], 1_000).unwrap();
        // Each began a millisecond after its command.
        assert_eq!(outcome.transfer, Some(Duration::from_millis(8)));
        assert_eq!(outcome.complete, Some(Duration::from_millis(9)));
        assert_eq!(outcome.durable, Some(Duration::from_millis(10)));
        let latency = outcome.latency.unwrap();
        assert_eq!(latency.len(), 3);
        assert!(latency.min().abs_diff(100_000) < 2_000 && latency.max().abs_diff(300_000) < 4_000);
        let number = |name: &str| outcome.numbers.iter().find(|(found, ..)| found == name).unwrap().1;
        assert!((number("duplicates") - 1.0).abs() < 1e-9);
        assert!((number("beyond the file, as the node counts") - 2.0).abs() < 1e-9);
        assert!((number("first verified byte") - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_histogram_with_missing_values_is_refused() {
        let mut one = fetched(5, &[100]);
        one.row["figures"]["piece_latency"]["count"] = 2.into();
        assert!(merge_figures(&[one], 1_000).is_err());
    }
}
