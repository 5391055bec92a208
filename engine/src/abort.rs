//! Ends the program when a thread or task panics that the node cannot do without.
//!
//! A panic is an impossible state: a peer's misbehaviour never causes one. Going on would leave downloads that no task
//! drives, and half-changed values behind locks. The panic hook has reported it before the program ends.

use tokio::task::JoinHandle;

/// Aborts the program when it is dropped by a panic.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// As [`tokio::task::spawn_local`]; a panic of the task aborts the program.
pub(crate) fn spawn_critical<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(async {
        let _abort = AbortOnPanic;
        task.await
    })
}

/// Tests of programs that abort.
#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the environment of a program that is to panic.
    const CHILD: &str = "ENGINE_TEST_PANICS";

    /// Runs the test of this name again in a program of its own, which calls `panics` and has to abort.
    pub(crate) fn assert_aborts(name: &str, panics: impl FnOnce()) {
        if std::env::var_os(CHILD).is_some() {
            // No core dump.
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
            panics();
            return;
        }
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", name]).env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::null());
        let status = program.status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{name} ended with {status}");
    }

    #[test]
    fn a_panic_aborts_the_program_and_a_drop_does_not() {
        drop(AbortOnPanic);
        assert_aborts("abort::tests::a_panic_aborts_the_program_and_a_drop_does_not", || {
            let thread = std::thread::spawn(|| {
                let _abort = AbortOnPanic;
                panic!("meant");
            });
            let _ = thread.join();
        });
    }
}
