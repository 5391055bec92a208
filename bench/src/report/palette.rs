//! Colours. Text and axes take that of the page around them, so that pictures suit light and dark pages; bars and curves
//! take hues that people of any colour vision tell apart (after Okabe and Ito, "Color Universal Design"), none of them near
//! white or black.

use plotters::style::RGBColor;

/// Stands for the colour of text: [`with_page_colours`] replaces it in the finished picture.
pub(crate) const INK: RGBColor = RGBColor(1, 2, 3);

/// How [`INK`] reads in a picture.
const INK_TEXT: &str = "#010203";

/// What is ours.
pub(crate) const OURS: RGBColor = RGBColor(31, 131, 198);

/// What others are compared with.
pub(crate) const REFERENCE: RGBColor = RGBColor(128, 128, 128);

/// The field.
pub(crate) const FIELD: RGBColor = RGBColor(217, 130, 0);

/// Curves, in their order.
const CURVES: [RGBColor; 6] =
    [OURS, FIELD, RGBColor(0, 158, 115), RGBColor(182, 95, 163), RGBColor(213, 74, 0), REFERENCE];

/// The colour of the curve at `index`.
pub(crate) fn curve(index: usize) -> RGBColor {
    CURVES[index % CURVES.len()]
}

/// Whether the curve at `index` is dashed: those whose colour came before are.
pub(crate) fn is_dashed(index: usize) -> bool {
    index >= CURVES.len()
}

/// The picture with its ink taken from the page.
pub(crate) fn with_page_colours(svg: &str) -> String {
    svg.replace(INK_TEXT, "currentColor")
}
