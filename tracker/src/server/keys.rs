//! The keys of a cluster, derived from one root secret, so that all its trackers have the same ones.
//!
//! HKDF-SHA256 (RFC 5869) with one label per purpose: one derived key reveals nothing about another.

use engine::proto::ticket::SecretKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The keys with which a tracker signs.
pub(super) struct DerivedKeys {
    /// Signs tickets.
    pub(super) tickets: SecretKey,
    /// Authenticates session tokens.
    pub(super) sessions: Zeroizing<[u8; 32]>,
}

impl DerivedKeys {
    /// Derives the keys from the cluster's root secret.
    pub(super) fn derive(root: &[u8; 32]) -> DerivedKeys {
        let derived = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            Hkdf::<Sha256>::new(None, root)
                .expand(label, key.as_mut())
                .expect("32 bytes are far below the limit of HKDF-SHA256");
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
    fn keys_depend_on_the_root_and_on_the_purpose() {
        let keys = DerivedKeys::derive(&[1; 32]);
        assert_eq!(keys.tickets.tracker_key(), DerivedKeys::derive(&[1; 32]).tickets.tracker_key());
        assert_ne!(keys.tickets.tracker_key(), DerivedKeys::derive(&[2; 32]).tickets.tracker_key());
        assert_ne!(keys.tickets.tracker_key(), SecretKey::from_seed(&keys.sessions).tracker_key());
    }
}
