//! Keys, tickets and the proofs of a handshake.
//!
//! A ticket is a statement, signed by the trackers, that the owner of a peer key may fetch one file until a point in time.
//! A provider verifies it offline. A stolen ticket is useless: to open a connection the consumer also signs the provider's
//! key and a fresh nonce with the peer key. For the same reason it cannot be relayed to another provider.

use bincode::{Decode, Encode};
use ed25519_dalek::{Signature as Ed25519Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::encoding::{self, CodecError};
use super::limits;
use super::units::Digest;

/// Seconds since the Unix epoch, by the trackers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// Whether a ticket that ends at this time is no longer accepted at `now`.
    #[must_use]
    pub fn is_over_at(self, now: UnixSeconds) -> bool {
        now.0 > self.0.saturating_add(limits::TICKET_GRACE_S)
    }
}

/// The tracker's time of day. It runs with the time since this machine's boot, so setting the machine's clock does not change
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerClock {
    told: UnixSeconds,
    told_at_boot_s: u64,
}

impl TrackerClock {
    /// A clock that shows `told` when the machine has run for `boot_s` seconds.
    #[must_use]
    pub fn new(told: UnixSeconds, boot_s: u64) -> TrackerClock {
        TrackerClock { told, told_at_boot_s: boot_s }
    }

    /// The time when the machine has run for `boot_s` seconds.
    #[must_use]
    pub fn time_at(&self, boot_s: u64) -> UnixSeconds {
        UnixSeconds(self.told.0.saturating_add(boot_s.saturating_sub(self.told_at_boot_s)))
    }
}

/// A node's public key (Ed25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PeerKey(pub [u8; 32]);

/// The trackers' public key (Ed25519), which verifies tickets. Clients get it at login.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct TrackerKey(pub [u8; 32]);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Signature(pub [u8; 64]);

/// 32 bytes that are used once.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Nonce(pub [u8; 32]);

/// `Debug` shows the first four bytes of keys, nonces and signatures, which tell them apart in a log.
macro_rules! short_debug {
    ($($type:ident),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($type), "({:02x}{:02x}{:02x}{:02x}…)"), self.0[0], self.0[1], self.0[2], self.0[3])
            }
        }
    )*};
}

short_debug!(PeerKey, TrackerKey, Signature, Nonce);

/// A private Ed25519 key. `Debug` does not show it, and it is zeroed when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// The key made from 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// The public key, as that of a node.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        PeerKey(self.0.verifying_key().to_bytes())
    }

    /// The public key, as that of the trackers.
    #[must_use]
    pub fn tracker_key(&self) -> TrackerKey {
        TrackerKey(self.0.verifying_key().to_bytes())
    }

    fn sign(&self, purpose: SignaturePurpose, parts: &[&[u8]]) -> Signature {
        Signature(self.0.sign(&purpose.statement(parts)).to_bytes())
    }
}

/// The purpose of a signature. It is signed too, so that no signature can serve another purpose.
#[derive(Clone, Copy)]
enum SignaturePurpose {
    Ticket,
    Open,
    Opened,
    Address,
}

impl SignaturePurpose {
    fn statement(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut statement = match self {
            SignaturePurpose::Ticket => b"shoal ticket 1".to_vec(),
            SignaturePurpose::Open => b"shoal open 1".to_vec(),
            SignaturePurpose::Opened => b"shoal opened 1".to_vec(),
            SignaturePurpose::Address => b"shoal address 1".to_vec(),
        };
        parts.iter().for_each(|part| statement.extend_from_slice(part));
        statement
    }

    fn verify(self, key: [u8; 32], parts: &[&[u8]], signature: Signature) -> bool {
        VerifyingKey::from_bytes(&key).is_ok_and(|key| {
            key.verify_strict(&self.statement(parts), &Ed25519Signature::from_bytes(&signature.0)).is_ok()
        })
    }
}

/// The statement of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// The user who asked for the ticket.
    pub user: String,
    /// The group in which the file is shared.
    pub group: String,
    /// The file's name in the group.
    pub file_name: String,
    /// Digest of the content: [`FileProof::id`](super::manifest::FileProof::id).
    pub file_id: Digest,
    /// The node that may fetch the file.
    pub peer_key: PeerKey,
    /// End of the grant.
    pub expires: UnixSeconds,
}

/// A grant and its signature, encoded. It is kept as bytes until it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ticket(pub Vec<u8>);

#[derive(Encode, Decode)]
struct SignedGrant {
    grant: Grant,
    signature: Signature,
}

/// Why a ticket is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// The bytes are not a ticket.
    #[error("the ticket cannot be read: {0}")]
    Unreadable(#[from] CodecError),
    /// The ticket is not signed by the trackers that this node trusts.
    #[error("the ticket was not signed by the trackers that this node trusts")]
    Signature,
}

impl Ticket {
    /// Signs a grant with the trackers' key.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers build a grant only to sign it")]
    pub fn sign(grant: Grant, key: &SecretKey) -> Ticket {
        let mut bytes = encoding::encode_value(&grant);
        let signature = key.sign(SignaturePurpose::Ticket, &[&bytes]);
        // The encoding of `SignedGrant`: the grant, then an array without a length.
        bytes.extend_from_slice(&signature.0);
        Ticket(bytes)
    }

    /// Decodes the ticket and verifies its signature. Expiry is checked by [`Grant::is_valid_at`].
    ///
    /// # Errors
    /// [`BadTicket`] when the bytes are not a ticket or the signature is not by `key`.
    pub fn verify(&self, key: TrackerKey) -> Result<Grant, BadTicket> {
        let SignedGrant { grant, signature } = encoding::decode_value(&self.0)?;
        if SignaturePurpose::Ticket.verify(key.0, &[&encoding::encode_value(&grant)], signature) {
            Ok(grant)
        } else {
            Err(BadTicket::Signature)
        }
    }

    /// The grant without a check of the signature, for the consumer that was given the ticket.
    ///
    /// # Errors
    /// [`BadTicket::Unreadable`] when the bytes are not a ticket.
    pub fn unverified_grant(&self) -> Result<Grant, BadTicket> {
        let SignedGrant { grant, .. } = encoding::decode_value(&self.0)?;
        Ok(grant)
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl Grant {
    /// Whether the grant is valid at `now` (the trackers' clock), with a grace for clocks that differ.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixSeconds) -> bool {
        !self.expires.is_over_at(now)
    }
}

/// The consumer's proof, for one connection, that it has the key named by the ticket.
#[must_use]
pub fn sign_open(key: &SecretKey, provider_nonce: Nonce, ticket: &Ticket, provider: PeerKey) -> Signature {
    key.sign(SignaturePurpose::Open, &[&provider_nonce.0, &ticket.sha256(), &provider.0])
}

/// Whether `signature` is that of [`sign_open`] by the key `consumer`.
#[must_use]
pub fn verify_open(
    consumer: PeerKey,
    provider_nonce: Nonce,
    ticket: &Ticket,
    provider: PeerKey,
    signature: Signature,
) -> bool {
    SignaturePurpose::Open.verify(consumer.0, &[&provider_nonce.0, &ticket.sha256(), &provider.0], signature)
}

/// The provider's proof, for one connection, that it has its key.
#[must_use]
pub fn sign_opened(key: &SecretKey, consumer_nonce: Nonce) -> Signature {
    key.sign(SignaturePurpose::Opened, &[&consumer_nonce.0])
}

/// Whether `signature` is that of [`sign_opened`] by the key `provider`.
#[must_use]
pub fn verify_opened(provider: PeerKey, consumer_nonce: Nonce, signature: Signature) -> bool {
    SignaturePurpose::Opened.verify(provider.0, &[&consumer_nonce.0], signature)
}

/// A node's proof, for one question of a tracker, that it answers at this address.
#[must_use]
pub fn sign_address(key: &SecretKey, tracker_nonce: Nonce, address: &str) -> Signature {
    key.sign(SignaturePurpose::Address, &[&tracker_nonce.0, address.as_bytes()])
}

/// Whether `signature` is that of [`sign_address`] by the key `node`.
#[must_use]
pub fn verify_address(node: PeerKey, tracker_nonce: Nonce, address: &str, signature: Signature) -> bool {
    SignaturePurpose::Address.verify(node.0, &[&tracker_nonce.0, address.as_bytes()], signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_an_address_is_for_one_key_one_question_and_one_address() {
        let (node, nonce) = (secret(3), Nonce([6; 32]));
        let proof = sign_address(&node, nonce, "10.0.0.5:40603");
        assert!(verify_address(node.peer_key(), nonce, "10.0.0.5:40603", proof));
        assert!(!verify_address(secret(4).peer_key(), nonce, "10.0.0.5:40603", proof));
        assert!(!verify_address(node.peer_key(), Nonce([7; 32]), "10.0.0.5:40603", proof));
        assert!(!verify_address(node.peer_key(), nonce, "10.0.0.6:40603", proof));
        assert!(!verify_opened(node.peer_key(), nonce, sign_address(&node, nonce, "")), "another purpose");
    }

    fn secret(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn grant() -> Grant {
        Grant {
            user: "alice".into(),
            group: "g".into(),
            file_name: "f".into(),
            file_id: Digest([7; 20]),
            peer_key: secret(2).peer_key(),
            expires: UnixSeconds(1_000),
        }
    }

    #[test]
    fn the_trackers_time_runs_with_the_time_since_boot() {
        let clock = TrackerClock::new(UnixSeconds(5_000), 100);
        assert_eq!([100, 700, 40].map(|boot_s| clock.time_at(boot_s).0), [5_000, 5_600, 5_000]);
        assert_eq!(TrackerClock::new(UnixSeconds(u64::MAX), 0).time_at(9), UnixSeconds(u64::MAX));
    }

    #[test]
    fn a_changed_ticket_is_refused() {
        let trackers = secret(1);
        let ticket = Ticket::sign(grant(), &trackers);
        assert_eq!(ticket.verify(trackers.tracker_key()), Ok(grant()));
        assert_eq!(ticket.verify(secret(9).tracker_key()), Err(BadTicket::Signature));
        for at in 0..ticket.0.len() {
            let mut forged = ticket.clone();
            forged.0[at] ^= 1;
            assert!(forged.verify(trackers.tracker_key()).is_err(), "a change of byte {at} is not noticed");
        }
    }

    #[test]
    fn a_ticket_is_the_encoding_of_a_signed_grant() {
        let ticket = Ticket::sign(grant(), &secret(1));
        let signed: SignedGrant = encoding::decode_value(&ticket.0).unwrap();
        assert_eq!(encoding::encode_value(&signed), ticket.0);
        assert_eq!(signed.grant, grant());
        assert!(SignaturePurpose::Ticket.verify(
            secret(1).tracker_key().0,
            &[&encoding::encode_value(&grant())],
            signed.signature
        ));
    }

    #[test]
    fn a_grant_is_valid_until_its_grace_ends() {
        assert!(grant().is_valid_at(UnixSeconds(1_000 + limits::TICKET_GRACE_S)));
        assert!(!grant().is_valid_at(UnixSeconds(1_001 + limits::TICKET_GRACE_S)));
    }

    #[test]
    fn a_proof_is_valid_for_one_connection_to_one_provider() {
        let (consumer, provider) = (secret(2), secret(3));
        let ticket = Ticket::sign(grant(), &secret(1));
        let nonce = Nonce([5; 32]);
        let proof = sign_open(&consumer, nonce, &ticket, provider.peer_key());
        let holds = |signer: &SecretKey, nonce, to: &SecretKey| {
            verify_open(signer.peer_key(), nonce, &ticket, to.peer_key(), proof)
        };
        assert!(holds(&consumer, nonce, &provider));
        assert!(!holds(&provider, nonce, &provider), "another key");
        assert!(!holds(&consumer, Nonce([6; 32]), &provider), "another connection");
        assert!(!holds(&consumer, nonce, &consumer), "another provider");
        assert!(!verify_opened(provider.peer_key(), nonce, proof), "another purpose");
    }
}
