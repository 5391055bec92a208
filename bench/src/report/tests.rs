//! Reports of fixed records.

use std::path::PathBuf;

use super::*;
use crate::limits::BARS_MAX;
use crate::results::latency;
use crate::results::sink::RecordOutput;

/// A run with a record of every type. If `BENCH_REPORT_SAMPLE` names a folder, the report stays there for inspection.
fn sample(folder: PathBuf) {
    let wanted = RecordOutput { json: false, folder: Some(folder) };
    let mut sink =
        RecordSink::begin(wanted, "transfer", Some(1 << 30), &[("seeders", "3".to_owned())]).unwrap();
    for round in 0..3 {
        let by = f64::from(round) * 0.1;
        for (workload, shoal) in [("1 seeder", 2.2), ("3 seeders", 2.9)] {
            sink.record_value([workload, "pump", "throughput"], round, 3.1 + by, "GB/s", true).unwrap();
            sink.record_sample([workload, "shoal proven", "throughput"], round, shoal - by, "GB/s").unwrap();
            sink.record_sample([workload, "curl <&> nginx", "throughput"], round, 1.6 + by, "GB/s").unwrap();
            sink.record_sample([workload, "shoal proven", "memory"], round, 60.0 + by, "MiB").unwrap();
        }
    }
    for (kind, shortest_ns) in [("shoal", 40_000), ("curl", 250_000)] {
        let mut histogram = latency::new_histogram();
        for value in 1..=20_000_u64 {
            histogram.saturating_record(shortest_ns + value * value / 100);
        }
        sink.record_latency(["3 seeders", kind, "piece"], &histogram).unwrap();
        let step = if kind == "shoal" { 3 } else { 5 };
        let points = (0..40_u32).map(|at| (f64::from(at) * 100.0, 2.0 + f64::from((at * step) % 7) / 10.0));
        sink.record_series(["3 seeders", kind], "GB/s", points.collect()).unwrap();
    }
    sink.record_skipped(["3 seeders", "rqbit"], "rqbit is not installed: cargo install rqbit").unwrap();
    sink.record_failed(["3 seeders", "aria2"], "it ended with code 3").unwrap();
    sink.add_other_load(0.12);
    finish_run(sink).unwrap();
}

#[test]
fn a_page_shows_every_record_and_is_self_contained() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("BENCH_REPORT_SAMPLE").map_or(temporary.path().to_owned(), PathBuf::from);
    sample(folder.clone());
    sample(folder.clone());
    let page = fs::read_to_string(folder::report_path(&folder)).unwrap();
    assert!(page.matches("<section>").count() >= 2);
    // Bars of two metrics, percentiles and values over time, for each of two runs.
    assert!(page.matches("<svg").count() >= 8, "{}", page.matches("<svg").count());
    for words in
        ["curl &lt;&amp;&gt; nginx", "0.12 CPUs", "cargo install rqbit", "it ended with code 3", "99.9 %"]
    {
        assert!(page.contains(words), "{words} is missing");
    }
    assert!(!page.contains("<&>"));
    assert!(!page.contains("src=") && !page.contains("href="));
    assert!(!page.contains("#010203"));
}

#[test]
fn every_bar_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = RecordOutput { json: false, folder: Some(folder.path().to_owned()) };
    let mut sink = RecordSink::begin(wanted, "swarm", None, &[]).unwrap();
    for number in 0..=BARS_MAX {
        sink.record_sample(["swarm", &format!("leecher {number}"), "finish"], 0, 1.0, "x").unwrap();
    }
    finish_run(sink).unwrap();
    let page = fs::read_to_string(folder::report_path(folder.path())).unwrap();
    let pictures: String =
        page.split("<svg").skip(1).filter_map(|rest| rest.split("</svg>").next()).collect();
    for number in [0, BARS_MAX - 1, BARS_MAX] {
        assert_eq!(pictures.matches(&format!("\nleecher {number}\n")).count(), 1, "{number}");
    }
}

#[test]
fn the_text_report_shows_ratios_and_failures() {
    let folder = tempfile::tempdir().unwrap();
    sample(folder.path().to_owned());
    let stored = folder::read_runs(folder.path()).unwrap().remove(0);
    let text = text::format_run(&stored);
    for words in
        ["0.875 x pump", "FAILED: 3 seeders aria2", "skipped: 3 seeders rqbit", "p99.9", "other load"]
    {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    let results: Vec<&ResultRecord> = stored.records.iter().filter_map(BenchRecord::as_result).collect();
    let plot = text_plot::draw_plots(&results);
    assert_eq!(plot.matches("GB/s").count(), 1);
    // Throughput and memory, each with a blank line and a title; then 6 and 2 bars.
    assert_eq!(plot.matches('\n').count(), 2 + 6 + 2 + 2);
}
