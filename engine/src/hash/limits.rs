//! Every number of the hashing layer, with its unit, its owner and its reason.

/// Fewest pieces of equal length for which AVX-512 lanes are faster than SHA-NI piece by piece, with one
/// state a piece and with two. A set of lanes costs the same however many are filled; `cargo bench -p engine
/// --bench hash` shows where the lines cross.
pub(super) const AVX512_MIN_PIECES: [usize; 2] = [6, 5];

/// The same for AVX2's eight lanes.
pub(super) const AVX2_MIN_PIECES: [usize; 2] = [7, 6];

/// The same where single pieces are hashed by `sha1-asm`, which neither interleaves pieces nor shares
/// schedules.
pub(super) const MIN_PIECES_WITHOUT_SHA_NI: [usize; 2] = [3, 2];

/// Pieces in one job of the pool: one full set of the widest lanes, 8 MiB. Also the pieces in one window of a file that is
/// not mapped, of which two are in memory.
pub(super) const JOB_PIECES: u32 = 16;

/// Pieces in one window of an upload, 32 MiB: enough jobs to keep several threads busy beside the sequential
/// pass, few enough that a cold file's pages are still cached when the slower of the two reaches them.
pub(super) const WINDOW_PIECES: u32 = 64;

/// Most threads that hash pieces beside the sequential pass. Lanes are at least 1.2 times as fast as the
/// pass, so more threads would only wait for it.
pub(super) const POOL_MAX_THREADS: usize = 4;
