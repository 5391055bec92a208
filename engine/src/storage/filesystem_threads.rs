//! Threads for work on files, by filesystem: a filesystem may never answer.
//!
//! ```text
//!   submit, call ─► queue of the filesystem ─► at most N threads ─► work
//! ```
//!
//! Invariants: a filesystem that does not answer holds up its own work alone; all queues and threads are
//! bounded; a thread without work ends after [`FILESYSTEM_THREAD_IDLE_MS`]; no function here waits without a
//! limit for work to end, so threads whose calls never return are left behind; a panic of work ends the program.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::limits::{
    FILESYSTEM_ANSWER_MS, FILESYSTEM_QUEUE_MAX, FILESYSTEM_THREAD_IDLE_MS, FILESYSTEM_THREADS_MAX,
};
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

/// Why work was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// [`FilesystemThreads::stop`] was called.
    #[error("the node is stopping")]
    Stopped,
    /// The queue is full, or [`FILESYSTEM_THREADS_MAX`] threads work for other filesystems.
    #[error("the node is too busy; try again later")]
    Busy,
    /// The system gives no thread.
    #[error("the system gives no thread: {0}")]
    NoThread(#[source] io::Error),
}

/// What [`FilesystemThreads::stop`] does with work that no thread has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuedWork {
    /// It is dropped.
    Drop,
    /// It is done first.
    Do,
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads by filesystem. Cheap to clone; all clones share the threads.
#[derive(Clone, Debug)]
pub struct FilesystemThreads {
    shared: Arc<SharedQueues>,
}

#[derive(Debug)]
struct SharedQueues {
    name: &'static str,
    threads_each: usize,
    table: Mutex<QueueTable>,
    thread_ended: Condvar,
}

#[derive(Debug, Default)]
struct QueueTable {
    by_filesystem: BTreeMap<FilesystemId, Arc<FilesystemQueue>>,
    /// Of all filesystems.
    threads: usize,
    is_stopped: bool,
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
    /// No work is added any more.
    is_stopped: bool,
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
        let (table, thread_ended) = (Mutex::default(), Condvar::new());
        FilesystemThreads { shared: Arc::new(SharedQueues { name, threads_each, table, thread_ended }) }
    }

    /// Has work done by a thread of the filesystem.
    ///
    /// # Errors
    /// [`SubmitError`]; the work is dropped.
    pub fn submit(
        &self,
        filesystem: FilesystemId,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), SubmitError> {
        // Work that is not taken is dropped without the locks: it may own files.
        self.try_submit(filesystem, Box::new(work)).map_err(|(error, _work)| error)
    }

    /// Takes no more work, and waits for at most `timeout` until the threads have ended. Returns whether they have.
    pub fn stop(&self, queued: QueuedWork, timeout: Duration) -> bool {
        let mut dropped = Vec::new();
        let mut table = lock(&self.shared.table);
        table.is_stopped = true;
        for queue in table.by_filesystem.values() {
            let mut state = lock(&queue.state);
            state.is_stopped = true;
            if queued == QueuedWork::Drop {
                dropped.push(std::mem::take(&mut state.waiting));
            }
            queue.work_added.notify_all();
        }
        drop(table);
        drop(dropped);
        let running = |table: &mut QueueTable| table.threads > 0;
        let table = lock(&self.shared.table);
        let waited = self.shared.thread_ended.wait_timeout_while(table, timeout, running);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads == 0
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
        let queue = self.queue(filesystem);
        if lock(&queue.state).is_unresponsive {
            return Err(NoAnswer);
        }
        let (done, result) = sync_channel(1);
        self.submit(filesystem, move || drop(done.send(call()))).map_err(|_| NoAnswer)?;
        match result.recv_timeout(Duration::from_millis(FILESYSTEM_ANSWER_MS)) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer),
            Err(RecvTimeoutError::Timeout) => {
                lock(&queue.state).is_unresponsive = true;
                let late = result.try_recv().map_err(|_| NoAnswer);
                if late.is_ok() {
                    // It came between the two, and no other work might reset this.
                    lock(&queue.state).is_unresponsive = false;
                }
                late
            }
        }
    }

    fn queue(&self, filesystem: FilesystemId) -> Arc<FilesystemQueue> {
        Arc::clone(lock(&self.shared.table).by_filesystem.entry(filesystem).or_default())
    }

    /// Returns work that is not taken.
    fn try_submit(&self, filesystem: FilesystemId, work: Work) -> Result<(), (SubmitError, Work)> {
        let mut table = lock(&self.shared.table);
        if table.is_stopped {
            return Err((SubmitError::Stopped, work));
        }
        let queue = Arc::clone(table.by_filesystem.entry(filesystem).or_default());
        let mut state = lock(&queue.state);
        if state.waiting.len() >= FILESYSTEM_QUEUE_MAX {
            return Err((SubmitError::Busy, work));
        }
        let mut refusal = SubmitError::Busy;
        let needs_thread = state.idle <= state.waiting.len() && state.threads < self.shared.threads_each;
        if needs_thread && table.threads < FILESYSTEM_THREADS_MAX {
            let (shared, own_queue) = (Arc::clone(&self.shared), Arc::clone(&queue));
            let thread = std::thread::Builder::new().name(self.shared.name.to_owned());
            match thread.spawn(move || run_queue(&shared, filesystem, &own_queue)) {
                Ok(_detached) => {
                    table.threads += 1;
                    state.threads += 1;
                }
                Err(error) => refusal = SubmitError::NoThread(error),
            }
        }
        if state.threads == 0 {
            return Err((refusal, work));
        }
        state.waiting.push_back(work);
        queue.work_added.notify_one();
        Ok(())
    }
}

/// A thread of a filesystem: works until there was no work for [`FILESYSTEM_THREAD_IDLE_MS`].
fn run_queue(shared: &SharedQueues, filesystem: FilesystemId, queue: &FilesystemQueue) {
    let _abort = AbortOnPanic;
    loop {
        let Some(work) = next_work(queue) else {
            // Decided under the lock of the table, under which work is added.
            let mut table = lock(&shared.table);
            let mut state = lock(&queue.state);
            if !state.waiting.is_empty() {
                continue;
            }
            state.threads -= 1;
            table.threads -= 1;
            if state.threads == 0 {
                table.by_filesystem.remove(&filesystem);
            }
            shared.thread_ended.notify_all();
            return;
        };
        work();
        lock(&queue.state).is_unresponsive = false;
    }
}

/// Waits for work; `None` when there was none for [`FILESYSTEM_THREAD_IDLE_MS`], or none comes any more.
fn next_work(queue: &FilesystemQueue) -> Option<Work> {
    let mut state = lock(&queue.state);
    if state.waiting.is_empty() && !state.is_stopped {
        state.idle += 1;
        let waited = queue.work_added.wait_timeout(state, Duration::from_millis(FILESYSTEM_THREAD_IDLE_MS));
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
    }
    state.waiting.pop_front()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::abort::tests::assert_aborts;

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
        threads.submit(DEAD, hangs).unwrap();
        assert_eq!(threads.call(DEAD, || 1), Err(NoAnswer));
        assert_eq!(threads.call(ALIVE, || 2), Ok(2));
        // This one does not wait: its result never comes, and the queue does not grow.
        assert_eq!(threads.call(DEAD, || 3), Err(NoAnswer));
        assert_eq!(lock(&threads.queue(DEAD).state).waiting.len(), 1);
        drop(release);
        let (done, is_done) = channel();
        threads.submit(DEAD, move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        while threads.call(DEAD, || 4) != Ok(4) {}
    }

    #[test]
    fn queues_are_bounded() {
        let threads = FilesystemThreads::new("test", 2);
        let mut held = Vec::new();
        while let (work, release) = hanging()
            && threads.submit(DEAD, work).is_ok()
        {
            held.push(release);
        }
        assert!((FILESYSTEM_QUEUE_MAX..=FILESYSTEM_QUEUE_MAX + 2).contains(&held.len()), "{}", held.len());
        let (alive, dropped) = channel::<()>();
        threads.submit(ALIVE, move || drop(alive)).unwrap();
        dropped.recv().unwrap_err();
    }

    #[test]
    fn a_stop_drops_or_does_what_waits_and_leaves_a_dead_filesystem_behind() {
        for queued in [QueuedWork::Drop, QueuedWork::Do] {
            let threads = FilesystemThreads::new("test", 1);
            let (busy, release) = hanging();
            let (done, is_done) = channel();
            threads.submit(ALIVE, busy).unwrap();
            threads.submit(ALIVE, move || done.send(()).unwrap()).unwrap();
            let stopping = threads.clone();
            let stop = std::thread::spawn(move || stopping.stop(queued, Duration::MAX));
            while !lock(&threads.shared.table).is_stopped {
                std::thread::yield_now();
            }
            assert!(matches!(threads.submit(ALIVE, || ()), Err(SubmitError::Stopped)));
            drop(release);
            assert!(stop.join().unwrap());
            assert_eq!(is_done.recv().is_ok(), queued == QueuedWork::Do);
        }
        let threads = FilesystemThreads::new("test", 1);
        let (hangs, _release) = hanging();
        threads.submit(DEAD, hangs).unwrap();
        assert!(!threads.stop(QueuedWork::Do, Duration::ZERO));
    }

    #[test]
    fn a_panic_of_work_aborts_the_program() {
        assert_aborts("storage::filesystem_threads::tests::a_panic_of_work_aborts_the_program", || {
            let threads = FilesystemThreads::new("test", 1);
            threads.submit(ALIVE, || panic!("meant")).unwrap();
            threads.stop(QueuedWork::Do, Duration::MAX);
        });
    }
}
