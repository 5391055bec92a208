//! Part of a mapped file, and what goes out with it: the things that are lent to the kernel for reading.
//!
//! Invariants:
//! * A window keeps its mapping alive, so its bytes stay mapped for as long as anybody, the kernel too, holds it.
//! * Neither type gives out its mapped bytes. They cannot be buffers of tokio-uring themselves, because its `slice`
//!   would then hand references to mapped bytes to safe code: [`send`](super::send) wraps them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::mapping::Mapping;

/// A run of bytes of a mapped file.
#[derive(Clone, Debug)]
pub struct Window {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Window {
    /// The bytes of `range`.
    ///
    /// # Panics
    /// When the range is empty or not in the mapping.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> Window {
        assert!(
            range.start < range.end && range.end <= mapping.len(),
            "a window of {range:?} in {} bytes",
            mapping.len()
        );
        Window { mapping, range }
    }

    /// Length in bytes, never 0 for a new window; what [`Outgoing::advance`] leaves may be empty.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether all of it has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether all of it is in memory: see [`Mapping::is_resident`].
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.is_empty() || self.mapping.is_resident(self.range.clone())
    }

    /// Brings it into memory and waits: see [`Mapping::populate`].
    ///
    /// # Errors
    /// EFAULT where the file is shorter now or its disk fails.
    pub fn populate(&self) -> io::Result<()> {
        if self.is_empty() { Ok(()) } else { self.mapping.populate(self.range.clone()) }
    }

    /// Whether the file has lost a page under the mapping: see [`Mapping::faulted`].
    #[must_use]
    pub fn faulted(&self) -> bool {
        self.mapping.faulted()
    }

    fn address(&self) -> *const u8 {
        if self.is_empty() { std::ptr::null() } else { self.mapping.address(self.range.start) }
    }
}

/// Bytes of this process that go out: frames.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
    sent: usize,
}

/// One part of what is sent: frames, or a window that follows its frame. A clone copies frames, and shares the mapping of a
/// window.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// Frames.
    Head(Head),
    /// Piece bytes, straight from the mapping.
    Window(Window),
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Outgoing {
        Outgoing::Head(Head { bytes, sent: 0 })
    }
}

impl From<Window> for Outgoing {
    fn from(window: Window) -> Outgoing {
        Outgoing::Window(window)
    }
}

impl Outgoing {
    /// Bytes yet to be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Outgoing::Head(head) => head.bytes.len() - head.sent,
            Outgoing::Window(window) => window.len(),
        }
    }

    /// Whether all of it has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first `sent` bytes off `parts`, which a send may have ended in the middle of; parts that are done go.
    ///
    /// # Panics
    /// When more was sent than there is.
    pub fn advance(parts: &mut Vec<Outgoing>, sent: usize) {
        let mut rest = sent;
        for part in parts.iter_mut() {
            let step = rest.min(part.len());
            part.skip(step);
            rest -= step;
        }
        assert_eq!(rest, 0, "more sent than there was");
        parts.retain(|part| !part.is_empty());
    }

    /// Where the bytes yet to be sent are; of [`Outgoing::len`], valid for as long as `self`, wherever it moves.
    pub(super) fn address(&self) -> *const u8 {
        match self {
            Outgoing::Head(head) => head.bytes[head.sent..].as_ptr(),
            Outgoing::Window(window) => window.address(),
        }
    }

    fn skip(&mut self, bytes: usize) {
        match self {
            Outgoing::Head(head) => head.sent += bytes,
            Outgoing::Window(window) => window.range.start += bytes,
        }
    }
}
