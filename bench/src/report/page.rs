//! `report.html`: all runs of a folder on one self-contained page, the latest first.
//!
//! Invariant: text of records is always escaped.

use std::fmt::Write as _;

use anyhow::Context as _;

use super::bars;
use super::curves::{self, NamedCurve};
use super::scaling;
use super::text::{format_bytes, format_duration, format_figure, host_properties};
use crate::limits::{BARS_MAX, CURVES_MAX, PICTURES_SHOWN};
use crate::results::folder::StoredRun;
use crate::results::latency;
use crate::results::record::{
    BenchRecord, LatencyRecord, ReferenceRatio, ResultRecord, SeriesRecord, ValueSpread,
};

const STYLE: &str = include_str!("page.css");

/// The page of `runs`, which are ordered from the earliest to the latest.
pub(crate) fn render_page(runs: &[StoredRun]) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Shoal benchmarks</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{STYLE}</style></head><body>\n\
         <h1>Shoal benchmarks</h1>\n<p>Bars show medians; whiskers show the minimum and maximum of all rounds. A ratio is \
         taken within each round. Latency counts from when a request was due.</p>\n"
    );
    for run in runs.iter().rev() {
        page += &render_section(run).with_context(|| format!("cannot draw the run {}", run.run.id))?;
    }
    page += "</body></html>\n";
    Ok(page)
}

fn render_section(stored: &StoredRun) -> anyhow::Result<String> {
    let run = &stored.run;
    let mut html = format!(
        "<section>\n<h2>{}</h2>\n<p><code>{}</code></p>\n",
        escape_html(&run.id),
        escape_html(&run.command)
    );
    let mut settings: Vec<(String, String)> = vec![("revision".to_owned(), run.revision.clone())];
    settings.extend(run.size.map(|size| ("size".to_owned(), format_bytes(size))));
    settings.extend(run.settings.iter().cloned());
    settings.extend(run.other_load.map(|cpus| ("other load".to_owned(), format!("{cpus:.2} CPUs"))));
    html += &render_pairs(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let results: Vec<&ResultRecord> = stored.records.iter().filter_map(BenchRecord::as_result).collect();
    html += &scaling::draw_scaling(&results)?;
    html += &render_bars(&results)?;
    html += &render_latencies(stored)?;
    html += &render_series(stored)?;
    html += &render_results(&results);
    for record in &stored.records {
        let (word, absent) = match record {
            BenchRecord::Skipped(absent) => ("skipped", absent),
            BenchRecord::Failed(absent) => ("failed", absent),
            _ => continue,
        };
        let _ = writeln!(
            html,
            "<p class=\"{word}\">{word}: {} {}: {}</p>",
            escape_html(&absent.workload),
            escape_html(&absent.kind),
            escape_html(&absent.why)
        );
    }
    if let Some(host) = &stored.host {
        let properties = host_properties(host);
        html += "<details><summary>the machine</summary>\n";
        html += &render_pairs(properties.iter().map(|(name, value)| (*name, value.as_str())));
        html += "</details>\n";
    }
    Ok(html + "</section>\n")
}

/// A bar picture for each metric with several results. The first few are shown, the others folded.
fn render_bars(results: &[&ResultRecord]) -> anyhow::Result<String> {
    let mut pictures: Vec<String> = Vec::new();
    let mut drawn: Vec<&str> = Vec::new();
    for result in results {
        if drawn.contains(&result.metric.as_str()) {
            continue;
        }
        drawn.push(&result.metric);
        let same: Vec<&ResultRecord> =
            results.iter().copied().filter(|other| other.metric == result.metric).collect();
        if same.len() > 1 {
            // A metric with too many bars takes several pictures.
            let parts = same.chunks(BARS_MAX).map(bars::draw_bars).collect::<anyhow::Result<Vec<_>>>()?;
            pictures.push(parts.concat());
        }
    }
    let folded = pictures.split_off(pictures.len().min(PICTURES_SHOWN));
    let mut html = pictures.concat();
    if !folded.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} more metrics</summary>\n{}</details>\n",
            folded.len(),
            folded.concat()
        );
    }
    Ok(html)
}

/// Charts and a table of all latencies of a run.
fn render_latencies(stored: &StoredRun) -> anyhow::Result<String> {
    let latencies: Vec<&LatencyRecord> = stored.records.iter().filter_map(BenchRecord::as_latency).collect();
    if latencies.is_empty() {
        return Ok(String::new());
    }
    let name = |latency: &LatencyRecord| format!("{} {} {}", latency.workload, latency.kind, latency.metric);
    let mut html = String::new();
    for several in latencies.chunks(CURVES_MAX) {
        let histograms = several
            .iter()
            .map(|latency| {
                Ok((name(latency), latency.kind.clone(), latency::decode_histogram(&latency.histogram)?))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        html += &curves::draw_percentiles(&histograms)?;
    }
    html += "<table><tr><th>latency<th>requests<th>p50<th>p90<th>p99<th>p99.9<th>max</tr>\n";
    for latency in latencies {
        let _ = write!(html, "<tr><td>{}<td>{}", escape_html(&name(latency)), latency.count);
        for value in [latency.p50, latency.p90, latency.p99, latency.p999, latency.max] {
            let _ = write!(html, "<td>{}", format_duration(value));
        }
        html += "</tr>\n";
    }
    Ok(html + "</table>\n")
}

/// Charts of the values over time of a run, for each unit.
fn render_series(stored: &StoredRun) -> anyhow::Result<String> {
    let all: Vec<&SeriesRecord> = stored.records.iter().filter_map(BenchRecord::as_series).collect();
    let mut units: Vec<&str> = all.iter().map(|series| series.unit.as_str()).collect();
    units.sort_unstable();
    units.dedup();
    let mut html = String::new();
    for unit in units {
        let of_unit = all.iter().copied().filter(|series| series.unit == unit);
        // All rounds of a contender share one style.
        let contender =
            |series: &SeriesRecord| series.kind.split(", round ").next().unwrap_or_default().to_owned();
        let mut families: Vec<Vec<&SeriesRecord>> = Vec::new();
        for series in of_unit {
            let same = |family: &&mut Vec<&SeriesRecord>| {
                family
                    .iter()
                    .any(|one| one.workload == series.workload && contender(one) == contender(series))
            };
            match families.iter_mut().find(same) {
                Some(family) => family.push(series),
                None => families.push(vec![series]),
            }
        }
        for several in families.chunks(CURVES_MAX) {
            let several: Vec<&SeriesRecord> = several.concat();
            let curve = |series: &&SeriesRecord| NamedCurve {
                name: format!("{} {}", series.workload, contender(series)),
                kind: contender(series),
                points: series.points.clone(),
            };
            html += &curves::draw_over_time(unit, &several.iter().map(curve).collect::<Vec<_>>())?;
        }
    }
    Ok(html)
}

fn render_results(results: &[&ResultRecord]) -> String {
    if results.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<table><tr><th>workload<th>kind<th>metric<th>median<th>min<th>max<th>unit<th>rounds<th>ratio (min to max)</tr>\n",
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
        let ratio = |ReferenceRatio { to, spread: ValueSpread { median, min, max } }: &ReferenceRatio| {
            format!("{median:.3} ({min:.3} to {max:.3}) x {}", escape_html(to))
        };
        let others = ratios.iter().filter(|ratio| ratio.to != *kind).map(ratio);
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{runs}<td>{}</tr>",
            escape_html(workload),
            escape_html(kind),
            escape_html(metric),
            format_figure(*median),
            format_figure(*min),
            format_figure(*max),
            escape_html(unit),
            others.collect::<Vec<_>>().join("<br>"),
        );
    }
    html + "</table>\n"
}

fn render_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let rows = pairs.fold(String::new(), |rows, (name, value)| {
        rows + &format!("<tr><th>{}<td>{}</tr>\n", escape_html(name), escape_html(value))
    });
    format!("<table class=\"pairs\">\n{rows}</table>\n")
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
