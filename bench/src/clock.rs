//! The one place of the harness that reads a clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where nothing tells that something has come true, it is looked at this often.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// When the harness began to look at the clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock that others get their time from")]
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since some moment of this process; never goes back.
pub(crate) fn now() -> Duration {
    ORIGIN.elapsed()
}

/// How long `work` takes, and what it gives.
pub(crate) fn time_work<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = now();
    let result = work();
    (now() - start, result)
}

/// Whether something comes true before the time is over; it is looked at now and then.
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

/// Seconds since 1970; 0 on a machine whose clock stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the clock that others get their time from")]
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
