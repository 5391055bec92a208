//! `bench host`: the machine, with the filesystem that runs would use, for people or as records.

use crate::cli::HostArgs;
use crate::host::HostDescription;
use crate::report;
use crate::results::sink::{RecordOutput, RecordSink};
use crate::topology::test_file;

/// Looks and tells.
pub(crate) fn run_host(args: &HostArgs) -> anyhow::Result<()> {
    let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let host = HostDescription {
        filesystem: Some(test_file::describe_filesystem(&folder)?),
        ..HostDescription::describe()
    };
    report::print_host_alone(&host, args.json)?;
    if args.out.is_some() {
        let wanted = RecordOutput { json: false, folder: args.out.clone() };
        RecordSink::begin_on(host, wanted, "host", None, &[])?.finish()?;
        args.out.as_deref().map_or(Ok(()), report::draw_page)?;
    }
    Ok(())
}
