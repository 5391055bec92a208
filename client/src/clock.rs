//! The only place where the client reads a clock.
#![allow(clippy::disallowed_methods, reason = "this is the clock that the rule points to")]

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What this machine's clocks show at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineTime {
    /// Seconds since the Unix epoch; changes when the clock is set.
    pub(crate) wall_s: u64,
    /// Seconds since the boot, suspension included.
    pub(crate) boot_s: u64,
    /// Names the boot.
    pub(crate) boot_id: String,
}

/// Monotonic time, for measuring durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day, and the time since the boot.
pub(crate) fn read_clocks() -> MachineTime {
    MachineTime {
        wall_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        boot_s: u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0),
        boot_id: boot_id().to_owned(),
    }
}

/// Names the boot of this machine. Where the kernel does not tell it, names this process.
fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        match told.trim() {
            "" => format!("{:016x}", getrandom::u64().unwrap_or_default()),
            id => id.to_owned(),
        }
    })
}
