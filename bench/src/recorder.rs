//! Interleaved rounds: every workload once a round, so that a machine that slows down slows them all.
//!
//! Invariant: the first workload is the reference; a ratio is taken between two times of the same round.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock;

/// Decimal digits that a histogram keeps of each value.
const DIGITS: u8 = 4;

/// Ratios are recorded as whole millionths.
const RATIO_UNIT: f64 = 1e6;

/// Something to measure.
pub(crate) struct Workload<'a> {
    /// What it does.
    pub(crate) name: &'static str,
    /// By which way of hashing, or by whom.
    pub(crate) kind: String,
    /// Does it once.
    pub(crate) run: Box<dyn Fn() + 'a>,
}

/// Median and extremes of what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Half of the rounds lie below.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
}

/// What a workload took, round by round.
pub(crate) struct Samples {
    time_ns: Histogram<u64>,
    ratio_ppm: Histogram<u64>,
}

impl Samples {
    fn new() -> Samples {
        let histogram = || Histogram::new(DIGITS).expect("four digits are within what a histogram keeps");
        Samples { time_ns: histogram(), ratio_ppm: histogram() }
    }

    /// Notes one round.
    fn record(&mut self, time_ns: u64, reference_ns: u64) -> anyhow::Result<()> {
        self.time_ns.record(time_ns)?;
        let ratio = time_ns as f64 / reference_ns.max(1) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio of times is positive and small"
        )]
        self.ratio_ppm.record((ratio * RATIO_UNIT).round() as u64)?;
        Ok(())
    }

    /// How many rounds were recorded.
    pub(crate) fn runs(&self) -> u64 {
        self.time_ns.len()
    }

    /// Times in nanoseconds.
    pub(crate) fn time_ns(&self) -> Spread {
        spread(&self.time_ns, 1.0)
    }

    /// Times as multiples of the reference's time in the same round.
    pub(crate) fn ratio(&self) -> Spread {
        spread(&self.ratio_ppm, RATIO_UNIT)
    }
}

fn spread(histogram: &Histogram<u64>, unit: f64) -> Spread {
    let scaled = |value: u64| value as f64 / unit;
    Spread {
        median: scaled(histogram.value_at_quantile(0.5)),
        min: scaled(histogram.min()),
        max: scaled(histogram.max()),
    }
}

/// Runs all workloads `warmup` rounds for nothing and `runs` rounds that count. The first is the reference.
pub(crate) fn measure(workloads: &[Workload<'_>], warmup: u32, runs: u32) -> anyhow::Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = workloads.iter().map(|_| Samples::new()).collect();
    for round in 0..warmup + runs {
        let times_ns: Vec<u64> = workloads
            .iter()
            .map(|workload| u64::try_from(clock::timed(&workload.run).0.as_nanos()).unwrap_or(u64::MAX))
            .collect();
        if round < warmup {
            continue;
        }
        for (samples, time_ns) in samples.iter_mut().zip(&times_ns) {
            samples.record(*time_ns, times_ns[0])?;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn rounds_are_interleaved_and_warm_ones_do_not_count() {
        let ran = RefCell::new(Vec::new());
        let workload = |name: &'static str| Workload {
            name,
            kind: String::new(),
            run: Box::new({
                let ran = &ran;
                move || ran.borrow_mut().push(name)
            }),
        };
        let samples = measure(&[workload("a"), workload("b")], 1, 2).unwrap();
        assert_eq!(*ran.borrow(), ["a", "b", "a", "b", "a", "b"]);
        assert!(samples.iter().all(|samples| samples.runs() == 2));
    }

    #[test]
    fn spreads_are_those_of_what_was_recorded() {
        let mut samples = Samples::new();
        for (time_ns, reference_ns) in [(100, 200), (300, 200), (900, 300)] {
            samples.record(time_ns, reference_ns).unwrap();
        }
        assert_eq!(samples.time_ns(), Spread { median: 300.0, min: 100.0, max: 900.0 });
        let ratio = samples.ratio();
        for (found, expected) in [(ratio.median, 1.5), (ratio.min, 0.5), (ratio.max, 3.0)] {
            assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
        }
    }
}
