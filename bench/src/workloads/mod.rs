//! The benchmarks, one file or folder each.
//!
//! ```text
//!   hash      every hashing implementation, compared with one pass of the sha1 crate
//!   transfer  a file from seeders to leechers, compared with baseline and rivals
//!   compare   the same transfer with two builds or two settings
//!   tracker   a tracker under load, at a fixed rate and at its maximum
//!   swarm     many hosts with limited uplinks, compared with the theoretical limit
//!   run_host  a description of the machine
//! ```
//!
//! Each takes its arguments, measures, writes records to a sink and hands the sink to the report. A new benchmark is a
//! file here, its arguments in `cli`, and a line in `main`.

pub(crate) mod compare;
pub(crate) mod hash;
pub(crate) mod swarm;
pub(crate) mod tracker;
pub(crate) mod transfer;

use crate::cli::HostArgs;
use crate::host::HostDescription;
use crate::report;
use crate::results::sink::{RecordOutput, RecordSink};
use crate::topology::test_file;

/// Runs `bench host`: prints a description of the machine, and keeps it as a record if asked.
pub(crate) fn run_host(args: &HostArgs) -> anyhow::Result<()> {
    let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let filesystem = test_file::describe_filesystem(&folder)?;
    let host = HostDescription { filesystem: Some(filesystem), ..HostDescription::describe() };
    report::print_host_alone(&host, args.json)?;
    if let Some(out) = &args.out {
        let output = RecordOutput { json: false, folder: Some(out.clone()) };
        RecordSink::begin_on(host, output, "host", None, &[])?.finish()?;
        report::draw_page(out)?;
    }
    Ok(())
}
