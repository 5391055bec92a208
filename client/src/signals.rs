//! Ctrl-C and SIGTERM: the first ends what is going on, the second the process. With nothing going on that needs an
//! end of its own, the first ends the process; so it does while a line is read, since whoever reads it hears of nothing else.
//!
//! Invariant: a thread of its own takes the signals, so what it calls may lock and write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use engine::lock::lock;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{ClientFault, ExitCause};
use crate::terminal;

type SignalAction = Box<dyn Fn() + Send>;

/// What is to happen at a signal. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SignalHandler {
    inner: Arc<SignalState>,
}

struct SignalState {
    happened: AtomicBool,
    action: Mutex<Option<SignalAction>>,
}

impl SignalHandler {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// A fault when the system gives no thread or no handler.
    pub(crate) fn install() -> Result<SignalHandler, ClientFault> {
        let fault = |error: std::io::Error| {
            ClientFault::new(ExitCause::Other, format!("cannot watch for signals: {error}"))
        };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(fault)?;
        let interrupt = SignalHandler {
            inner: Arc::new(SignalState { happened: AtomicBool::new(false), action: Mutex::new(None) }),
        };
        let inner = Arc::clone(&interrupt.inner);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for _signal in signals.forever() {
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

    /// What to do at the first signal; at once if it came already.
    pub(crate) fn on_signal(&self, action: impl Fn() + Send + 'static) {
        let mut slot = lock(&self.inner.action);
        if self.was_signalled() {
            action();
        }
        *slot = Some(Box::new(action));
    }

    /// What was going on is over: a signal ends the process again.
    pub(crate) fn clear_action(&self) {
        *lock(&self.inner.action) = None;
    }

    /// Whether a signal came.
    pub(crate) fn was_signalled(&self) -> bool {
        self.inner.happened.load(Ordering::SeqCst)
    }

    /// Whether a signal came; the next one counts as the first again.
    pub(crate) fn take_signal(&self) -> bool {
        self.inner.happened.swap(false, Ordering::SeqCst)
    }
}
