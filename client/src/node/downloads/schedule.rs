//! When a download's keeper talks to the trackers: pure, with the time as an argument.
//!
//! Invariants: peers are asked for after 1, 2, 4 … 30 s, and at once when the last one has gone; gained pieces are
//! announced at most once a second; a ticket is renewed when two thirds of its life are over, or when the download
//! waits for one.

use std::time::Duration;

use engine::proto::limits::TICKET_LIFE_S;

use crate::limits;

const fn from_millis(span: u64) -> Duration {
    Duration::from_millis(span)
}

/// What a download lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownloadNeed {
    /// Nothing: it moves.
    Nothing,
    /// A peer that has what is missing.
    Peers,
    /// A ticket that holds.
    Ticket,
}

/// The keeper's appointments, as times since the download's start.
#[derive(Debug)]
pub(crate) struct AnnounceSchedule {
    peers_at: Duration,
    peers_pause: Duration,
    announce_at: Duration,
    renew_at: Duration,
    need: DownloadNeed,
}

impl AnnounceSchedule {
    /// The appointments of a download that starts with fresh peers and a fresh ticket.
    pub(crate) fn new() -> AnnounceSchedule {
        AnnounceSchedule {
            peers_at: from_millis(limits::PEERS_FIRST_MS),
            peers_pause: from_millis(limits::PEERS_FIRST_MS),
            announce_at: Duration::ZERO,
            renew_at: ticket_renewal_delay(),
            need: DownloadNeed::Nothing,
        }
    }

    /// Whether the trackers are to be asked for peers (and a ticket) now; the next time is set as well.
    pub(crate) fn peers_due(&mut self, now: Duration, need: DownloadNeed) -> bool {
        let newly_needy = need != DownloadNeed::Nothing && self.need == DownloadNeed::Nothing;
        self.need = need;
        if newly_needy {
            self.peers_pause = from_millis(limits::PEERS_FIRST_MS);
            self.peers_at = now;
        }
        if now < self.peers_at {
            return false;
        }
        self.peers_at = now + self.peers_pause;
        self.peers_pause = (self.peers_pause * 2).min(from_millis(limits::PEERS_MAX_MS));
        true
    }

    /// Whether gained pieces may be announced now; the next time is set as well.
    pub(crate) fn announce_due(&mut self, now: Duration) -> bool {
        let due = now >= self.announce_at;
        if due {
            self.announce_at = now + from_millis(limits::ANNOUNCE_EVERY_MS);
        }
        due
    }

    /// Whether a ticket that has just come is to be used; the next time is set as well.
    pub(crate) fn renew_due(&mut self, now: Duration) -> bool {
        let due = now >= self.renew_at || self.need == DownloadNeed::Ticket;
        if due {
            self.renew_at = now + ticket_renewal_delay();
        }
        due
    }
}

fn ticket_renewal_delay() -> Duration {
    Duration::from_secs(TICKET_LIFE_S * 2 / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times, in ms, at which a download that needs `need` asks, looked at every `tick`.
    fn asks(schedule: &mut AnnounceSchedule, need: DownloadNeed, from_ms: u64, to_ms: u64) -> Vec<u64> {
        (from_ms..to_ms).step_by(500).filter(|at| schedule.peers_due(from_millis(*at), need)).collect()
    }

    #[test]
    fn peers_are_asked_for_less_and_less_often() {
        let asked = asks(&mut AnnounceSchedule::new(), DownloadNeed::Nothing, 0, 130_000);
        assert_eq!(asked, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 62_000, 92_000, 122_000]);
    }

    #[test]
    fn the_last_peers_leaving_is_a_new_start() {
        let mut schedule = AnnounceSchedule::new();
        asks(&mut schedule, DownloadNeed::Nothing, 0, 63_000);
        assert_eq!(asks(&mut schedule, DownloadNeed::Peers, 63_000, 68_000), [63_000, 64_000, 66_000]);
    }

    #[test]
    fn announcements_keep_a_second_apart() {
        let mut schedule = AnnounceSchedule::new();
        let times: Vec<u64> =
            (0..3_000).step_by(100).filter(|at| schedule.announce_due(from_millis(*at))).collect();
        assert_eq!(times, [0, 1_000, 2_000]);
    }

    #[test]
    fn tickets_are_renewed_in_time_or_when_wanted() {
        let mut schedule = AnnounceSchedule::new();
        let life = Duration::from_secs(TICKET_LIFE_S);
        assert!(!schedule.renew_due(life / 2));
        assert!(schedule.renew_due(life * 3 / 4));
        assert!(!schedule.renew_due(life));
        schedule.peers_due(life, DownloadNeed::Ticket);
        assert!(schedule.renew_due(life));
    }
}
