//! What a node cannot live without: a panic of it ends the program.
//!
//! Invariant: a panic is an impossible state, since a peer's misbehaviour never causes one; the panic hook has told of it before
//! the program ends. Going on instead would leave downloads that nobody looks after, and half-changed values behind locks.

/// Ends the program when it is dropped by a panic.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Programs that end by a panic, seen from outside.
#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    /// Says to a test that it is to panic in its own way.
    const TOLD_TO: &str = "ENGINE_TEST_PANICS";

    /// Runs the test of this name once more in a program of its own, where `panics` is called. That has to end by the guard.
    pub(crate) fn assert_aborts(name: &str, panics: impl FnOnce()) {
        if std::env::var_os(TOLD_TO).is_some() {
            // Ending it is not worth a core.
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
            panics();
            return;
        }
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", name]).env(TOLD_TO, "1").stdout(Stdio::null()).stderr(Stdio::null());
        let ended = program.status().unwrap();
        assert_eq!(ended.signal(), Some(libc::SIGABRT), "{name} ended with {ended}");
    }

    #[test]
    fn a_panic_ends_the_program_and_an_end_does_not() {
        drop(AbortOnPanic);
        assert_aborts("ends::tests::a_panic_ends_the_program_and_an_end_does_not", || {
            let thread = std::thread::spawn(|| {
                let _ends = AbortOnPanic;
                panic!("meant");
            });
            let _ = thread.join();
        });
    }
}
