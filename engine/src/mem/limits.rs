//! Every number of the fence, with its unit, its owner and its reason.

/// Most files mapped at once in this process: a quarter of the 65,530 mappings that Linux allows by default
/// (`vm.max_map_count`). The pages that replace lost ones take mappings too.
pub const MAPPINGS_MAX: usize = 16_384;

/// Most parts of one send: the frames and pieces of a batch. Far below the kernel's 1,024 (`UIO_MAXIOV`), and
/// small enough for the stack.
pub const SEND_PARTS_MAX: usize = 64;

/// Most zero-copy sends in flight on one worker's side ring; further sends go the ordinary way. In pieces
/// this is 32 MiB, many times what a connection has in flight.
pub const SIDE_RING_SENDS_MAX: u32 = 64;

/// Attempts to submit to a side ring, a millisecond apart, while the kernel has no memory. After a second the
/// whole machine is out of memory.
pub const SUBMIT_TRIES_MAX: u32 = 1_000;
