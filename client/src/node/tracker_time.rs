//! The trackers' time of day: what they told last, counted on by the time since this machine's boot.
//!
//! Always true: setting this machine's clock changes nothing before the machine is booted again. After a boot the time of
//! day is used until a tracker tells its own, but never one before what a tracker told earlier.

use engine::proto::ticket::{TrackerClock, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::clock::MachineTime;

/// The time that a tracker told, and when. Kept in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldTime {
    /// Seconds since the Unix epoch, by the tracker's clock.
    pub(crate) server_time: u64,
    /// Seconds since the boot, when it was told.
    pub(crate) boot_s: u64,
    /// Names the boot.
    pub(crate) boot_id: String,
}

impl ToldTime {
    /// A time that a tracker has just told.
    pub(crate) fn new(server_time: u64, now: MachineTime) -> ToldTime {
        ToldTime { server_time, boot_s: now.boot_s, boot_id: now.boot_id }
    }
}

/// The trackers' time now. `told` is what one told last, also to an earlier process.
pub(crate) fn tracker_time(told: Option<&ToldTime>, now: &MachineTime) -> UnixSeconds {
    match told {
        None => UnixSeconds(now.wall_s),
        Some(told) if told.boot_id == now.boot_id => {
            TrackerClock::new(UnixSeconds(told.server_time), told.boot_s).time_at(now.boot_s)
        }
        Some(told) => UnixSeconds(now.wall_s.max(told.server_time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall_s: u64, boot_s: u64, boot_id: &str) -> MachineTime {
        MachineTime { wall_s, boot_s, boot_id: boot_id.into() }
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing_until_the_next_boot() {
        let told = ToldTime::new(10_000, reading(9_990, 50, "a"));
        for wall_s in [0, 9_000, 10_600, 1 << 40] {
            assert_eq!(tracker_time(Some(&told), &reading(wall_s, 650, "a")), UnixSeconds(10_600));
        }
    }

    #[test]
    fn after_a_boot_the_time_of_day_counts_but_never_one_before_the_last_told() {
        let told = ToldTime::new(10_000, reading(9_990, 50, "a"));
        assert_eq!(tracker_time(Some(&told), &reading(12_000, 60, "b")), UnixSeconds(12_000));
        assert_eq!(tracker_time(Some(&told), &reading(8_000, 60, "b")), UnixSeconds(10_000));
        assert_eq!(tracker_time(None, &reading(8_000, 60, "b")), UnixSeconds(8_000));
    }
}
