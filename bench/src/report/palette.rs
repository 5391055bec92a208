//! Colours of the pictures. Text and axes use the page's colour, so that pictures suit light and dark pages. Bars and
//! curves use hues that are distinct for every kind of colour vision (after Okabe and Ito, "Color Universal Design"),
//! and no hue is near white or black.

use plotters::style::RGBColor;

/// A placeholder for the page's text colour: [`with_page_colours`] replaces it in the finished picture.
pub(crate) const TEXT_COLOUR: RGBColor = RGBColor(1, 2, 3);

/// [`TEXT_COLOUR`] as written in an SVG.
const TEXT_COLOUR_CSS: &str = "#010203";

/// Hue of Shoal alone.
const SHOAL_BLUE: RGBColor = RGBColor(31, 131, 198);

/// Hue of references and of the baseline.
const REFERENCE_GREY: RGBColor = RGBColor(128, 128, 128);

/// Hue of all rivals' bars.
const RIVAL_ORANGE: RGBColor = RGBColor(217, 130, 0);

/// The style of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CurveStyle {
    pub(crate) colour: RGBColor,
    pub(crate) dashed: bool,
}

const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(182, 95, 163);
const VERMILION: RGBColor = RGBColor(213, 74, 0);
const BROWN: RGBColor = RGBColor(150, 111, 51);

/// All hues, Shoal's first.
const HUES: [RGBColor; 7] = [SHOAL_BLUE, GREEN, PURPLE, VERMILION, BROWN, RIVAL_ORANGE, REFERENCE_GREY];

/// Kinds that belong to the baseline.
const BASELINE_KINDS: [&str; 3] = ["pump", "sha1 pass", "cp"];

/// The colour of a kind's bars, the same in every picture: grey for the baseline and references, orange for rivals,
/// blue for Shoal.
pub(crate) fn bar_colour(kind: &str, is_reference: bool) -> RGBColor {
    if is_reference || BASELINE_KINDS.contains(&kind) {
        REFERENCE_GREY
    } else if is_rival(kind) {
        RIVAL_ORANGE
    } else {
        SHOAL_BLUE
    }
}

/// Fixed styles of curves: prefix of the contender's name, hue, and whether the curve is dashed. The first prefix that
/// matches decides.
const FIXED_STYLES: [(&str, RGBColor, bool); 13] = [
    ("shoal", SHOAL_BLUE, false),
    ("pump", REFERENCE_GREY, false),
    ("cp", REFERENCE_GREY, true),
    ("sha1 pass", BROWN, true),
    ("nginx, curl, openssl", RIVAL_ORANGE, true),
    ("nginx, curl", RIVAL_ORANGE, false),
    ("nginx, aria2", GREEN, true),
    ("aria2", GREEN, false),
    ("rsync", BROWN, false),
    ("libtorrent", PURPLE, false),
    ("rqbit", VERMILION, false),
    ("sendme", PURPLE, true),
    ("opentracker", VERMILION, true),
];

/// Whether a kind is a rival. Most rivals have a version in their name.
fn is_rival(kind: &str) -> bool {
    let rivals = FIXED_STYLES
        .iter()
        .filter(|(name, colour, _)| *colour != SHOAL_BLUE && !BASELINE_KINDS.contains(name));
    (kind.ends_with(')') && kind.contains(" ("))
        || rivals.map(|(name, ..)| name).any(|name| kind.starts_with(name))
}

fn fixed_style(kind: &str) -> Option<CurveStyle> {
    let (_, colour, dashed) = FIXED_STYLES.iter().find(|(name, ..)| kind.starts_with(name))?;
    Some(CurveStyle { colour: *colour, dashed: *dashed })
}

/// Assigns a style to each curve of a chart; `kinds` has the kind of each curve. A contender's first curve gets its fixed
/// style. Every other curve gets a style that is not assigned yet and is not fixed for a contender of this chart. A
/// rival's curve is never blue while other styles are left.
pub(crate) fn assign_styles(kinds: &[&str]) -> Vec<CurveStyle> {
    let mut assigned: Vec<CurveStyle> = Vec::new();
    let fixed: Vec<CurveStyle> = kinds.iter().filter_map(|kind| fixed_style(kind)).collect();
    let styles =
        [false, true].into_iter().flat_map(|dashed| HUES.map(|colour| CurveStyle { colour, dashed }));
    let all: Vec<CurveStyle> = styles.collect();
    for kind in kinds {
        let free = |style: &&CurveStyle| {
            let is_reserved = style.colour == SHOAL_BLUE && is_rival(kind);
            !assigned.contains(style) && !fixed.contains(style) && !is_reserved
        };
        let style = fixed_style(kind)
            .filter(|style| !assigned.contains(style))
            .or_else(|| all.iter().find(free).copied());
        // With more curves than styles, styles repeat.
        assigned.push(style.unwrap_or(all[assigned.len() % all.len()]));
    }
    assigned
}

/// Replaces the placeholder by the page's text colour.
pub(crate) fn with_page_colours(svg: &str) -> String {
    svg.replace(TEXT_COLOUR_CSS, "currentColor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_keeps_its_style_if_others_are_missing() {
        let all = ["pump", "shoal", "rqbit (9.1.0)", "sendme (0.37.1)"];
        let styles_of_all = assign_styles(&all);
        for missing in 0..all.len() {
            let present: Vec<usize> = (0..all.len()).filter(|at| *at != missing).collect();
            let kinds: Vec<&str> = present.iter().map(|at| all[*at]).collect();
            let expected: Vec<CurveStyle> = present.iter().map(|at| styles_of_all[*at]).collect();
            assert_eq!(assign_styles(&kinds), expected, "without {}", all[missing]);
        }
        let fixed: Vec<CurveStyle> =
            FIXED_STYLES.iter().map(|(name, ..)| super::fixed_style(name).unwrap()).collect();
        for (at, style) in fixed.iter().enumerate() {
            assert!(!fixed[..at].contains(style), "{} has the style of another", FIXED_STYLES[at].0);
        }
    }

    #[test]
    fn no_rival_gets_shoal_s_colour() {
        assert_eq!(bar_colour("shoal", false), SHOAL_BLUE);
        assert_eq!(bar_colour("nginx, curl (1.22.1, 7.88.1)", false), RIVAL_ORANGE);
        assert_eq!(bar_colour("opentracker", false), RIVAL_ORANGE);
        assert_eq!(bar_colour("cp", false), REFERENCE_GREY);
        assert_eq!(bar_colour("A HEAD~1", true), REFERENCE_GREY);
        assert_eq!(bar_colour("avx512", false), SHOAL_BLUE);
    }

    #[test]
    fn all_curves_of_a_chart_have_distinct_styles() {
        let assigned =
            assign_styles(&["shoal", "shoal", "shoal", "x (1.0)", "y (1.0)", "ping", "rqbit (9)", "z"]);
        for (at, style) in assigned.iter().enumerate() {
            assert!(!assigned[..at].contains(style), "{assigned:?}");
        }
        assert!(assigned[3].colour != SHOAL_BLUE && assigned[4].colour != SHOAL_BLUE);
        assert_eq!(assign_styles(&["x"; 40]).len(), 40);
    }
}
