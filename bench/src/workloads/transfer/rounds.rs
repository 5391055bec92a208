//! Rounds: every contender once a round, on the same terms, each copy checked; what came of it goes to the sink.
//!
//! Invariant: a contender that fails says why once and takes no further part; the others go on.

use std::path::Path;

use crate::contender::{Contender, Outcome, Terms};
use crate::results::latency;
use crate::results::sink::Sink;
use crate::topology::load::Load;
use crate::topology::{private_net, spawned, warm};

use hdrhistogram::Histogram;

/// Of what others are compared in; ratios of the rest say nothing.
const COMPARED: [&str; 3] = ["throughput", "durable", "cpu"];

/// How the rounds go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds that do not count.
    pub(crate) warmup: u32,
    /// Rounds that do.
    pub(crate) runs: u32,
    /// The source is dropped from the page cache before each.
    pub(crate) cold: bool,
    /// Nobody else sends on this loopback, so that the kernel's count of its bytes is this run's.
    pub(crate) counts_wire: bool,
}

/// The rounds of one workload.
pub(crate) struct Rounds<'a> {
    plan: Plan,
    workload: &'a str,
    terms: &'a Terms,
    contenders: Vec<Entered>,
}

struct Entered {
    contender: Box<dyn Contender>,
    latency: Histogram<u64>,
    failed: bool,
}

impl<'a> Rounds<'a> {
    /// Without contenders yet.
    pub(crate) fn new(plan: &Plan, workload: &'a str, terms: &'a Terms) -> Rounds<'a> {
        Rounds { plan: *plan, workload, terms, contenders: Vec::new() }
    }

    /// One more.
    pub(crate) fn enter(&mut self, contender: Box<dyn Contender>) {
        self.contenders.push(Entered { contender, latency: latency::histogram(), failed: false });
    }

    /// Runs all rounds.
    ///
    /// # Errors
    /// When the records cannot be written; what happens to a contender is a record.
    pub(crate) fn run(&mut self, sink: &mut Sink) -> anyhow::Result<()> {
        let (plan, workload, terms) = (self.plan, self.workload, self.terms);
        for round in 0..plan.warmup + plan.runs {
            for entered in self.contenders.iter_mut().filter(|entered| !entered.failed) {
                let kind = entered.contender.kind().to_owned();
                let measured = one(plan, terms, entered.contender.as_mut());
                match (measured, round.checked_sub(plan.warmup)) {
                    (Ok(measured), Some(counted)) => {
                        if let Some(latency) = &measured.outcome.latency {
                            entered.latency.add(latency)?;
                        }
                        sink.other_load(measured.other_load);
                        let reference = entered.contender.is_reference();
                        note(sink, [workload, &kind], counted, terms, &measured, reference)?;
                    }
                    (Ok(_), None) => {}
                    (Err(fault), _) => {
                        entered.failed = true;
                        sink.failed([workload, &kind], &format!("{fault:#}"))?;
                    }
                }
            }
        }
        for entered in self.contenders.iter().filter(|entered| !entered.latency.is_empty()) {
            sink.latency([workload, entered.contender.kind(), "piece"], &entered.latency)?;
        }
        Ok(())
    }
}

/// A round of one contender.
struct Measured {
    outcome: Outcome,
    /// CPUs that others kept busy.
    other_load: f64,
    /// Bytes that the loopback carried.
    wire_bytes: Option<u64>,
    /// The part of the source that was cached, where it should not have been.
    cached: Option<f64>,
}

fn one(plan: Plan, terms: &Terms, contender: &mut dyn Contender) -> anyhow::Result<Measured> {
    let into = spawned::folder(terms.place.join("copies"))?;
    contender.prepare()?;
    let bytes = terms.content.bytes.saturating_mul(terms.receivers as u64);
    warm::touch(bytes);
    let cached = if plan.cold {
        Some(terms.content.drop_from_cache()?)
    } else {
        terms.content.cache()?;
        None
    };
    let (load, wire_before) = (Load::start(), private_net::loopback_bytes());
    let outcome = contender.round(&into);
    let other_load = load.others();
    let wire_bytes = plan.counts_wire.then(|| private_net::loopback_bytes().saturating_sub(wire_before));
    let settled = contender.settle();
    let outcome = outcome?;
    settled?;
    outcome.copies.iter().try_for_each(|copy| terms.content.check(copy))?;
    remove(&into)?;
    Ok(Measured { outcome, other_load, wire_bytes, cached })
}

fn remove(into: &Path) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(into)?)
}

/// Puts the numbers of one round into the sink.
fn note(
    sink: &mut Sink,
    [workload, kind]: [&str; 2],
    round: u32,
    terms: &Terms,
    measured: &Measured,
    reference: bool,
) -> anyhow::Result<()> {
    let outcome = &measured.outcome;
    // What makes no copy has gone through the file once, however many receivers there are.
    let moved = terms.content.bytes as f64 * outcome.copies.len().max(1) as f64;
    let gb_per_s = |span: std::time::Duration| moved / span.as_nanos().max(1) as f64;
    let mut put = |metric: &str, value: f64, unit: &str| {
        if reference && COMPARED.contains(&metric) {
            sink.reference([workload, kind, metric], round, value, unit)
        } else {
            sink.sample([workload, kind, metric], round, value, unit)
        }
    };
    put("throughput", gb_per_s(outcome.complete), "GB/s")?;
    if let Some(durable) = outcome.durable {
        put("durable", gb_per_s(durable), "GB/s")?;
    } else {
        // So that what is durable elsewhere can be held against it.
        put("durable", gb_per_s(outcome.complete), "GB/s")?;
    }
    let per_gb = |cpu: crate::topology::usage::Cpu| cpu.0 / moved * 1e9;
    if let (Some(source), Some(receiver)) = (outcome.source_cpu, outcome.receiver_cpu) {
        put("cpu", per_gb(source) + per_gb(receiver), "s/GB")?;
        put("cpu of seeders", per_gb(source), "s/GB")?;
        put("cpu of leechers", per_gb(receiver), "s/GB")?;
    }
    if let Some([sources, receivers]) = outcome.anonymous {
        put("memory of a seeder", mib(sources, terms.sources), "MiB")?;
        put("memory of a leecher", mib(receivers, terms.receivers), "MiB")?;
    }
    // What goes by no socket has no wire.
    if let Some(wire) = measured.wire_bytes.map(|bytes| bytes as f64).filter(|bytes| *bytes >= moved) {
        put("beyond the file, on the wire", (wire / moved - 1.0) * 100.0, "%")?;
    }
    if let Some(cached) = measured.cached {
        put("source still cached", cached * 100.0, "%")?;
    }
    put("other load", measured.other_load, "CPUs")?;
    // Of several leechers a number may come several times; its samples add up.
    let mut names: Vec<&str> = Vec::new();
    for (name, ..) in &outcome.numbers {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let same: Vec<_> = outcome.numbers.iter().filter(|(found, ..)| found == name).collect();
        let sum: f64 = same.iter().map(|(_, value, _)| value).sum();
        let counts = same[0].2 == "leechers";
        sink.sample(
            [workload, kind, name],
            round,
            if counts { sum } else { sum / same.len() as f64 },
            same[0].2,
        )?;
    }
    if outcome.progress.len() > 1 {
        sink.series([workload, kind], "GB/s", rates(&outcome.progress))?;
    }
    Ok(())
}

fn mib(bytes: u64, count: usize) -> f64 {
    bytes as f64 / count.max(1) as f64 / f64::from(1 << 20)
}

/// From bytes over time to the rate of each stretch, at its end; GB/s.
fn rates(progress: &[(f64, f64)]) -> Vec<(f64, f64)> {
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
    fn rates_are_those_of_the_stretches() {
        let progress = [(0.0, 0.0), (1.0, 2e6), (1.0, 3e6), (3.0, 3e6)];
        assert_eq!(rates(&progress), [(1.0, 2.0), (3.0, 0.0)]);
    }

    #[test]
    fn memory_is_of_each() {
        assert!((mib(6 << 20, 3) - 2.0).abs() < 1e-9);
        assert!((mib(6 << 20, 0) - 6.0).abs() < 1e-9);
    }
}
