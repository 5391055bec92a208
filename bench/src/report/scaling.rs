//! Charts of a metric over the number of leechers, and over the number of seeders, with the other number fixed.
//!
//! Invariant: only runs that measured several such numbers have charts.

use super::curves::{self, NamedCurve};
use super::text::with_unit;
use crate::limits::CURVES_MAX;
use crate::results::node_counts::{NodeCounts, count_noun};
use crate::results::record::ResultRecord;

/// The charted metrics.
const METRICS: [&str; 3] = ["throughput", "cpu", "memory of a leecher, RssAnon"];

/// The number on the x axis; the other one is fixed.
#[derive(Clone, Copy)]
enum VariedCount {
    Leechers,
    Seeders,
}

impl VariedCount {
    /// The varied number, and the name of the axis, which states the fixed one.
    fn split(self, shape: NodeCounts) -> (usize, String) {
        match self {
            VariedCount::Leechers => {
                (shape.leechers, format!("leechers, of {}", count_noun(shape.seeders, "seeder")))
            }
            VariedCount::Seeders => {
                (shape.seeders, format!("seeders, for {}", count_noun(shape.leechers, "leecher")))
            }
        }
    }
}

/// Draws all charts of a run.
pub(crate) fn draw_scaling(results: &[&ResultRecord]) -> anyhow::Result<String> {
    let mut html = String::new();
    for metric in METRICS {
        let of_metric: Vec<&ResultRecord> =
            results.iter().copied().filter(|result| result.metric == metric).collect();
        for grows in [VariedCount::Leechers, VariedCount::Seeders] {
            for (axis, curves) in scaling_charts(&of_metric, grows) {
                let unit = of_metric.first().map_or("", |result| &result.unit);
                for several in curves.chunks(CURVES_MAX) {
                    html += &curves::draw_over_count(&axis, &with_unit(metric, unit), several)?;
                }
            }
        }
    }
    Ok(html)
}

/// Names of x axes, each with the curves of all contenders that have several points on it.
fn scaling_charts(results: &[&ResultRecord], grows: VariedCount) -> Vec<(String, Vec<NamedCurve>)> {
    let mut charts: Vec<(String, Vec<NamedCurve>)> = Vec::new();
    for result in results {
        let Some(shape) = NodeCounts::parse(&result.workload) else { continue };
        let (count, axis) = grows.split(shape);
        let at = charts.iter().position(|(found, _)| *found == axis).unwrap_or_else(|| {
            charts.push((axis, Vec::new()));
            charts.len() - 1
        });
        let curves = &mut charts[at].1;
        let point = (count as f64, result.spread.median);
        match curves.iter_mut().find(|curve| curve.kind == result.kind) {
            Some(curve) => curve.points.push(point),
            None => {
                let (name, kind) = (result.kind.clone(), result.kind.clone());
                curves.push(NamedCurve { name, kind, points: vec![point] });
            }
        }
    }
    for (_, curves) in &mut charts {
        curves.retain(|curve| curve.points.len() > 1);
        curves.iter_mut().for_each(|curve| curve.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    }
    charts.retain(|(_, curves)| !curves.is_empty());
    charts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::record::ValueSpread;

    fn measured(workload: &str, kind: &str, median: f64) -> ResultRecord {
        ResultRecord {
            run: "r".to_owned(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            metric: "throughput".to_owned(),
            unit: "GB/s".to_owned(),
            runs: 1,
            spread: ValueSpread { median, min: median, max: median },
            ratios: vec![],
        }
    }

    #[test]
    fn each_varied_number_has_a_chart() {
        let all = [
            measured("1 seeder to 8 leechers", "shoal", 2.0),
            measured("1 seeder to 1 leecher", "shoal", 1.0),
            measured("3 seeders to 1 leecher", "shoal", 1.5),
            measured("1 seeder to 1 leecher", "cp", 4.0),
            measured("compare", "shoal", 9.0),
        ];
        let all: Vec<&ResultRecord> = all.iter().collect();
        let by_leechers = scaling_charts(&all, VariedCount::Leechers);
        assert_eq!(by_leechers.len(), 1);
        assert_eq!(by_leechers[0].0, "leechers, of 1 seeder");
        // A single point makes no curve.
        assert_eq!(by_leechers[0].1.len(), 1);
        assert_eq!(by_leechers[0].1[0].points, [(1.0, 1.0), (8.0, 2.0)]);
        let by_seeders = scaling_charts(&all, VariedCount::Seeders);
        assert_eq!(by_seeders.len(), 1);
        assert_eq!(by_seeders[0].1[0].points, [(1.0, 1.0), (3.0, 1.5)]);
        let html = draw_scaling(&all).unwrap();
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("leechers, of 1 seeder") && html.contains("seeders, for 1 leecher"));
        assert_eq!(draw_scaling(&all[..1]).unwrap(), "");
    }
}
