//! Hashing and checking passwords by argon2id (RFC 9106), off the loop, a few at a time.
//!
//! An unknown user costs the same time as a wrong password: what is typed is then hashed for nothing. Invariant: a
//! [`HashingMemory`] takes its memory once, and no hash depends on what an earlier one left there.

use argon2::password_hash::generate_salt;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::api::request::Password;

/// What is to be done with a password.
pub(super) enum PasswordJob {
    /// Hash it.
    Hash(Password),
    /// Compare it with a hash; `None` where there is no such user.
    Verify(Password, Option<String>),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PasswordResult {
    /// The hash, as a PHC string.
    Hashed(String),
    /// Whether the password is right.
    Verified(bool),
    /// Hashing failed: the machine is out of memory or of randomness.
    Failed,
}

/// The memory in which a thread hashes.
#[derive(Default)]
pub(super) struct HashingMemory {
    blocks: Vec<Block>,
}

/// Does one job.
pub(super) fn run_password_job(hasher: &mut HashingMemory, job: PasswordJob) -> PasswordResult {
    match job {
        PasswordJob::Hash(password) => match hasher.hash(password.reveal()) {
            Ok(hash) => PasswordResult::Hashed(hash),
            Err(error) => {
                tracing::error!(%error, "a password could not be hashed");
                PasswordResult::Failed
            }
        },
        PasswordJob::Verify(password, hash) => match hasher.matches(password.reveal(), hash.as_deref()) {
            Ok(matches) => PasswordResult::Verified(matches),
            Err(error) => {
                tracing::error!(%error, "a password could not be compared");
                PasswordResult::Failed
            }
        },
    }
}

impl HashingMemory {
    /// A new hash of a password, as a PHC string.
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

    /// Whether a password is that of a hash; without a hash it is nobody's.
    fn matches(&mut self, password: &str, hash: Option<&str>) -> argon2::password_hash::Result<bool> {
        let hash = match hash.map(PasswordHash::new) {
            Some(Ok(hash)) => hash,
            Some(Err(_)) => return Ok(false),
            None => {
                let nobody = [0; argon2::RECOMMENDED_SALT_LEN];
                self.hash_bytes(&Argon2::default(), password, &nobody, Params::DEFAULT_OUTPUT_LEN)?;
                return Ok(false);
            }
        };
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Ok(false) };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash)?);
        // Outputs are compared in constant time.
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
    fn only_the_right_password_of_a_known_user_passes() {
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
    fn hashes_are_those_of_the_library_whatever_the_memory_held() {
        let mut hasher = HashingMemory::default();
        let others = Argon2::default().hash_password(b"secret").unwrap().to_string();
        // Cheaper ones, of another size, as an earlier version may have written.
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
        assert_ne!(hasher.hash("mine").unwrap(), own.to_string(), "each hash has a salt of its own");
    }

    #[test]
    fn memory_is_taken_once() {
        let mut hasher = HashingMemory::default();
        hasher.hash("secret").unwrap();
        let (place, capacity) = (hasher.blocks.as_ptr(), hasher.blocks.capacity());
        hasher.hash("secret").unwrap();
        hasher.matches("secret", None).unwrap();
        assert_eq!((hasher.blocks.as_ptr(), hasher.blocks.capacity()), (place, capacity));
        assert_eq!(capacity, Argon2::default().params().block_count());
    }
}
