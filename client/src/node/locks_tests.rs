//! Tests of the node's locks and flags with threads of the system. `locks_model` tries many interleavings of them.

use std::sync::Arc;
use std::time::Duration;

use super::locks::{DownloadLock, KeyLocks, LockDemand};
use super::shutdown::{Latch, WakeupFlag};
use crate::exit::{ClientFault, ExitCause};
use tracker::api::GroupFile;

fn key(group: &str) -> GroupFile {
    super::disk::records::tests::sample_file(group, "u").key
}

#[test]
fn a_holder_sees_what_waiting_threads_demand() {
    let locks = KeyLocks::new(Arc::default());
    let key = key("g");
    let mut scope = locks.scope();
    let holder = scope.try_lock_download(&key).unwrap();
    assert_eq!(holder.demand(), LockDemand::Nothing);
    let until = |holder: &DownloadLock<'_>, demand| {
        let seen = (0..60_000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            holder.demand() == demand
        });
        assert!(seen, "{demand:?}");
    };
    std::thread::scope(|threads| {
        let impatient = threads.spawn(|| {
            let stop = || Err(ClientFault::new(ExitCause::Other, "enough"));
            locks.scope().lock_download(&key, stop).map(drop).unwrap_err().exit
        });
        assert_eq!(impatient.join().unwrap(), ExitCause::Other);
        until(&holder, LockDemand::Release);
        let next = threads.spawn(|| locks.scope().preempt_download(&key).map(|next| next.demand()));
        until(&holder, LockDemand::Abort);
        drop(holder);
        assert_eq!(next.join().unwrap().unwrap(), LockDemand::Nothing, "a demand is made of one holder");
    });
}

#[test]
fn a_lock_has_one_holder_and_passes_to_a_waiting_thread() {
    let shutdown = Arc::<Latch>::default();
    let locks = KeyLocks::new(Arc::clone(&shutdown));
    let (key, other) = (key("g"), key("h"));
    let mut scope = locks.scope();
    let first = scope.lock_share(&key).unwrap();
    assert!(locks.scope().try_lock_share(&key).is_none());
    assert!(locks.scope().try_lock_share(&other).is_some());
    std::thread::scope(|threads| {
        let second = threads.spawn(|| locks.scope().lock_share(&key).map(drop));
        drop(first);
        second.join().unwrap().unwrap();
    });
    let _third = scope.try_lock_share(&key).unwrap();
    shutdown.set();
    assert_eq!(locks.scope().lock_share(&key).unwrap_err().exit, ExitCause::Interrupted);
}

#[test]
fn a_download_and_its_share_have_locks_of_their_own() {
    let locks = KeyLocks::new(Arc::default());
    let mut scope = locks.scope();
    let mut download = scope.try_lock_download(&key("g")).unwrap();
    let share = download.lock_share().unwrap();
    assert!(locks.scope().try_lock_share(&key("g")).is_none());
    assert_eq!(locks.locked_downloads(), 1);
    drop(share);
    drop(download);
    assert_eq!(locks.locked_downloads(), 0);
}

#[test]
fn a_latch_wakes_the_threads_that_wait_and_stays_set() {
    let latch = Arc::new(Latch::default());
    assert!(!latch.wait_timeout(Duration::ZERO));
    let waiter = std::thread::spawn({
        let latch = Arc::clone(&latch);
        move || latch.wait()
    });
    latch.set();
    waiter.join().unwrap();
    assert!(latch.is_set() && latch.wait_timeout(Duration::MAX));
}

#[test]
fn a_wakeup_before_the_wait_is_not_lost_and_counts_once() {
    let wakeup = WakeupFlag::default();
    wakeup.set();
    wakeup.set();
    assert!(wakeup.wait(None));
    assert!(!wakeup.wait(Some(Duration::ZERO)));
}
