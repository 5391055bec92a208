//! The numbers of pictures.

/// Width of every picture, in pixels.
pub(crate) const WIDTH_PX: u32 = 860;

/// Height of a chart with two axes, in pixels, without its legend.
pub(crate) const CHART_HEIGHT_PX: u32 = 340;

/// Height of a line of a legend, in pixels.
pub(crate) const LEGEND_ROW_PX: u32 = 20;

/// Height of a bar with the space around it, in pixels.
pub(crate) const BAR_ROW_PX: u32 = 24;

/// Where bars begin, in pixels from the left; names stand before.
pub(crate) const BARS_LEFT_PX: u32 = 310;

/// Where the longest bar ends, in pixels from the left; numbers stand behind.
pub(crate) const BARS_RIGHT_PX: u32 = 620;

/// Curves in one chart; with more of them none could be followed.
pub(crate) const CURVES_MAX: usize = 12;

/// Bars in one picture.
pub(crate) const BARS_MAX: usize = 80;

/// Metrics of a run whose bars are shown at once: what is compared comes first.
pub(crate) const PICTURES_SHOWN: usize = 6;

/// Characters that the longest bar of a plot on a terminal has.
pub(crate) const TEXT_BAR_CHARS: usize = 40;
