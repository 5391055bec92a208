//! Threads that bring cold windows into memory, so that a page fault never stalls a ring.
//!
//! Invariants: the queue is bounded and a full one is reported at once; each accepted window gets exactly one
//! callback, on one of these threads; a panicking callback ends the program; dropping the pool finishes the
//! accepted windows and then joins the threads.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::limits::{PREFAULT_QUEUE_MAX, PREFAULT_THREADS};
use crate::abort::AbortOnPanic;
use crate::lock::lock;
use crate::mem::window::MappedWindow;

/// Callback with the result. It runs on a thread of the pool and must not block.
pub type OnResident = Box<dyn FnOnce(io::Result<()>) + Send>;

struct PrefaultRequest {
    window: MappedWindow,
    on_resident: OnResident,
}

/// A fixed set of threads and their queue.
#[derive(Debug)]
pub struct PrefaultPool {
    requests: Option<SyncSender<PrefaultRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl PrefaultPool {
    /// Starts [`PREFAULT_THREADS`] threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start() -> io::Result<PrefaultPool> {
        let (orders, queue) = sync_channel(PREFAULT_QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let mut set = PrefaultPool { requests: Some(orders), threads: Vec::with_capacity(PREFAULT_THREADS) };
        for at in 0..PREFAULT_THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(format!("prefault-{at}"));
            set.threads.push(thread.spawn(move || serve_requests(&queue))?);
        }
        Ok(set)
    }

    /// Queues a window. `on_resident` is called when it is in memory, or with EFAULT when its file has lost
    /// it.
    ///
    /// # Errors
    /// The queue is full; the callback is returned without having been called.
    pub fn try_submit(&self, window: MappedWindow, done: OnResident) -> Result<(), OnResident> {
        let orders = self.requests.as_ref().expect("only drop takes it");
        match orders.try_send(PrefaultRequest { window, on_resident: done }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => Err(order.on_resident),
        }
    }
}

fn serve_requests(queue: &Mutex<Receiver<PrefaultRequest>>) {
    let _ends = AbortOnPanic;
    loop {
        // The lock is held while waiting: one thread waits for a request, the others for the lock.
        let order = lock(queue).recv();
        let Ok(PrefaultRequest { window, on_resident: done }) = order else { return };
        done(window.populate());
    }
}

impl Drop for PrefaultPool {
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            // A panic in a callback has already ended the program.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::abort::tests::assert_aborts;
    use crate::storage::source::Source;

    #[test]
    fn windows_are_populated_and_lost_ones_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let source = Source::open(&path).unwrap();
        let set = PrefaultPool::start().unwrap();
        let (sender, receiver) = channel();
        let submit = |range| {
            let sender = sender.clone();
            let done: OnResident = Box::new(move |result| sender.send(result).unwrap());
            assert!(set.try_submit(source.window(range), done).is_ok());
        };
        submit(0..100_000);
        receiver.recv().unwrap().unwrap();
        assert!(source.window(0..100_000).is_resident());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        submit(50_000..60_000);
        assert_eq!(receiver.recv().unwrap().unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_panicking_callback_ends_the_program() {
        assert_aborts("storage::prefault::tests::a_panicking_callback_ends_the_program", || {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(10).unwrap();
            let source = Source::open(file.path()).unwrap();
            let set = PrefaultPool::start().unwrap();
            assert!(set.try_submit(source.window(0..10), Box::new(|_| panic!("meant"))).is_ok());
        });
    }

    #[test]
    fn a_full_queue_is_reported_and_no_request_lost() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10).unwrap();
        let source = Source::open(file.path()).unwrap();
        let set = PrefaultPool::start().unwrap();
        let (sender, receiver) = channel();
        let (open, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut submitted = 0;
        // The callbacks block until the gate opens, so the queue must fill.
        loop {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate));
            let done: OnResident = Box::new(move |_| {
                assert!(gate.lock().unwrap().recv().is_err(), "the gate only opens by closing its channel");
                sender.send(()).unwrap();
            });
            if set.try_submit(source.window(0..10), done).is_err() {
                break;
            }
            submitted += 1;
        }
        assert!((PREFAULT_QUEUE_MAX..=PREFAULT_QUEUE_MAX + PREFAULT_THREADS).contains(&submitted));
        drop(open);
        drop(set);
        drop(sender);
        assert_eq!(receiver.iter().count(), submitted);
    }
}
