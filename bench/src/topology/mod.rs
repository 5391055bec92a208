//! The environment of a run: programs, the transferred file, the network, and measurements of CPU time and memory.
//!
//! ```text
//!   workloads ─► shoal ──► spawned   a child process, ended on drop ─► parent_death  the kernel kills it with the harness
//!            │     └─────► binaries  locates the programs
//!            ├─► private_net  a network namespace for the run, with one congestion control for all
//!            ├─► netns        hosts on a bridge, each with a limited uplink
//!            ├─► test_file    the file, its SHA-1, and its state in the page cache
//!            ├─► usage        CPU time and memory of processes, from /proc
//!            ├─► other_load   CPU time of everything outside the run
//!            ├─► shutdown     cleans up after a signal
//!            ├─► descendants  finds and signals child processes
//!            └─► warm_up      touches memory before it is measured
//! ```

pub(crate) mod binaries;
pub(crate) mod descendants;
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
