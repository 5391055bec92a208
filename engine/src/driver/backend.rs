//! Which back end runs, and its runtime on the thread of a worker.

use std::future::Future;
use std::io;

use crate::config::IoChoice;
use crate::error::StartError;

/// A back end that works here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoKind {
    /// io_uring, by tokio-uring.
    Uring,
    /// epoll, by plain tokio.
    Epoll,
}

impl IoKind {
    /// Settles the choice, by trying: containers often forbid io_uring.
    pub(crate) fn resolve(choice: IoChoice) -> Result<IoKind, StartError> {
        match choice {
            IoChoice::Epoll => Ok(IoKind::Epoll),
            IoChoice::Uring => match IoKind::probe_uring() {
                Ok(()) => Ok(IoKind::Uring),
                Err(source) => Err(StartError::Uring { source }),
            },
            IoChoice::Auto => match IoKind::probe_uring() {
                Ok(()) => Ok(IoKind::Uring),
                Err(error) => {
                    tracing::info!(%error, "io_uring is not available; epoll runs instead");
                    Ok(IoKind::Epoll)
                }
            },
        }
    }

    /// Makes a ring and gives it back: what a container forbids shows in no setting.
    pub(crate) fn probe_uring() -> io::Result<()> {
        tokio_uring::Runtime::new(&tokio_uring::builder()).map(drop)
    }

    /// Its name, as `--io` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            IoKind::Uring => "uring",
            IoKind::Epoll => "epoll",
        }
    }

    /// What the workers of a node run by, in a word as `--io` takes it, or in more where they differ.
    ///
    /// # Errors
    /// [`StartError::Uring`]: it was demanded, and a worker runs without it.
    pub(crate) fn describe_workers(choice: IoChoice, workers: &[IoKind]) -> Result<String, StartError> {
        let rings = workers.iter().filter(|kind| **kind == IoKind::Uring).count();
        match (rings, workers.len()) {
            (rings, all) if rings == all => Ok(IoKind::Uring.name().to_owned()),
            (rings, all) if choice == IoChoice::Uring => {
                let few = format!("for {rings} of {all} workers alone; `ulimit -l` with more may help");
                Err(StartError::Uring { source: io::Error::other(few) })
            }
            (0, _) => Ok(IoKind::Epoll.name().to_owned()),
            (rings, all) => Ok(format!("uring ({rings} of {all} workers; others epoll)")),
        }
    }

    /// Runs `main` and the local tasks that it spawns on this thread, until `main` is done; `main` is told by what it runs,
    /// which is epoll where the system gives no ring for one more thread.
    ///
    /// Newer kernels charge rings to what an ordinary user may lock (`RLIMIT_MEMLOCK`), so that one may be had and the next
    /// not.
    pub(crate) fn run<F: Future<Output = ()>>(self, main: impl FnOnce(IoKind) -> F) -> io::Result<()> {
        if self == IoKind::Uring {
            match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                Ok(runtime) => {
                    runtime.block_on(main(self));
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "no io_uring for one more worker; it runs on epoll (`ulimit -l` with more may help)");
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, main(IoKind::Epoll));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_fell_back_are_told_of_and_none_may_where_the_ring_is_demanded() {
        let (uring, epoll) = (IoKind::Uring, IoKind::Epoll);
        for (choice, workers, told) in [
            (IoChoice::Auto, [uring, uring], Some("uring")),
            (IoChoice::Auto, [uring, epoll], Some("uring (1 of 2 workers; others epoll)")),
            (IoChoice::Auto, [epoll, epoll], Some("epoll")),
            (IoChoice::Epoll, [epoll, epoll], Some("epoll")),
            (IoChoice::Uring, [uring, uring], Some("uring")),
            (IoChoice::Uring, [uring, epoll], None),
            (IoChoice::Uring, [epoll, epoll], None),
        ] {
            let found = IoKind::describe_workers(choice, &workers);
            assert_eq!(found.as_deref().ok(), told, "{choice:?} {workers:?}");
            assert!(found.is_ok() || matches!(found, Err(StartError::Uring { .. })));
        }
    }

    #[test]
    fn what_runs_is_what_was_asked_for_or_epoll() {
        for kind in [IoKind::Epoll, IoKind::Uring] {
            let mut ran = None;
            kind.run(async |by| ran = Some(by)).unwrap();
            assert!(ran == Some(kind) || ran == Some(IoKind::Epoll));
        }
    }
}
