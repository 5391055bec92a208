//! Tasks that a worker cannot live without: one that panics ends the program, since going on would leave a worker that
//! verifies or accepts nothing any more.

use tokio::task::JoinHandle;

use crate::abort::AbortOnPanic;

/// As `spawn_local`, on a worker's thread; a panic of the task ends the program.
pub(crate) fn spawn_critical<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(async {
        let _ends = AbortOnPanic;
        task.await
    })
}
