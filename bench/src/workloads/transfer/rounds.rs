//! Rounds: every contender runs once a round on the same terms, its copies are checked, and its figures are recorded.
//!
//! Invariants: a contender that fails is recorded once, its servers are ended, and it is not run again. Each round
//! begins with another contender.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use crate::contender::{Contender, RoundOutcome, TransferTerms};
use crate::interleave::rotate_order;
use crate::limits::COLD_CACHED_MAX;
use crate::results::latency;
use crate::results::sink::RecordSink;
use crate::topology::other_load::OtherLoad;
use crate::topology::usage::{CpuSeconds, MemoryPeaks, MemoryUse};
use crate::topology::{private_net, spawned, test_file, warm_up};

use hdrhistogram::Histogram;

/// Metrics with ratios to references.
const COMPARED: [&str; 5] = ["throughput", COMPLETE, DURABLE, SYNCED, "cpu"];

/// Until all copies are complete and verified, as far as the program verifies them; without a sync.
const COMPLETE: &str = "complete";

/// Until all copies are durable.
const DURABLE: &str = "durable";

/// As [`DURABLE`], on a tmpfs, where nothing becomes durable.
const SYNCED: &str = "synced, in memory";

/// The plan of all rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundsPlan {
    /// Warm-up rounds.
    pub(crate) warmup: u32,
    /// Measured rounds.
    pub(crate) runs: u32,
    /// Whether the source is dropped from the page cache before each round.
    pub(crate) cold: bool,
    /// Whether the loopback device carries this run's bytes only, so that they can be counted.
    pub(crate) counts_wire: bool,
}

/// The rounds of one workload.
pub(crate) struct TransferRounds<'a> {
    plan: RoundsPlan,
    workload: &'a str,
    terms: &'a TransferTerms,
    contenders: Vec<RoundEntry>,
}

struct RoundEntry {
    kind: String,
    /// `None` after a failure.
    contender: Option<Box<dyn Contender>>,
    latency: Histogram<u64>,
}

impl<'a> TransferRounds<'a> {
    pub(crate) fn new(plan: &RoundsPlan, workload: &'a str, terms: &'a TransferTerms) -> TransferRounds<'a> {
        TransferRounds { plan: *plan, workload, terms, contenders: Vec::new() }
    }

    pub(crate) fn add_contender(&mut self, contender: Box<dyn Contender>) {
        let kind = contender.kind().to_owned();
        self.contenders.push(RoundEntry {
            kind,
            contender: Some(contender),
            latency: latency::new_histogram(),
        });
    }

    /// Runs all rounds; gives the failed contenders that are Shoal.
    ///
    /// # Errors
    /// Only if records cannot be written. Failures of contenders become records.
    pub(crate) fn run(&mut self, sink: &mut RecordSink) -> anyhow::Result<Vec<String>> {
        let (plan, workload) = (self.plan, self.workload);
        let kinds = |wanted: fn(&dyn Contender) -> bool| {
            let contenders = self.contenders.iter().filter_map(|entered| entered.contender.as_deref());
            contenders.filter(|one| wanted(*one)).map(Contender::kind).collect::<Vec<_>>().join("; ")
        };
        if self.terms.leechers > 1 {
            let separate = kinds(|contender| contender.has_separate_downloads());
            sink.add_setting(&format!("{workload}, each leecher a download of its own"), &separate);
        }
        if self.terms.seeders > 1 {
            let from_one = kinds(|contender| contender.uses_one_source());
            sink.add_setting(&format!("{workload}, takes all from one of them"), &from_one);
        }
        let mut failed = Vec::new();
        for round in 0..plan.warmup + plan.runs {
            let counted = round.checked_sub(plan.warmup);
            let mut taking_part: Vec<usize> =
                (0..self.contenders.len()).filter(|at| self.contenders[*at].contender.is_some()).collect();
            rotate_order(&mut taking_part, counted.unwrap_or(round));
            for at in taking_part {
                if let Err(fault) = self.run_turn(at, counted, sink)? {
                    let entered = &mut self.contenders[at];
                    sink.record_failed([workload, &entered.kind], &format!("{fault:#}"))?;
                    // Dropping the contender ends its servers before the next turn.
                    if entered.contender.take().is_some_and(|contender| contender.is_ours()) {
                        failed.push(entered.kind.clone());
                    }
                }
            }
        }
        for entered in self.contenders.iter().filter(|entered| !entered.latency.is_empty()) {
            sink.record_latency([workload, &entered.kind, "piece"], &entered.latency)?;
        }
        Ok(failed)
    }

    /// The turn of one contender in a round. The outer error is one of the records, the inner one of the contender.
    fn run_turn(
        &mut self,
        at: usize,
        counted: Option<u32>,
        sink: &mut RecordSink,
    ) -> anyhow::Result<anyhow::Result<()>> {
        let others = self.contenders.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.filter_map(|(_, entered)| entered.contender.as_ref());
        let idle: Vec<u32> = others.flat_map(|contender| contender.pids()).collect();
        let entered = &mut self.contenders[at];
        let Some(contender) = entered.contender.as_deref_mut() else { return Ok(Ok(())) };
        let measured = match run_round(self.plan, self.terms, idle, contender) {
            Ok(measured) => measured,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(counted) = counted else { return Ok(Ok(())) };
        if let Some(latency) = &measured.outcome.latency {
            entered.latency.add(latency)?;
        }
        sink.add_other_load(measured.other_load);
        let (of, reference) = ([self.workload, entered.kind.as_str()], contender.is_reference());
        RoundRecorder { sink, of, round: counted, reference }.record_all(self.terms, &measured)?;
        Ok(Ok(()))
    }
}

/// A round of one contender.
struct RoundMeasurement {
    outcome: RoundOutcome,
    /// CPUs that other programs kept busy.
    other_load: f64,
    /// Bytes on the loopback device.
    wire_bytes: Option<u64>,
    /// The part of the source that was cached at the start of a cold round.
    cached: Option<f64>,
}

fn run_round(
    plan: RoundsPlan,
    terms: &TransferTerms,
    idle: Vec<u32>,
    contender: &mut dyn Contender,
) -> anyhow::Result<RoundMeasurement> {
    let into = spawned::create_empty_folder(terms.folder.join("copies"))?;
    contender.prepare_round()?;
    warm_up::touch_memory(0);
    let cached = if plan.cold {
        Some(terms.file.drop_from_cache()?)
    } else {
        terms.file.load_into_cache()?;
        None
    };
    if let Some(cached) = cached.filter(|cached| *cached > COLD_CACHED_MAX) {
        bail!(
            "the round is not cold: {:.1} % of the source stayed in the page cache, mapped by a process",
            cached * 100.0
        );
    }
    // Last, since loading the source would use up the warmed-up pages.
    warm_up::touch_files(&into, terms.file.bytes.saturating_mul(terms.leechers as u64));
    let (load, wire_before) = (OtherLoad::start_beside(idle), private_net::loopback_bytes());
    let outcome = contender.run_round(&into);
    let other_load = load.busy_cpus();
    let wire_bytes = plan.counts_wire.then(|| private_net::loopback_bytes().saturating_sub(wire_before));
    let settled = contender.finish_round();
    let outcome = outcome?;
    settled?;
    outcome.copies.iter().try_for_each(|copy| terms.file.check_copy(copy))?;
    remove_copies(&into)?;
    Ok(RoundMeasurement { outcome, other_load, wire_bytes, cached })
}

fn remove_copies(into: &Path) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(into)?)
}

/// Records the figures of a contender's round.
struct RoundRecorder<'a> {
    sink: &'a mut RecordSink,
    of: [&'a str; 2],
    round: u32,
    /// Whether others are compared with it.
    reference: bool,
}

impl RoundRecorder<'_> {
    fn record(&mut self, metric: &str, value: f64, unit: &str) -> anyhow::Result<()> {
        let of = [self.of[0], self.of[1], metric];
        self.sink.record_value(of, self.round, value, unit, self.reference && COMPARED.contains(&metric))
    }

    fn record_all(mut self, terms: &TransferTerms, measured: &RoundMeasurement) -> anyhow::Result<()> {
        let outcome = &measured.outcome;
        // A contender without a copy has read the file once, with any number of receivers.
        let moved = terms.file.bytes as f64 * outcome.copies.len().max(1) as f64;
        self.record_speeds(moved, terms, outcome)?;
        self.record_costs(moved, terms, outcome)?;
        // A contender without sockets has no bytes on the wire.
        if let Some(wire) = measured.wire_bytes.map(|bytes| bytes as f64).filter(|bytes| *bytes >= moved) {
            self.record("beyond the file, on the wire", (wire / moved - 1.0) * 100.0, "%")?;
        }
        if let Some(cached) = measured.cached {
            self.record("source cached at the start", cached * 100.0, "%")?;
        }
        self.record("other load", measured.other_load, "CPUs")?;
        self.record_numbers(&outcome.numbers)?;
        if outcome.progress.len() > 1 {
            let of = [self.of[0], &format!("{}, round {}", self.of[1], self.round + 1)];
            self.sink.record_series(of, "GB/s", progress_rates(&outcome.progress))?;
        }
        Ok(())
    }

    fn record_speeds(
        &mut self,
        moved: f64,
        terms: &TransferTerms,
        outcome: &RoundOutcome,
    ) -> anyhow::Result<()> {
        let gb_per_s = |span: Duration| moved / span.as_nanos().max(1) as f64;
        self.record("throughput", gb_per_s(outcome.command), "GB/s")?;
        self.record(COMPLETE, gb_per_s(outcome.complete.unwrap_or(outcome.command)), "GB/s")?;
        if let Some(transfer) = outcome.transfer {
            self.record("transfer itself", gb_per_s(transfer), "GB/s")?;
            let beyond = outcome.command.saturating_sub(transfer);
            self.record("command beyond the transfer", beyond.as_secs_f64() * 1e3, "ms")?;
        }
        let durable = if test_file::is_tmpfs(&terms.folder) { SYNCED } else { DURABLE };
        // A contender that writes nothing counts with its throughput, as a reference for durable copies.
        self.record(durable, gb_per_s(outcome.durable.unwrap_or(outcome.command)), "GB/s")
    }

    /// Records CPU time and memory.
    fn record_costs(
        &mut self,
        moved: f64,
        terms: &TransferTerms,
        outcome: &RoundOutcome,
    ) -> anyhow::Result<()> {
        let per_gb = |cpu: CpuSeconds| cpu.0 / moved * 1e9;
        if let (Some(source), Some(receiver)) = (outcome.source_cpu, outcome.receiver_cpu) {
            self.record("cpu", per_gb(source) + per_gb(receiver), "s/GB")?;
            self.record("cpu of seeders", per_gb(source), "s/GB")?;
            self.record("cpu of leechers", per_gb(receiver), "s/GB")?;
        }
        let Some(MemoryPeaks { sides: [sources, receivers], sampling: looking }) = outcome.peaks else {
            return Ok(());
        };
        let sides = [("seeder", sources, outcome.sources), ("leecher", receivers, terms.leechers)];
        for (who, MemoryUse { anonymous, mapped }, count) in
            sides.into_iter().filter(|(.., count)| *count > 0)
        {
            self.record(&format!("memory of a {who}, RssAnon"), mebibytes_each(anonymous, count), "MiB")?;
            self.record(
                &format!("memory of a {who}, RssFile + RssShmem"),
                mebibytes_each(mapped, count),
                "MiB",
            )?;
        }
        let part = looking.as_secs_f64() / outcome.command.as_secs_f64().max(1e-9);
        self.record("looking at memory", part * 100.0, "% of a CPU")
    }

    /// A figure may come once for each leecher: counts are added up, other figures averaged.
    fn record_numbers(&mut self, numbers: &[(String, f64, &'static str)]) -> anyhow::Result<()> {
        let mut names: Vec<&str> = Vec::new();
        for (name, ..) in numbers {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for name in names {
            let same: Vec<_> = numbers.iter().filter(|(found, ..)| found == name).collect();
            let sum: f64 = same.iter().map(|(_, value, _)| value).sum();
            let unit = same[0].2;
            self.record(name, if unit == "leechers" { sum } else { sum / same.len() as f64 }, unit)?;
        }
        Ok(())
    }
}

fn mebibytes_each(bytes: u64, count: usize) -> f64 {
    bytes as f64 / count.max(1) as f64 / f64::from(1 << 20)
}

/// The rate in GB/s between successive points, at the later one.
fn progress_rates(progress: &[(f64, f64)]) -> Vec<(f64, f64)> {
    progress
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0)
        .map(|pair| (pair[1].0, (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0) / 1e6))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_between_points() {
        let progress = [(0.0, 0.0), (1.0, 2e6), (1.0, 3e6), (3.0, 3e6)];
        assert_eq!(progress_rates(&progress), [(1.0, 2.0), (3.0, 0.0)]);
    }

    #[test]
    fn each_is_first_equally_often_and_two_go_abba() {
        let mut order = String::new();
        for round in 0..4 {
            let mut two = ['A', 'B'];
            rotate_order(&mut two, round);
            order.extend(two);
        }
        assert_eq!(order, "ABBAABBA");
        let firsts: Vec<usize> = (0..6)
            .map(|round| {
                let mut three = [0, 1, 2];
                rotate_order(&mut three, round);
                three[0]
            })
            .collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
        rotate_order::<u8>(&mut [], 1);
    }

    #[test]
    fn memory_is_divided_by_the_count() {
        assert!((mebibytes_each(6 << 20, 3) - 2.0).abs() < 1e-9);
        assert!((mebibytes_each(6 << 20, 0) - 6.0).abs() < 1e-9);
    }
}
