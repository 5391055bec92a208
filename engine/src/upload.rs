//! Sources as the hashing reads them: window by window, the next one brought in while this one is hashed.

use std::ops::Range;

use crate::hash::WindowSource;
use crate::storage::error::SourceChangedError;
use crate::storage::source::Source;

impl WindowSource for Source {
    type Error = SourceChangedError;

    fn with_window<R>(
        &self,
        range: Range<u64>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, SourceChangedError> {
        self.with_bytes(range, read)
    }

    fn will_need(&self, range: Range<u64>) {
        if !range.is_empty() {
            // What cannot be read shows when the window itself is lent.
            let _ = self.window(range).populate();
        }
    }
}
