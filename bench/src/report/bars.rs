//! Bar pictures: one metric of all kinds and workloads of a run, with the spread as a whisker.
//!
//! Invariant: bars begin at zero, and each has its value to the right.

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::{TEXT_COLOUR, bar_colour, with_page_colours};
use super::text::{format_figure, with_unit};
use crate::limits::{BAR_ROW_PX, BARS_LEFT_PX, BARS_RIGHT_PX, HALF_BAR_PX, HALF_WHISKER_PX, WIDTH_PX};
use crate::results::record::{ResultRecord, ValueSpread};

/// One row of the picture.
enum BarRow<'a> {
    Heading(&'a str),
    Bar(&'a ResultRecord),
}

/// Draws `results`, which all have the same metric.
pub(crate) fn draw_bars(results: &[&ResultRecord]) -> anyhow::Result<String> {
    let rows = group_rows(results);
    let top = results.iter().map(|result| result.spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let height = BAR_ROW_PX * (u32::try_from(rows.len())? + 1) + BAR_ROW_PX / 3;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH_PX, height)).into_drawing_area();
        let title = results.first().map_or(String::new(), |first| with_unit(&first.metric, &first.unit));
        let fault = |fault| anyhow!("cannot draw the bars: {fault}");
        draw_text(&area, &title, (0, 12), HPos::Left, 15).map_err(fault)?;
        for (at, row) in rows.iter().enumerate() {
            let y = i32::try_from(BAR_ROW_PX)? * i32::try_from(at + 1)? + 12;
            let drawn = match row {
                BarRow::Heading(workload) => draw_text(&area, workload, (8, y), HPos::Left, 13),
                BarRow::Bar(result) => {
                    let colour = bar_colour(&result.kind, is_compared_with(result, results));
                    draw_bar(&area, result, top, y, colour)
                }
            };
            drawn.map_err(fault)?;
        }
        area.present()?;
    }
    Ok(with_page_colours(&svg))
}

/// Results under the headings of their workloads; a single workload needs no heading.
fn group_rows<'a>(results: &[&'a ResultRecord]) -> Vec<BarRow<'a>> {
    let mut rows = Vec::new();
    let mut workloads: Vec<&str> = Vec::new();
    for result in results {
        if !workloads.contains(&result.workload.as_str()) {
            workloads.push(&result.workload);
        }
    }
    for workload in &workloads {
        if workloads.len() > 1 {
            rows.push(BarRow::Heading(workload));
        }
        let of_workload = results.iter().filter(|result| result.workload == *workload);
        rows.extend(of_workload.map(|result| BarRow::Bar(result)));
    }
    rows
}

/// Whether other results of the picture are compared with it.
fn is_compared_with(result: &ResultRecord, all: &[&ResultRecord]) -> bool {
    let full = format!("{} {}", result.workload, result.kind);
    let compared_with =
        |other: &&ResultRecord| other.ratios.iter().any(|ratio| ratio.to == full || ratio.to == result.kind);
    all.len() > 1
        && result.ratios.iter().any(|ratio| ratio.to == result.kind)
        && all.iter().any(compared_with)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), String>;

fn draw_bar(area: &Area<'_>, result: &ResultRecord, top: f64, y: i32, colour: RGBColor) -> Drawn {
    let ValueSpread { median, min, max } = result.spread;
    let left = f64::from(BARS_LEFT_PX);
    let width = f64::from(BARS_RIGHT_PX) - left;
    #[expect(clippy::cast_possible_truncation, reason = "a pixel of a picture, at most its width")]
    let x = |value: f64| (left + width * (value / top).clamp(0.0, 1.0)).round() as i32;
    let plot = |fault: DrawingAreaErrorKind<_>| -> String { format!("{fault}") };
    draw_text(area, &result.kind, (x(0.0) - 8, y), HPos::Right, 13)?;
    let body = [(x(0.0), y - HALF_BAR_PX), (x(median), y + HALF_BAR_PX)];
    area.draw(&Rectangle::new(body, colour.filled())).map_err(plot)?;
    let line = |points: Vec<(i32, i32)>| PathElement::new(points, TEXT_COLOUR.stroke_width(1));
    if result.runs > 1 {
        area.draw(&line(vec![(x(min), y), (x(max), y)])).map_err(plot)?;
        for end in [x(min), x(max)] {
            let mark = vec![(end, y - HALF_WHISKER_PX), (end, y + HALF_WHISKER_PX)];
            area.draw(&line(mark)).map_err(plot)?;
        }
    }
    let mut label = format_figure(median);
    if result.runs > 1 {
        label += &format!(" ({} to {})", format_figure(min), format_figure(max));
    }
    if let Some(ratio) = result.ratios.iter().find(|ratio| ratio.to != result.kind) {
        label += &format!(" · {:.2} x {}", ratio.spread.median, ratio.to);
    }
    draw_text(
        area,
        &label,
        (x(median.max(if result.runs > 1 { max } else { median })) + 8, y),
        HPos::Left,
        12,
    )
}

fn draw_text(area: &Area<'_>, words: &str, at: (i32, i32), side: HPos, size: u32) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&TEXT_COLOUR).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(words.to_owned(), at, style)).map_err(|fault| fault.to_string())
}
