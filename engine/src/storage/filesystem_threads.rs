//! Threads for calls that a filesystem may never answer: each filesystem has its own few.
//!
//! ```text
//!   submit, call ─► lane of the filesystem: queue ─► at most N threads ─► work
//! ```
//!
//! Invariants: a filesystem that does not answer holds up its own work alone; all queues and threads are
//! bounded; a thread without work ends after [`LANE_IDLE_MS`]; no function here waits for a running call to
//! end, so threads whose calls never return are left behind.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::limits::{FILESYSTEM_ANSWER_MS, FILESYSTEM_QUEUE_MAX, FILESYSTEM_THREADS_MAX, LANE_IDLE_MS};
use crate::abort::AbortOnPanic;
use crate::lock::lock;

/// Names a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilesystemId(u64);

impl FilesystemId {
    /// The filesystem with this device number.
    #[must_use]
    pub fn of_device(device: u64) -> FilesystemId {
        FilesystemId(device)
    }

    /// The filesystem of a directory whose device number is not known: each directory counts as one of its own.
    #[must_use]
    pub fn of_directory(path: &Path) -> FilesystemId {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        FilesystemId(hasher.finish())
    }
}

/// The filesystem has not answered within [`FILESYSTEM_ANSWER_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filesystem does not answer")]
pub struct NoAnswer;

type Work = Box<dyn FnOnce() + Send>;

/// Threads by filesystem. Cheap to clone; all clones share the threads.
#[derive(Clone, Debug)]
pub struct FilesystemThreads {
    shared: Arc<SharedLanes>,
}

#[derive(Debug)]
struct SharedLanes {
    name: &'static str,
    threads_each: usize,
    table: Mutex<QueueTable>,
}

#[derive(Debug, Default)]
struct QueueTable {
    lanes: BTreeMap<FilesystemId, Arc<FilesystemQueue>>,
    /// Of all lanes.
    threads: usize,
}

/// The work of one filesystem.
#[derive(Debug, Default)]
struct FilesystemQueue {
    state: Mutex<FilesystemQueueState>,
    work_added: Condvar,
}

#[derive(Default)]
struct FilesystemQueueState {
    waiting: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// A call has waited in vain, and no work has ended since.
    is_unresponsive: bool,
}

impl std::fmt::Debug for FilesystemQueueState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waiting, {} threads, {} idle", self.waiting.len(), self.threads, self.idle)
    }
}

impl FilesystemThreads {
    /// At most `threads_each` threads for each filesystem, started when there is work. `name` is that of the threads.
    #[must_use]
    pub fn new(name: &'static str, threads_each: usize) -> FilesystemThreads {
        let table = Mutex::default();
        FilesystemThreads { shared: Arc::new(SharedLanes { name, threads_each, table }) }
    }

    /// Has work done by a thread of the filesystem. `false`: the work is dropped, because the queue is full, the system
    /// gives no thread, or [`FILESYSTEM_THREADS_MAX`] do not answer.
    #[must_use = "work that was not taken is lost"]
    pub fn submit(&self, filesystem: FilesystemId, work: impl FnOnce() + Send + 'static) -> bool {
        let work: Work = Box::new(work);
        // Work that is not taken is dropped without the locks: it may own files.
        self.try_submit(filesystem, work).is_none()
    }

    /// Calls `call` on a thread of the filesystem, and waits for at most [`FILESYSTEM_ANSWER_MS`]. Does not wait for a
    /// filesystem that let an earlier call wait in vain and has not answered since.
    ///
    /// # Errors
    /// [`NoAnswer`]; `call` may still run, and its result is dropped.
    pub fn call<R: Send + 'static>(
        &self,
        filesystem: FilesystemId,
        call: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, NoAnswer> {
        let lane = self.lane(filesystem);
        if lock(&lane.state).is_unresponsive {
            return Err(NoAnswer);
        }
        let (done, result) = sync_channel(1);
        if !self.submit(filesystem, move || drop(done.send(call()))) {
            return Err(NoAnswer);
        }
        match result.recv_timeout(Duration::from_millis(FILESYSTEM_ANSWER_MS)) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer),
            Err(RecvTimeoutError::Timeout) => {
                lock(&lane.state).is_unresponsive = true;
                let late = result.try_recv().map_err(|_| NoAnswer);
                if late.is_ok() {
                    // It came between the two, and no other work might reset this.
                    lock(&lane.state).is_unresponsive = false;
                }
                late
            }
        }
    }

    fn lane(&self, filesystem: FilesystemId) -> Arc<FilesystemQueue> {
        Arc::clone(lock(&self.shared.table).lanes.entry(filesystem).or_default())
    }

    /// Returns work that is not taken.
    fn try_submit(&self, filesystem: FilesystemId, work: Work) -> Option<Work> {
        let mut table = lock(&self.shared.table);
        let lane = Arc::clone(table.lanes.entry(filesystem).or_default());
        let mut state = lock(&lane.state);
        if state.waiting.len() >= FILESYSTEM_QUEUE_MAX {
            return Some(work);
        }
        let needs_thread = state.idle <= state.waiting.len() && state.threads < self.shared.threads_each;
        if needs_thread && table.threads < FILESYSTEM_THREADS_MAX {
            let (shared, own_lane) = (Arc::clone(&self.shared), Arc::clone(&lane));
            let thread = std::thread::Builder::new().name(self.shared.name.to_owned());
            match thread.spawn(move || run_lane(&shared, filesystem, &own_lane)) {
                Ok(_detached) => {
                    table.threads += 1;
                    state.threads += 1;
                }
                Err(error) => tracing::warn!(%error, "the system gives no thread for calls to a filesystem"),
            }
        }
        if state.threads == 0 {
            return Some(work);
        }
        state.waiting.push_back(work);
        lane.work_added.notify_one();
        None
    }
}

/// A thread of a lane: works until there was no work for [`LANE_IDLE_MS`].
fn run_lane(shared: &SharedLanes, filesystem: FilesystemId, lane: &FilesystemQueue) {
    let _abort = AbortOnPanic;
    loop {
        let Some(work) = next_work(lane) else {
            // Decided under the lock of the table, under which work is added.
            let mut table = lock(&shared.table);
            let mut state = lock(&lane.state);
            if !state.waiting.is_empty() {
                continue;
            }
            state.threads -= 1;
            table.threads -= 1;
            if state.threads == 0 {
                table.lanes.remove(&filesystem);
            }
            return;
        };
        work();
        lock(&lane.state).is_unresponsive = false;
    }
}

/// Waits for work; `None` when there was none for [`LANE_IDLE_MS`].
fn next_work(lane: &FilesystemQueue) -> Option<Work> {
    let mut state = lock(&lane.state);
    if state.waiting.is_empty() {
        state.idle += 1;
        let waited = lane.work_added.wait_timeout(state, Duration::from_millis(LANE_IDLE_MS));
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
    }
    state.waiting.pop_front()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const DEAD: FilesystemId = FilesystemId(1);
    const ALIVE: FilesystemId = FilesystemId(2);

    /// Work that runs until the returned sender is dropped.
    fn hanging() -> (impl FnOnce() + Send + 'static, Sender<()>) {
        let (release, released): (Sender<()>, Receiver<()>) = channel();
        let hangs = move || {
            let _ = released.recv();
        };
        (hangs, release)
    }

    #[test]
    fn a_filesystem_that_does_not_answer_holds_up_only_its_own_calls() {
        let threads = FilesystemThreads::new("test", 1);
        let (hangs, release) = hanging();
        assert!(threads.submit(DEAD, hangs));
        assert_eq!(threads.call(DEAD, || 1), Err(NoAnswer));
        assert_eq!(threads.call(ALIVE, || 2), Ok(2));
        // This one does not wait: its result never comes, and the queue does not grow.
        assert_eq!(threads.call(DEAD, || 3), Err(NoAnswer));
        assert_eq!(lock(&threads.lane(DEAD).state).waiting.len(), 1);
        drop(release);
        let (done, is_done) = channel();
        assert!(threads.submit(DEAD, move || done.send(()).unwrap()));
        is_done.recv().unwrap();
        while threads.call(DEAD, || 4) != Ok(4) {}
    }

    #[test]
    fn queues_are_bounded() {
        let threads = FilesystemThreads::new("test", 2);
        let mut held = Vec::new();
        while let (work, release) = hanging()
            && threads.submit(DEAD, work)
        {
            held.push(release);
        }
        assert!((FILESYSTEM_QUEUE_MAX..=FILESYSTEM_QUEUE_MAX + 2).contains(&held.len()), "{}", held.len());
        let (alive, dropped) = channel::<()>();
        assert!(threads.submit(ALIVE, move || drop(alive)));
        dropped.recv().unwrap_err();
    }
}
