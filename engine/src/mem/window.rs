//! The things lent to the kernel for sending: a range of a mapped file, and bytes in memory, such as frames.
//!
//! Invariants:
//! * A window keeps its mapping alive, so its bytes stay mapped while anything holds it, including the
//!   kernel.
//! * Neither type exposes its mapped bytes. They cannot be tokio-uring buffers themselves, because its
//!   `slice` would give safe code references to mapped bytes; [`send`](super::send) wraps them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::mapping::Mapping;

/// A range of bytes of a mapped file.
#[derive(Clone, Debug)]
pub struct MappedWindow {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl MappedWindow {
    /// The window over `range`.
    ///
    /// # Panics
    /// When the range is empty or not within the mapping.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, range: Range<usize>) -> MappedWindow {
        assert!(
            range.start < range.end && range.end <= mapping.len(),
            "a window of {range:?} in {} bytes",
            mapping.len()
        );
        MappedWindow { mapping, range }
    }

    /// Length in bytes. Only [`SendPart::advance`] makes a window empty.
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

/// Bytes in memory to be sent.
#[derive(Clone, Debug)]
pub struct OutgoingBytes {
    bytes: Vec<u8>,
    sent: usize,
}

/// One part of a send: frames, or the piece bytes that follow their frame. A clone copies bytes in memory and
/// shares a window's mapping.
#[derive(Clone, Debug)]
pub enum SendPart {
    /// Encoded frames, or piece bytes that were read from a file that is not mapped.
    Bytes(OutgoingBytes),
    /// Piece bytes, sent from the mapping.
    Window(MappedWindow),
}

impl From<Vec<u8>> for SendPart {
    fn from(bytes: Vec<u8>) -> SendPart {
        SendPart::Bytes(OutgoingBytes { bytes, sent: 0 })
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
            SendPart::Bytes(part) => part.bytes.len() - part.sent,
            SendPart::Window(window) => window.len(),
        }
    }

    /// Whether all of it has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the first `sent` bytes from `parts`, and parts that are done. A send may have ended within a
    /// part.
    ///
    /// # Panics
    /// When `sent` is more than there is.
    pub fn advance(parts: &mut Vec<SendPart>, sent: usize) {
        let mut rest = sent;
        for part in parts.iter_mut() {
            let step = rest.min(part.len());
            part.skip(step);
            rest -= step;
        }
        assert_eq!(rest, 0, "more bytes sent than there were");
        parts.retain(|part| !part.is_empty());
    }

    /// Address of the bytes yet to be sent ([`SendPart::len`] of them). Valid while `self` lives, even if it
    /// moves.
    pub(super) fn address(&self) -> *const u8 {
        match self {
            SendPart::Bytes(part) => part.bytes[part.sent..].as_ptr(),
            SendPart::Window(window) => window.address(),
        }
    }

    fn skip(&mut self, bytes: usize) {
        match self {
            SendPart::Bytes(part) => part.sent += bytes,
            SendPart::Window(window) => window.range.start += bytes,
        }
    }
}
