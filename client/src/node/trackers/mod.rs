//! The node's side of the control protocol: one connection, requests answered in order.
//!
//! ```text
//!   tracker_info.txt ──► tracker_addresses ──► connection (TCP, to the first that accepts)
//!                                                 ▲
//!   the node's threads ──► client (session, request ids, reconnecting) ── refusal ──► ClientFault
//! ```
//!
//! Requests and answers are `tracker::api`'s types; this module writes no JSON of the control protocol itself.

mod client;
mod connection;
mod refusal;

use std::net::SocketAddr;
use std::path::Path;

use tracker::api::cluster_file::{self, FILE_NAME};

use crate::exit::{ClientFault, ExitCause};

pub(crate) use client::{RequestUrgency, TrackerClient, ping_tracker};

/// The addresses in the file `named`, or in the one found from the working directory.
///
/// # Errors
/// A usage error when there is no file or it is invalid.
pub(crate) fn tracker_addresses(named: Option<&Path>) -> Result<Vec<SocketAddr>, ClientFault> {
    if let Some(named) = named {
        check_named(named)?;
    }
    // The environment's file is in `named` already: `cli` reads the environment.
    let path = cluster_file::find_cluster_file(named, None, Path::is_file).map_err(|missing| {
        let fix = format!(
            "write one with a line `IP PORT` for each tracker, or name it: `--trackers FILE` ({FILE_NAME})"
        );
        ClientFault::new(ExitCause::Usage, missing.to_string()).fix(fix)
    })?;
    let text = std::fs::read_to_string(&path).map_err(|error| {
        ClientFault { exit: ExitCause::Usage, ..ClientFault::io("read", &path, &error) }.fix(NAME_IT)
    })?;
    cluster_file::parse_cluster_file(&text).map_err(|bad| {
        ClientFault::new(ExitCause::Usage, format!("{}: {bad}", path.display()))
            .fix("fix that line, or `--trackers FILE`")
    })
}

const NAME_IT: &str = "name a file with a line `IP PORT` for each tracker: `--trackers FILE`";

/// Checks that the named path is a regular file.
fn check_named(path: &Path) -> Result<(), ClientFault> {
    let shown = path.display();
    let message = match path.metadata() {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => format!("{shown} is a directory, not a file with trackers"),
        Ok(_) => format!("{shown} is not a regular file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("there is no file {shown}"),
        Err(error) => format!("cannot access {shown}: {error}"),
    };
    Err(ClientFault::new(ExitCause::Usage, message).fix(NAME_IT))
}

/// No tracker can be reached; `tried` lists the addresses and errors.
pub(crate) fn no_tracker_fault(tried: &str) -> ClientFault {
    ClientFault::new(ExitCause::NoTracker, format!("no tracker can be reached ({tried})"))
        .fix("start one with `tracker`, or name the right addresses with `--trackers FILE`; `client doctor` shows details")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_invalid_file_is_a_usage_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        let fault = tracker_addresses(Some(&path)).unwrap_err();
        assert_eq!(fault.exit, ExitCause::Usage);
        assert!(fault.message.contains("t.txt"), "{fault}");
        let fault = tracker_addresses(Some(dir.path())).unwrap_err();
        assert!(fault.exit == ExitCause::Usage && fault.message.contains("is a directory"), "{fault}");
        std::fs::write(&path, "127.0.0.1 8000\nnonsense\n").unwrap();
        let fault = tracker_addresses(Some(&path)).unwrap_err();
        assert!(fault.message.contains("line 2") && fault.message.contains("t.txt"), "{fault}");
        std::fs::write(&path, "127.0.0.1 8000\n").unwrap();
        assert_eq!(tracker_addresses(Some(&path)), Ok(vec!["127.0.0.1:8000".parse().unwrap()]));
    }
}
