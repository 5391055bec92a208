//! Turns the outcomes of loads into records: figures for each round, and latencies over all rounds.
//!
//! Invariant: refused and unanswered requests are recorded as failures of the load too.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::load::LoadOutcome;
use crate::mix::RequestKind;
use crate::results::latency;
use crate::results::sink::RecordSink;

/// What a load measures, and how records name it.
#[derive(Clone, Copy)]
pub(crate) struct LoadSubject<'a> {
    /// The workload's name in records.
    pub(crate) workload: &'a str,
    /// Name of the measured tracker in records.
    pub(crate) tracker_name: &'a str,
    /// At the maximum rate, the metric's name for the reached rate, such as `requests`; `None` at a fixed rate.
    pub(crate) rate_metric: Option<&'a str>,
    /// Gives the name of a kind of request in records.
    pub(crate) kind_name: &'a dyn Fn(RequestKind) -> &'static str,
    /// Reads the CPU seconds that the tracker has used so far; `None` if they cannot be read.
    pub(crate) cpu_seconds: &'a dyn Fn() -> Option<f64>,
}

/// Records the figures of all loads of a run.
pub(crate) struct LoadFigures<'s> {
    pub(crate) sink: &'s mut RecordSink,
    /// Number of measured rounds.
    rounds: u32,
    /// Latencies of all rounds. The key is workload, tracker and the kind's index; the value is the kind's name and histogram.
    latencies: BTreeMap<(String, String, usize), (&'static str, Histogram<u64>)>,
}

impl<'s> LoadFigures<'s> {
    /// Starts without figures. `rounds` is the number of measured rounds.
    pub(crate) fn new(sink: &'s mut RecordSink, rounds: u32) -> LoadFigures<'s> {
        LoadFigures { sink, rounds, latencies: BTreeMap::new() }
    }

    /// Runs a load and records its outcome. With `round` `None` it is a warm-up and nothing is recorded. Returns whether
    /// every request was carried out; always true for a warm-up.
    pub(crate) fn measure(
        &mut self,
        subject: &LoadSubject<'_>,
        round: Option<u32>,
        run: impl FnOnce() -> anyhow::Result<LoadOutcome>,
    ) -> anyhow::Result<bool> {
        let before = (subject.cpu_seconds)();
        let outcome = run()?;
        let cpu_s = before.and_then(|before| Some((subject.cpu_seconds)()? - before));
        let Some(round) = round else { return Ok(true) };
        self.record_round(subject, round, &outcome, cpu_s)?;
        let load_name = [subject.workload, subject.tracker_name];
        if outcome.refused > 0 {
            let why = format!("{} of {} answers were refusals", outcome.refused, outcome.answered);
            self.sink.record_failed(load_name, &why)?;
        }
        if outcome.unanswered > 0 {
            let why = format!("{} of {} requests got no answer", outcome.unanswered, outcome.due);
            self.sink.record_failed(load_name, &why)?;
        }
        Ok(outcome.refused + outcome.unanswered == 0)
    }

    fn record_round(
        &mut self,
        subject: &LoadSubject<'_>,
        round: u32,
        outcome: &LoadOutcome,
        cpu_s: Option<f64>,
    ) -> anyhow::Result<()> {
        let LoadSubject { workload, tracker_name: who, .. } = *subject;
        let name = |metric| [workload, who, metric];
        let lasted_s = outcome.lasted.as_secs_f64().max(1e-9);
        let carried_out = outcome.answered - outcome.refused;
        match subject.rate_metric {
            Some(rate) => self.sink.record_sample(name(rate), round, carried_out as f64 / lasted_s, "1/s")?,
            None => {
                self.sink.record_sample(name("requests due"), round, outcome.due as f64, "")?;
                self.sink.record_sample(name("requests answered"), round, outcome.answered as f64, "")?;
                self.sink.record_sample(name("requests unanswered"), round, outcome.unanswered as f64, "")?;
                self.add_latencies(subject, outcome)?;
            }
        }
        if let Some(cpu_s) = cpu_s {
            self.sink.record_sample(name("cpu"), round, cpu_s / carried_out.max(1) as f64 * 1e5, "s/100k")?;
            self.sink.record_sample(name("cpu busy"), round, cpu_s / lasted_s, "CPUs")?;
        }
        if subject.rate_metric.is_none() {
            let series_name =
                if self.rounds > 1 { format!("{who}, round {}", round + 1) } else { who.to_owned() };
            self.sink.record_series([workload, &series_name], "answers/s", outcome.series.clone())?;
        }
        Ok(())
    }

    fn add_latencies(&mut self, subject: &LoadSubject<'_>, outcome: &LoadOutcome) -> anyhow::Result<()> {
        let by_kind = RequestKind::ALL.iter().zip(&outcome.latencies).enumerate();
        for (index, (kind, histogram)) in by_kind.filter(|(_, (_, histogram))| !histogram.is_empty()) {
            let key = (subject.workload.to_owned(), subject.tracker_name.to_owned(), index);
            let empty = || ((subject.kind_name)(*kind), latency::new_histogram());
            self.latencies.entry(key).or_insert_with(empty).1.add(histogram)?;
        }
        Ok(())
    }

    /// Records the latencies over all rounds.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        for ((workload, who, _), (name, histogram)) in self.latencies {
            self.sink.record_latency([&workload, &who, name], &histogram)?;
        }
        Ok(())
    }
}
