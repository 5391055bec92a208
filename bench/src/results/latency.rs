//! Histograms of latencies and their encodings.
//!
//! Invariant: values are nanoseconds.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::record::LatencyRecord;
use crate::limits::{LATENCY_DIGITS, LATENCY_MAX_NS};

/// Interval logs give maxima in milliseconds.
const HLOG_DIVISOR: f64 = 1e6;

pub(crate) const LATENCY_UNIT: &str = "ns";

/// An empty histogram. Record with `saturating_record`, which clamps values out of range.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS)
        .expect("an hour in nanoseconds with three digits is within the range of a histogram")
}

/// The record of a histogram. `of` is the workload, the kind and the metric.
pub(crate) fn latency_record(
    run: &str,
    [workload, kind, metric]: [&str; 3],
    histogram: &Histogram<u64>,
) -> anyhow::Result<LatencyRecord> {
    Ok(LatencyRecord {
        run: run.to_owned(),
        workload: workload.to_owned(),
        kind: kind.to_owned(),
        metric: metric.to_owned(),
        unit: LATENCY_UNIT.to_owned(),
        count: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        histogram: encode_histogram(histogram)?,
    })
}

/// The deflated V2 encoding, in base64.
pub(crate) fn encode_histogram(histogram: &Histogram<u64>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|fault| anyhow::anyhow!("cannot encode a histogram: {fault:?}"))?;
    Ok(STANDARD.encode(bytes))
}

/// Decodes a V2 encoding in base64, deflated or not.
pub(crate) fn decode_histogram(text: &str) -> anyhow::Result<Histogram<u64>> {
    let bytes = STANDARD.decode(text).context("the histogram is not base64")?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|fault| anyhow::anyhow!("the histogram is not an HdrHistogram: {fault:?}"))
}

/// Writes an interval log for other HdrHistogram tools: one interval for each latency, tagged with its name.
pub(crate) fn write_interval_log(
    out: &mut impl Write,
    began_unix_s: u64,
    latencies: &[(String, Duration, Histogram<u64>)],
) -> anyhow::Result<()> {
    let fault = |fault| anyhow::anyhow!("cannot write the interval log: {fault:?}");
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("values in nanoseconds, maxima in milliseconds")
        .with_start_time(UNIX_EPOCH + Duration::from_secs(began_unix_s))
        .with_max_value_divisor(HLOG_DIVISOR);
    let mut log = builder.begin_log_with(out, &mut serializer)?;
    for (name, lasted, histogram) in latencies {
        let name: String =
            name.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }).collect();
        log.write_histogram(histogram, Duration::ZERO, *lasted, Tag::new(&name))
            .map_err(|failed| fault(format!("{failed:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    /// 1 to 1,000 µs, once each.
    fn known() -> Histogram<u64> {
        let mut histogram = new_histogram();
        for value in 1..=1_000 {
            histogram.saturating_record(value * 1_000);
        }
        histogram
    }

    /// Equal within three digits.
    fn near(found: u64, expected: u64) {
        assert!(found.abs_diff(expected) * 1_000 <= expected, "{found} is not near {expected}");
    }

    #[test]
    fn percentiles_are_those_of_known_samples() {
        let latency = latency_record("r", ["w", "k", "m"], &known()).unwrap();
        assert_eq!(latency.count, 1_000);
        near(latency.p50, 500_000);
        near(latency.p90, 900_000);
        near(latency.p99, 990_000);
        near(latency.p999, 999_000);
        near(latency.max, 1_000_000);
    }

    #[test]
    fn an_encoded_histogram_is_decoded_again() {
        let histogram = known();
        assert_eq!(decode_histogram(&encode_histogram(&histogram).unwrap()).unwrap(), histogram);
        assert!(decode_histogram("####").is_err());
        assert!(decode_histogram("AAAA").is_err());
    }

    #[test]
    fn larger_values_are_recorded_as_the_maximum() {
        let mut histogram = new_histogram();
        histogram.saturating_record(u64::MAX);
        assert_eq!(histogram.len(), 1);
        near(histogram.max(), LATENCY_MAX_NS);
    }

    #[test]
    fn an_interval_log_can_be_read_back() {
        let mut bytes = Vec::new();
        write_interval_log(&mut bytes, 7, &[("a b/c".to_owned(), Duration::from_secs(2), known())]).unwrap();
        let intervals: Vec<_> = IntervalLogIterator::new(&bytes)
            .map(Result::unwrap)
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 1);
        assert_eq!(intervals[0].tag().unwrap().as_str(), "a_b/c");
        assert_eq!(intervals[0].duration(), Duration::from_secs(2));
        let read: Histogram<u64> = decode_histogram(intervals[0].encoded_histogram()).unwrap();
        assert_eq!(read, known());
    }
}
