//! The trackers' keys, all derived from one root secret, so that every tracker of a cluster has the same.
//!
//! HKDF-SHA256 (RFC 5869) with one label a purpose: knowing one derived key tells nothing about another.

use engine::proto::ticket::SecretKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a tracker signs with.
pub(super) struct DerivedKeys {
    /// Signs tickets.
    pub(super) tickets: SecretKey,
    /// Authenticates session tokens.
    pub(super) sessions: Zeroizing<[u8; 32]>,
}

impl DerivedKeys {
    /// The keys of a cluster.
    pub(super) fn derive(root: &[u8; 32]) -> DerivedKeys {
        let derived = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            Hkdf::<Sha256>::new(None, root)
                .expand(label, key.as_mut())
                .expect("32 bytes are far below what HKDF-SHA256 can give");
            key
        };
        DerivedKeys {
            tickets: SecretKey::from_seed(&derived(b"shoal tickets 1")),
            sessions: derived(b"shoal sessions 1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_root_gives_the_same_keys_and_no_two_are_alike() {
        let keys = DerivedKeys::derive(&[1; 32]);
        assert_eq!(keys.tickets.tracker_key(), DerivedKeys::derive(&[1; 32]).tickets.tracker_key());
        assert_ne!(keys.tickets.tracker_key(), DerivedKeys::derive(&[2; 32]).tickets.tracker_key());
        assert_ne!(keys.tickets.tracker_key(), SecretKey::from_seed(&keys.sessions).tracker_key());
    }
}
