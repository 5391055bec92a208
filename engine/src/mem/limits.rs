//! Every number of the fence, with its unit, its owner and its reason.

/// Most files mapped at once, in this process. A quarter of the 65,530 mappings that Linux allows by default
/// (`vm.max_map_count`): pages that replace a lost file's take mappings too.
pub const MAPPINGS_MAX: usize = 16_384;

/// Most parts that one send takes: frames and pieces of one batch. Far below the kernel's 1,024 (`UIO_MAXIOV`), and
/// small enough for the stack.
pub const SEND_PARTS_MAX: usize = 64;

/// Sends of one worker that the kernel may be at, or hold pages of, by its side ring; more go the ordinary way. In pieces of
/// the usual length they are 32 MiB, many times what a connection has on its way.
pub const SIDE_RING_SENDS_MAX: u32 = 64;

/// So often a side ring tries a submission, a millisecond apart, for which the kernel has no memory: a second, after which it has
/// none for the rest of the machine either.
pub const SUBMIT_TRIES_MAX: u32 = 1_000;
