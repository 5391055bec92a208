//! Curves: latencies by percentile, and values over time.
//!
//! Invariant: axes have names and units, and each curve its name in the legend.

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::limits::{CHART_HEIGHT_PX, CURVES_MAX, LEGEND_ROW_PX, WIDTH_PX};
use super::palette::{INK, curve, is_dashed, with_page_colours};
use super::text::{duration, figure};

/// A named line of points.
pub(crate) struct Curve {
    /// As the legend names it.
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Ticks of a halving of the distance to the maximum, as HdrHistogram's own plots have them.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Latencies of nanoseconds by percentile, on the axis that gives each further nine as much room as the last.
pub(crate) fn percentiles(latencies: &[(String, Histogram<u64>)]) -> anyhow::Result<String> {
    let curves: Vec<Curve> = latencies.iter().map(by_percentile).collect();
    let (mut least, mut most, mut end) = (f64::MAX, 1.0_f64, 100.0_f64);
    for (x, y) in curves.iter().flat_map(|curve| &curve.points) {
        least = least.min(*y);
        most = most.max(*y);
        end = end.max(*x);
    }
    picture(&curves, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d((1.0..end).log_scale(), decades(least.min(most), most).log_scale())
            .map_err(|fault| fault.to_string())?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(INK.mix(0.18))
            .light_line_style(INK.mix(0.06))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_desc("percentile")
            .y_desc("latency")
            .x_label_formatter(&|x| percentile_name(*x))
            .y_label_formatter(&|y| nanoseconds(*y))
            .draw()
            .map_err(|fault| fault.to_string())?;
        for (index, line) in curves.iter().enumerate() {
            let style = curve(index).stroke_width(2);
            let points = line.points.iter().copied();
            let drawn = if is_dashed(index) {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style)).map(drop)
            } else {
                chart.draw_series(LineSeries::new(points, style)).map(drop)
            };
            drawn.map_err(|fault| fault.to_string())?;
        }
        Ok(())
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place on an axis of latencies"
)]
fn nanoseconds(value: f64) -> String {
    duration(value.round() as u64)
}

/// Whole decades, so that at least two of them are named on the axis.
fn decades(least: f64, most: f64) -> std::ops::Range<f64> {
    10.0_f64.powf(least.log10().floor())..10.0_f64.powf((most * 1.01).log10().ceil())
}

/// A number of an axis.
fn short(value: f64) -> String {
    let text = figure(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `99.9 %` for 1,000, which is 1 / (1 - 0.999).
fn percentile_name(x: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / x);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few nines")]
    let decimals = (x.log10().round() - 2.0).max(0.0) as usize;
    format!("{percent:.decimals$} %")
}

fn by_percentile((name, histogram): &(String, Histogram<u64>)) -> Curve {
    let last = histogram.len().max(1) as f64;
    let mut points: Vec<(f64, f64)> = histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            let quantile = step.quantile_iterated_to().min(1.0 - 0.5 / last);
            (1.0 / (1.0 - quantile), step.value_iterated_to().max(1) as f64)
        })
        .collect();
    points.dedup_by(|a, b| a.0 <= b.0);
    Curve { name: format!("{name} ({} requests)", histogram.len()), points }
}

/// Values over time, which is in milliseconds.
pub(crate) fn over_time(unit: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let (mut end, mut most) = (1.0_f64, f64::MIN_POSITIVE);
    for (x, y) in curves.iter().flat_map(|curve| &curve.points) {
        end = end.max(*x / 1e3);
        most = most.max(*y);
    }
    picture(curves, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..end, 0.0..most * 1.08)
            .map_err(|fault| fault.to_string())?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(INK.mix(0.18))
            .light_line_style(INK.mix(0.0))
            .label_style(("sans-serif", 12).into_font().color(&INK))
            .x_desc("time, s")
            .y_desc(unit)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .draw()
            .map_err(|fault| fault.to_string())?;
        for (index, line) in curves.iter().take(CURVES_MAX).enumerate() {
            let style = curve(index).stroke_width(2);
            let points = line.points.iter().map(|(ms, value)| (ms / 1e3, *value));
            let drawn = if is_dashed(index) {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style)).map(drop)
            } else {
                chart.draw_series(LineSeries::new(points, style)).map(drop)
            };
            drawn.map_err(|fault| fault.to_string())?;
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A chart with its legend below.
fn picture(curves: &[Curve], chart: impl FnOnce(&Area<'_>) -> Result<(), String>) -> anyhow::Result<String> {
    let fault = |fault: String| anyhow!("the curves could not be drawn: {fault}");
    let mut svg = String::new();
    {
        let legend = LEGEND_ROW_PX * (u32::try_from(curves.len().min(CURVES_MAX))? + 1);
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH_PX, CHART_HEIGHT_PX + legend)).into_drawing_area();
        let (above, below) = root.split_vertically(CHART_HEIGHT_PX);
        chart(&above).map_err(fault)?;
        for (index, line) in curves.iter().take(CURVES_MAX).enumerate() {
            let y = i32::try_from(LEGEND_ROW_PX)? * i32::try_from(index)? + 8;
            let stroke = curve(index).stroke_width(3);
            let ends: &[[i32; 2]] = if is_dashed(index) { &[[84, 94], [100, 110]] } else { &[[84, 110]] };
            for [from, to] in ends {
                let sample = PathElement::new(vec![(*from, y), (*to, y)], stroke);
                below.draw(&sample).map_err(|error| fault(error.to_string()))?;
            }
            let style = ("sans-serif", 13).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            let name = Text::new(line.name.clone(), (120, y), style);
            below.draw(&name).map_err(|error| fault(error.to_string()))?;
        }
        root.present()?;
    }
    Ok(with_page_colours(&svg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_named() {
        for (x, name) in
            [(1.0, "0 %"), (10.0, "90 %"), (100.0, "99 %"), (1_000.0, "99.9 %"), (1e5, "99.999 %")]
        {
            assert_eq!(percentile_name(x), name);
        }
    }

    #[test]
    fn curves_rise_and_end_at_the_longest() {
        let mut histogram = crate::results::latency::histogram();
        for value in 1..=10_000 {
            histogram.saturating_record(value * 1_000);
        }
        let curve = by_percentile(&("a".to_owned(), histogram.clone()));
        assert!(curve.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let last = curve.points.last().unwrap();
        assert!((last.1 - histogram.max() as f64).abs() < 1.0, "{last:?}");
        let median = curve.points.iter().find(|point| point.0 >= 2.0).unwrap();
        assert!((median.1 - 5e6).abs() < 1e4, "{median:?}");
    }
}
