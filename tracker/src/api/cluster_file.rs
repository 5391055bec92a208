//! Parses and locates `tracker_info.txt`, which lists the addresses of a cluster's trackers, one a line.
//!
//! A line is `IP PORT`, `IP:PORT` or `[IPv6]:PORT`; `#` starts a comment. Port 0 lets the system choose a port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::address::{self, BadAddress};

/// Name of the file in the current or the parent directory.
pub const FILE_NAME: &str = "tracker_info.txt";

/// Environment variable that holds the path of the file.
pub const TRACKERS_VARIABLE: &str = "SHOAL_TRACKERS";

/// Why a text is not a cluster file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum BadClusterFile {
    /// A line is neither an address nor a comment.
    #[error("line {line}: `{text}`: {problem}. A line is `IP PORT`, `IP:PORT` or `[IPv6]:PORT`")]
    BadLine { line: usize, text: String, problem: BadAddress },
    /// Two lines have the same address.
    #[error("line {line}: {address} is listed twice")]
    ListedTwice { line: usize, address: SocketAddr },
    /// The file has no address.
    #[error("the file names no tracker. Write one a line, such as `127.0.0.1 8000`")]
    NoTracker,
}

/// Reads the addresses of a cluster, in the order of the lines.
///
/// # Errors
/// [`BadClusterFile`] names the line.
pub fn parse_cluster_file(text: &str) -> Result<Vec<SocketAddr>, BadClusterFile> {
    let mut trackers: Vec<SocketAddr> = Vec::new();
    for (index, full_line) in text.trim_start_matches('\u{FEFF}').lines().enumerate() {
        let line = index + 1;
        let entry = full_line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let address = parse_line(entry).map_err(|problem| BadClusterFile::BadLine {
            line,
            text: entry.to_owned(),
            problem,
        })?;
        if address.port() != 0 && trackers.contains(&address) {
            return Err(BadClusterFile::ListedTwice { line, address });
        }
        trackers.push(address);
    }
    if trackers.is_empty() { Err(BadClusterFile::NoTracker) } else { Ok(trackers) }
}

fn parse_line(entry: &str) -> Result<SocketAddr, BadAddress> {
    let (ip, port) = match entry.split_once(char::is_whitespace) {
        Some((ip, port)) => (ip, port.trim()),
        None => entry.rsplit_once(':').ok_or(BadAddress::NotAnIp)?,
    };
    // In `::1:8000` the port cannot be told from the address, so brackets are required.
    let is_ambiguous = ip.contains(':') && !ip.starts_with('[') && !entry.contains(char::is_whitespace);
    if is_ambiguous {
        return Err(BadAddress::NotAnIp);
    }
    let port = if port == "0" { 0 } else { address::parse_port(port)? };
    Ok(SocketAddr::new(address::parse_ip(ip)?, port))
}

/// No cluster file was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {FILE_NAME} found: looked for {}", .looked_for.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", "))]
pub struct NoClusterFile {
    /// The paths that were tried, in order.
    pub looked_for: Vec<PathBuf>,
}

/// Finds the cluster file: the path `given` on the command line, else the path in the environment `variable`, else
/// [`FILE_NAME`] in the current or the parent directory. A path that is given in either way must exist. `exists` tells
/// whether a path is a file.
///
/// # Errors
/// [`NoClusterFile`] lists the paths that were tried.
pub fn find_cluster_file(
    given: Option<&Path>,
    variable: Option<&Path>,
    exists: impl Fn(&Path) -> bool,
) -> Result<PathBuf, NoClusterFile> {
    let candidates = match given.or(variable) {
        Some(named) => vec![named.to_owned()],
        None => vec![Path::new(".").join(FILE_NAME), Path::new("..").join(FILE_NAME)],
    };
    match candidates.iter().find(|path| exists(path)) {
        Some(found) => Ok(found.clone()),
        None => Err(NoClusterFile { looked_for: candidates }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_is_read() {
        let text =
            "# a cluster\n127.0.0.1 8000\n127.0.0.1:8001 # second\n\n[::1]:8002\n::1\t8003\r\n10.0.0.1 0\n";
        let trackers = parse_cluster_file(text).unwrap();
        let shown: Vec<String> = trackers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:8000", "127.0.0.1:8001", "[::1]:8002", "[::1]:8003", "10.0.0.1:0"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, wanted) in [
            ("127.0.0.1 8000\nlocalhost 8001", "line 2: `localhost 8001`"),
            ("127.0.0.1", "line 1"),
            ("127.0.0.1 8000 9000", "line 1"),
            ("127.0.0.1:99999", "a port is"),
            ("::1:8000", "line 1"),
            ("127.0.0.1 8000\n127.0.0.1:8000", "line 2: 127.0.0.1:8000 is listed twice"),
            ("# nothing\n", "no tracker"),
        ] {
            let error = parse_cluster_file(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn the_command_line_comes_before_variable_and_directories() {
        let only = |present: &'static str| move |path: &Path| path == Path::new(present);
        let find_at = |given: Option<&str>, variable: Option<&str>, present| {
            find_cluster_file(given.map(Path::new), variable.map(Path::new), only(present))
        };
        assert_eq!(find_at(Some("a"), Some("b"), "a"), Ok("a".into()));
        assert_eq!(find_at(None, Some("b"), "b"), Ok("b".into()));
        assert_eq!(find_at(None, None, "./tracker_info.txt"), Ok("./tracker_info.txt".into()));
        assert_eq!(find_at(None, None, "../tracker_info.txt"), Ok("../tracker_info.txt".into()));
        let missing = find_at(Some("a"), None, "./tracker_info.txt").unwrap_err();
        assert_eq!(missing.looked_for, [PathBuf::from("a")], "a named file is not replaced by another");
    }
}
