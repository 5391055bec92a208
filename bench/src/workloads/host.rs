//! `bench host`: the machine, with the filesystem that runs would use, for people or as records.

use crate::cli::HostArgs;
use crate::host::Host;
use crate::report;
use crate::results::sink::{Sink, Wanted};
use crate::topology::content;

/// Looks and tells.
pub(crate) fn run(args: &HostArgs) -> anyhow::Result<()> {
    let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let host = Host { filesystem: Some(content::filesystem(&folder)?), ..Host::read() };
    report::print_host_alone(&host, args.json)?;
    if args.out.is_some() {
        let wanted = Wanted { json: false, folder: args.out.clone() };
        Sink::begin_on(host, wanted, "host", None, &[])?.end()?;
        args.out.as_deref().map_or(Ok(()), report::draw_page)?;
    }
    Ok(())
}
