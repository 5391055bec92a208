//! Limits the rate of password attempts, per address block and per user at an address block. Never per user alone: no
//! client can lock a user out.
//!
//! An attempt counts when it begins, so that many in parallel gain nothing, and no longer when it succeeds. A user who
//! has logged in at an address before has an allowance there that no other user of the address uses up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::state::id::UserId;

use super::limits::{
    BLOCK_ATTEMPT_EVERY_MS, BLOCK_ATTEMPTS_MAX, KNOWN_LOGINS_MAX, THROTTLED_MAX, USER_ATTEMPT_EVERY_MS,
    USER_ATTEMPTS_MAX,
};

/// The block of addresses that counts as one: an IPv4 address itself, or the /64 of an IPv6 address, since
/// one line has all of it.
pub(super) fn address_block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

/// A user at an address block.
type LoginOrigin = (UserId, IpAddr);

#[derive(Debug)]
pub(super) struct LoginThrottle {
    origins: AttemptCounts<LoginOrigin>,
    blocks: AttemptCounts<IpAddr>,
    /// Where users have logged in, with the time of the last login in milliseconds.
    known: BTreeMap<LoginOrigin, u64>,
}

impl LoginThrottle {
    pub(super) fn new() -> LoginThrottle {
        LoginThrottle {
            origins: AttemptCounts::new(USER_ATTEMPTS_MAX, USER_ATTEMPT_EVERY_MS),
            blocks: AttemptCounts::new(BLOCK_ATTEMPTS_MAX, BLOCK_ATTEMPT_EVERY_MS),
            known: BTreeMap::new(),
        }
    }

    /// Whether the user has logged in at this address before.
    pub(super) fn is_known(&self, user: &UserId, ip: IpAddr) -> bool {
        self.known.contains_key(&(user.clone(), address_block(ip)))
    }

    /// Counts an attempt that begins.
    ///
    /// # Errors
    /// There were too many; the milliseconds until the next one is allowed.
    pub(super) fn admit(&mut self, user: &UserId, ip: IpAddr, now_ms: u64) -> Result<(), u64> {
        let origin = (user.clone(), address_block(ip));
        let of_block =
            if self.known.contains_key(&origin) { 0 } else { self.blocks.wait_ms(&origin.1, now_ms) };
        match self.origins.wait_ms(&origin, now_ms).max(of_block) {
            0 => {
                self.blocks.add(origin.1, now_ms);
                self.origins.add(origin, now_ms);
                Ok(())
            }
            wait_ms => Err(wait_ms),
        }
    }

    /// Takes back an attempt that was not carried out, or did not fail.
    pub(super) fn take_back(&mut self, user: &UserId, ip: IpAddr) {
        let origin = (user.clone(), address_block(ip));
        self.blocks.subtract(&origin.1);
        self.origins.subtract(&origin);
    }

    /// Notes a login: the attempt counts no longer, and the user is known at this address.
    pub(super) fn record_login(&mut self, user: &UserId, ip: IpAddr, now_ms: u64) {
        self.take_back(user, ip);
        let origin = (user.clone(), address_block(ip));
        if self.known.len() >= KNOWN_LOGINS_MAX && !self.known.contains_key(&origin) {
            let oldest = self.known.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(origin, _)| origin.clone());
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(origin, now_ms);
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.origins.sweep(now_ms);
        self.blocks.sweep(now_ms);
    }
}

/// Attempts by key. Each is counted for `every_ms`, one after another, and `most` may be counted at a time.
#[derive(Debug)]
struct AttemptCounts<K> {
    most: u64,
    every_ms: u64,
    /// When the last counted attempt of a key expires, in milliseconds.
    expiries: BTreeMap<K, u64>,
}

impl<K: Ord + Clone> AttemptCounts<K> {
    fn new(most: u64, every_ms: u64) -> AttemptCounts<K> {
        AttemptCounts { most, every_ms, expiries: BTreeMap::new() }
    }

    /// Milliseconds until the next attempt is allowed; 0 means now.
    fn wait_ms(&self, key: &K, now_ms: u64) -> u64 {
        let allowed_ms = now_ms + (self.most - 1) * self.every_ms;
        self.expiries.get(key).map_or(0, |expiry_ms| expiry_ms.saturating_sub(allowed_ms))
    }

    fn add(&mut self, key: K, now_ms: u64) {
        if self.expiries.len() >= THROTTLED_MAX && !self.expiries.contains_key(&key) {
            self.sweep(now_ms);
            if self.expiries.len() >= THROTTLED_MAX {
                let soonest =
                    self.expiries.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(key, _)| key.clone());
                soonest.map(|soonest| self.expiries.remove(&soonest));
            }
        }
        let expiry_ms = self.expiries.entry(key).or_insert(now_ms);
        *expiry_ms = now_ms.max(*expiry_ms) + self.every_ms;
    }

    fn subtract(&mut self, key: &K) {
        if let Some(expiry_ms) = self.expiries.get_mut(key) {
            *expiry_ms = expiry_ms.saturating_sub(self.every_ms);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.expiries.retain(|_, expiry_ms| *expiry_ms > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Attempts that are allowed at one time.
    fn burst(throttle: &mut LoginThrottle, name: &str, at: &str, now_ms: u64) -> u64 {
        (0..10_000).take_while(|_| throttle.admit(&user(name), ip(at), now_ms).is_ok()).count() as u64
    }

    #[test]
    fn attempts_at_one_time_are_limited_and_return_at_a_rate() {
        let mut throttle = LoginThrottle::new();
        assert_eq!(burst(&mut throttle, "a", "10.0.0.1", 0), USER_ATTEMPTS_MAX, "in parallel, too");
        assert_eq!(throttle.admit(&user("a"), ip("10.0.0.1"), 0), Err(USER_ATTEMPT_EVERY_MS));
        assert_eq!(burst(&mut throttle, "a", "10.0.0.1", 3 * USER_ATTEMPT_EVERY_MS), 3);
        let later_ms = 100 * USER_ATTEMPTS_MAX * USER_ATTEMPT_EVERY_MS;
        assert_eq!(burst(&mut throttle, "a", "10.0.0.1", later_ms), USER_ATTEMPTS_MAX);
        assert_eq!(
            burst(&mut throttle, "a", "10.0.0.2", 0),
            USER_ATTEMPTS_MAX,
            "no one is locked out elsewhere"
        );
    }

    #[test]
    fn an_address_that_tries_many_users_is_limited() {
        let mut throttle = LoginThrottle::new();
        let tried = (0..1_000).filter(|n| throttle.admit(&user(&format!("u{n}")), ip("10.0.0.1"), 0).is_ok());
        assert_eq!(tried.count() as u64, BLOCK_ATTEMPTS_MAX);
        assert!(throttle.admit(&user("v"), ip("10.0.0.2"), 0).is_ok());
    }

    #[test]
    fn an_owner_is_not_delayed_by_others_at_the_same_address() {
        let mut throttle = LoginThrottle::new();
        throttle.admit(&user("owner"), ip("10.0.0.1"), 0).unwrap();
        throttle.record_login(&user("owner"), ip("10.0.0.1"), 0);
        (0..1_000).for_each(|n| _ = throttle.admit(&user(&format!("u{n}")), ip("10.0.0.1"), 0));
        assert!(throttle.admit(&user("new"), ip("10.0.0.1"), 0).is_err());
        assert!(
            throttle.is_known(&user("owner"), ip("10.0.0.1"))
                && !throttle.is_known(&user("owner"), ip("::1"))
        );
        assert_eq!(
            burst(&mut throttle, "owner", "10.0.0.1", 0),
            USER_ATTEMPTS_MAX,
            "guesses are still limited"
        );
    }

    #[test]
    fn what_does_not_fail_does_not_count() {
        let mut throttle = LoginThrottle::new();
        for round in 0..10 * BLOCK_ATTEMPTS_MAX {
            let name = user(&format!("u{}", round % 3));
            throttle.admit(&name, ip("10.0.0.1"), 0).unwrap();
            match round % 2 {
                0 => throttle.record_login(&name, ip("10.0.0.1"), 0),
                _ => throttle.take_back(&name, ip("10.0.0.1")),
            }
        }
    }

    #[test]
    fn all_addresses_of_an_ipv6_line_count_as_one() {
        let mut throttle = LoginThrottle::new();
        burst(&mut throttle, "a", "2001:db8::1", 0);
        assert_eq!(burst(&mut throttle, "a", "2001:db8::ffff:0:0:1", 0), 0);
        assert_eq!(burst(&mut throttle, "a", "2001:db8:0:1::1", 0), USER_ATTEMPTS_MAX, "another block");
        assert_eq!(address_block(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_expires() {
        let mut throttle = LoginThrottle::new();
        for n in 0..=u32::try_from(THROTTLED_MAX).unwrap() {
            let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
            throttle.admit(&user("a"), from, 0).unwrap();
            throttle.record_login(&user("b"), from, u64::from(n));
        }
        assert!(throttle.origins.expiries.len() <= THROTTLED_MAX && throttle.known.len() <= KNOWN_LOGINS_MAX);
        throttle.sweep(USER_ATTEMPTS_MAX * USER_ATTEMPT_EVERY_MS);
        assert!(throttle.origins.expiries.is_empty() && throttle.blocks.expiries.is_empty());
    }
}
