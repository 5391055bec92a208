//! The only file of the harness that reads a clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits::POLL_INTERVAL;

/// The zero of [`now`].
#[expect(clippy::disallowed_methods, reason = "this is the clock that others get their time from")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Monotonic time since an arbitrary moment of this run.
pub(crate) fn now() -> Duration {
    ORIGIN.elapsed()
}

/// Runs `work`, and gives how long it took and its result.
pub(crate) fn time_work<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = now();
    let result = work();
    (now() - start, result)
}

/// Polls a condition until it holds or the timeout is over; whether it held.
pub(crate) fn wait_until(timeout: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = now() + timeout;
    loop {
        if holds() {
            return true;
        }
        if now() >= deadline {
            return false;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// Seconds since 1970, or 0 if the clock stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the clock that others get their time from")]
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
