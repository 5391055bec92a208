//! Summarizes samples into results: medians, extremes, and ratios to references.
//!
//! Invariant: a ratio divides two values of the same round, so a slow moment of the machine affects both.

use super::record::{ReferenceRatio, ResultRecord, SampleRecord, ValueSpread};

/// Median and extremes; `None` without values.
pub(crate) fn value_spread(values: &[f64]) -> Option<ValueSpread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some(ValueSpread { median, min, max })
}

/// Makes one result of all samples with the same workload, kind and metric. The order is that of their first
/// samples.
pub(crate) fn summarize_samples(samples: &[SampleRecord]) -> Vec<ResultRecord> {
    let mut firsts: Vec<&SampleRecord> = Vec::new();
    for sample in samples {
        if !firsts.iter().any(|first| is_same_series(first, sample)) {
            firsts.push(sample);
        }
    }
    firsts.iter().filter_map(|first| summarize_series(first, samples)).collect()
}

/// Whether two samples belong to the same result.
fn is_same_series(a: &SampleRecord, b: &SampleRecord) -> bool {
    (&a.workload, &a.kind, &a.metric) == (&b.workload, &b.kind, &b.metric)
}

fn summarize_series(first: &SampleRecord, samples: &[SampleRecord]) -> Option<ResultRecord> {
    let own: Vec<&SampleRecord> = samples.iter().filter(|sample| is_same_series(first, sample)).collect();
    let values: Vec<f64> = own.iter().map(|sample| sample.value).collect();
    let ratio = |reference: &&SampleRecord| {
        let reference_in_round =
            |round| samples.iter().find(|sample| is_same_series(reference, sample) && sample.round == round);
        let quotients: Vec<f64> = own
            .iter()
            .filter_map(|sample| Some(sample.value / reference_in_round(sample.round)?.value))
            .filter(|quotient| quotient.is_finite())
            .collect();
        Some(ReferenceRatio { to: reference_name(reference, first), spread: value_spread(&quotients)? })
    };
    Some(ResultRecord {
        run: first.run.clone(),
        workload: first.workload.clone(),
        kind: first.kind.clone(),
        metric: first.metric.clone(),
        unit: first.unit.clone(),
        runs: own.len(),
        spread: value_spread(&values)?,
        ratios: find_references(first, samples).iter().filter_map(ratio).collect(),
    })
}

/// The references for the metric of `first`: those of its workload, or those of all workloads if its own has
/// none.
fn find_references<'a>(first: &SampleRecord, samples: &'a [SampleRecord]) -> Vec<&'a SampleRecord> {
    let mut all: Vec<&SampleRecord> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.reference && sample.metric == first.metric) {
        if !all.iter().any(|known| is_same_series(known, sample)) {
            all.push(sample);
        }
    }
    let own: Vec<&SampleRecord> =
        all.iter().copied().filter(|reference| reference.workload == first.workload).collect();
    if own.is_empty() { all } else { own }
}

/// The name of a reference in the result of `first`: the workload is left out if both have the same one.
fn reference_name(reference: &SampleRecord, first: &SampleRecord) -> String {
    if reference.workload == first.workload {
        reference.kind.clone()
    } else {
        format!("{} {}", reference.workload, reference.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(workload: &str, kind: &str, round: u32, value: f64, reference: bool) -> SampleRecord {
        SampleRecord {
            run: "r".to_owned(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            round,
            metric: "throughput".to_owned(),
            value,
            unit: "GB/s".to_owned(),
            reference,
        }
    }

    #[test]
    fn medians_and_extremes_are_right() {
        assert_eq!(value_spread(&[]), None);
        assert_eq!(value_spread(&[2.0]), Some(ValueSpread { median: 2.0, min: 2.0, max: 2.0 }));
        assert_eq!(value_spread(&[3.0, 1.0, 8.0]), Some(ValueSpread { median: 3.0, min: 1.0, max: 8.0 }));
        assert_eq!(
            value_spread(&[4.0, 1.0, 2.0, 8.0]),
            Some(ValueSpread { median: 3.0, min: 1.0, max: 8.0 })
        );
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is half as fast in the second round, which leaves the ratio unchanged.
        let samples = [
            sample("t", "pump", 0, 4.0, true),
            sample("t", "shoal", 0, 3.0, false),
            sample("t", "pump", 1, 2.0, true),
            sample("t", "shoal", 1, 1.5, false),
        ];
        let results = summarize_samples(&samples);
        assert_eq!(results.len(), 2);
        assert_eq!((results[1].kind.as_str(), results[1].runs), ("shoal", 2));
        let expected = ReferenceRatio {
            to: "pump".to_owned(),
            spread: ValueSpread { median: 0.75, min: 0.75, max: 0.75 },
        };
        assert_eq!(results[1].ratios, [expected]);
        assert_eq!(results[1].spread, ValueSpread { median: 2.25, min: 1.5, max: 3.0 });
    }

    #[test]
    fn a_workload_without_a_reference_is_compared_with_that_of_another() {
        let samples = [
            sample("stream", "crate", 0, 2.0, true),
            sample("lanes", "avx512", 0, 10.0, false),
            sample("other", "own", 0, 5.0, true),
            sample("other", "x", 0, 1.0, false),
        ];
        let results = summarize_samples(&samples);
        let to = |at: usize| results[at].ratios.iter().map(|ratio| ratio.to.as_str()).collect::<Vec<_>>();
        assert_eq!(to(1), ["stream crate", "other own"]);
        assert_eq!(to(3), ["own"]);
    }

    #[test]
    fn a_round_without_its_reference_has_no_ratio() {
        let samples = [sample("t", "pump", 0, 0.0, true), sample("t", "shoal", 0, 1.0, false)];
        assert_eq!(summarize_samples(&samples)[1].ratios, []);
        let samples = [sample("t", "pump", 1, 1.0, true), sample("t", "shoal", 0, 1.0, false)];
        assert_eq!(summarize_samples(&samples)[1].ratios, []);
    }
}
