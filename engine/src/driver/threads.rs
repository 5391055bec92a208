//! Threads for blocking work of one download: checks, zero pieces, last steps, looks at the partial file.
//!
//! ```text
//!   submit ─► may the lane have another thread? ── yes ─► thread ─► work ─┐
//!                          └── no ─► queue of the lane ◄── takes the next ┘
//! ```
//!
//! Invariants: a lane has no more threads than its limit; a panic of work aborts the program, because the download would wait
//! for ever; a thread without work ends; no work begins once the threads were stopped.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::limits::{
    CHECKS_AT_ONCE, EXAMINATIONS_AT_ONCE, FINISHES_AT_ONCE, WORK_WAITING_MAX, ZERO_PIECE_CHECKS_AT_ONCE,
};
use crate::abort::AbortOnPanic;
use crate::lock::lock;

/// A kind of work. Each has its own queue: a check of hours must not delay the last steps of another download.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkKind {
    /// Hash what an earlier attempt left.
    Check,
    /// Check the links of zero pieces.
    Holes,
    /// Take the last steps.
    Finish,
    /// Look whether the partial file is still there and unchanged.
    Examination,
}

impl WorkKind {
    fn thread_limit(self) -> usize {
        match self {
            WorkKind::Check => CHECKS_AT_ONCE,
            WorkKind::Holes => ZERO_PIECE_CHECKS_AT_ONCE,
            WorkKind::Finish => FINISHES_AT_ONCE,
            WorkKind::Examination => EXAMINATIONS_AT_ONCE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            WorkKind::Check => "resume",
            WorkKind::Holes => "holes",
            WorkKind::Finish => "finish",
            WorkKind::Examination => "examine",
        }
    }
}

type QueuedWork = Box<dyn FnOnce() + Send>;

/// The threads of all lanes.
#[derive(Default)]
pub(crate) struct WorkThreads(Arc<Mutex<WorkThreadsState>>);

#[derive(Default)]
struct WorkThreadsState {
    /// By the number of the lane.
    lanes: [WorkQueue; 4],
    running: Vec<JoinHandle<()>>,
    is_stopped: bool,
}

#[derive(Default)]
struct WorkQueue {
    /// Threads of the lane.
    active: usize,
    waiting: VecDeque<QueuedWork>,
}

impl WorkThreads {
    /// Runs work as soon as the lane has a thread for it.
    ///
    /// # Errors
    /// The system gives no thread, the queue is full, or the threads were stopped.
    pub(crate) fn submit(&self, lane: WorkKind, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = lock(&self.0);
        if state.is_stopped {
            return Err(io::Error::other("the node is stopping"));
        }
        state.running.retain(|thread| !thread.is_finished());
        let queue = &mut state.lanes[lane as usize];
        if queue.active < lane.thread_limit() {
            let (shared, work) = (Arc::clone(&self.0), Box::new(work));
            let thread = std::thread::Builder::new().name(lane.name().to_owned());
            let thread = thread.spawn(move || run_queue(&shared, lane, work))?;
            queue.active += 1;
            state.running.push(thread);
        } else if queue.waiting.len() < WORK_WAITING_MAX {
            queue.waiting.push_back(Box::new(work));
        } else {
            return Err(io::Error::other("the node is too busy; try again later"));
        }
        Ok(())
    }

    /// Drops work that waits, and waits until running work has ended. Blocks.
    pub(crate) fn stop(&self) {
        let (dropped, running) = {
            let mut state = lock(&self.0);
            state.is_stopped = true;
            let dropped: Vec<_> =
                state.lanes.iter_mut().map(|queue| std::mem::take(&mut queue.waiting)).collect();
            (dropped, std::mem::take(&mut state.running))
        };
        // Dropped without the lock: work owns downloads.
        drop(dropped);
        for thread in running {
            // A panic has aborted the program.
            let _ = thread.join();
        }
    }
}

fn run_queue(shared: &Mutex<WorkThreadsState>, lane: WorkKind, first: QueuedWork) {
    let _abort = AbortOnPanic;
    let mut next = Some(first);
    while let Some(work) = next {
        work();
        let mut state = lock(shared);
        let queue = &mut state.lanes[lane as usize];
        next = queue.waiting.pop_front();
        if next.is_none() {
            queue.active -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::abort::tests::assert_aborts;

    /// Work that sends its number when it begins, and runs until the returned sender is dropped.
    fn work(number: usize, begun: &Sender<usize>) -> (impl FnOnce() + Send + use<>, Sender<()>) {
        let (begun, (release, released)) = (begun.clone(), channel::<()>());
        let work = move || {
            begun.send(number).unwrap();
            let _ = released.recv();
        };
        (work, release)
    }

    fn fill_threads(
        threads: &WorkThreads,
        begun: &Sender<usize>,
        started: &Receiver<usize>,
    ) -> Vec<Sender<()>> {
        let mut held = Vec::new();
        for number in 0..CHECKS_AT_ONCE {
            let (work, release) = work(number, begun);
            threads.submit(WorkKind::Check, work).unwrap();
            held.push(release);
        }
        let mut numbers: Vec<usize> = started.iter().take(CHECKS_AT_ONCE).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..CHECKS_AT_ONCE).collect::<Vec<_>>());
        held
    }

    #[test]
    fn a_full_lane_queues_without_delaying_others() {
        let (threads, (begun, started)) = (WorkThreads::default(), channel());
        let mut held = fill_threads(&threads, &begun, &started);
        let (late, _release) = work(100, &begun);
        threads.submit(WorkKind::Check, late).unwrap();
        let (other, _release_other) = work(200, &begun);
        threads.submit(WorkKind::Finish, other).unwrap();
        assert_eq!(started.recv(), Ok(200), "the other lane is free, and the third check waits");
        assert_eq!(lock(&threads.0).lanes[WorkKind::Check as usize].waiting.len(), 1);
        held.remove(0);
        assert_eq!(started.recv(), Ok(100), "a free thread takes the next work");
        drop((held, _release, _release_other));
        threads.stop();
    }

    #[test]
    fn a_panic_of_work_aborts_the_program() {
        assert_aborts("driver::threads::tests::a_panic_of_work_aborts_the_program", || {
            let threads = WorkThreads::default();
            threads.submit(WorkKind::Holes, || panic!("meant")).unwrap();
            threads.stop();
        });
    }

    #[test]
    fn queued_work_runs_on_existing_threads() {
        let (threads, (begun, started)) = (WorkThreads::default(), channel());
        let held = fill_threads(&threads, &begun, &started);
        for number in 0..CHECKS_AT_ONCE {
            threads.submit(WorkKind::Check, work(number, &begun).0).unwrap();
        }
        drop(held);
        assert_eq!(started.iter().take(CHECKS_AT_ONCE).count(), CHECKS_AT_ONCE);
        threads.stop();
        assert_eq!(lock(&threads.0).lanes[WorkKind::Check as usize].active, 0);
    }

    #[test]
    fn queued_work_never_begins_after_a_stop() {
        let (threads, (begun, started)) = (Arc::new(WorkThreads::default()), channel());
        let held = fill_threads(&threads, &begun, &started);
        let (late, _release) = work(100, &begun);
        let (alive, dropped) = channel::<()>();
        threads
            .submit(WorkKind::Check, move || {
                let _alive = alive;
                late();
            })
            .unwrap();
        let stopping = Arc::clone(&threads);
        let stop = std::thread::spawn(move || stopping.stop());
        dropped.recv().unwrap_err();
        drop(held);
        stop.join().unwrap();
        assert!(started.try_recv().is_err());
        assert!(threads.submit(WorkKind::Finish, || {}).is_err());
    }
}
