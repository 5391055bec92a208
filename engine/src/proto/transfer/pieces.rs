//! A piece on its way in: it begins, its bytes come, it has landed, was judged, and is written.

use super::super::frame::{ByeCode, Message};
use super::super::geometry::Geometry;
use super::super::picker::{ConnectionId, PieceArrival};
use super::super::session::Violation;
use super::super::time::Moment;
use super::super::units::{PieceCount, PieceIndex};
use super::{ChainCheck, PieceVerdict, ReceivedPiece, RequestState, Transfer, TransferAction};

impl Transfer {
    /// The frame of a piece has come; its bytes follow.
    ///
    /// # Errors
    /// [`Violation::Unrequested`] when it was not asked for, or is not as long as it must be.
    pub fn begin_piece(
        &mut self,
        connection: ConnectionId,
        index: PieceIndex,
        length: u32,
    ) -> Result<(), Violation> {
        // Of a connection that was closed meanwhile nothing is expected, and so nothing is made room for.
        let open = self.open_connection(connection).ok_or(Violation::Unrequested(index))?;
        let geometry = Geometry::new(open.length).expect("checked when the connection opened");
        if open.pending.contains_key(&index) && geometry.piece_len(index) == length {
            Ok(())
        } else {
            Err(Violation::Unrequested(index))
        }
    }

    /// Bytes of a piece have come.
    pub fn bytes_received(&mut self, now: Moment, connection: ConnectionId, count: u64) {
        self.counts.received_bytes += count;
        if let Some(open) = self.open_connection(connection) {
            open.window.received(now, count);
            open.is_stalled = false;
        }
    }

    /// A piece has come whole: what to verify, or `None` when it is of no use any more.
    pub fn piece_received(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
    ) -> Option<ReceivedPiece> {
        let found = self.connections.get_mut(&connection)?;
        let open = found.open.as_mut()?;
        let asked = open.pending.remove(&index)?.requested_at;
        open.window.answered();
        open.deferred = 0;
        let geometry = Geometry::new(open.length).expect("checked when the connection opened");
        let peer = found.peer;
        let landing = self.picker.piece_arrived(connection, index);
        self.refill_window(now, connection);
        if landing == PieceArrival::Duplicate || self.held.has(index) {
            self.counts.duplicate_bytes += u64::from(self.geometry.piece_len(index));
            return None;
        }
        let mut copies = self.copies.equal_to(index);
        copies.retain(|copy| !self.held.has(*copy));
        let file_length = match geometry.last().filter(|last| copies.contains(last)) {
            // What came is the last piece too, wherever it came for: it says how long that is, whatever the peer says.
            Some(last) => geometry.offset(last) + u64::from(geometry.piece_len(index)),
            None => geometry.length(),
        };
        Some(ReceivedPiece {
            index,
            copies,
            file_length,
            check_links: self.chain == ChainCheck::Intact,
            requested_at: asked,
            peer,
        })
    }

    /// A piece was verified; whether its bytes are to be written.
    pub fn piece_checked(&mut self, now: Moment, job: &ReceivedPiece, finding: PieceVerdict) -> bool {
        if finding.digest_matches {
            if !finding.links_match {
                self.chain = ChainCheck::Unusable;
            }
            self.peers.piece_delivered(job.peer);
            return true;
        }
        self.picker.retry_piece(job.index);
        if let Some(address) = self.peers.sent_bad_piece(job.peer, job.index) {
            self.dropped.push(address);
            let theirs: Vec<_> = self
                .connections
                .iter()
                .filter(|(_, other)| other.peer == job.peer)
                .map(|(id, _)| *id)
                .collect();
            theirs.into_iter().for_each(|id| self.close(now, id, ByeCode::BadPiece));
        }
        self.refill_all_windows(now);
        false
    }

    /// The bytes of a job are written at every index where they belong.
    pub fn piece_written(&mut self, job: &ReceivedPiece) {
        if self.geometry.last().is_some_and(|last| job.copies.contains(&last)) {
            self.geometry = Geometry::new(job.file_length).expect("checked when the connection opened");
        }
        for index in &job.copies {
            self.mark_held(*index);
        }
        for other in self.picker.complete_piece(job.index) {
            let Some(open) = self.open_connection(other) else { continue };
            if let Some(owed) = open.pending.get_mut(&job.index) {
                owed.state = RequestState::Cancelled;
                let message = Message::Cancel { first: job.index, count: PieceCount(1) };
                self.actions.push(TransferAction::Send { connection: other, message });
            }
        }
    }

    /// The bytes of a job could not be judged or not be written, which says nothing about their sender: the piece will be
    /// fetched again.
    pub fn piece_dropped(&mut self, job: &ReceivedPiece) {
        self.picker.retry_piece(job.index);
    }

    /// A piece of zeros is where it belongs, as a hole.
    pub fn hole_verified(&mut self, index: PieceIndex, link_holds: bool) {
        if !link_holds {
            self.chain = ChainCheck::Unusable;
        }
        self.mark_held(index);
    }

    pub(super) fn mark_held(&mut self, index: PieceIndex) {
        if self.held.insert(index) {
            self.gained.push(index);
            self.counts.verified_bytes += u64::from(self.geometry.piece_len(index));
        }
    }
}
