//! When a download's keeper talks to the trackers: pure, with the time as an argument.
//!
//! Invariants: peers are asked for after 1, 2, 4 … 30 s, and at once when the last one has gone; gained pieces are
//! announced at most once a second; a ticket is renewed when two thirds of its life are over, or when the download
//! waits for one.

use std::time::Duration;

use engine::proto::limits::TICKET_LIFE_S;

use crate::limits;

const fn ms(span: u64) -> Duration {
    Duration::from_millis(span)
}

/// What a download lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it moves.
    Nothing,
    /// A peer that has what is missing.
    Peers,
    /// A ticket that holds.
    Ticket,
}

/// The keeper's appointments, as times since the download's start.
#[derive(Debug)]
pub(crate) struct Schedule {
    ask_at: Duration,
    ask_step: Duration,
    announce_at: Duration,
    renew_at: Duration,
    need: Need,
}

impl Schedule {
    /// The appointments of a download that starts with fresh peers and a fresh ticket.
    pub(crate) fn new() -> Schedule {
        Schedule {
            ask_at: ms(limits::PEERS_FIRST_MS),
            ask_step: ms(limits::PEERS_FIRST_MS),
            announce_at: Duration::ZERO,
            renew_at: two_thirds_of_a_life(),
            need: Need::Nothing,
        }
    }

    /// Whether the trackers are to be asked for peers (and a ticket) now; the next time is set as well.
    pub(crate) fn ask_due(&mut self, now: Duration, need: Need) -> bool {
        let newly_needy = need != Need::Nothing && self.need == Need::Nothing;
        self.need = need;
        if newly_needy {
            self.ask_step = ms(limits::PEERS_FIRST_MS);
            self.ask_at = now;
        }
        if now < self.ask_at {
            return false;
        }
        self.ask_at = now + self.ask_step;
        self.ask_step = (self.ask_step * 2).min(ms(limits::PEERS_MAX_MS));
        true
    }

    /// Whether gained pieces may be announced now; the next time is set as well.
    pub(crate) fn announce_due(&mut self, now: Duration) -> bool {
        let due = now >= self.announce_at;
        if due {
            self.announce_at = now + ms(limits::ANNOUNCE_EVERY_MS);
        }
        due
    }

    /// Whether a ticket that has just come is to be used; the next time is set as well.
    pub(crate) fn renew_due(&mut self, now: Duration) -> bool {
        let due = now >= self.renew_at || self.need == Need::Ticket;
        if due {
            self.renew_at = now + two_thirds_of_a_life();
        }
        due
    }
}

fn two_thirds_of_a_life() -> Duration {
    Duration::from_secs(TICKET_LIFE_S * 2 / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times, in ms, at which a download that needs `need` asks, looked at every `tick`.
    fn asks(schedule: &mut Schedule, need: Need, from_ms: u64, to_ms: u64) -> Vec<u64> {
        (from_ms..to_ms).step_by(500).filter(|at| schedule.ask_due(ms(*at), need)).collect()
    }

    #[test]
    fn peers_are_asked_for_less_and_less_often() {
        let asked = asks(&mut Schedule::new(), Need::Nothing, 0, 130_000);
        assert_eq!(asked, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 62_000, 92_000, 122_000]);
    }

    #[test]
    fn the_last_peers_leaving_is_a_new_start() {
        let mut schedule = Schedule::new();
        asks(&mut schedule, Need::Nothing, 0, 63_000);
        assert_eq!(asks(&mut schedule, Need::Peers, 63_000, 68_000), [63_000, 64_000, 66_000]);
    }

    #[test]
    fn announcements_keep_a_second_apart() {
        let mut schedule = Schedule::new();
        let times: Vec<u64> = (0..3_000).step_by(100).filter(|at| schedule.announce_due(ms(*at))).collect();
        assert_eq!(times, [0, 1_000, 2_000]);
    }

    #[test]
    fn tickets_are_renewed_in_time_or_when_wanted() {
        let mut schedule = Schedule::new();
        let life = Duration::from_secs(TICKET_LIFE_S);
        assert!(!schedule.renew_due(life / 2));
        assert!(schedule.renew_due(life * 3 / 4));
        assert!(!schedule.renew_due(life));
        schedule.ask_due(life, Need::Ticket);
        assert!(schedule.renew_due(life));
    }
}
