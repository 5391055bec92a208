//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Shoal's tracker: users, groups, files and who has what. File bytes never pass through it.
#[derive(Debug, Parser)]
#[command(name = "tracker", version, args_conflicts_with_subcommands = true)]
pub(crate) struct TrackerCli {
    /// A command other than serving.
    #[command(subcommand)]
    pub(crate) action: Option<TrackerSubcommand>,

    /// The file with the tracker's address, `IP PORT` [default: ./tracker_info.txt or ../tracker_info.txt]
    ///
    /// It may have more lines, but this version founds a cluster only on the first.
    pub(crate) file: Option<PathBuf>,

    /// Serve the Nth address of the file, counted from 1 without comments [default: the first that is an
    /// address of this machine and not taken]
    pub(crate) number: Option<usize>,

    /// The same as FILE; without either, $SHOAL_TRACKERS names the file
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) trackers: Option<PathBuf>,

    /// Directory with the tracker's log: users, groups, file lists and the cluster's key
    #[arg(long, value_name = "DIR", default_value = "tracker_data")]
    pub(crate) data: PathBuf,

    /// Connections that one address may have (of IPv6: one /64) [default: a quarter of all with a login, and an eighth
    /// without]
    ///
    /// For many clients behind one address, or on the tracker's own machine.
    #[arg(long, value_name = "N")]
    pub(crate) connections_per_address: Option<NonZeroUsize>,

    /// Seconds to wait at the start for an address that this machine does not have yet, and for a port or data that
    /// another program still holds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u32,

    /// Found a cluster although other lines of the file do not answer; only if no tracker there has a log
    #[arg(long)]
    pub(crate) found: bool,
}

/// Commands other than serving.
#[derive(Debug, Subcommand)]
pub(crate) enum TrackerSubcommand {
    /// Print log and state as JSON lines, without passwords and keys; the tracker must not be running
    Inspect {
        /// Directory with the tracker's log
        #[arg(long, value_name = "DIR", default_value = "tracker_data")]
        data: PathBuf,
    },
    /// Ask each tracker of the file for its status; exit code 7 when none answers
    Status {
        /// The file with the trackers, one `IP PORT` per line
        file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_numbers_and_commands_are_distinguished() {
        use clap::CommandFactory as _;
        TrackerCli::command().debug_assert();
        let parse = |words: &[&str]| TrackerCli::try_parse_from([&["tracker"], words].concat());
        assert!(parse(&[]).unwrap().file.is_none());
        let nth = parse(&["info.txt", "2"]).unwrap();
        assert_eq!((nth.file, nth.number), (Some("info.txt".into()), Some(2)));
        assert!(matches!(
            parse(&["status", "x"]).unwrap().action,
            Some(TrackerSubcommand::Status { file: Some(_) })
        ));
        assert!(parse(&["info.txt", "two"]).is_err());
        assert!(parse(&["a", "1", "b"]).is_err());
    }
}
