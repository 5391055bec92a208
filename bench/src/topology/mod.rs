//! What a transfer is measured in: processes, the file that they move, the network between them, and what they use.
//!
//! ```text
//!   workloads ─► shoal ──► spawned   a child process, ended by its id ─► tied  ended by the kernel if the harness is killed
//!            │     └─────► binaries  which programs
//!            ├─► private_net  a network of its own for the whole run, with one congestion control for all
//!            ├─► netns        hosts on a bridge, each with a limited uplink
//!            ├─► content      the file, its SHA-1, and whether it is cached
//!            ├─► usage        CPU time and memory of processes, from /proc
//!            ├─► load         what else the machine did meanwhile
//!            ├─► ending       nothing is left behind, whatever signal but SIGKILL ends the run
//!            ├─► descendants  whom a signal reaches
//!            └─► warm         memory that is touched and given back before it counts
//!   limits: the numbers
//! ```

pub(crate) mod binaries;
pub(crate) mod content;
pub(crate) mod descendants;
pub(crate) mod ending;
mod limits;
pub(crate) mod load;
pub(crate) mod netns;
pub(crate) mod private_net;
pub(crate) mod shoal;
pub(crate) mod spawned;
pub(crate) mod tied;
pub(crate) mod usage;
pub(crate) mod warm;

pub(crate) use limits::{AWAKE_MS, COLD_MAX, ROUND_MAX_S, ROUND_SLOWEST_BYTES_PER_S};
