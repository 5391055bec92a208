//! The I/O back end: which one runs, and its runtime on a worker's thread.

use std::future::Future;
use std::io;

use crate::config::IoChoice;
use crate::error::StartError;

/// An I/O back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoKind {
    /// io_uring, through tokio-uring.
    Uring,
    /// epoll, through tokio.
    Epoll,
}

impl IoKind {
    /// Resolves the choice by making a ring, since containers often forbid io_uring.
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
                    tracing::info!(%error, "io_uring is not available; using epoll");
                    Ok(IoKind::Epoll)
                }
            },
        }
    }

    /// Makes a ring and drops it: no setting shows what a container forbids.
    pub(crate) fn probe_uring() -> io::Result<()> {
        tokio_uring::Runtime::new(&tokio_uring::builder()).map(drop)
    }

    /// The name that `--io` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            IoKind::Uring => "uring",
            IoKind::Epoll => "epoll",
        }
    }

    /// The back ends of all workers as text: a name that `--io` takes, or more words where they differ.
    ///
    /// # Errors
    /// [`StartError::Uring`]: io_uring was demanded and a worker runs without it.
    pub(crate) fn describe_workers(choice: IoChoice, workers: &[IoKind]) -> Result<String, StartError> {
        let rings = workers.iter().filter(|kind| **kind == IoKind::Uring).count();
        match (rings, workers.len()) {
            (rings, all) if rings == all => Ok(IoKind::Uring.name().to_owned()),
            (rings, all) if choice == IoChoice::Uring => {
                let few = format!("only {rings} of {all} workers have a ring; a higher `ulimit -l` may help");
                Err(StartError::Uring { source: io::Error::other(few) })
            }
            (0, _) => Ok(IoKind::Epoll.name().to_owned()),
            (rings, all) => Ok(format!("uring ({rings} of {all} workers; others epoll)")),
        }
    }

    /// Runs `main` and its local tasks on this thread, until `main` is done. `main` gets the back end that runs: epoll when
    /// the system gives no ring for another thread.
    ///
    /// Newer kernels charge rings to the memory that a user may lock (`RLIMIT_MEMLOCK`), so a later ring may be refused.
    pub(crate) fn run<F: Future<Output = ()>>(self, main: impl FnOnce(IoKind) -> F) -> io::Result<()> {
        if self == IoKind::Uring {
            match tokio_uring::Runtime::new(&tokio_uring::builder()) {
                Ok(runtime) => {
                    runtime.block_on(main(self));
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "no io_uring for another worker; it uses epoll (a higher `ulimit -l` may help)");
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
    fn workers_without_a_ring_are_counted_and_refused_where_it_is_demanded() {
        let (uring, epoll) = (IoKind::Uring, IoKind::Epoll);
        for (choice, workers, expected) in [
            (IoChoice::Auto, [uring, uring], Some("uring")),
            (IoChoice::Auto, [uring, epoll], Some("uring (1 of 2 workers; others epoll)")),
            (IoChoice::Auto, [epoll, epoll], Some("epoll")),
            (IoChoice::Epoll, [epoll, epoll], Some("epoll")),
            (IoChoice::Uring, [uring, uring], Some("uring")),
            (IoChoice::Uring, [uring, epoll], None),
            (IoChoice::Uring, [epoll, epoll], None),
        ] {
            let found = IoKind::describe_workers(choice, &workers);
            assert_eq!(found.as_deref().ok(), expected, "{choice:?} {workers:?}");
            assert!(found.is_ok() || matches!(found, Err(StartError::Uring { .. })));
        }
    }

    #[test]
    fn the_requested_back_end_runs_or_epoll() {
        for kind in [IoKind::Epoll, IoKind::Uring] {
            let mut ran = None;
            kind.run(async |kind| ran = Some(kind)).unwrap();
            assert!(ran == Some(kind) || ran == Some(IoKind::Epoll));
        }
    }
}
