//! Every number of storage, with its unit, its owner and its reason.

/// A source's fingerprint is compared at most this often, in milliseconds: often enough to tell the user soon, and two
/// system calls a second cost nothing.
pub const SOURCE_CHECK_MS: u64 = 1_000;

/// Longest start of a final name that a partial file's name repeats, in bytes. The rest of it, `.`, eight hex digits
/// and `.part`, are 14: together within the 255 bytes that Linux filesystems allow.
pub const PARTIAL_STEM_MAX_BYTES: usize = 240;

/// Bytes of the hash in a partial file's name: enough to keep apart what one user fetches into one directory.
pub const PARTIAL_HASH_BYTES: usize = 4;

/// How often opening a partial file starts over when others create and remove it meanwhile, before it counts as locked.
pub const OPEN_ATTEMPTS_MAX: u32 = 8;

/// Threads that bring cold windows into memory: two reads under way keep most disks busy.
pub const PREFAULT_THREADS: usize = 2;

/// Windows that wait for these threads: 16 MiB of pieces for each. When it is full, the asker takes another piece
/// first.
pub const PREFAULT_QUEUE_MAX: usize = 64;
