//! Hashing and checking passwords by argon2id (RFC 9106), off the loop, a few at a time.
//!
//! An unknown user costs the same time as a wrong password: the check then runs against a hash that nothing matches.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

use crate::api::request::Password;

/// What is to be done with a password.
pub(super) enum Job {
    /// Hash it.
    Hash(Password),
    /// Compare it with a hash; `None` where there is no such user.
    Verify(Password, Option<String>),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The hash, as a PHC string.
    Hashed(String),
    /// Whether the password is right.
    Verified(bool),
    /// Hashing failed: the machine is out of memory or of randomness.
    Failed,
}

/// The hash of no one's password.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash("").unwrap_or_default());

/// Does one job.
pub(super) fn work(job: Job) -> Done {
    match job {
        Job::Hash(password) => hash(password.reveal()).map_or(Done::Failed, Done::Hashed),
        Job::Verify(password, Some(hash)) => Done::Verified(matches(password.reveal(), &hash)),
        Job::Verify(password, None) => {
            matches(password.reveal(), &NOBODY);
            Done::Verified(false)
        }
    }
}

/// Prepares what the first check of an unknown user would otherwise wait for.
pub(super) fn prepare() {
    LazyLock::force(&NOBODY);
}

fn hash(password: &str) -> Option<String> {
    match Argon2::default().hash_password(password.as_bytes()) {
        Ok(hash) => Some(hash.to_string()),
        Err(error) => {
            tracing::error!(%error, "a password could not be hashed");
            None
        }
    }
}

fn matches(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_a_known_user_passes() {
        let password = |text: &str| Password::new(text).unwrap();
        let Done::Hashed(hash) = work(Job::Hash(password("secret"))) else { panic!("not hashed") };
        assert!(hash.starts_with("$argon2id$") && !hash.contains("secret"));
        assert_eq!(work(Job::Verify(password("secret"), Some(hash.clone()))), Done::Verified(true));
        assert_eq!(work(Job::Verify(password("Secret"), Some(hash))), Done::Verified(false));
        assert_eq!(work(Job::Verify(password("secret"), None)), Done::Verified(false));
        assert_eq!(work(Job::Verify(password("secret"), Some("no hash".into()))), Done::Verified(false));
    }
}
