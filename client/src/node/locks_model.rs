//! The node's locks and flags under a model checker, which tries many interleavings of threads and reports a deadlock
//! or a failed assertion with its schedule. `locks` and `shutdown` are compiled a second time here, over the checker's
//! primitives. A wait with a timeout never times out there, so that a lost wake-up shows as a deadlock.

use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use locks::{KeyLocks, LockDemand};
use shutdown::{Latch, WakeupFlag};

#[path = "locks.rs"]
#[expect(dead_code, reason = "the model uses a part of the locks")]
mod locks;
#[path = "shutdown.rs"]
#[expect(dead_code, reason = "the model uses a part of the flags")]
mod shutdown;

/// The checker's primitives, in place of those of `node::sync`.
mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use shuttle::sync::{Arc, Condvar, Mutex};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> shuttle::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interleavings that each test tries, chosen at random from a fixed seed.
const INTERLEAVINGS: usize = 2_000;

fn key(group: &str) -> tracker::api::GroupFile {
    super::disk::records::tests::sample_file(group, "u").key
}

fn check(model: fn()) {
    let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(1, INTERLEAVINGS);
    shuttle::Runner::new(scheduler, shuttle::Config::new()).run(model);
}

fn spawn_each<const N: usize>(work: [fn(&KeyLocks, &AtomicUsize); N]) {
    let shared = Arc::new((KeyLocks::new(Arc::<Latch>::default()), AtomicUsize::new(0)));
    let threads = work.map(|work| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || work(&shared.0, &shared.1))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(shared.0.locked_downloads(), 0, "every lock was released");
}

fn enter_alone(inside: &AtomicUsize) {
    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two threads hold the same lock");
    thread::yield_now();
    inside.fetch_sub(1, Ordering::SeqCst);
}

fn share_alone(locks: &KeyLocks, inside: &AtomicUsize) {
    let mut scope = locks.scope();
    let _share = scope.lock_share(&key("g")).unwrap();
    enter_alone(inside);
}

fn share_through_download(locks: &KeyLocks, inside: &AtomicUsize) {
    let mut scope = locks.scope();
    let mut download = scope.lock_download(&key("g"), || Ok(())).unwrap();
    let _share = download.lock_share().unwrap();
    enter_alone(inside);
}

fn share_if_free(locks: &KeyLocks, inside: &AtomicUsize) {
    if let Some(_share) = locks.scope().try_lock_share(&key("g")) {
        enter_alone(inside);
    }
}

#[test]
fn a_lock_has_one_holder_in_every_interleaving() {
    check(|| spawn_each([share_alone, share_alone, share_if_free]));
}

#[test]
fn download_and_share_locks_never_deadlock() {
    check(|| spawn_each([share_through_download, share_alone, share_through_download]));
}

#[test]
fn a_preempted_holder_sees_the_demand_and_the_next_holder_does_not() {
    fn hold_until_preempted(locks: &KeyLocks, preempted: &AtomicUsize) {
        let mut scope = locks.scope();
        let download = scope.lock_download(&key("g"), || Ok(())).unwrap();
        while download.demand() < LockDemand::Abort && preempted.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }
    fn preempt(locks: &KeyLocks, preempted: &AtomicUsize) {
        let mut scope = locks.scope();
        let download = scope.preempt_download(&key("g")).unwrap();
        assert_eq!(download.demand(), LockDemand::Nothing, "a demand is made of one holder");
        preempted.store(1, Ordering::SeqCst);
    }
    check(|| spawn_each([hold_until_preempted, preempt]));
}

#[test]
fn a_wakeup_is_never_lost() {
    check(|| {
        let wakeup = Arc::new(WakeupFlag::default());
        let setter = thread::spawn({
            let wakeup = Arc::clone(&wakeup);
            move || {
                wakeup.set();
                wakeup.set();
            }
        });
        assert!(wakeup.wait(None));
        setter.join().unwrap();
    });
}

#[test]
fn a_latch_wakes_every_thread() {
    check(|| {
        let latch = Arc::new(Latch::default());
        let waiting = [(); 2].map(|()| {
            let latch = Arc::clone(&latch);
            thread::spawn(move || latch.wait())
        });
        latch.set();
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
