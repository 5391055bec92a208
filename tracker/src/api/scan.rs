//! Finds the end of a JSON object without parsing it, by following nesting, strings and escapes.
//!
//! A scan may pause between any two bytes. It does not tell `}` from `]`; the parser does.

use super::limits::DEPTH_MAX;

/// Result of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanResult {
    /// The object continues.
    Open,
    /// The object ended just before this position of the slice.
    Ended(usize),
}

/// State of a scan inside an object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectScanner {
    depth: u32,
    deepest: u32,
    in_string: bool,
    escaped: bool,
}

impl ObjectScanner {
    /// Continues over `bytes`. A new scanner starts at the object's first byte.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> ScanResult {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.in_string {
                let Some(end) = self.scan_string(&bytes[at..]) else { return ScanResult::Open };
                at += end;
                continue;
            }
            at += 1;
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth = self.depth.saturating_add(1);
                    self.deepest = self.deepest.max(self.depth);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return ScanResult::Ended(at);
                    }
                }
                _ => {}
            }
        }
        ScanResult::Open
    }

    /// Continues inside a string, up to and including the next quote or backslash; `None` when there is none.
    fn scan_string(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.escaped {
            self.escaped = false;
            return Some(1);
        }
        let at = memchr::memchr2(b'"', b'\\', bytes)?;
        if bytes[at] == b'"' {
            self.in_string = false;
        } else {
            self.escaped = true;
        }
        Some(at + 1)
    }

    /// Whether the object was nested deeper than a request may be.
    pub(super) fn is_too_deep(&self) -> bool {
        self.deepest > DEPTH_MAX
    }
}
