//! Session tokens: name a session and its user, authenticated by HMAC-SHA256 under a key that all trackers of
//! a cluster share.
//!
//! A tracker checks a token without the state. Whether the session still exists is in the state. A token is
//! URL-safe base64 of: version, session id, password epoch, expiry, user, authenticator.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hkdf::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::state::id::{SessionId, UserId};

const VERSION: u8 = 1;
/// Version, session id, password epoch, expiry.
const HEAD_BYTES: usize = 1 + 16 + 4 + 8;
const AUTHENTICATOR_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionClaims {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    /// Epoch of the password that the login used.
    pub(super) password_epoch: u32,
    /// End of the session, in seconds since the Unix epoch.
    pub(super) expires_s: u64,
}

pub(super) fn sign_token(claims: &SessionClaims, key: &[u8; 32]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&claims.session.0);
    bytes.extend_from_slice(&claims.password_epoch.to_be_bytes());
    bytes.extend_from_slice(&claims.expires_s.to_be_bytes());
    bytes.extend_from_slice(claims.user.as_str().as_bytes());
    let authenticator = token_mac(key, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&authenticator);
    BASE64.encode(bytes)
}

/// Decodes a token. `None` when it was not signed with `key` or has expired at `now_s`.
pub(super) fn verify_token(token: &str, key: &[u8; 32], now_s: u64) -> Option<SessionClaims> {
    let bytes = BASE64.decode(token).ok()?;
    let (stated, authenticator) = bytes.split_at_checked(bytes.len().checked_sub(AUTHENTICATOR_BYTES)?)?;
    token_mac(key, stated).verify_slice(authenticator).ok()?;
    let (head, user) = stated.split_at_checked(HEAD_BYTES)?;
    let (version, head) = head.split_first()?;
    let (session, head) = head.split_first_chunk::<16>()?;
    let (password_epoch, expires) = head.split_first_chunk::<4>()?;
    let claims = SessionClaims {
        user: UserId::new(std::str::from_utf8(user).ok()?).ok()?,
        session: SessionId(*session),
        password_epoch: u32::from_be_bytes(*password_epoch),
        expires_s: u64::from_be_bytes(expires.try_into().ok()?),
    };
    (*version == VERSION && now_s < claims.expires_s).then_some(claims)
}

fn token_mac(key: &[u8; 32], bytes: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length").chain_update(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn claims() -> SessionClaims {
        let user = UserId::new("alice").unwrap();
        SessionClaims { user, session: SessionId([3; 16]), password_epoch: 5, expires_s: 1_000 }
    }

    #[test]
    fn a_token_verifies_until_it_expires() {
        let token = sign_token(&claims(), &KEY);
        assert_eq!(verify_token(&token, &KEY, 999), Some(claims()));
        assert_eq!(verify_token(&token, &KEY, 1_000), None);
        assert_eq!(verify_token(&token, &[8; 32], 0), None);
    }

    #[test]
    fn a_changed_token_is_refused() {
        let token = sign_token(&claims(), &KEY);
        let bytes = BASE64.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(verify_token(&BASE64.encode(forged), &KEY, 0), None, "byte {at}");
            assert_eq!(verify_token(&BASE64.encode(&bytes[..at]), &KEY, 0), None, "cut at {at}");
        }
        assert_eq!(verify_token("no token", &KEY, 0), None);
    }
}
