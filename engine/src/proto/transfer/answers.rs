//! What providers say besides pieces: rejections, announcements, goodbyes.

use super::super::frame::{ByeCode, Message, RefusedCode, RejectCode, WireRange};
use super::super::limits::{HAVE_MAX_RANGES, TURNED_AWAY_MAX};
use super::super::peers::Ending;
use super::super::picker::ConnectionId;
use super::super::session::Violation;
use super::super::time::Moment;
use super::super::units::{PieceIndex, PieceRange};
use super::{Action, OwedState, Transfer};

impl Transfer {
    /// Takes a message of a provider other than `Piece`; `Ok(false)` when the connection ends by its goodbye.
    ///
    /// # Errors
    /// [`Violation`] when the protocol does not allow it; the driver closes, and says so by [`Transfer::closed`].
    pub fn message(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        message: &Message,
    ) -> Result<bool, Violation> {
        match message {
            Message::Reject { index, code } => self.rejected(now, connection, *index, *code)?,
            Message::Have { ranges } => {
                self.have(now, connection, &announced(ranges).ok_or(Violation::Pieces)?)?;
            }
            Message::Bye { .. } => return Ok(false),
            _ => return Err(Violation::OutOfTurn),
        }
        Ok(true)
    }

    /// Whether a peer had what is missing, and its file has changed.
    #[must_use]
    pub fn has_lost_a_source(&self) -> bool {
        self.peers.any_withdrawn()
    }

    fn rejected(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
        code: RejectCode,
    ) -> Result<(), Violation> {
        let Some(open) = self.open_connection(connection) else { return Ok(()) };
        let owed = *open.owes.get(&index).ok_or(Violation::Unasked(index))?;
        if code == RejectCode::Cancelled && owed.state == OwedState::Expected {
            return Err(Violation::Unasked(index));
        }
        // Only now: what a violation leaves owed is asked for elsewhere when the connection is closed for it.
        open.owes.remove(&index);
        open.window.answered();
        open.window.received(now, 0);
        open.stalled = false;
        open.turned_away += usize::from(code == RejectCode::Busy);
        let turned_away = code == RejectCode::Busy && open.turned_away <= 2 * TURNED_AWAY_MAX;
        if turned_away {
            self.picker.turned_away(connection, index);
        } else {
            self.picker.abandoned(connection, index);
        }
        if code != RejectCode::Cancelled && !turned_away {
            // It has nothing to give for now; the pause before the next call keeps it from being asked in a circle. That
            // goes for `NotHeld` too: only what a peer announced is asked of it, and one that announced and rejected the
            // same pieces over and over, on several connections, would keep them from everybody else.
            let (code, ending) = match code {
                // It has what is missing, and gives it for a fresh ticket.
                RejectCode::Expired => (ByeCode::Expired, Ending::Refused(RefusedCode::Expired)),
                RejectCode::SourceChanged => (ByeCode::Done, Ending::Withdrawn),
                _ => (ByeCode::Done, Ending::Lost),
            };
            self.actions.push(Action::Close { connection, code });
            self.closed(now, connection, &ending);
        }
        self.refill_all(now);
        Ok(())
    }

    fn have(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        ranges: &[PieceRange],
    ) -> Result<(), Violation> {
        let geometry = self.geometry;
        let Some(open) = self.connections.get_mut(&connection).and_then(|found| found.open.as_mut()) else {
            return Ok(());
        };
        if !ranges.iter().all(|range| geometry.contains_range(*range)) {
            return Err(Violation::Pieces);
        }
        if open.has.is_full() {
            return Ok(());
        }
        for range in ranges {
            open.has.insert_range(*range, |index| self.picker.gained(index));
        }
        if open.has.is_full() {
            self.picker.lost(open.has.iter());
        }
        self.refill(now, connection);
        Ok(())
    }
}

/// The runs of a `Have`, when they are what one may hold: no more than a frame has room for, ascending, each piece named once.
/// So what a frame costs is bounded by the file's bit field, however its runs are chosen.
fn announced(ranges: &[WireRange]) -> Option<Vec<PieceRange>> {
    if ranges.len() > HAVE_MAX_RANGES {
        return None;
    }
    let ranges: Vec<PieceRange> = ranges.iter().map(|range| range.checked()).collect::<Option<_>>()?;
    ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()).then_some(ranges)
}
