//! What was measured, as a table for people and as JSON lines for programs.
//!
//! Invariant: every number stands beside its spread, and the machine beside them all. JSON lines have a `record`: first
//! one `host`, then a `result` for each workload, the reference first.

use humansize::{BINARY, format_size};
use serde::Serialize;

use crate::host::Host;
use crate::recorder::{Samples, Spread, Workload};

/// One workload's numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    workload: &'static str,
    /// By what.
    kind: String,
    /// Bytes a round.
    bytes: u64,
    /// Rounds that counted.
    runs: u64,
    /// Nanoseconds a round.
    time_ns: Spread,
    /// Bytes a nanosecond, by the median.
    gb_per_s: f64,
    /// Time as a multiple of the reference's in the same round.
    ratio: Spread,
}

/// A line of the JSON form.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line<'a> {
    Host(&'a Host),
    Result(&'a Row),
}

/// The numbers of all workloads, each of which hashed `bytes` a round.
pub(crate) fn rows(workloads: &[Workload<'_>], samples: &[Samples], bytes: u64) -> Vec<Row> {
    let row = |(workload, samples): (&Workload<'_>, &Samples)| {
        let time_ns = samples.time_ns();
        Row {
            workload: workload.name,
            kind: workload.kind.clone(),
            bytes,
            runs: samples.runs(),
            time_ns,
            gb_per_s: bytes as f64 / time_ns.median.max(1.0),
            ratio: samples.ratio(),
        }
    };
    workloads.iter().zip(samples).map(row).collect()
}

/// One JSON object a line.
pub(crate) fn print_json(host: &Host, rows: &[Row]) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&Line::Host(host))?);
    for row in rows {
        println!("{}", serde_json::to_string(&Line::Result(row))?);
    }
    Ok(())
}

/// A table, under the machine's description.
pub(crate) fn print_table(host: &Host, rows: &[Row]) {
    print_host(host);
    if let Some(first) = rows.first() {
        println!(
            "\n{} a round, {} rounds; ratio: time over that of the first line",
            human(first.bytes),
            first.runs
        );
    }
    println!("\n{:<12} {:<11} {:>6}  {:>6}  (min to max)", "workload", "kind", "GB/s", "ratio");
    for row in rows {
        let Spread { median, min, max } = row.ratio;
        println!(
            "{:<12} {:<11} {:>6.2}  {median:>6.3}  ({min:.3} to {max:.3})",
            row.workload, row.kind, row.gb_per_s
        );
    }
}

/// The machine alone: one JSON object, or lines for people.
pub(crate) fn print_host_alone(host: &Host, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(host)?);
    } else {
        print_host(host);
    }
    Ok(())
}

/// The machine, a line a property.
fn print_host(host: &Host) {
    let unknown = || "unknown".to_owned();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
    let bytes = |value: Option<u64>| value.map_or_else(unknown, human);
    let ring = host.io_uring_refusal.as_ref().map_or("allowed".to_owned(), |why| format!("refused: {why}"));
    let limit = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let lines = [
        ("kernel", text(&host.kernel)),
        ("cpu", text(&host.cpu)),
        ("cpus", host.cpus.map_or_else(unknown, |cpus| cpus.to_string())),
        ("cpu features", host.cpu_features.join(" ")),
        ("hashing", host.hash_kinds.join(" ")),
        ("memory", format!("{}, {} free", bytes(host.memory_bytes), bytes(host.memory_available_bytes))),
        (
            "tcp",
            format!(
                "{} (allowed: {})",
                text(&host.congestion_control),
                text(&host.congestion_control_allowed)
            ),
        ),
        ("io_uring", ring),
        ("locked memory", limit(host.locked_memory_limit_bytes.map(human))),
        ("open files", limit(host.open_files_limit.map(|files| files.to_string()))),
    ];
    for (name, value) in lines {
        println!("{name:<14} {value}");
    }
}

fn human(bytes: u64) -> String {
    format_size(bytes, BINARY)
}
