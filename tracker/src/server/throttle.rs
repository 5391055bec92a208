//! Delays after failed logins. They grow per (user, address) and per address, never per user alone, so that
//! no client can lock a user out.
//!
//! A delay is a late answer, after correct passwords and wrong ones alike: otherwise an attacker need not
//! wait for the wrong ones. The first failures are free, and a success clears the user's count at that
//! address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::state::id::UserId;

use super::limits::{DELAY_MAX_MS, FAILURE_MEMORY_MS, FIRST_DELAY_MS, FREE_FAILURES, THROTTLED_MAX};

/// The block of addresses that counts as one: an IPv4 address itself, or the /64 of an IPv6 address, since
/// one line has all of it.
pub(super) fn address_block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

#[derive(Debug, Default)]
pub(super) struct LoginThrottle {
    pairs: FailureCounts<(UserId, IpAddr)>,
    addresses: FailureCounts<IpAddr>,
}

impl LoginThrottle {
    /// Counts an attempt that failed at `now_ms`. Gives the delay of its answer, in milliseconds.
    pub(super) fn record_failure(&mut self, user: &UserId, ip: IpAddr, now_ms: u64) -> u64 {
        let ip = address_block(ip);
        let of_pair = self.pairs.add((user.clone(), ip), now_ms);
        let of_address = self.addresses.add(ip, now_ms);
        failure_delay_ms(of_pair.max(of_address))
    }

    /// Notes an attempt that succeeded at `now_ms`. Gives the delay of its answer, in milliseconds. The
    /// user's own failures at this address are cleared; those of the address with other users stay.
    pub(super) fn record_success(&mut self, user: &UserId, ip: IpAddr, now_ms: u64) -> u64 {
        let ip = address_block(ip);
        let of_address = self.addresses.count(&ip, now_ms);
        let of_pair = self.pairs.take(&(user.clone(), ip), now_ms);
        self.addresses.subtract(&ip, of_pair);
        let earlier = of_pair.max(of_address);
        if earlier == 0 { 0 } else { failure_delay_ms(earlier + 1) }
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.pairs.sweep(now_ms);
        self.addresses.sweep(now_ms);
    }
}

fn failure_delay_ms(failures: u32) -> u64 {
    match failures.checked_sub(FREE_FAILURES + 1) {
        None => 0,
        Some(doublings) => FIRST_DELAY_MS.saturating_mul(1 << doublings.min(32)).min(DELAY_MAX_MS),
    }
}

/// Number of failures, and the time of the last one in milliseconds.
#[derive(Debug)]
struct FailureCounts<K>(BTreeMap<K, (u32, u64)>);

impl<K> Default for FailureCounts<K> {
    fn default() -> FailureCounts<K> {
        FailureCounts(BTreeMap::new())
    }
}

impl<K: Ord + Clone> FailureCounts<K> {
    fn add(&mut self, key: K, now_ms: u64) -> u32 {
        if self.0.len() >= THROTTLED_MAX && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, (_, last_ms))| *last_ms).map(|(key, _)| key.clone());
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        let count = self.count(&key, now_ms).saturating_add(1);
        self.0.insert(key, (count, now_ms));
        count
    }

    fn count(&self, key: &K, now_ms: u64) -> u32 {
        self.0.get(key).filter(|(_, last_ms)| !is_forgotten(*last_ms, now_ms)).map_or(0, |(count, _)| *count)
    }

    fn take(&mut self, key: &K, now_ms: u64) -> u32 {
        let count = self.count(key, now_ms);
        self.0.remove(key);
        count
    }

    fn subtract(&mut self, key: &K, fewer: u32) {
        if let Some((count, _)) = self.0.get_mut(key) {
            *count = count.saturating_sub(fewer);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.0.retain(|_, (_, last_ms)| !is_forgotten(*last_ms, now_ms));
    }
}

fn is_forgotten(last_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(last_ms) > FAILURE_MEMORY_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn the_first_failures_are_free_and_delays_are_bounded() {
        let mut throttle = LoginThrottle::default();
        let delays: Vec<u64> = (0..12).map(|_| throttle.record_failure(&user("a"), HERE, 0)).collect();
        assert_eq!(delays[..5], [0, 0, 0, FIRST_DELAY_MS, 2 * FIRST_DELAY_MS]);
        assert_eq!(delays[11], DELAY_MAX_MS);
        assert!((0..200).all(|_| throttle.record_failure(&user("a"), HERE, 0) == DELAY_MAX_MS));
    }

    #[test]
    fn a_user_is_not_delayed_at_another_address() {
        let mut throttle = LoginThrottle::default();
        (0..20).for_each(|_| _ = throttle.record_failure(&user("a"), HERE, 0));
        assert_eq!(throttle.record_failure(&user("a"), THERE, 0), 0);
        assert_eq!(throttle.record_success(&user("a"), THERE, 0), 0);
    }

    #[test]
    fn an_address_that_tries_many_users_is_slowed() {
        let mut throttle = LoginThrottle::default();
        let delays: Vec<u64> =
            (0..6).map(|n| throttle.record_failure(&user(&format!("u{n}")), HERE, 0)).collect();
        assert!(delays[5] > 0, "{delays:?}");
        throttle.record_success(&user("own"), HERE, 0);
        assert!(
            throttle.record_failure(&user("u9"), HERE, 0) > 0,
            "a success clears no other user's failures"
        );
    }

    #[test]
    fn all_addresses_of_an_ipv6_line_count_as_one() {
        let mut throttle = LoginThrottle::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        (0..6).for_each(|n| _ = throttle.record_failure(&user("a"), ip(&format!("2001:db8::{n}")), 0));
        assert!(throttle.record_failure(&user("b"), ip("2001:db8::ffff:0:0:1"), 0) > 0);
        assert_eq!(throttle.record_failure(&user("b"), ip("2001:db8:0:1::1"), 0), 0, "another block");
        assert_eq!(address_block(ip("::ffff:10.0.0.1")), HERE);
    }

    #[test]
    fn a_success_is_delayed_once_and_clears_the_count() {
        let mut throttle = LoginThrottle::default();
        (0..4).for_each(|_| _ = throttle.record_failure(&user("a"), HERE, 0));
        assert_eq!(throttle.record_success(&user("a"), HERE, 0), 2 * FIRST_DELAY_MS);
        assert_eq!(throttle.record_success(&user("a"), HERE, 0), 0);
        assert_eq!(throttle.record_failure(&user("a"), HERE, 0), 0);
    }

    #[test]
    fn failures_expire_and_their_number_is_bounded() {
        let mut throttle = LoginThrottle::default();
        (0..9).for_each(|_| _ = throttle.record_failure(&user("a"), HERE, 0));
        assert_eq!(throttle.record_failure(&user("a"), HERE, FAILURE_MEMORY_MS + 1), 0);
        for n in 0..=THROTTLED_MAX {
            throttle.record_failure(&user(&format!("u{n}")), HERE, FAILURE_MEMORY_MS + 2);
        }
        assert!(throttle.pairs.0.len() <= THROTTLED_MAX);
        throttle.sweep(10 * FAILURE_MEMORY_MS);
        assert!(throttle.pairs.0.is_empty() && throttle.addresses.0.is_empty());
    }
}
