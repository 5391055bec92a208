//! Waiting at the start: an address that the network does not have yet, and a port or data that a predecessor still
//! holds, become free soon.

use std::time::Duration;

/// Pause between two tries, in milliseconds.
const PAUSE_MS: u64 = 250;

/// The time that is left to wait, over all that the start waits for.
#[derive(Debug)]
pub(crate) struct StartWait {
    pauses: u64,
}

impl StartWait {
    pub(crate) fn new(seconds: u32) -> StartWait {
        StartWait { pauses: u64::from(seconds) * 1_000 / PAUSE_MS }
    }

    /// Tries again while `describe_temporary` says that an error may pass, and logs what it says once.
    ///
    /// # Errors
    /// The last error.
    pub(crate) fn retry<T, E>(
        &mut self,
        try_once: impl Fn() -> Result<T, E>,
        describe_temporary: impl Fn(&E) -> Option<String>,
    ) -> Result<T, E> {
        let mut is_told = false;
        loop {
            let error = match try_once() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(reason) = describe_temporary(&error).filter(|_| self.pauses > 0) else {
                return Err(error);
            };
            if !is_told {
                let seconds = self.pauses * PAUSE_MS / 1_000;
                tracing::warn!("{reason}; trying again for {seconds} s (--wait)");
                is_told = true;
            }
            self.pauses -= 1;
            std::thread::park_timeout(Duration::from_millis(PAUSE_MS));
        }
    }
}
