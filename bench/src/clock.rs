//! The one place of the harness that reads a clock.

use std::time::{Duration, Instant};

/// How long `work` takes, and what it gives.
#[expect(clippy::disallowed_methods, reason = "this is the clock that others get their time from")]
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}
