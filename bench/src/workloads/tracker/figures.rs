//! Turns the outcomes of loads into records: figures of each round, and latencies over all rounds.
//!
//! Invariant: refused and unanswered requests are recorded as failures next to the figures that include them.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::load::LoadOutcome;
use crate::mix::RequestKind;
use crate::results::latency;
use crate::results::sink::RecordSink;

/// What a load measures.
#[derive(Clone, Copy)]
pub(crate) struct LoadSubject<'a> {
    /// The workload's name in records.
    pub(crate) workload: &'a str,
    /// The measured tracker.
    pub(crate) who: &'a str,
    /// What the rate of answers counts; `None` at a fixed rate.
    pub(crate) rate: Option<&'a str>,
    /// Names of the kinds of requests.
    pub(crate) names: &'a dyn Fn(RequestKind) -> &'static str,
    /// CPU seconds that the tracker has used so far.
    pub(crate) cpu: &'a dyn Fn() -> Option<f64>,
}

pub(crate) struct LoadFigures<'s> {
    pub(crate) sink: &'s mut RecordSink,
    rounds: u32,
    latencies: BTreeMap<(String, String, usize), (&'static str, Histogram<u64>)>,
}

impl<'s> LoadFigures<'s> {
    /// For a number of measured rounds.
    pub(crate) fn new(sink: &'s mut RecordSink, rounds: u32) -> LoadFigures<'s> {
        LoadFigures { sink, rounds, latencies: BTreeMap::new() }
    }

    /// Runs a load and records its outcome, unless the round is a warm-up. Gives whether every request was carried
    /// out.
    pub(crate) fn measure(
        &mut self,
        subject: &LoadSubject<'_>,
        round: Option<u32>,
        run: impl FnOnce() -> anyhow::Result<LoadOutcome>,
    ) -> anyhow::Result<bool> {
        let before = (subject.cpu)();
        let outcome = run()?;
        let spent = before.and_then(|before| Some((subject.cpu)()? - before));
        let Some(round) = round else { return Ok(true) };
        self.record_round(subject, round, &outcome, spent)?;
        let of = [subject.workload, subject.who];
        if outcome.refused > 0 {
            let why = format!("{} of {} answers were refusals", outcome.refused, outcome.answered);
            self.sink.record_failed(of, &why)?;
        }
        if outcome.unanswered > 0 {
            let why = format!("{} of {} requests got no answer", outcome.unanswered, outcome.due);
            self.sink.record_failed(of, &why)?;
        }
        Ok(outcome.refused + outcome.unanswered == 0)
    }

    fn record_round(
        &mut self,
        subject: &LoadSubject<'_>,
        round: u32,
        outcome: &LoadOutcome,
        spent: Option<f64>,
    ) -> anyhow::Result<()> {
        let LoadSubject { workload, who, .. } = *subject;
        let of = |metric| [workload, who, metric];
        let lasted_s = outcome.lasted.as_secs_f64().max(1e-9);
        let carried_out = outcome.answered - outcome.refused;
        match subject.rate {
            Some(rate) => self.sink.record_sample(of(rate), round, carried_out as f64 / lasted_s, "1/s")?,
            None => {
                self.sink.record_sample(of("requests due"), round, outcome.due as f64, "")?;
                self.sink.record_sample(of("requests answered"), round, outcome.answered as f64, "")?;
                self.sink.record_sample(of("requests unanswered"), round, outcome.unanswered as f64, "")?;
                self.keep_latencies(subject, outcome)?;
            }
        }
        if let Some(spent) = spent {
            self.sink.record_sample(of("cpu"), round, spent / carried_out.max(1) as f64 * 1e5, "s/100k")?;
            self.sink.record_sample(of("cpu busy"), round, spent / lasted_s, "CPUs")?;
        }
        if subject.rate.is_none() {
            let all = if self.rounds > 1 { format!("{who}, round {}", round + 1) } else { who.to_owned() };
            self.sink.record_series([workload, &all], "answers/s", outcome.series.clone())?;
        }
        Ok(())
    }

    fn keep_latencies(&mut self, subject: &LoadSubject<'_>, outcome: &LoadOutcome) -> anyhow::Result<()> {
        let found = RequestKind::ALL.iter().zip(&outcome.latencies).enumerate();
        for (at, (kind, histogram)) in found.filter(|(_, (_, histogram))| !histogram.is_empty()) {
            let key = (subject.workload.to_owned(), subject.who.to_owned(), at);
            let new = || ((subject.names)(*kind), latency::new_histogram());
            self.latencies.entry(key).or_insert_with(new).1.add(histogram)?;
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
