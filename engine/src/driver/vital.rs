//! Tasks that a worker cannot live without: one that panics ends the program.
//!
//! Invariant: a panic of a task is an impossible state, since a peer's misbehaviour never causes one; the panic hook has
//! told of it before the program ends. Going on instead would leave a worker that verifies or accepts nothing any more.

use tokio::task::JoinHandle;

/// As `spawn_local`, on a worker's thread; a panic of the task ends the program.
pub(crate) fn spawn_vital<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(async {
        let _ends = EndsByPanic;
        task.await
    })
}

/// Ends the program when it is dropped by a panic.
pub(crate) struct EndsByPanic;

impl Drop for EndsByPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
