//! Every number of storage, with its unit, its owner and its reason.

/// Minimum time between two fingerprint checks of a source, in milliseconds. Each check costs two system
/// calls.
pub const SOURCE_CHECK_MS: u64 = 1_000;

/// How long a call waits for a filesystem before that counts as one that does not answer, in milliseconds. A disk
/// that has to spin up may take as long; callers try again.
pub const FILESYSTEM_ANSWER_MS: u64 = 5_000;

/// Work of one kind that waits for the threads of one filesystem: one item for each download, or for each
/// connection that serves.
pub const FILESYSTEM_QUEUE_MAX: usize = 1_024;

/// Threads for all filesystems of one kind of work. Only those that do not answer keep theirs.
pub const FILESYSTEM_THREADS_MAX: usize = 64;

/// How long a thread of a filesystem waits for work before it ends, in milliseconds.
pub const FILESYSTEM_THREAD_IDLE_MS: u64 = 10_000;

/// Most bytes of a file that is not mapped that one connection reads to send them. Each connection holds as much
/// memory.
pub const READ_WINDOW_BYTES: u64 = 64 * 1024;

/// Passes over a file to be shared whose mode or links change during each of them. After the last one it counts
/// as changed.
pub const HASH_ATTEMPTS_MAX: usize = 3;

/// Longest prefix of the final name that a partial file's name repeats, in bytes. `.`, eight hex digits and
/// `.part` add 14, which stays within [`NAME_MAX_BYTES`].
pub const PARTIAL_STEM_MAX_BYTES: usize = 240;

/// Longest name that Linux filesystems allow, in bytes.
pub const NAME_MAX_BYTES: usize = 255;

/// Bytes of the hash in a partial file's name; enough to tell apart the downloads of one directory.
pub const PARTIAL_HASH_BYTES: usize = 4;

/// Attempts to open a partial file that other downloads create and remove meanwhile. After the last one it
/// counts as locked.
pub const OPEN_ATTEMPTS_MAX: u32 = 8;

/// Unrecorded pieces that make a flush and a new record due (1 GiB). Large enough that a fast disk flushes
/// long runs. At most these pieces, and those that arrive during the flush, are hashed again after a crash of
/// the machine.
pub const RECORD_DUE_PIECES: usize = 2_048;

/// Interval of flushes and records of a slower download, in milliseconds. A crash of the machine loses at
/// most this much work.
pub const RECORD_DUE_MS: u64 = 2_000;

/// Longest tick of the clock that file times come from, in milliseconds: that of a kernel with 100 a second.
pub const FILE_TIME_TICK_MS: u64 = 10;

/// Filesystems whose file times this kernel alone sets, at the write itself, by `f_type` in `statfs`: ext2 to
/// ext4, XFS, Btrfs, tmpfs, F2FS, overlayfs, ZFS and bcachefs. On others, a server may set them later.
pub const EXACT_TIMES_MAGIC: [u32; 8] =
    [0x0000_EF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010, 0x794C_7630, 0x2FC1_2FC1, 0xCA45_1A4E];

/// A file longer than the usable memory divided by this number is dropped from the page cache while it is
/// downloaded. The rest of the memory is for other programs.
pub const CACHED_MEMORY_SHARE: u64 = 2;

/// Longest record that is read, in bytes: one bit a piece of the longest file, and its notes.
pub const RECORD_MAX_BYTES: u64 = 1 << 30;

/// Longest list of SHA-1 values that stays in memory: that of a file of 32 GiB, 1.25 MiB. Longer lists go to
/// a file.
pub const HASHES_IN_MEMORY_MAX: usize = 65_536;

/// Bytes gathered before they are written to that file.
pub const HASHES_WRITTEN_BYTES: usize = 64 * 1024;

/// `f_type` of a tmpfs in `statfs`: `TMPFS_MAGIC` of linux/magic.h.
pub(crate) const TMPFS_MAGIC: i64 = 0x0102_1994;
