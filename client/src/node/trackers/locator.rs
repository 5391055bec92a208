//! Finds the trackers' addresses: those that `--trackers` names, else those in `tracker_info.txt` of the working or the
//! parent directory, else those of the last login.
//!
//! Always true: a file that is there is used or refused, never passed over. Host names are looked up at each connection.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use tracker::api::cluster_file::{self, FILE_NAME};

use crate::cli::trackers::{TrackerHost, TrackersOption};
use crate::exit::{ClientFault, ExitCause};
use crate::node::disk::state_dir;
use crate::plan::NodePlan;
use crate::printable::{escape_line, show_path};

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) struct TrackerLocator {
    named: Option<TrackersOption>,
    state: PathBuf,
}

/// The trackers that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundTrackers {
    hosts: Vec<TrackerHost>,
    source: TrackerSource,
}

/// Where addresses came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TrackerSource {
    /// `--trackers`, its environment variable, or the config file.
    Option,
    File(PathBuf),
    /// The last login.
    Remembered,
}

impl TrackerLocator {
    pub(crate) fn new(plan: &NodePlan) -> TrackerLocator {
        TrackerLocator { named: plan.trackers.clone(), state: plan.state.clone() }
    }

    /// The trackers to use now.
    ///
    /// # Errors
    /// A usage error when there are none, or a file is invalid.
    pub(crate) fn find(&self) -> Result<FoundTrackers, ClientFault> {
        match &self.named {
            Some(TrackersOption::Hosts(hosts)) => {
                Ok(FoundTrackers { hosts: hosts.clone(), source: TrackerSource::Option })
            }
            Some(TrackersOption::File(path)) => {
                check_named_file(path)?;
                read_file(path)
            }
            // The environment's file is in `named` already: `cli` reads the environment.
            None => match cluster_file::find_cluster_file(None, None, Path::is_file) {
                Ok(path) => read_file(&path),
                Err(missing) => self.find_remembered().ok_or_else(|| {
                    let fix = format!(
                        "name one: `--trackers HOST:PORT`, or write {FILE_NAME} with a line `IP PORT` for each tracker"
                    );
                    ClientFault::new(ExitCause::Usage, escape_line(&missing.to_string())).fix(fix)
                }),
            },
        }
    }

    fn find_remembered(&self) -> Option<FoundTrackers> {
        let text = state_dir::remembered_trackers(&self.state)?;
        let hosts: Vec<TrackerHost> = text.lines().filter_map(TrackerHost::parse).collect();
        (!hosts.is_empty()).then_some(FoundTrackers { hosts, source: TrackerSource::Remembered })
    }
}

impl FoundTrackers {
    /// The addresses, in order; names are looked up now.
    ///
    /// # Errors
    /// A message with each name and its error, if no name has an address.
    pub(crate) fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let (mut addresses, mut failures) = (Vec::new(), Vec::new());
        for tracker in &self.hosts {
            if let Ok(ip) = tracker.host().parse::<IpAddr>() {
                addresses.push(SocketAddr::new(ip, tracker.port()));
                continue;
            }
            match (tracker.host(), tracker.port()).to_socket_addrs() {
                Ok(found) => addresses.extend(found),
                Err(error) => failures.push(format!("{tracker}: {error}")),
            }
        }
        if addresses.is_empty() { Err(failures.join("; ")) } else { Ok(addresses) }
    }

    /// The form that the state directory keeps; `None` for those that it had.
    pub(super) fn to_remembered(&self) -> Option<String> {
        let lines = self.hosts.iter().map(|host| format!("{host}\n"));
        (self.source != TrackerSource::Remembered).then(|| lines.collect())
    }

    /// Where the addresses came from, in words.
    pub(crate) fn source(&self) -> String {
        match &self.source {
            TrackerSource::Option => "named by `--trackers`".to_owned(),
            TrackerSource::File(path) => format!("named by {}", show_path(path)),
            TrackerSource::Remembered => "of the last login".to_owned(),
        }
    }
}

fn read_file(path: &Path) -> Result<FoundTrackers, ClientFault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ClientFault { exit: ExitCause::Usage, ..ClientFault::io("read", path, &error) }.fix(NAME_THEM)
    })?;
    let addresses = cluster_file::parse_cluster_file(&text).map_err(|bad| {
        ClientFault::new(ExitCause::Usage, format!("{}: {}", show_path(path), escape_line(&bad.to_string())))
            .fix("fix that line, or name others: `--trackers HOST:PORT`")
    })?;
    // For messages: relative names mean another file to a reader in another directory.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let hosts = addresses.into_iter().map(TrackerHost::from).collect();
    Ok(FoundTrackers { hosts, source: TrackerSource::File(path) })
}

const NAME_THEM: &str =
    "name the trackers: `--trackers HOST:PORT`, or a file with a line `IP PORT` for each: `--trackers FILE`";

/// Checks that the named path is a regular file.
fn check_named_file(path: &Path) -> Result<(), ClientFault> {
    let shown = show_path(path);
    let message = match path.metadata() {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => format!("{shown} is a directory, not a file with trackers"),
        Ok(_) => format!("{shown} is not a regular file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("there is no file {shown}"),
        Err(error) => format!("cannot access {shown}: {error}"),
    };
    Err(ClientFault::new(ExitCause::Usage, message).fix(NAME_THEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(named: Option<&Path>, state: &Path) -> TrackerLocator {
        let named = named.map(|path| TrackersOption::parse(path).unwrap());
        TrackerLocator { named, state: state.to_owned() }
    }

    #[test]
    fn a_missing_or_invalid_file_is_a_usage_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        let find = |path: &Path| locator(Some(path), dir.path()).find();
        let fault = find(&path).unwrap_err();
        assert_eq!(fault.exit, ExitCause::Usage);
        assert!(fault.message.contains("t.txt"), "{fault}");
        let fault = find(dir.path()).unwrap_err();
        assert!(fault.exit == ExitCause::Usage && fault.message.contains("is a directory"), "{fault}");
        std::fs::write(&path, "127.0.0.1 8000\nnonsense\n").unwrap();
        let fault = find(&path).unwrap_err();
        assert!(fault.message.contains("line 2") && fault.message.contains("t.txt"), "{fault}");
        std::fs::write(&path, "127.0.0.1 8000\n").unwrap();
        let found = find(&path).unwrap();
        assert_eq!(found.resolve(), Ok(vec!["127.0.0.1:8000".parse().unwrap()]));
        assert!(found.source().to_string().ends_with("t.txt"));
    }

    #[test]
    fn names_are_looked_up_and_remembered_as_names() {
        let dir = tempfile::tempdir().unwrap();
        let found = locator(Some(Path::new("localhost:8000,[::1]:8001")), dir.path()).find().unwrap();
        let addresses = found.resolve().unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        assert!(addresses.len() >= 2 && addresses.contains(&"[::1]:8001".parse().unwrap()), "{addresses:?}");
        let text = found.to_remembered().unwrap();
        assert_eq!(text, "localhost:8000\n[::1]:8001\n");
        std::fs::write(dir.path().join("trackers"), text).unwrap();
        let remembered = locator(None, dir.path()).find_remembered().unwrap();
        assert_eq!((&remembered.hosts, remembered.to_remembered()), (&found.hosts, None));
    }
}
