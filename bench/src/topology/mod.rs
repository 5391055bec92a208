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
pub(crate) mod descendants;
mod limits;
pub(crate) mod netns;
pub(crate) mod other_load;
pub(crate) mod parent_death;
pub(crate) mod private_net;
pub(crate) mod shoal;
pub(crate) mod shutdown;
pub(crate) mod spawned;
pub(crate) mod test_file;
pub(crate) mod usage;
pub(crate) mod warm_up;

pub(crate) use limits::{COLD_CACHED_MAX, ROUND_MAX_S, ROUND_SLOWEST_BYTES_PER_S, SEEDERS_BACK_MS};
