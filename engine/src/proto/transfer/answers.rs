//! What providers say besides pieces: rejections, announcements, goodbyes.

use super::super::frame::{ByeCode, Message, RefusedCode, RejectCode, WireRange};
use super::super::limits::{DEFERRED_MAX, HAVE_MAX_RANGES};
use super::super::peers::DisconnectReason;
use super::super::picker::ConnectionId;
use super::super::session::Violation;
use super::super::time::Moment;
use super::super::units::{PieceIndex, PieceRange};
use super::{RequestState, Transfer, TransferAction};

impl Transfer {
    /// Takes a message of a provider other than `Piece`; `Ok(false)` when the connection ends by its goodbye.
    ///
    /// # Errors
    /// [`Violation`] when the protocol does not allow it; the driver closes, and says so by [`Transfer::connection_closed`].
    pub fn handle_message(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        message: &Message,
    ) -> Result<bool, Violation> {
        match message {
            Message::Reject { index, code } => self.handle_reject(now, connection, *index, *code)?,
            Message::Have { ranges } => {
                self.handle_have(now, connection, &check_announced(ranges).ok_or(Violation::Pieces)?)?;
            }
            Message::Bye { .. } => return Ok(false),
            _ => return Err(Violation::OutOfTurn),
        }
        Ok(true)
    }

    /// Whether a peer had what is missing, and its file has changed.
    #[must_use]
    pub fn has_changed_source(&self) -> bool {
        self.peers.any_source_changed()
    }

    fn handle_reject(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
        code: RejectCode,
    ) -> Result<(), Violation> {
        let Some(open) = self.open_connection(connection) else { return Ok(()) };
        let owed = *open.pending.get(&index).ok_or(Violation::Unrequested(index))?;
        if code == RejectCode::Cancelled && owed.state == RequestState::Expected {
            return Err(Violation::Unrequested(index));
        }
        // Only now: what a violation leaves owed is asked for elsewhere when the connection is closed for it.
        open.pending.remove(&index);
        open.window.answered();
        open.window.received(now, 0);
        open.is_stalled = false;
        open.deferred += usize::from(code == RejectCode::Busy);
        let turned_away = code == RejectCode::Busy && open.deferred <= 2 * DEFERRED_MAX;
        if turned_away {
            self.picker.defer(connection, index);
        } else {
            self.picker.abandon(connection, index);
        }
        if code != RejectCode::Cancelled && !turned_away {
            // It has nothing to give for now; the pause before the next call keeps it from being asked in a circle. That
            // goes for `NotHeld` too: only what a peer announced is asked of it, and one that announced and rejected the
            // same pieces over and over, on several connections, would keep them from everybody else.
            let (code, ending) = match code {
                // It has what is missing, and gives it for a fresh ticket.
                RejectCode::Expired => (ByeCode::Expired, DisconnectReason::Refused(RefusedCode::Expired)),
                RejectCode::SourceChanged => (ByeCode::Done, DisconnectReason::SourceChanged),
                _ => (ByeCode::Done, DisconnectReason::Lost),
            };
            self.actions.push(TransferAction::Close { connection, code });
            self.connection_closed(now, connection, &ending);
        }
        self.refill_all_windows(now);
        Ok(())
    }

    fn handle_have(
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
            open.has.insert_range(*range, |index| self.picker.add_partial_holder(index));
        }
        if open.has.is_full() {
            self.picker.remove_partial_holder(open.has.iter());
        }
        self.refill_window(now, connection);
        Ok(())
    }
}

/// The runs of a `Have`, when they are what one may hold: no more than a frame has room for, ascending, each piece named once.
/// So what a frame costs is bounded by the file's bit field, however its runs are chosen.
fn check_announced(ranges: &[WireRange]) -> Option<Vec<PieceRange>> {
    if ranges.len() > HAVE_MAX_RANGES {
        return None;
    }
    let ranges: Vec<PieceRange> = ranges.iter().map(|range| range.checked()).collect::<Option<_>>()?;
    ranges.windows(2).all(|pair| pair[0].last() < pair[1].first()).then_some(ranges)
}
