//! Which downloads on record go on at once, and which wait until what is at their destination has been compared.
//!
//! Comparing may take hours, and nothing else that comes back waits for it: it is done on a thread of its own.
//!
//! Invariants: at most one such thread a node; whoever lets a download go on holds its claim, so that none goes on twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::storage::destination::{Destination, Existing};

use super::core::Core;
use super::downloads::Downloads;
use super::outlook::Left;
use super::records::Wanted;

/// The downloads that come back.
#[derive(Debug, Default)]
pub(super) struct Revival {
    /// Whether the thread that compares is at work.
    comparing: Arc<AtomicBool>,
}

/// That the thread is at work, until this is dropped, by a panic too.
struct AtWork(Arc<AtomicBool>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Revival {
    /// Lets go on what `user` has on record here.
    pub(super) fn round(&self, core: &Arc<Core>, all: &Arc<Downloads>, user: &str) -> Left {
        let (long, short): (Vec<Wanted>, Vec<Wanted>) = all.to_go_on(user).into_iter().partition(is_compared);
        let left = go_on(core, all, user, &short);
        if long.is_empty() { left } else { left.max(self.compare(core, all, user, long)) }
    }

    /// Has the thread compare, unless it does already: then a later round looks again.
    fn compare(&self, core: &Arc<Core>, all: &Arc<Downloads>, user: &str, long: Vec<Wanted>) -> Left {
        if self.comparing.swap(true, Ordering::SeqCst) {
            return Left::Something;
        }
        let at_work = AtWork(Arc::clone(&self.comparing));
        let (core, all, user) = (Arc::clone(core), Arc::clone(all), user.to_owned());
        let compare = move || {
            let left = go_on(&core, &all, &user, &long);
            drop(at_work);
            // What came to be compared meanwhile is next. Where something is left, a pause is due before it is tried again.
            if left == Left::Nothing {
                core.bell.ring();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("comparing".into()).spawn(compare) {
            tracing::warn!("what is at destinations is compared later: the system gives no thread: {error}");
        }
        Left::Something
    }
}

/// Lets these go on one after the other, as long as their user is here.
fn go_on(core: &Arc<Core>, all: &Downloads, user: &str, these: &[Wanted]) -> Left {
    let mut left = Left::Nothing;
    for wanted in these {
        if core.ending.is_over() || core.trackers.user().as_deref() != Some(user) {
            break;
        }
        left = left.max(all.go_on(core, user, &wanted.key));
        if left == Left::Trackers {
            // The others would ask the same ones.
            break;
        }
    }
    left
}

/// Whether a file is at the destination, which is hashed then.
fn is_compared(wanted: &Wanted) -> bool {
    let existing =
        Destination::resolve(&wanted.destination, &wanted.key.name).and_then(|place| place.existing());
    matches!(existing, Ok(Existing::File { .. }))
}
