//! The records of a run. The field `record` of a JSON line names its type.
//!
//! Invariant: later versions read these records. Fields may be added, never renamed.

use serde::{Deserialize, Serialize};

use crate::host::HostDescription;

/// One line of a record file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum BenchRecord {
    Host(HostDescription),
    /// How the harness was called. Written at the start of the run and again at its end; the last record counts.
    Run(RunRecord),
    /// One value of one round.
    Sample(SampleRecord),
    /// The samples of all rounds.
    Result(ResultRecord),
    /// The latencies of many requests.
    Latency(LatencyRecord),
    /// A value over time.
    Series(SeriesRecord),
    /// A measurement that was left out, and why.
    Skipped(AbsentRecord),
    /// A measurement that failed, and why.
    Failed(AbsentRecord),
}

impl BenchRecord {
    pub(crate) fn as_result(&self) -> Option<&ResultRecord> {
        if let BenchRecord::Result(result) = self { Some(result) } else { None }
    }

    pub(crate) fn as_latency(&self) -> Option<&LatencyRecord> {
        if let BenchRecord::Latency(latency) = self { Some(latency) } else { None }
    }

    pub(crate) fn as_series(&self) -> Option<&SeriesRecord> {
        if let BenchRecord::Series(series) = self { Some(series) } else { None }
    }
}

/// How the harness was called, and on what build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Identifies the run, also in file names.
    pub(crate) id: String,
    /// The command line.
    pub(crate) command: String,
    /// Start time, in seconds since 1970.
    pub(crate) began_unix_s: u64,
    /// Bytes that a round hashes or transfers, if the workload has such a size.
    pub(crate) size: Option<u64>,
    /// Other options and findings, in display order.
    pub(crate) settings: Vec<(String, String)>,
    /// Version and commit of the measured build.
    pub(crate) revision: String,
    /// CPUs that other programs kept busy; `None` until the run has ended, or if not measured.
    pub(crate) other_load: Option<f64>,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SampleRecord {
    /// The run's id.
    pub(crate) run: String,
    /// What was done. Kinds of one workload do the same, so they can be compared.
    pub(crate) workload: String,
    /// The program or variant: `shoal`, `pump`, `curl`, `avx512`.
    pub(crate) kind: String,
    /// Counted from 0.
    pub(crate) round: u32,
    /// What was measured: `throughput`, `cpu`.
    pub(crate) metric: String,
    pub(crate) value: f64,
    /// Such as `GB/s` or `s/GB`.
    pub(crate) unit: String,
    /// Whether other values of the same round and metric are compared with this one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) reference: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Median and extremes of several values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValueSpread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The samples of one metric of one kind, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultRecord {
    /// The run's id.
    pub(crate) run: String,
    pub(crate) workload: String,
    pub(crate) kind: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    /// Number of measured rounds.
    pub(crate) runs: usize,
    /// Median and extremes of the samples.
    #[serde(flatten)]
    pub(crate) spread: ValueSpread,
    /// Ratios to each reference, taken within each round.
    #[serde(default)]
    pub(crate) ratios: Vec<ReferenceRatio>,
}

/// Ratios of a kind's samples to those of a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReferenceRatio {
    /// The reference's kind.
    pub(crate) to: String,
    /// Median and extremes of the ratios.
    #[serde(flatten)]
    pub(crate) spread: ValueSpread,
}

/// The latencies of many requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencyRecord {
    /// The run's id.
    pub(crate) run: String,
    pub(crate) workload: String,
    pub(crate) kind: String,
    pub(crate) metric: String,
    /// Unit of the percentiles and of `max`.
    pub(crate) unit: String,
    /// Number of requests.
    pub(crate) count: u64,
    /// Median.
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    /// 99.9th percentile.
    pub(crate) p999: u64,
    pub(crate) max: u64,
    /// The HdrHistogram in its V2 encoding, deflated or not, in base64.
    pub(crate) histogram: String,
}

/// A value over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeriesRecord {
    /// The run's id.
    pub(crate) run: String,
    pub(crate) workload: String,
    pub(crate) kind: String,
    pub(crate) unit: String,
    /// Milliseconds since the round began, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A measurement without values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AbsentRecord {
    /// The run's id.
    #[serde(default)]
    pub(crate) run: String,
    pub(crate) workload: String,
    pub(crate) kind: String,
    /// The reason, and the remedy if there is one.
    pub(crate) why: String,
}
