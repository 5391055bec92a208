//! What the user wants of a download: that it stops for now, goes on, or is given up.

use super::{DownloadState, Wish};

impl DownloadState {
    /// Stops for now.
    pub(crate) fn pause(&self) {
        let mut inner = self.lock();
        if inner.wish == Wish::Run {
            inner.wish = Wish::Pause;
            inner.transfer.hold(self.clock.now());
            inner.carry_out();
        }
        self.wake.notify_one();
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        let mut inner = self.lock();
        if inner.wish == Wish::Pause {
            inner.wish = Wish::Run;
            if inner.may_run() {
                inner.transfer.resume(self.clock.now());
            }
            inner.carry_out();
        }
        self.wake.notify_one();
    }

    /// Gives it up.
    pub(crate) fn cancel(&self) {
        self.lock().wish = Wish::Cancel;
        self.wake.notify_one();
    }
}
