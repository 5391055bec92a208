//! Charts of curves: latencies by percentile, values over time, values over numbers of nodes.
//!
//! Invariant: axes have names and units, and each curve has its name in the legend.

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::{CurveStyle, TEXT_COLOUR, assign_styles, with_page_colours};
use super::text::{format_duration, format_figure};
use crate::limits::{CHART_HEIGHT_PX, LEGEND_ROW_PX, TICKS_PER_HALF_DISTANCE, WIDTH_PX};

/// A named line of points.
pub(crate) struct NamedCurve {
    /// The name in the legend. Curves with the same name share a style and a legend entry.
    pub(crate) name: String,
    /// The contender, which determines the style.
    pub(crate) kind: String,
    /// Points (x, y), in order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws points in a style. It is a macro because dashed and solid series have different types.
macro_rules! series {
    ($chart:expr, $points:expr, $style:expr, $width:expr) => {{
        let stroke = $style.colour.stroke_width($width);
        if $style.dashed {
            $chart.draw_series(DashedLineSeries::new($points, 6, 4, stroke)).map(drop)
        } else {
            $chart.draw_series(LineSeries::new($points, stroke)).map(drop)
        }
    }};
}

/// Draws latencies, in nanoseconds, by percentile. On the x axis 90, 99, 99.9 % and so on are equally far apart.
pub(crate) fn draw_percentiles(latencies: &[(String, String, Histogram<u64>)]) -> anyhow::Result<String> {
    let curves: Vec<NamedCurve> = latencies.iter().map(percentile_curve).collect();
    let (mut min_y, mut max_y, mut max_x) = (f64::MAX, 1.0_f64, 100.0_f64);
    for (x, y) in curves.iter().flat_map(|curve| &curve.points) {
        min_y = min_y.min(*y);
        max_y = max_y.max(*y);
        max_x = max_x.max(*x);
    }
    draw_picture(&curves, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d((1.0..max_x).log_scale(), decade_range(min_y.min(max_y), max_y).log_scale())
            .map_err(|fault| fault.to_string())?;
        chart
            .configure_mesh()
            .axis_style(TEXT_COLOUR)
            .bold_line_style(TEXT_COLOUR.mix(0.18))
            .light_line_style(TEXT_COLOUR.mix(0.06))
            .label_style(("sans-serif", 12).into_font().color(&TEXT_COLOUR))
            .x_desc("percentile")
            .y_desc("latency")
            .x_label_formatter(&|x| percentile_name(*x))
            .y_label_formatter(&|y| format_nanoseconds(*y))
            .draw()
            .map_err(|fault| fault.to_string())?;
        for (line, style) in style_curves(&curves) {
            let drawn = series!(chart, line.points.iter().copied(), style, 2);
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
fn format_nanoseconds(value: f64) -> String {
    format_duration(value.round() as u64)
}

/// The range in whole powers of ten, so that the axis has at least two labels.
fn decade_range(min: f64, max: f64) -> std::ops::Range<f64> {
    10.0_f64.powf(min.log10().floor())..10.0_f64.powf((max * 1.01).log10().ceil())
}

/// An axis label without trailing zeros.
fn format_short(value: f64) -> String {
    let text = format_figure(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The percentile at x = 1 / (1 - quantile): `99.9 %` for 1,000.
fn percentile_name(x: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / x);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few nines")]
    let decimals = (x.log10().round() - 2.0).max(0.0) as usize;
    format!("{percent:.decimals$} %")
}

fn percentile_curve((name, kind, histogram): &(String, String, Histogram<u64>)) -> NamedCurve {
    let last = histogram.len().max(1) as f64;
    let mut points: Vec<(f64, f64)> = histogram
        .iter_quantiles(TICKS_PER_HALF_DISTANCE)
        .map(|step| {
            let quantile = step.quantile_iterated_to().min(1.0 - 0.5 / last);
            (1.0 / (1.0 - quantile), step.value_iterated_to().max(1) as f64)
        })
        .collect();
    points.dedup_by(|a, b| a.0 <= b.0);
    NamedCurve { name: format!("{name} ({} requests)", histogram.len()), kind: kind.clone(), points }
}

/// Draws values over time. `x` of each point is in milliseconds; the axis shows seconds.
pub(crate) fn draw_over_time(unit: &str, curves: &[NamedCurve]) -> anyhow::Result<String> {
    let seconds = |curve: &NamedCurve| NamedCurve {
        name: curve.name.clone(),
        kind: curve.kind.clone(),
        points: curve.points.iter().map(|(ms, value)| (ms / 1e3, *value)).collect(),
    };
    let curves: Vec<NamedCurve> = curves.iter().map(seconds).collect();
    let end = curves.iter().flat_map(|curve| &curve.points).fold(1e-3_f64, |end, point| end.max(point.0));
    draw_lines(
        &ChartAxes { x: 0.0..end, x_name: "time, s", x_ticks: 11, x_label: format_short, y_name: unit },
        &curves,
        false,
    )
}

/// Draws values over a number of nodes. The x axis is logarithmic, to base 2.
pub(crate) fn draw_over_count(x_name: &str, metric: &str, curves: &[NamedCurve]) -> anyhow::Result<String> {
    let doublings = |curve: &NamedCurve| NamedCurve {
        name: curve.name.clone(),
        kind: curve.kind.clone(),
        points: curve.points.iter().map(|(count, value)| (count.log2(), *value)).collect(),
    };
    let curves: Vec<NamedCurve> = curves.iter().map(doublings).collect();
    let all = curves.iter().flat_map(|curve| &curve.points);
    let (min, max) = all.fold((f64::MAX, 1.0_f64), |(min, max), (x, _)| (min.min(*x), max.max(*x)));
    let x = min.min(max).floor()..max.ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "doublings of at most 64")]
    let x_ticks = (x.end - x.start) as usize + 1;
    draw_lines(&ChartAxes { x, x_name, x_ticks, x_label: count_name, y_name: metric }, &curves, true)
}

/// The label of a power of two, given its exponent; empty between powers.
fn count_name(doublings: f64) -> String {
    let whole = (doublings - doublings.round()).abs() < 1e-6;
    if whole { format!("{:.0}", doublings.exp2()) } else { String::new() }
}

/// The range, names and labels of a chart's axes.
struct ChartAxes<'a> {
    x: std::ops::Range<f64>,
    x_name: &'a str,
    x_ticks: usize,
    x_label: fn(f64) -> String,
    y_name: &'a str,
}

/// Draws curves on linear axes, with y from zero; with `dots`, each point is marked.
fn draw_lines(axes: &ChartAxes<'_>, curves: &[NamedCurve], dots: bool) -> anyhow::Result<String> {
    let most = curves
        .iter()
        .flat_map(|curve| &curve.points)
        .fold(f64::MIN_POSITIVE, |most, point| most.max(point.1));
    draw_picture(curves, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(axes.x.clone(), 0.0..most * 1.08)
            .map_err(|fault| fault.to_string())?;
        chart
            .configure_mesh()
            .axis_style(TEXT_COLOUR)
            .bold_line_style(TEXT_COLOUR.mix(0.18))
            .light_line_style(TEXT_COLOUR.mix(0.0))
            .label_style(("sans-serif", 12).into_font().color(&TEXT_COLOUR))
            .x_labels(axes.x_ticks)
            .x_desc(axes.x_name)
            .y_desc(axes.y_name)
            .x_label_formatter(&|x| (axes.x_label)(*x))
            .y_label_formatter(&|y| format_short(*y))
            .draw()
            .map_err(|fault| fault.to_string())?;
        for (line, style) in style_curves(curves) {
            // Curves with the same name are rounds of one contender, to be seen as a group: draw them thin.
            let width = if curves.iter().filter(|other| other.name == line.name).count() > 1 { 1 } else { 2 };
            let drawn = series!(chart, line.points.iter().copied(), style, width);
            drawn.map_err(|fault| fault.to_string())?;
            let dot = |point: &(f64, f64)| Circle::new(*point, 3, style.colour.filled());
            chart
                .draw_series(line.points.iter().filter(|_| dots).map(dot))
                .map_err(|fault| fault.to_string())?;
        }
        Ok(())
    })
}

/// Each curve with its style; curves with the same name share one.
fn style_curves(curves: &[NamedCurve]) -> Vec<(&NamedCurve, CurveStyle)> {
    let names = distinct_names(curves);
    let styles = assign_styles(&names.iter().map(|(curve, _)| curve.kind.as_str()).collect::<Vec<_>>());
    let style = |curve: &NamedCurve| {
        names.iter().position(|(named, _)| named.name == curve.name).map(|at| styles[at])
    };
    curves.iter().filter_map(|curve| Some((curve, style(curve)?))).collect()
}

/// The first curve of each name, and the number of curves with that name.
fn distinct_names(curves: &[NamedCurve]) -> Vec<(&NamedCurve, usize)> {
    let mut names: Vec<(&NamedCurve, usize)> = Vec::new();
    for curve in curves {
        match names.iter_mut().find(|(named, _)| named.name == curve.name) {
            Some((_, count)) => *count += 1,
            None => names.push((curve, 1)),
        }
    }
    names
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws a chart with its legend below.
fn draw_picture(
    curves: &[NamedCurve],
    chart: impl FnOnce(&Area<'_>) -> Result<(), String>,
) -> anyhow::Result<String> {
    let fault = |fault: String| anyhow!("cannot draw the curves: {fault}");
    let mut svg = String::new();
    {
        let names = distinct_names(curves);
        let legend = LEGEND_ROW_PX * (u32::try_from(names.len())? + 1);
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH_PX, CHART_HEIGHT_PX + legend)).into_drawing_area();
        let (above, below) = root.split_vertically(CHART_HEIGHT_PX);
        chart(&above).map_err(fault)?;
        let styles = assign_styles(&names.iter().map(|(curve, _)| curve.kind.as_str()).collect::<Vec<_>>());
        for (index, ((line, count), style)) in names.iter().zip(styles).enumerate() {
            let y = i32::try_from(LEGEND_ROW_PX)? * i32::try_from(index)? + 8;
            let stroke = style.colour.stroke_width(3);
            let ends: &[[i32; 2]] = if style.dashed { &[[84, 94], [100, 110]] } else { &[[84, 110]] };
            for [from, to] in ends {
                let sample = PathElement::new(vec![(*from, y), (*to, y)], stroke);
                below.draw(&sample).map_err(|error| fault(error.to_string()))?;
            }
            let style =
                ("sans-serif", 13).into_font().color(&TEXT_COLOUR).pos(Pos::new(HPos::Left, VPos::Center));
            let words = if *count > 1 { format!("{}, {count} rounds", line.name) } else { line.name.clone() };
            below.draw(&Text::new(words, (120, y), style)).map_err(|error| fault(error.to_string()))?;
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
        let mut histogram = crate::results::latency::new_histogram();
        for value in 1..=10_000 {
            histogram.saturating_record(value * 1_000);
        }
        let curve = percentile_curve(&("a".to_owned(), "shoal".to_owned(), histogram.clone()));
        assert!(curve.points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        let last = curve.points.last().unwrap();
        assert!((last.1 - histogram.max() as f64).abs() < 1.0, "{last:?}");
        let median = curve.points.iter().find(|point| point.0 >= 2.0).unwrap();
        assert!((median.1 - 5e6).abs() < 1e4, "{median:?}");
    }
}
