//! What a line of the JSON form is: its `record` says which of these.
//!
//! Invariant: what one version writes the next can read: fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::host::HostDescription;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum BenchRecord {
    /// The machine.
    Host(HostDescription),
    /// What was called. Written when it begins and again when it has ended: the last counts.
    Run(RunRecord),
    /// One measured number of one round.
    Sample(SampleRecord),
    /// The samples of all rounds.
    Result(ResultRecord),
    /// How long each of many requests took.
    Latency(LatencyRecord),
    /// A value over time.
    Series(SeriesRecord),
    /// What was not run, and why.
    Skipped(AbsentRecord),
    /// What was run and did not succeed, and why.
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

/// A call of the harness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Names it, also as a file.
    pub(crate) id: String,
    /// As it was typed.
    pub(crate) command: String,
    /// Seconds since 1970.
    pub(crate) began_unix_s: u64,
    /// Bytes that were hashed, sent, … a round, where there is such a size.
    pub(crate) size: Option<u64>,
    /// What else it was told, in the order in which readers want it.
    pub(crate) settings: Vec<(String, String)>,
    /// What was measured.
    pub(crate) revision: String,
    /// CPUs kept busy by others while it ran; open until it has ended, and where it is not measured.
    pub(crate) other_load: Option<f64>,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SampleRecord {
    /// The run's id.
    pub(crate) run: String,
    /// What was done: kinds of the same workload did the same and can be compared.
    pub(crate) workload: String,
    /// By whom or in which way: `shoal`, `pump`, `curl`, `avx512`.
    pub(crate) kind: String,
    /// From 0.
    pub(crate) round: u32,
    /// What was measured: `throughput`, `cpu`.
    pub(crate) metric: String,
    /// The number.
    pub(crate) value: f64,
    /// Its unit: `GB/s`, `s/GB`.
    pub(crate) unit: String,
    /// Others are compared with this one, of the same round and metric.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) reference: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValueSpread {
    /// Half of the values lie below.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The most.
    pub(crate) max: f64,
}

/// The samples of one metric of one kind, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultRecord {
    /// The run's id.
    pub(crate) run: String,
    /// As in the samples.
    pub(crate) workload: String,
    /// As in the samples.
    pub(crate) kind: String,
    /// As in the samples.
    pub(crate) metric: String,
    /// As in the samples.
    pub(crate) unit: String,
    /// Rounds that counted.
    pub(crate) runs: usize,
    /// The values.
    #[serde(flatten)]
    pub(crate) spread: ValueSpread,
    /// The values as multiples of each reference's in the same round.
    #[serde(default)]
    pub(crate) ratios: Vec<ReferenceRatio>,
}

/// Values over those of a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReferenceRatio {
    /// The reference's kind.
    pub(crate) to: String,
    /// The quotients.
    #[serde(flatten)]
    pub(crate) spread: ValueSpread,
}

/// How long each of many requests took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencyRecord {
    /// The run's id.
    pub(crate) run: String,
    /// What was done.
    pub(crate) workload: String,
    /// By whom.
    pub(crate) kind: String,
    /// What took that long.
    pub(crate) metric: String,
    /// Of the values below and in the histogram.
    pub(crate) unit: String,
    /// Requests.
    pub(crate) count: u64,
    /// Half of them took at most this long.
    pub(crate) p50: u64,
    /// 90 %.
    pub(crate) p90: u64,
    /// 99 %.
    pub(crate) p99: u64,
    /// 99.9 %.
    pub(crate) p999: u64,
    /// The longest.
    pub(crate) max: u64,
    /// All of them: an HdrHistogram in its V2 encoding, deflated or not, in base64.
    pub(crate) histogram: String,
}

/// A value over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeriesRecord {
    /// The run's id.
    pub(crate) run: String,
    /// What was done.
    pub(crate) workload: String,
    /// By whom.
    pub(crate) kind: String,
    /// Unit of the values.
    pub(crate) unit: String,
    /// Milliseconds since the round began, and the value then.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Something without numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AbsentRecord {
    /// The run's id.
    #[serde(default)]
    pub(crate) run: String,
    /// What was to be done.
    pub(crate) workload: String,
    /// By whom.
    pub(crate) kind: String,
    /// Why it has none, and what to do about it.
    pub(crate) why: String,
}
