//! Every number of storage, with its unit, its owner and its reason.

/// A source's fingerprint is compared at most this often, in milliseconds: often enough to tell the user soon, and two
/// system calls a second cost nothing.
pub const SOURCE_CHECK_MS: u64 = 1_000;

/// Longest start of a final name that a partial file's name repeats, in bytes. The rest of it, `.`, eight hex digits
/// and `.part`, are 14: together within the 255 bytes that Linux filesystems allow.
pub const PARTIAL_STEM_MAX_BYTES: usize = 240;

/// Longest name that Linux filesystems allow, in bytes.
pub const NAME_MAX_BYTES: usize = 255;

/// Bytes of the hash in a partial file's name: enough to keep apart what one user fetches into one directory.
pub const PARTIAL_HASH_BYTES: usize = 4;

/// How often opening a partial file starts over when others create and remove it meanwhile, before it counts as locked.
pub const OPEN_ATTEMPTS_MAX: u32 = 8;

/// Threads that bring cold windows into memory: two reads under way keep most disks busy.
pub const PREFAULT_THREADS: usize = 2;

/// Windows that wait for these threads: 16 MiB of pieces for each. When it is full, the asker takes another piece
/// first.
pub const PREFAULT_QUEUE_MAX: usize = 64;

/// Unrecorded pieces that make a flush and a new record due (1 GiB): seldom enough that a fast disk flushes long runs, and
/// so much at most, with what arrives during the flush, is hashed again after a crash of the machine.
pub const RECORD_DUE_PIECES: usize = 2_048;

/// A slower download is flushed and recorded this often, in milliseconds: two seconds of it are what a crash of the machine
/// may cost, and a flush in two seconds is nothing to a disk.
pub const RECORD_DUE_MS: u64 = 2_000;

/// A download longer than one part in so many of the memory that this program may use leaves the page cache behind itself: the
/// other half is for everything else that is done there.
pub const CACHED_MEMORY_SHARE: u64 = 2;

/// Longest record that is read, in bytes: that of the longest file (a bit a piece) with its notes.
pub const RECORD_MAX_BYTES: u64 = 1 << 30;

/// Longest list of hashes that stays in memory: that of a file of 32 GiB, 1.25 MiB. Longer ones go to a file.
pub const HASHES_IN_MEMORY_MAX: usize = 65_536;

/// Hashes are written to that file in blocks of about so many bytes.
pub const HASHES_WRITTEN_BYTES: usize = 64 * 1024;

/// Kind of a filesystem in memory, as `statfs` tells it: `TMPFS_MAGIC` of linux/magic.h.
pub(crate) const TMPFS_MAGIC: i64 = 0x0102_1994;
