//! Formats one run as text tables, and the machine as lines of text.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};

use crate::host::HostDescription;
use crate::results::folder::StoredRun;
use crate::results::record::{
    AbsentRecord, BenchRecord, LatencyRecord, ReferenceRatio, ResultRecord, ValueSpread,
};

/// Formats a run: the machine, the settings, results, latencies, and what was skipped or failed.
pub(crate) fn format_run(stored: &StoredRun) -> String {
    let mut text = stored.host.as_ref().map(format_host).unwrap_or_default();
    let size = stored.run.size.map(|size| format!("{} a round", format_bytes(size)));
    let settings = stored.run.settings.iter().map(|(name, value)| format!("{name} {value}"));
    text += &format!("\n{}\n", size.into_iter().chain(settings).collect::<Vec<_>>().join(", "));
    if let Some(load) = stored.run.other_load {
        text += &format!("other load on the machine: {load:.2} CPUs\n");
    }
    let results: Vec<&ResultRecord> = stored.records.iter().filter_map(BenchRecord::as_result).collect();
    if !results.is_empty() {
        text += &results_table(&results);
    }
    let latencies: Vec<&LatencyRecord> = stored.records.iter().filter_map(BenchRecord::as_latency).collect();
    if !latencies.is_empty() {
        text += &latency_table(&latencies);
    }
    for record in &stored.records {
        match record {
            BenchRecord::Skipped(AbsentRecord { workload, kind, why, .. }) => {
                text += &format!("\nskipped: {workload} {kind}: {why}");
            }
            BenchRecord::Failed(AbsentRecord { workload, kind, why, .. }) => {
                text += &format!("\nFAILED: {workload} {kind}: {why}");
            }
            _ => {}
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A table with one result a line.
fn results_table(results: &[&ResultRecord]) -> String {
    let column_width = |column: fn(&ResultRecord) -> &str| {
        results.iter().map(|result| column(result).chars().count()).max().unwrap_or(0).max(8)
    };
    let widths = [
        column_width(|r| &r.workload),
        column_width(|r| &r.kind),
        column_width(|r| &r.metric),
        column_width(|r| &r.unit),
    ];
    let mut text = format!(
        "\n{:<a$}  {:<b$}  {:<c$}  {:>9} {:<d$}  (min to max)  ratio (min to max)\n",
        "workload",
        "kind",
        "metric",
        "median",
        "unit",
        a = widths[0],
        b = widths[1],
        c = widths[2],
        d = widths[3],
    );
    for ResultRecord {
        workload,
        kind,
        metric,
        unit,
        runs,
        spread: ValueSpread { median, min, max },
        ratios,
        ..
    } in results
    {
        // A single round has no spread.
        let spread = (*runs > 1).then(|| format!("  ({} to {})", format_figure(*min), format_figure(*max)));
        let _ = write!(
            text,
            "{workload:<a$}  {kind:<b$}  {metric:<c$}  {:>9} {unit:<d$}{}",
            format_figure(*median),
            spread.unwrap_or_default(),
            a = widths[0],
            b = widths[1],
            c = widths[2],
            d = widths[3],
        );
        for ReferenceRatio { to, spread: ValueSpread { median, min, max } } in ratios {
            if to != kind {
                let _ = write!(text, "  {median:.3} x {to} ({min:.3} to {max:.3})");
            }
        }
        text.push('\n');
    }
    text
}

/// A table with one latency distribution a line.
fn latency_table(latencies: &[&LatencyRecord]) -> String {
    let name = |latency: &LatencyRecord| format!("{} {} {}", latency.workload, latency.kind, latency.metric);
    let width = latencies.iter().map(|latency| name(latency).chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "\n{:<width$}  {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "latency", "requests", "p50", "p90", "p99", "p99.9", "max"
    );
    for latency in latencies {
        let _ = writeln!(
            text,
            "{:<width$}  {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}",
            name(latency),
            latency.count,
            format_duration(latency.p50),
            format_duration(latency.p90),
            format_duration(latency.p99),
            format_duration(latency.p999),
            format_duration(latency.max),
        );
    }
    text
}

/// A metric's name with its unit; a count has no unit.
pub(crate) fn with_unit(metric: &str, unit: &str) -> String {
    if unit.is_empty() { metric.to_owned() } else { format!("{metric}, {unit}") }
}

/// A number with about four significant digits.
pub(crate) fn format_figure(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 0.1 => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

/// A duration in nanoseconds, shown in ns, µs, ms or s with about three significant digits.
pub(crate) fn format_duration(ns: u64) -> String {
    let (value, unit) = match ns as f64 {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let decimals = usize::from(value < 100.0 && unit != "ns") + usize::from(value < 10.0 && unit != "ns");
    format!("{value:.decimals$} {unit}")
}

/// The machine, one property a line.
pub(crate) fn format_host(host: &HostDescription) -> String {
    host_properties(host)
        .into_iter()
        .fold(String::new(), |text, (name, value)| text + &format!("{name:<14} {value}\n"))
}

/// The machine's properties as pairs of name and text.
pub(crate) fn host_properties(host: &HostDescription) -> [(&'static str, String); 11] {
    let unknown = || "unknown".to_owned();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
    let bytes = |value: Option<u64>| value.map_or_else(unknown, format_bytes);
    let io_uring =
        host.io_uring_refusal.as_ref().map_or("allowed".to_owned(), |why| format!("refused: {why}"));
    let limit = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let tcp =
        format!("{} (allowed: {})", text(&host.congestion_control), text(&host.congestion_control_allowed));
    [
        ("kernel", text(&host.kernel)),
        ("cpu", text(&host.cpu)),
        ("cpus", host.cpus.map_or_else(unknown, |cpus| cpus.to_string())),
        ("cpu features", host.cpu_features.join(" ")),
        ("hashing", host.hash_kinds.join(" ")),
        ("memory", format!("{}, {} free", bytes(host.memory_bytes), bytes(host.memory_available_bytes))),
        ("tcp", tcp),
        ("io_uring", io_uring),
        ("locked memory", limit(host.locked_memory_limit_bytes.map(format_bytes))),
        ("filesystem", host.filesystem.clone().unwrap_or_else(|| "no folder given".to_owned())),
        ("open files", limit(host.open_files_limit.map(|files| files.to_string()))),
    ]
}

/// Bytes in a binary unit.
pub(crate) fn format_bytes(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_significant_digits() {
        let cases =
            [(0.0, "0"), (0.012_34, "0.01234"), (1.5, "1.500"), (12.345, "12.35"), (123_456.7, "123457")];
        for (value, text) in cases {
            assert_eq!(format_figure(value), text);
        }
        let cases = [(999, "999 ns"), (1_500, "1.50 µs"), (25_000, "25.0 µs"), (2_000_000_000, "2.00 s")];
        for (ns, text) in cases {
            assert_eq!(format_duration(ns), text);
        }
    }
}
