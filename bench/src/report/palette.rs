//! Colours. Text and axes take that of the page around them, so that pictures suit light and dark pages; bars and curves
//! take hues that people of any colour vision tell apart (after Okabe and Ito, "Color Universal Design"), none of them near
//! white or black.

use plotters::style::RGBColor;

/// Stands for the colour of text: [`with_page_colours`] replaces it in the finished picture.
pub(crate) const INK: RGBColor = RGBColor(1, 2, 3);

/// How [`INK`] reads in a picture.
const INK_TEXT: &str = "#010203";

/// What is ours, and nobody else's.
const SHOAL_BLUE: RGBColor = RGBColor(31, 131, 198);

/// What others are compared with.
const REFERENCE_GREY: RGBColor = RGBColor(128, 128, 128);

/// The field.
const RIVAL_ORANGE: RGBColor = RGBColor(217, 130, 0);

/// How the line of a curve looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CurveStyle {
    /// Its colour.
    pub(crate) colour: RGBColor,
    /// With gaps.
    pub(crate) dashed: bool,
}

const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(182, 95, 163);
const VERMILION: RGBColor = RGBColor(213, 74, 0);
const BROWN: RGBColor = RGBColor(150, 111, 51);

/// Hues, ours first.
const HUES: [RGBColor; 7] = [SHOAL_BLUE, GREEN, PURPLE, VERMILION, BROWN, RIVAL_ORANGE, REFERENCE_GREY];

/// What all others are held against.
const BASELINE_KINDS: [&str; 3] = ["pump", "sha1 pass", "cp"];

/// The colour of a kind's bars, whoever else is in the picture: grey for the floor and for what others are compared with, orange
/// for the field, blue for ours.
pub(crate) fn bar_colour(kind: &str, is_compared_with: bool) -> RGBColor {
    if is_compared_with || BASELINE_KINDS.contains(&kind) {
        REFERENCE_GREY
    } else if is_rival(kind) {
        RIVAL_ORANGE
    } else {
        SHOAL_BLUE
    }
}

/// Contenders by the beginning of their names, each with the hue that is its own in every picture, and whether it is dashed.
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

/// Whether a kind is one of other people's programs, most of which say their versions.
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

/// How the curves of one chart look, by who made them: the first curve of a contender has its own look, and all others one that
/// no contender of this chart has; nobody else's curve is blue and whole.
pub(crate) fn assign_styles(kinds: &[&str]) -> Vec<CurveStyle> {
    let mut given: Vec<CurveStyle> = Vec::new();
    let taken: Vec<CurveStyle> = kinds.iter().filter_map(|kind| fixed_style(kind)).collect();
    let all = [false, true].into_iter().flat_map(|dashed| HUES.map(|colour| CurveStyle { colour, dashed }));
    let all: Vec<CurveStyle> = all.collect();
    for kind in kinds {
        let free = |look: &&CurveStyle| {
            let ours = look.colour == SHOAL_BLUE && is_rival(kind);
            !given.contains(look) && !taken.contains(look) && !ours
        };
        let look =
            fixed_style(kind).filter(|look| !given.contains(look)).or_else(|| all.iter().find(free).copied());
        // With more curves than looks they come again.
        given.push(look.unwrap_or(all[given.len() % all.len()]));
    }
    given
}

/// The picture with its ink taken from the page.
pub(crate) fn with_page_colours(svg: &str) -> String {
    svg.replace(INK_TEXT, "currentColor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_keeps_its_look_whoever_is_missing() {
        let all = ["pump", "shoal", "rqbit (9.1.0)", "sendme (0.37.1)"];
        let looks_of_all = assign_styles(&all);
        for missing in 0..all.len() {
            let there: Vec<usize> = (0..all.len()).filter(|at| *at != missing).collect();
            let kinds: Vec<&str> = there.iter().map(|at| all[*at]).collect();
            let expected: Vec<CurveStyle> = there.iter().map(|at| looks_of_all[*at]).collect();
            assert_eq!(assign_styles(&kinds), expected, "without {}", all[missing]);
        }
        let own: Vec<CurveStyle> =
            FIXED_STYLES.iter().map(|(name, ..)| super::fixed_style(name).unwrap()).collect();
        for (at, look) in own.iter().enumerate() {
            assert!(!own[..at].contains(look), "{} looks like another", FIXED_STYLES[at].0);
        }
    }

    #[test]
    fn no_rival_takes_our_colour_where_we_are_missing() {
        assert_eq!(bar_colour("shoal", false), SHOAL_BLUE);
        assert_eq!(bar_colour("nginx, curl (1.22.1, 7.88.1)", false), RIVAL_ORANGE);
        assert_eq!(bar_colour("opentracker", false), RIVAL_ORANGE);
        assert_eq!(bar_colour("cp", false), REFERENCE_GREY);
        assert_eq!(bar_colour("A HEAD~1", true), REFERENCE_GREY);
        assert_eq!(bar_colour("avx512", false), SHOAL_BLUE);
    }

    #[test]
    fn curves_of_one_contender_and_strangers_are_told_apart() {
        let given =
            assign_styles(&["shoal", "shoal", "shoal", "x (1.0)", "y (1.0)", "ping", "rqbit (9)", "z"]);
        for (at, look) in given.iter().enumerate() {
            assert!(!given[..at].contains(look), "{given:?}");
        }
        assert!(given[3].colour != SHOAL_BLUE && given[4].colour != SHOAL_BLUE);
        assert_eq!(assign_styles(&["x"; 40]).len(), 40);
    }
}
