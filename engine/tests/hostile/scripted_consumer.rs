//! A scripted consumer: it opens files at a real seeder, with valid and invalid tickets.

use engine::proto::frame::Message;
use engine::proto::manifest::Manifest;
use engine::proto::ticket::{self, Nonce, PeerKey, SecretKey, Ticket};
use engine::proto::units::{PieceCount, PieceIndex};

use crate::rig::{Node, far_future, ticket};
use crate::wire::Wire;

/// A consumer that has been greeted.
pub(crate) struct ScriptedConsumer {
    /// The connection.
    pub(crate) wire: Wire,
    /// The consumer's key.
    pub(crate) secret: SecretKey,
    /// The provider's nonce, to be signed.
    pub(crate) nonce: Nonce,
    /// The provider's key.
    pub(crate) provider: PeerKey,
}

impl ScriptedConsumer {
    /// Connects to a seeder and reads its greeting.
    pub(crate) fn greeted(seeder: &Node, seed: u8) -> ScriptedConsumer {
        let mut wire = Wire::connect(seeder.engine.listen_address());
        match wire.read().unwrap() {
            Message::Greeting { nonce, peer_key, .. } => ScriptedConsumer {
                wire,
                secret: SecretKey::from_seed(&[seed; 32]),
                nonce,
                provider: peer_key,
            },
            other => panic!("{other:?} instead of a greeting"),
        }
    }

    /// Connects to a seeder and opens a file with a valid ticket.
    pub(crate) fn opened(seeder: &Node, seed: u8, manifest: &Manifest) -> ScriptedConsumer {
        let mut consumer = ScriptedConsumer::greeted(seeder, seed);
        let ticket = consumer.valid_ticket(manifest);
        let answer = consumer.open(&ticket);
        assert!(matches!(answer, Message::Opened { .. }), "{answer:?}");
        consumer
    }

    /// A valid ticket for this consumer.
    pub(crate) fn valid_ticket(&self, manifest: &Manifest) -> Ticket {
        ticket(manifest, self.secret.peer_key(), far_future())
    }

    /// An `Open` with this ticket, signed for this connection.
    pub(crate) fn open_message(&self, ticket: &Ticket) -> Message {
        let signature = ticket::sign_open(&self.secret, self.nonce, ticket, self.provider);
        Message::Open { ticket: ticket.clone(), nonce: Nonce([8; 32]), signature }
    }

    /// Sends the `Open` and reads the answer.
    pub(crate) fn open(&mut self, ticket: &Ticket) -> Message {
        let message = self.open_message(ticket);
        self.wire.send(&message).unwrap();
        self.wire.read().unwrap()
    }

    /// Requests pieces; the seeder may have ended the connection.
    pub(crate) fn request(&mut self, first: u32, count: u32) {
        let _ = self.wire.send(&Message::Request { first: PieceIndex(first), count: PieceCount(count) });
    }
}
