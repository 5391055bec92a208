//! Part of a mapped file, and what goes out with it: the things that are lent to the kernel for reading.
//!
//! Invariants:
//! * A window keeps its mapping alive, so its bytes stay mapped for as long as anybody, the kernel too, holds it.
//! * Neither type gives out its mapped bytes. They cannot be buffers of tokio-uring themselves, because its `slice`
//!   would then hand references to mapped bytes to safe code: [`send_message`](super::send) wraps them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::mapping::Mapping;

/// A run of bytes of a mapped file.
#[derive(Clone, Debug)]
pub struct MappedWindow {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl MappedWindow {
    /// The bytes of `range`.
    ///
    /// # Panics
    /// When the range is empty or not in the mapping.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> MappedWindow {
        assert!(
            range.start < range.end && range.end <= mapping.len(),
            "a window of {range:?} in {} bytes",
            mapping.len()
        );
        MappedWindow { mapping, range }
    }

    /// Length in bytes, never 0 for a new window; what [`SendPart::advance`] leaves may be empty.
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

    /// Whether the file has lost a page under the mapping: see [`Mapping::has_faulted`].
    #[must_use]
    pub fn has_faulted(&self) -> bool {
        self.mapping.has_faulted()
    }

    fn address(&self) -> *const u8 {
        if self.is_empty() { std::ptr::null() } else { self.mapping.address(self.range.start) }
    }
}

/// Bytes of this process that go out: frames.
#[derive(Clone, Debug)]
pub struct OutgoingFrames {
    bytes: Vec<u8>,
    sent: usize,
}

/// One part of what is sent: frames, or a window that follows its frame. A clone copies frames, and shares the mapping of a
/// window.
#[derive(Clone, Debug)]
pub enum SendPart {
    /// Frames.
    Frames(OutgoingFrames),
    /// Piece bytes, straight from the mapping.
    Window(MappedWindow),
}

impl From<Vec<u8>> for SendPart {
    fn from(bytes: Vec<u8>) -> SendPart {
        SendPart::Frames(OutgoingFrames { bytes, sent: 0 })
    }
}

impl From<MappedWindow> for SendPart {
    fn from(window: MappedWindow) -> SendPart {
        SendPart::Window(window)
    }
}

impl SendPart {
    /// Bytes yet to be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            SendPart::Frames(head) => head.bytes.len() - head.sent,
            SendPart::Window(window) => window.len(),
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
    pub fn advance(parts: &mut Vec<SendPart>, sent: usize) {
        let mut rest = sent;
        for part in parts.iter_mut() {
            let step = rest.min(part.len());
            part.skip(step);
            rest -= step;
        }
        assert_eq!(rest, 0, "more sent than there was");
        parts.retain(|part| !part.is_empty());
    }

    /// Where the bytes yet to be sent are; of [`SendPart::len`], valid for as long as `self`, wherever it moves.
    pub(super) fn address(&self) -> *const u8 {
        match self {
            SendPart::Frames(head) => head.bytes[head.sent..].as_ptr(),
            SendPart::Window(window) => window.address(),
        }
    }

    fn skip(&mut self, bytes: usize) {
        match self {
            SendPart::Frames(head) => head.sent += bytes,
            SendPart::Window(window) => window.range.start += bytes,
        }
    }
}
