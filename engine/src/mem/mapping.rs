//! A file mapped for reading, shared with every program that writes it.
//!
//! Invariants:
//! * The bytes are reached by raw pointers only: [`Mapping::copy`] returns copies, and only
//!   [`Mapping::borrow`] makes a reference, on its caller's responsibility.
//! * The range stays mapped at one address until the `Mapping` is dropped, and stays registered with the
//!   guard for at least as long.
//! * The mapping may be longer than the file is now. What lies past its end faults, and the guard handles
//!   that.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::guard::GuardRegistration;

/// A read-only map of a file's first bytes. Share it by `Arc`.
#[derive(Debug)]
pub struct Mapping {
    // Drop order: the guard forgets the range before it is unmapped, because a new mapping may get the same
    // addresses at once.
    registration: GuardRegistration,
    raw: MmapRaw,
}

impl Mapping {
    /// Maps the first `length` bytes of `file`, which may still be shorter.
    ///
    /// # Errors
    /// `length` is 0 (an empty file needs no map), or the system refuses.
    pub fn new(file: &File, length: u64) -> io::Result<Mapping> {
        let len = usize::try_from(length).map_err(io::Error::other)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty file cannot be mapped"));
        }
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        let registration = GuardRegistration::new(raw.as_ptr().addr(), len)?;
        Ok(Mapping { registration, raw })
    }

    /// Length in bytes, never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether a page was ever lost, because the file shrank or its disk failed. Everything read since the
    /// last `false` is void.
    #[must_use]
    pub fn has_faulted(&self) -> bool {
        self.registration.has_faulted()
    }

    /// Advises the kernel to read far ahead, since the file will be read in order.
    ///
    /// # Errors
    /// Any error of the system; ignoring it is harmless.
    pub fn advise_sequential(&self) -> io::Result<()> {
        self.raw.advise(Advice::Sequential)
    }

    /// Starts to bring `range` into memory, without waiting.
    ///
    /// # Errors
    /// Any error of the system; ignoring it is harmless.
    pub fn advise_will_need(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(Advice::WillNeed, range)
    }

    /// Brings `range` into memory and waits for it: blocks for as long as the disk takes.
    ///
    /// # Errors
    /// EFAULT where the file is shorter now or its disk fails; no signal is raised.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.advise(Advice::PopulateRead, range)
    }

    /// Whether all of `range` is in memory, so that reading it will probably not wait for a disk. For files
    /// that this process could not write, the kernel always says yes.
    #[must_use]
    pub fn is_resident(&self, range: Range<usize>) -> bool {
        self.assert_inside(&range);
        let page_bytes = rustix::param::page_size();
        let first = range.start - range.start % page_bytes;
        let len = range.end - first;
        let mut pages = vec![0u8; len.div_ceil(page_bytes)];
        let start = self.address(first).cast_mut().cast();
        // SAFETY: the range lies in this mapping (asserted), whose start is page-aligned by mmap, and so is
        // `first`; `pages` has one byte for each page of `len`; mincore reads no mapped byte.
        let answer = unsafe { libc::mincore(start, len, pages.as_mut_ptr()) };
        answer == 0 && pages.iter().all(|page| page & 1 == 1)
    }

    /// Address of the byte at `offset`, for the kernel and for [`Mapping::borrow`].
    pub(super) fn address(&self, offset: usize) -> *const u8 {
        assert!(offset < self.len(), "offset {offset} of a mapping of {} bytes", self.len());
        // SAFETY: within the one mapped range, asserted above; the mapping is alive by `&self`.
        unsafe { self.raw.as_ptr().add(offset) }
    }

    /// The bytes of `range`, as a slice.
    ///
    /// # Safety
    /// A slice promises that its bytes stay as they are, and no process can promise that of a shared file.
    /// The caller is responsible for this: the bytes are only read as numbers, by code whose memory safety
    /// depends on no value of them and on no two reads agreeing; and when the file's fingerprint or
    /// [`Mapping::has_faulted`] says afterwards that it changed, everything made of the bytes is discarded.
    #[must_use]
    pub unsafe fn borrow(&self, range: Range<usize>) -> &[u8] {
        self.assert_inside(&range);
        // SAFETY: the range is mapped and readable for as long as `&self` (the second invariant; holes are
        // filled by the guard), bytes have no alignment and no invalid value; that they stay unchanged is the
        // caller's responsibility.
        unsafe { std::slice::from_raw_parts(self.address(range.start), range.len()) }
    }

    /// Copies the bytes from `at` on, as they are at this moment. The copy is void when
    /// [`Mapping::has_faulted`] says so afterwards.
    ///
    /// # Panics
    /// When the mapping has fewer.
    pub fn copy(&self, at: usize, into: &mut [u8]) {
        if into.is_empty() {
            return;
        }
        self.assert_inside(&(at..at.saturating_add(into.len())));
        // SAFETY: the source range is mapped and readable for as long as `&self` (asserted; holes are filled
        // by the guard), the destination is a slice of this process that nothing else refers to, and a
        // read-only mapping of a file is no memory that Rust gives out as `&mut`: they do not overlap. No
        // reference to mapped bytes is formed, so a program that writes the file can make the copy wrong and
        // nothing worse.
        unsafe { std::ptr::copy_nonoverlapping(self.address(at), into.as_mut_ptr(), into.len()) }
    }

    fn advise(&self, advice: Advice, range: Range<usize>) -> io::Result<()> {
        self.assert_inside(&range);
        self.raw.advise_range(advice, range.start, range.len())
    }

    fn assert_inside(&self, range: &Range<usize>) {
        assert!(
            range.start < range.end && range.end <= self.len(),
            "{range:?} of a mapping of {} bytes",
            self.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapping_shows_the_files_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello, shoal").unwrap();
        let mapping = Mapping::new(&file, 12).unwrap();
        // SAFETY: no other process has this file.
        assert_eq!(unsafe { mapping.borrow(7..12) }, b"shoal");
        let mut copied = [0; 5];
        mapping.copy(0, &mut copied);
        assert_eq!(&copied, b"hello");
        assert!(mapping.is_resident(0..12));
        mapping.advise_sequential().unwrap();
        mapping.advise_will_need(3..5).unwrap();
    }

    #[test]
    fn an_empty_file_is_not_mapped() {
        assert_eq!(
            Mapping::new(&tempfile::tempfile().unwrap(), 0).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn populating_past_the_end_is_an_error_and_no_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1).unwrap();
        let mapping = Mapping::new(&file, 100_000).unwrap();
        mapping.populate(0..1).unwrap();
        assert_eq!(mapping.populate(50_000..50_001).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert!(!mapping.has_faulted());
    }

    #[test]
    #[should_panic(expected = "of a mapping of")]
    fn nothing_is_copied_from_past_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"shoal").unwrap();
        Mapping::new(&file, 5).unwrap().copy(3, &mut [0; 3]);
    }

    #[test]
    #[should_panic(expected = "of a mapping of")]
    fn a_range_past_the_end_is_a_mistake() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let _ = Mapping::new(&file, 10).unwrap().is_resident(5..11);
    }
}
