//! A piece on its way in: its frame begins, bytes arrive, it is received, checked and written.

use super::super::geometry::Geometry;
use super::super::picker::{ConnectionId, PieceArrival};
use super::super::session::Violation;
use super::super::time::Moment;
use super::super::units::PieceIndex;
use super::{ChainCheck, PieceVerdict, ReceivedPiece, Transfer};

impl Transfer {
    /// A `Piece` frame has arrived; the bytes follow.
    ///
    /// # Errors
    /// [`Violation::Unrequested`] when the piece was not requested, or `length` (in bytes) is wrong.
    pub fn begin_piece(
        &mut self,
        connection: ConnectionId,
        index: PieceIndex,
        length: u32,
    ) -> Result<(), Violation> {
        // A connection that was closed meanwhile has no requests, and so no buffer is made for its pieces.
        let open = self.scheduler.connections.open(connection).ok_or(Violation::Unrequested(index))?;
        if open.pending.contains_key(&index) && open.geometry.piece_len(index) == length {
            Ok(())
        } else {
            Err(Violation::Unrequested(index))
        }
    }

    /// Bytes of a piece have arrived.
    pub fn bytes_received(&mut self, now: Moment, connection: ConnectionId, bytes: u64) {
        self.counts.received_bytes += bytes;
        if let Some(open) = self.scheduler.connections.open_mut(connection) {
            open.bytes_received(now, bytes);
        }
    }

    /// A piece has arrived whole. Returns what to verify, or `None` when the piece is of no use any more.
    pub fn piece_received(
        &mut self,
        now: Moment,
        connection: ConnectionId,
        index: PieceIndex,
    ) -> Option<ReceivedPiece> {
        let delivery = self.scheduler.piece_received(now, connection, index)?;
        if delivery.arrival == PieceArrival::Duplicate || self.held.has(index) {
            self.counts.duplicate_bytes += u64::from(self.geometry.piece_len(index));
            return None;
        }
        let mut copies = self.equal.equal_to(index);
        copies.retain(|copy| !self.held.has(*copy));
        assert!(copies.contains(&index), "a piece that is not held is one of its own copies");
        let geometry = delivery.geometry;
        let file_length = match geometry.last().filter(|last| copies.contains(last)) {
            // The piece also has the content of the file's last piece, so its length gives the file's length. The digest
            // proves the piece; the file length that the peer states is not trusted.
            Some(last) => geometry.offset(last) + u64::from(geometry.piece_len(index)),
            None => geometry.length(),
        };
        let check_links = self.chain == ChainCheck::Intact;
        let (requested_at, peer) = (delivery.requested_at, delivery.peer);
        Some(ReceivedPiece { index, copies, file_length, check_links, requested_at, peer })
    }

    /// A piece was verified. Returns whether its bytes are to be written.
    pub fn piece_checked(&mut self, now: Moment, piece: &ReceivedPiece, verdict: PieceVerdict) -> bool {
        if verdict.digest_matches {
            if !verdict.links_match {
                self.chain = ChainCheck::Unusable;
            }
            self.scheduler.peers.piece_delivered(piece.peer);
        } else {
            let banned = self.scheduler.piece_was_wrong(now, piece.peer, piece.index);
            self.banned.extend(banned);
        }
        verdict.digest_matches
    }

    /// The bytes of a piece are written at every index where they belong.
    pub fn piece_written(&mut self, piece: &ReceivedPiece) {
        if self.geometry.last().is_some_and(|last| piece.copies.contains(&last)) {
            let exact = Geometry::new(piece.file_length).expect("the handshake checks the length");
            assert_eq!(exact.pieces(), self.geometry.pieces(), "the exact length does not change the pieces");
            self.geometry = exact;
        }
        for index in &piece.copies {
            self.mark_held(*index);
        }
        self.scheduler.complete_piece(piece.index);
    }

    /// A piece could not be verified or written, for which its sender is not to blame: it is fetched again.
    pub fn piece_dropped(&mut self, piece: &ReceivedPiece) {
        self.scheduler.picker.retry_piece(piece.index);
    }

    /// Marks a piece as held that was not received: a zero piece, which is a hole in the file, or a piece that is on
    /// the disk already.
    pub fn add_held_piece(&mut self, index: PieceIndex, link_matches: bool) {
        if !link_matches {
            self.chain = ChainCheck::Unusable;
        }
        self.mark_held(index);
    }

    fn mark_held(&mut self, index: PieceIndex) {
        if self.held.insert(index) {
            self.gained.push(index);
            self.counts.verified_bytes += u64::from(self.geometry.piece_len(index));
            assert!(self.counts.verified_bytes <= self.geometry.length(), "each piece is counted once");
        }
    }
}
