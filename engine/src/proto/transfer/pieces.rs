//! A piece on its way in: it begins, its bytes come, it has landed, was judged, and is written.

use super::super::frame::{ByeCode, Message};
use super::super::geometry::Geometry;
use super::super::picker::{ConnectionId, Landing};
use super::super::session::Violation;
use super::super::time::Moment;
use super::super::units::{PieceCount, PieceIndex};
use super::{Action, Chain, Finding, Job, OwedState, Transfer};

impl Transfer {
    /// The frame of a piece has come; its bytes follow.
    ///
    /// # Errors
    /// [`Violation::Unasked`] when it was not asked for, or is not as long as it must be.
    pub fn piece_begins(
        &mut self,
        connection: ConnectionId,
        index: PieceIndex,
        length: u32,
    ) -> Result<(), Violation> {
        // Of a connection that was closed meanwhile nothing is expected, and so nothing is made room for.
        let open = self.open_connection(connection).ok_or(Violation::Unasked(index))?;
        let geometry = Geometry::new(open.length).expect("checked when the connection opened");
        if open.owes.contains_key(&index) && geometry.piece_len(index) == length {
            Ok(())
        } else {
            Err(Violation::Unasked(index))
        }
    }

    /// Bytes of a piece have come.
    pub fn bytes(&mut self, now: Moment, connection: ConnectionId, count: u64) {
        self.counts.received_bytes += count;
        if let Some(open) = self.open_connection(connection) {
            open.window.received(now, count);
            open.stalled = false;
        }
    }

    /// A piece has come whole: what to verify, or `None` when it is of no use any more.
    pub fn landed(&mut self, now: Moment, connection: ConnectionId, index: PieceIndex) -> Option<Job> {
        let found = self.connections.get_mut(&connection)?;
        let open = found.open.as_mut()?;
        let asked = open.owes.remove(&index)?.asked;
        open.window.answered();
        open.turned_away = 0;
        let geometry = Geometry::new(open.length).expect("checked when the connection opened");
        let peer = found.peer;
        let landing = self.picker.landed(connection, index);
        self.refill(now, connection);
        if landing == Landing::Duplicate || self.held.has(index) {
            self.counts.duplicate_bytes += u64::from(self.geometry.piece_len(index));
            return None;
        }
        let mut copies = self.copies.like(index);
        copies.retain(|copy| !self.held.has(*copy));
        let file_length = match geometry.last().filter(|last| copies.contains(last)) {
            // What came is the last piece too, wherever it came for: it says how long that is, whatever the peer says.
            Some(last) => geometry.offset(last) + u64::from(geometry.piece_len(index)),
            None => geometry.length(),
        };
        Some(Job { index, copies, file_length, with_links: self.chain == Chain::Holds, asked, peer })
    }

    /// A piece was verified; whether its bytes are to be written.
    pub fn judged(&mut self, now: Moment, job: &Job, finding: Finding) -> bool {
        if finding.digest_holds {
            if !finding.links_hold {
                self.chain = Chain::Useless;
            }
            self.peers.delivered(job.peer);
            return true;
        }
        self.picker.failed(job.index);
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
        self.refill_all(now);
        false
    }

    /// The bytes of a job are written at every index where they belong.
    pub fn written(&mut self, job: &Job) {
        if self.geometry.last().is_some_and(|last| job.copies.contains(&last)) {
            self.geometry = Geometry::new(job.file_length).expect("checked when the connection opened");
        }
        for index in &job.copies {
            self.hold_piece(*index);
        }
        for other in self.picker.held(job.index) {
            let Some(open) = self.open_connection(other) else { continue };
            if let Some(owed) = open.owes.get_mut(&job.index) {
                owed.state = OwedState::Cancelled;
                let message = Message::Cancel { first: job.index, count: PieceCount(1) };
                self.actions.push(Action::Send { connection: other, message });
            }
        }
    }

    /// The bytes of a job could not be judged or not be written, which says nothing about their sender: the piece will be
    /// fetched again.
    pub fn not_kept(&mut self, job: &Job) {
        self.picker.failed(job.index);
    }

    /// A piece of zeros is where it belongs, as a hole.
    pub fn hole_proven(&mut self, index: PieceIndex, link_holds: bool) {
        if !link_holds {
            self.chain = Chain::Useless;
        }
        self.hold_piece(index);
    }

    pub(super) fn hold_piece(&mut self, index: PieceIndex) {
        if self.held.insert(index) {
            self.gained.push(index);
            self.counts.verified_bytes += u64::from(self.geometry.piece_len(index));
        }
    }
}
