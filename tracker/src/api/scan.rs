//! Finds where a JSON object ends, without parsing it: nesting, strings and escapes.
//!
//! The scanner may stop between any two bytes and go on later. It does not tell `}` from `]`; the parser does.

use super::limits::DEPTH_MAX;

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanResult {
    /// The object goes on.
    Open,
    /// The object ended just before this position of the slice.
    Ended(usize),
}

/// Where inside an object the scan stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectScanner {
    depth: u32,
    deepest: u32,
    in_string: bool,
    escaped: bool,
}

impl ObjectScanner {
    /// Goes on over `bytes`, which start with the object's first byte when the scanner is new.
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

    /// Goes on inside a string, to behind the next byte that means something there; `None` when there is none.
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
