//! SIGINT (Ctrl-C), SIGTERM and SIGHUP, which a node that serves ignores; SIGXFSZ, which a write past `ulimit -f` raises beside its error, does nothing.
//!
//! The first signal runs the registered action, the second ends the process. The first ends the process too when no action is
//! registered or while the prompt reads a line. Signals arrive on a thread of their own, so actions may lock and write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use engine::lock::lock;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::{ClientFault, ExitCause};
use crate::terminal;

type SignalAction = Box<dyn Fn() + Send>;

/// Reacts to signals. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SignalHandler {
    inner: Arc<SignalState>,
}

struct SignalState {
    happened: AtomicBool,
    ignores_hangup: AtomicBool,
    action: Mutex<Option<SignalAction>>,
}

impl SignalHandler {
    /// Starts handling signals.
    ///
    /// # Errors
    /// When the system gives no thread or refuses a signal handler.
    pub(crate) fn install() -> Result<SignalHandler, ClientFault> {
        let fault = |error: std::io::Error| {
            ClientFault::new(ExitCause::Other, format!("cannot watch for signals: {error}"))
        };
        flag::register(SIGXFSZ, Arc::default()).map_err(fault)?;
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(fault)?;
        let interrupt = SignalHandler {
            inner: Arc::new(SignalState {
                happened: AtomicBool::new(false),
                ignores_hangup: AtomicBool::new(false),
                action: Mutex::new(None),
            }),
        };
        let inner = Arc::clone(&interrupt.inner);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal == SIGHUP && inner.ignores_hangup.load(Ordering::SeqCst) {
                        continue;
                    }
                    let again = inner.happened.swap(true, Ordering::SeqCst);
                    match lock(&inner.action).as_ref() {
                        Some(action) if !again && !terminal::is_reading_line() => action(),
                        _ => terminal::exit_with_terminal_restored(ExitCause::Interrupted),
                    }
                }
            })
            .map_err(fault)?;
        Ok(interrupt)
    }

    /// Sets the action for the first signal. Runs it now if a signal came already.
    pub(crate) fn on_signal(&self, action: impl Fn() + Send + 'static) {
        let mut slot = lock(&self.inner.action);
        if self.was_signalled() {
            action();
        }
        *slot = Some(Box::new(action));
    }

    /// Ignores SIGHUP from now on: the end of a terminal does not end what runs without one.
    pub(crate) fn ignore_hangup(&self) {
        self.inner.ignores_hangup.store(true, Ordering::SeqCst);
    }

    /// Removes the action: the next signal ends the process.
    pub(crate) fn clear_action(&self) {
        *lock(&self.inner.action) = None;
    }

    pub(crate) fn was_signalled(&self) -> bool {
        self.inner.happened.load(Ordering::SeqCst)
    }

    /// Whether a signal came; resets it, so that the next one counts as the first.
    pub(crate) fn take_signal(&self) -> bool {
        self.inner.happened.swap(false, Ordering::SeqCst)
    }
}
