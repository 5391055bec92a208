//! What the user wants of a download: that it stops for now, goes on, or is given up.

use super::{ActiveDownload, UserIntent};

impl ActiveDownload {
    /// Stops for now.
    pub(crate) fn pause(&self) {
        let mut inner = self.lock();
        if inner.intent == UserIntent::Run {
            inner.intent = UserIntent::Pause;
            inner.transfer.hold(self.clock.now());
            inner.apply_actions();
        }
        self.wake.notify_one();
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        let mut inner = self.lock();
        if inner.intent == UserIntent::Pause {
            inner.intent = UserIntent::Run;
            if inner.can_fetch() {
                inner.transfer.resume(self.clock.now());
            }
            inner.apply_actions();
        }
        self.wake.notify_one();
    }

    /// Gives it up.
    pub(crate) fn cancel(&self) {
        self.lock().intent = UserIntent::Cancel;
        self.wake.notify_one();
    }
}
