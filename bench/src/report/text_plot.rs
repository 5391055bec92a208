//! Bar plots for a terminal: one plot a metric, one bar a result, drawn with block characters.

use std::fmt::Write as _;

use super::text::{format_figure, with_unit};
use crate::limits::TEXT_BAR_CHARS;
use crate::results::record::ResultRecord;

/// Bars of 0 to 7 eighths of a character's width.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Draws a plot for each metric that has at least two results.
pub(crate) fn draw_plots(results: &[&ResultRecord]) -> String {
    let mut text = String::new();
    let mut drawn: Vec<&str> = Vec::new();
    for result in results {
        let of_metric: Vec<&&ResultRecord> =
            results.iter().filter(|other| other.metric == result.metric).collect();
        if of_metric.len() > 1 && !drawn.contains(&result.metric.as_str()) {
            drawn.push(&result.metric);
            text += &plot_metric(&of_metric);
        }
    }
    text
}

fn plot_metric(results: &[&&ResultRecord]) -> String {
    let name = |result: &ResultRecord| format!("{} {}", result.workload, result.kind);
    let width = results.iter().map(|result| name(result).chars().count()).max().unwrap_or(0);
    let largest = results.iter().map(|result| result.spread.median).fold(f64::MIN_POSITIVE, f64::max);
    let mut text = String::new();
    for (at, result) in results.iter().enumerate() {
        if at == 0 {
            let _ = writeln!(text, "\n{}", with_unit(&result.metric, &result.unit));
        }
        let bar = text_bar(result.spread.median / largest);
        let _ = writeln!(text, "{:<width$} {bar} {}", name(result), format_figure(result.spread.median));
    }
    text
}

/// Draws a bar that fills `fraction`, from 0 to 1, of the full length.
fn text_bar(fraction: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the full width"
    )]
    let eighths = (fraction.clamp(0.0, 1.0) * (TEXT_BAR_CHARS * EIGHTHS.len()) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / EIGHTHS.len());
    if !eighths.is_multiple_of(EIGHTHS.len()) {
        bar.push(EIGHTHS[eighths % EIGHTHS.len()]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_proportional() {
        assert_eq!(text_bar(0.0), "");
        assert_eq!(text_bar(1.0).chars().count(), TEXT_BAR_CHARS);
        assert_eq!(text_bar(0.5), "█".repeat(TEXT_BAR_CHARS / 2));
        assert_eq!(text_bar(1.5 / TEXT_BAR_CHARS as f64), "█▌");
    }
}
