//! Hashes and verifies passwords by argon2id (RFC 9106) on worker threads.
//!
//! An unknown user takes as long as a wrong password: the password is hashed and the result dropped.
//! Invariant: a [`HashingMemory`] allocates once, and no hash depends on what an earlier one left there.

use argon2::password_hash::generate_salt;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::api::request::Password;

pub(super) enum PasswordJob {
    Hash(Password),
    /// Compare a password with a user's hash; `None` when the user does not exist.
    Verify(Password, Option<String>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum PasswordResult {
    /// The hash, as a PHC string.
    Hashed(String),
    /// Whether the password is right.
    Verified(bool),
    /// Hashing failed: the machine has no memory or no random bytes.
    Failed,
    /// Too many passwords waited: this one was not looked at.
    Refused,
}

/// The memory in which one thread hashes.
#[derive(Default)]
pub(super) struct HashingMemory {
    blocks: Vec<Block>,
}

pub(super) fn run_password_job(hasher: &mut HashingMemory, job: PasswordJob) -> PasswordResult {
    match job {
        PasswordJob::Hash(password) => match hasher.hash(password.reveal()) {
            Ok(hash) => PasswordResult::Hashed(hash),
            Err(error) => {
                tracing::error!(%error, "cannot hash a password");
                PasswordResult::Failed
            }
        },
        PasswordJob::Verify(password, hash) => match hasher.matches(password.reveal(), hash.as_deref()) {
            Ok(matches) => PasswordResult::Verified(matches),
            Err(error) => {
                tracing::error!(%error, "cannot verify a password");
                PasswordResult::Failed
            }
        },
    }
}

impl HashingMemory {
    /// Hashes a password with a new salt; gives a PHC string.
    fn hash(&mut self, password: &str) -> argon2::password_hash::Result<String> {
        let argon2 = Argon2::default();
        let salt = generate_salt();
        let hash = PasswordHash {
            algorithm: Algorithm::default().ident(),
            version: Some(Version::default().into()),
            params: ParamsString::try_from(argon2.params())?,
            hash: Some(self.hash_bytes(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN)?),
            salt: Some(Salt::new(&salt)?),
        };
        Ok(hash.to_string())
    }

    /// Whether a password matches a hash. Without a hash it hashes all the same, and gives false.
    fn matches(&mut self, password: &str, hash: Option<&str>) -> argon2::password_hash::Result<bool> {
        let hash = match hash.map(PasswordHash::new) {
            Some(Ok(hash)) => hash,
            Some(Err(_)) => return Ok(false),
            None => {
                let salt = [0; argon2::RECOMMENDED_SALT_LEN];
                self.hash_bytes(&Argon2::default(), password, &salt, Params::DEFAULT_OUTPUT_LEN)?;
                return Ok(false);
            }
        };
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash)?);
        // `Output` compares in constant time.
        Ok(self.hash_bytes(&argon2, password, salt, expected.len())? == *expected)
    }

    fn hash_bytes(
        &mut self,
        argon2: &Argon2<'_>,
        password: &str,
        salt: &[u8],
        length: usize,
    ) -> argon2::password_hash::Result<Output> {
        let count = argon2.params().block_count();
        let more = count.saturating_sub(self.blocks.len());
        self.blocks.try_reserve_exact(more).map_err(|_| argon2::Error::OutOfMemory)?;
        self.blocks.resize(self.blocks.len() + more, Block::default());
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(argon2::password_hash::Error::OutputSize)?;
        argon2.hash_password_into_with_memory(
            password.as_bytes(),
            salt,
            output,
            &mut self.blocks[..count],
        )?;
        Ok(Output::new(output)?)
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text).unwrap()
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_accepted() {
        let mut hasher = HashingMemory::default();
        let mut work = |job| run_password_job(&mut hasher, job);
        let PasswordResult::Hashed(hash) = work(PasswordJob::Hash(password("secret"))) else {
            panic!("not hashed")
        };
        assert!(hash.starts_with("$argon2id$") && !hash.contains("secret"));
        assert_eq!(
            work(PasswordJob::Verify(password("secret"), Some(hash.clone()))),
            PasswordResult::Verified(true)
        );
        assert_eq!(
            work(PasswordJob::Verify(password("Secret"), Some(hash))),
            PasswordResult::Verified(false)
        );
        assert_eq!(work(PasswordJob::Verify(password("secret"), None)), PasswordResult::Verified(false));
        assert_eq!(
            work(PasswordJob::Verify(password("secret"), Some("no hash".into()))),
            PasswordResult::Verified(false)
        );
    }

    #[test]
    fn reused_memory_gives_the_hashes_of_the_library() {
        let mut hasher = HashingMemory::default();
        let others = Argon2::default().hash_password(b"secret").unwrap().to_string();
        // Other parameters and another size, as an earlier version may have written.
        let params = Params::new(64, 1, 1, Some(16)).unwrap();
        let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cheap = cheap.hash_password(b"secret").unwrap().to_string();
        for hash in [&others, &cheap, &others] {
            let job = |text| PasswordJob::Verify(password(text), Some(hash.clone()));
            assert_eq!(run_password_job(&mut hasher, job("secret")), PasswordResult::Verified(true));
            assert_eq!(run_password_job(&mut hasher, job("other")), PasswordResult::Verified(false));
        }
        let own = hasher.hash("mine").unwrap();
        let own = PasswordHash::new(&own).unwrap();
        assert!(Argon2::default().verify_password(b"mine", &own).is_ok());
        assert_ne!(hasher.hash("mine").unwrap(), own.to_string(), "every hash has a new salt");
    }

    #[test]
    fn memory_is_allocated_once() {
        let mut hasher = HashingMemory::default();
        hasher.hash("secret").unwrap();
        let (place, capacity) = (hasher.blocks.as_ptr(), hasher.blocks.capacity());
        hasher.hash("secret").unwrap();
        hasher.matches("secret", None).unwrap();
        assert_eq!((hasher.blocks.as_ptr(), hasher.blocks.capacity()), (place, capacity));
        assert_eq!(capacity, Argon2::default().params().block_count());
    }
}
