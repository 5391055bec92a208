//! A scripted consumer: it opens files at a real seeder, with right and with wrong papers.

use engine::proto::frame::Message;
use engine::proto::manifest::Manifest;
use engine::proto::ticket::{self, Nonce, PeerKey, SecretKey, Ticket};
use engine::proto::units::{PieceCount, PieceIndex};

use crate::rig::{Node, far_future, ticket};
use crate::wire::Wire;

/// A consumer that has been greeted.
pub(crate) struct Caller {
    /// Its connection.
    pub(crate) wire: Wire,
    /// Its key.
    pub(crate) secret: SecretKey,
    /// What the provider wants signed.
    pub(crate) nonce: Nonce,
    /// Who the provider is.
    pub(crate) provider: PeerKey,
}

impl Caller {
    /// Calls a seeder and takes its greeting.
    pub(crate) fn greeted(seeder: &Node, seed: u8) -> Caller {
        let mut wire = Wire::connect(seeder.engine.listen_address());
        match wire.read().unwrap() {
            Message::Greeting { nonce, peer_key, .. } => {
                Caller { wire, secret: SecretKey::from_seed(&[seed; 32]), nonce, provider: peer_key }
            }
            other => panic!("{other:?} instead of a greeting"),
        }
    }

    /// Calls a seeder and opens a file there, as it should be done.
    pub(crate) fn opened(seeder: &Node, seed: u8, manifest: &Manifest) -> Caller {
        let mut caller = Caller::greeted(seeder, seed);
        let papers = caller.papers(manifest);
        let answer = caller.open(&papers);
        assert!(matches!(answer, Message::Opened { .. }), "{answer:?}");
        caller
    }

    /// A right ticket for this caller.
    pub(crate) fn papers(&self, manifest: &Manifest) -> Ticket {
        ticket(manifest, self.secret.peer_key(), far_future())
    }

    /// An `OpenConnection` by this ticket, signed by this caller for this connection.
    pub(crate) fn open_message(&self, ticket: &Ticket) -> Message {
        let signature = ticket::sign_open(&self.secret, self.nonce, ticket, self.provider);
        Message::Open { ticket: ticket.clone(), nonce: Nonce([8; 32]), signature }
    }

    /// Sends the `OpenConnection` and takes the answer.
    pub(crate) fn open(&mut self, ticket: &Ticket) -> Message {
        let message = self.open_message(ticket);
        self.wire.send(&message).unwrap();
        self.wire.read().unwrap()
    }

    /// Asks for pieces; the seeder may have ended the connection.
    pub(crate) fn request(&mut self, first: u32, count: u32) {
        let _ = self.wire.send(&Message::Request { first: PieceIndex(first), count: PieceCount(count) });
    }
}
