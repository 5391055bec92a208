//! Threads that work for one download for a while: they look at what is there, prove holes, finish. Whoever stops the node waits for
//! them, and for nothing that they leave behind.
//!
//! ```text
//!   submit ─► is a thread of this lane free? ── yes ─► thread ─► work ─┐
//!                     └── no ─► queue of the lane ◄── takes the next ──┘
//! ```
//!
//! Invariants: a panic of work ends the program, since whoever waits for that work would wait for ever; a lane has no more threads than places; a thread without work ends, and is forgotten with the next that starts; no
//! work begins once the threads were stopped.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::limits::{CHECKS_AT_ONCE, FINISHES_AT_ONCE, HOLES_AT_ONCE, WORK_WAITING_MAX};
use crate::abort::AbortOnPanic;

/// What work is for: no kind waits behind another, since a check of hours would keep from its name what is all there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkLane {
    /// Hashing what an earlier attempt left.
    Check,
    /// Proving pieces of zeros.
    Holes,
    /// Proving the whole, making it durable, naming it.
    Finish,
}

impl WorkLane {
    fn thread_limit(self) -> usize {
        match self {
            WorkLane::Check => CHECKS_AT_ONCE,
            WorkLane::Holes => HOLES_AT_ONCE,
            WorkLane::Finish => FINISHES_AT_ONCE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            WorkLane::Check => "resume",
            WorkLane::Holes => "holes",
            WorkLane::Finish => "finish",
        }
    }
}

type LaneWork = Box<dyn FnOnce() + Send>;

/// The threads of a node that come and go.
#[derive(Default)]
pub(crate) struct LaneThreads(Arc<Mutex<LaneThreadsState>>);

#[derive(Default)]
struct LaneThreadsState {
    /// By the number of the lane.
    lanes: [LaneQueue; 3],
    running: Vec<JoinHandle<()>>,
    is_stopped: bool,
}

#[derive(Default)]
struct LaneQueue {
    active: usize,
    waiting: VecDeque<LaneWork>,
}

impl LaneThreads {
    /// Has this done as soon as a thread is free for it.
    ///
    /// # Errors
    /// The system's, when it gives no thread; or too much waits, or the threads were stopped.
    pub(crate) fn submit(&self, lane: WorkLane, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut inner = lock(&self.0);
        if inner.is_stopped {
            return Err(io::Error::other("this node is going down"));
        }
        inner.running.retain(|thread| !thread.is_finished());
        let queue = &mut inner.lanes[lane as usize];
        if queue.active < lane.thread_limit() {
            let (all, work) = (Arc::clone(&self.0), Box::new(work));
            let thread = std::thread::Builder::new().name(lane.name().to_owned());
            let thread = thread.spawn(move || run_lane(&all, lane, work))?;
            queue.active += 1;
            inner.running.push(thread);
        } else if queue.waiting.len() < WORK_WAITING_MAX {
            queue.waiting.push_back(Box::new(work));
        } else {
            return Err(io::Error::other("this node has too much to do; try again later"));
        }
        Ok(())
    }

    /// Forgets what waits, and waits until what has begun has ended. Blocks.
    pub(crate) fn stop(&self) {
        let (forgotten, running) = {
            let mut inner = lock(&self.0);
            inner.is_stopped = true;
            let forgotten: Vec<_> =
                inner.lanes.iter_mut().map(|queue| std::mem::take(&mut queue.waiting)).collect();
            (forgotten, std::mem::take(&mut inner.running))
        };
        // Whatever it holds goes without the lock.
        drop(forgotten);
        for thread in running {
            // A panic has ended the program.
            let _ = thread.join();
        }
    }
}

fn run_lane(all: &Mutex<LaneThreadsState>, lane: WorkLane, first: LaneWork) {
    let _ends = AbortOnPanic;
    let mut next = Some(first);
    while let Some(work) = next {
        work();
        let mut inner = lock(all);
        let queue = &mut inner.lanes[lane as usize];
        next = queue.waiting.pop_front();
        if next.is_none() {
            queue.active -= 1;
        }
    }
}

fn lock(inner: &Mutex<LaneThreadsState>) -> MutexGuard<'_, LaneThreadsState> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::abort::tests::assert_aborts;

    /// Work that says its number when it begins, and goes on until it is let go.
    fn work(number: usize, begun: &Sender<usize>) -> (impl FnOnce() + Send + use<>, Sender<()>) {
        let (begun, (let_go, gone_on)) = (begun.clone(), channel::<()>());
        let work = move || {
            begun.send(number).unwrap();
            let _ = gone_on.recv();
        };
        (work, let_go)
    }

    fn full(threads: &LaneThreads, begun: &Sender<usize>, says: &Receiver<usize>) -> Vec<Sender<()>> {
        let mut held = Vec::new();
        for number in 0..CHECKS_AT_ONCE {
            let (work, let_go) = work(number, begun);
            threads.submit(WorkLane::Check, work).unwrap();
            held.push(let_go);
        }
        let mut numbers: Vec<usize> = says.iter().take(CHECKS_AT_ONCE).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..CHECKS_AT_ONCE).collect::<Vec<_>>());
        held
    }

    #[test]
    fn a_full_lane_queues_and_holds_up_no_other() {
        let (threads, (begun, says)) = (LaneThreads::default(), channel());
        let mut held = full(&threads, &begun, &says);
        let (late, _let_go) = work(100, &begun);
        threads.submit(WorkLane::Check, late).unwrap();
        let (other, _let_other_go) = work(200, &begun);
        threads.submit(WorkLane::Finish, other).unwrap();
        assert_eq!(says.recv(), Ok(200), "finishing waits for no check, and the third check waits");
        assert_eq!(lock(&threads.0).lanes[WorkLane::Check as usize].waiting.len(), 1);
        held.remove(0);
        assert_eq!(says.recv(), Ok(100), "a place that is free is taken");
        drop((held, _let_go, _let_other_go));
        threads.stop();
    }

    #[test]
    fn a_panic_of_work_ends_the_program() {
        assert_aborts("driver::threads::tests::a_panic_of_work_ends_the_program", || {
            let threads = LaneThreads::default();
            threads.submit(WorkLane::Holes, || panic!("meant")).unwrap();
            threads.stop();
        });
    }

    #[test]
    fn a_place_that_is_free_costs_no_thread() {
        let (threads, (begun, says)) = (LaneThreads::default(), channel());
        let held = full(&threads, &begun, &says);
        for number in 0..CHECKS_AT_ONCE {
            threads.submit(WorkLane::Check, work(number, &begun).0).unwrap();
        }
        drop(held);
        assert_eq!(says.iter().take(CHECKS_AT_ONCE).count(), CHECKS_AT_ONCE);
        threads.stop();
        assert_eq!(lock(&threads.0).lanes[WorkLane::Check as usize].active, 0);
    }

    #[test]
    fn what_waits_when_the_node_stops_never_begins() {
        let (threads, (begun, says)) = (Arc::new(LaneThreads::default()), channel());
        let held = full(&threads, &begun, &says);
        let (late, _let_go) = work(100, &begun);
        let (alive, forgotten) = channel::<()>();
        threads
            .submit(WorkLane::Check, move || {
                let _alive = alive;
                late();
            })
            .unwrap();
        let stopping = Arc::clone(&threads);
        let stop = std::thread::spawn(move || stopping.stop());
        forgotten.recv().unwrap_err();
        drop(held);
        stop.join().unwrap();
        assert!(says.try_recv().is_err());
        assert!(threads.submit(WorkLane::Finish, || {}).is_err());
    }
}
