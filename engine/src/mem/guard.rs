//! SIGBUS guard: a file that shrinks while it is mapped sets a flag instead of ending the process.
//!
//! Reading a mapped page that the file no longer has, or that the disk cannot read, raises SIGBUS. The
//! handler looks the address up in a static table of mapped ranges. If it is one of them, the handler marks
//! the range as faulted and maps a page of zeros over the hole, so that the read continues. The reader must
//! then call [`GuardRegistration::has_faulted`] and discard what it made of the bytes. Any other SIGBUS goes
//! to the previous handler.
//!
//! ```text
//!   read ──SIGBUS──► range in the table? ──yes──► flag it, map a zero page, continue
//!                          └───────no──────► the previous handler
//! ```
//!
//! Invariants:
//! * A slot holds start and end of a live mapping from before its first access until after its last.
//! * The handler only uses atomics and system calls, takes no lock, allocates nothing, and restores `errno`.
//! * A slot that changes while the handler reads it is not the faulting one, since that mapping is in use: it
//!   is skipped. The slot's sequence number is odd during a change.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

use libc::{c_int, c_void, siginfo_t};

use super::limits::MAPPINGS_MAX;
use crate::lock::lock;

#[cfg(test)]
mod tests;

struct GuardSlot {
    sequence: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    has_faulted: AtomicBool,
}

impl GuardSlot {
    const fn empty() -> GuardSlot {
        GuardSlot {
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            has_faulted: AtomicBool::new(false),
        }
    }

    fn set(&self, start: usize, end: usize) {
        self.sequence.fetch_add(1, SeqCst);
        self.start.store(start, SeqCst);
        self.end.store(end, SeqCst);
        self.has_faulted.store(false, SeqCst);
        self.sequence.fetch_add(1, SeqCst);
    }

    fn contains(&self, address: usize) -> bool {
        let before = self.sequence.load(SeqCst);
        let inside = self.start.load(SeqCst) <= address && address < self.end.load(SeqCst);
        inside && before.is_multiple_of(2) && before == self.sequence.load(SeqCst)
    }
}

static SLOT_TABLE: [GuardSlot; MAPPINGS_MAX] = [const { GuardSlot::empty() }; MAPPINGS_MAX];

/// Number of slots ever used; the handler searches these.
static SLOTS_USED: AtomicUsize = AtomicUsize::new(0);

/// The previous SIGBUS action; null until the guard is installed, never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// Page size in bytes; stored here because the handler must not ask for it.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct SlotAllocator {
    is_handler_installed: bool,
    free_slots: Vec<usize>,
}

static SLOT_ALLOCATOR: Mutex<SlotAllocator> =
    Mutex::new(SlotAllocator { is_handler_installed: false, free_slots: Vec::new() });

/// The guard's entry for one mapping, for as long as it lives.
#[derive(Debug)]
pub(super) struct GuardRegistration {
    slot: usize,
}

impl GuardRegistration {
    /// Guards the `len` bytes from address `start`. The first call installs the handler.
    ///
    /// # Errors
    /// The handler cannot be installed, or [`MAPPINGS_MAX`] ranges are guarded already.
    pub(super) fn new(start: usize, len: usize) -> io::Result<GuardRegistration> {
        let mut allocator = lock(&SLOT_ALLOCATOR);
        if !allocator.is_handler_installed {
            install_handler()?;
            allocator.is_handler_installed = true;
        }
        let slot = match allocator.free_slots.pop() {
            Some(slot) => slot,
            None if SLOTS_USED.load(SeqCst) < MAPPINGS_MAX => SLOTS_USED.fetch_add(1, SeqCst),
            None => return Err(io::Error::other(format!("{MAPPINGS_MAX} files are mapped already"))),
        };
        SLOT_TABLE[slot].set(start, start + len);
        Ok(GuardRegistration { slot })
    }

    /// Whether a page of the range was ever lost and replaced by zeros.
    pub(super) fn has_faulted(&self) -> bool {
        SLOT_TABLE[self.slot].has_faulted.load(SeqCst)
    }
}

impl Drop for GuardRegistration {
    fn drop(&mut self) {
        let mut allocator = lock(&SLOT_ALLOCATOR);
        SLOT_TABLE[self.slot].set(0, 0);
        allocator.free_slots.push(self.slot);
    }
}

/// Installs the handler and stores the previous one. Called once, under the allocator's lock.
fn install_handler() -> io::Result<()> {
    PAGE_BYTES.store(rustix::param::page_size(), SeqCst);
    let previous = Box::leak(Box::new(default_action()));
    // SAFETY: a null new action only asks; `previous` is valid for writing.
    check_result(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous) })?;
    PREVIOUS.store(previous, SeqCst);
    let mut action = default_action();
    action.sa_sigaction = on_sigbus as *const () as usize;
    // ONSTACK: on the alternate stack where a thread has one, so that a fault near the end of its own stack
    // is handled too.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `on_sigbus` has the three arguments that SA_SIGINFO promises, lives for ever, and does only
    // what a signal handler may do (the module's second invariant). What it needs, `PREVIOUS` and
    // `PAGE_BYTES`, is set above.
    check_result(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) })
}

fn default_action() -> libc::sigaction {
    // SAFETY: all zeros is a valid `sigaction`: SIG_DFL, no flags, an empty mask.
    unsafe { std::mem::zeroed() }
}

fn check_result(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: returns the address of this thread's `errno`, which lives as long as the thread;
    // async-signal-safe.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above; nothing else on this thread runs while its handler does.
    let kept = unsafe { errno.read() };
    let repaired = fault_address(info).is_some_and(repair_fault);
    if !repaired {
        call_previous_handler(signal, info, context);
    }
    // SAFETY: the same address, of this thread's `errno`, which lives as long as the thread.
    unsafe { errno.write(kept) };
}

/// The faulting address; `None` when a process sent the signal.
fn fault_address(info: *const siginfo_t) -> Option<usize> {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler installed with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: positive codes come from the kernel alone, and for SIGBUS it then fills in the address.
    (info.si_code > 0).then(|| unsafe { info.si_addr() } as usize)
}

/// Flags the mapping at `address` and maps a zero page over the hole. False when no guarded mapping is there.
fn repair_fault(address: usize) -> bool {
    let Some(slot) = SLOT_TABLE.iter().take(SLOTS_USED.load(SeqCst)).find(|slot| slot.contains(address))
    else {
        return false;
    };
    // Set the flag before mapping the page, so that no reader sees the zeros without the flag.
    slot.has_faulted.store(true, SeqCst);
    let page_bytes = PAGE_BYTES.load(SeqCst);
    let page = address - address % page_bytes;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: MAP_FIXED replaces what is mapped at this page, so the page must be ours: the slot says that it
    // belongs to a `Mapping`, which is alive because it is being read, and whose unmapping later takes the
    // new page along. No Rust reference relies on the bytes staying what they were: `Mapping::borrow` passes
    // that obligation to its caller.
    let mapped = unsafe { libc::mmap(page as *mut c_void, page_bytes, libc::PROT_READ, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Handles the signal as it would have been without the guard.
fn call_previous_handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: set by `install_handler` before the handler could run, to a value that is never freed or
    // changed.
    let Some(previous) = (unsafe { PREVIOUS.load(SeqCst).as_ref() }) else { return };
    match previous.sa_sigaction {
        libc::SIG_IGN if fault_address(info).is_none() => {}
        libc::SIG_IGN | libc::SIG_DFL => {
            let action = default_action();
            // SAFETY: `action` is valid, and the default needs no handler. The signal raised next waits until
            // this handler returns, and then ends the process, as it would have without us.
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
            // SAFETY: async-signal-safe, and no memory is involved.
            unsafe { libc::raise(signal) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO, the handler that was installed before is a function of these three
            // arguments.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO, the handler that was installed before is a function of one
            // argument.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
