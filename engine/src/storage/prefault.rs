//! Threads that bring cold windows into memory, so that a disk never stalls a ring.
//!
//! Invariants: the queue is bounded, and a caller waits while it is full; each accepted window is answered once;
//! a panic of a thread ends the program; dropping the pool finishes the accepted windows and then joins the
//! threads.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::limits::{PREFAULT_QUEUE_MAX, PREFAULT_THREADS};
use super::source::SourceWindow;
use crate::abort::AbortOnPanic;
use crate::lock::lock;
use crate::mem::window::SendPart;

struct LoadRequest {
    window: SourceWindow,
    loaded: oneshot::Sender<io::Result<SendPart>>,
}

/// A fixed set of threads and their queue.
#[derive(Debug)]
pub struct PrefaultPool {
    requests: Option<Sender<LoadRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl PrefaultPool {
    /// Starts [`PREFAULT_THREADS`] threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start() -> io::Result<PrefaultPool> {
        let (requests, queue) = channel(PREFAULT_QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let mut pool =
            PrefaultPool { requests: Some(requests), threads: Vec::with_capacity(PREFAULT_THREADS) };
        for number in 0..PREFAULT_THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(format!("prefault-{number}"));
            pool.threads.push(thread.spawn(move || serve_requests(&queue))?);
        }
        Ok(pool)
    }

    /// Brings a window into memory: see [`SourceWindow::load`]. Waits while the queue is full.
    ///
    /// # Errors
    /// As for [`SourceWindow::load`].
    pub async fn load(&self, window: SourceWindow) -> io::Result<SendPart> {
        let requests = self.requests.as_ref().expect("only drop takes it");
        let (loaded, answer) = oneshot::channel();
        let sent = requests.send(LoadRequest { window, loaded }).await;
        assert!(sent.is_ok(), "the threads run as long as the pool");
        answer.await.expect("a thread answers each request; its panic ends the program")
    }
}

fn serve_requests(queue: &Mutex<Receiver<LoadRequest>>) {
    let _abort = AbortOnPanic;
    loop {
        // The lock is held while waiting: one thread waits for a request, the others for the lock.
        let Some(LoadRequest { window, loaded }) = lock(queue).blocking_recv() else { return };
        // The connection may be gone by now.
        let _ = loaded.send(window.load());
    }
}

impl Drop for PrefaultPool {
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            // A panic has already ended the program.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::source::Source;
    use crate::storage::source::tests::open_unmapped;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn windows_are_loaded_and_lost_ones_reported() {
        type Open = fn(&Path) -> Source;
        let opens: [(Open, Option<i32>); 2] =
            [(|path| Source::open(path).unwrap(), Some(libc::EFAULT)), (open_unmapped, None)];
        for (open, code) in opens {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), vec![1; 100_000]).unwrap();
            let source = open(file.path());
            let pool = PrefaultPool::start().unwrap();
            let load = |range| block_on(pool.load(source.window(range)));
            assert_eq!(load(0..100_000).unwrap().len(), 100_000);
            assert_eq!(source.window(0..100_000).is_resident(), code.is_some());
            file.as_file().set_len(10).unwrap();
            let lost = load(50_000..60_000).unwrap_err();
            assert_eq!(lost.raw_os_error(), code);
            assert!(code.is_some() || lost.kind() == io::ErrorKind::UnexpectedEof, "{lost}");
        }
    }

    #[test]
    fn callers_wait_for_a_full_queue_and_each_is_answered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10).unwrap();
        let source = Source::open(file.path()).unwrap();
        let pool = Arc::new(PrefaultPool::start().unwrap());
        let count = 2 * PREFAULT_QUEUE_MAX;
        let answered = block_on(async {
            let loads = (0..count).map(|_| {
                let (pool, window) = (Arc::clone(&pool), source.window(0..10));
                tokio::spawn(async move { pool.load(window).await.unwrap().len() })
            });
            let loads: Vec<_> = loads.collect();
            let mut answered = 0;
            for load in loads {
                answered += load.await.unwrap() / 10;
            }
            answered
        });
        assert_eq!(answered, count);
    }
}
