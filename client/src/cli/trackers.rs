//! The value of `--trackers`: a file, or addresses as `HOST:PORT,HOST:PORT`.
//!
//! Addresses are told from a path by their form alone: `./host:8000` names a file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A tracker's address, by name or by IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrackerHost {
    host: String,
    port: u16,
}

/// What `--trackers` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrackersOption {
    File(PathBuf),
    /// At least one.
    Hosts(Vec<TrackerHost>),
}

impl TrackersOption {
    /// Reads the typed value.
    ///
    /// # Errors
    /// A message for users when only some of several addresses are `HOST:PORT`.
    pub(crate) fn parse(typed: &Path) -> Result<TrackersOption, String> {
        let file = || TrackersOption::File(typed.to_owned());
        let Some(text) = typed.to_str().filter(|text| !text.contains('/')) else { return Ok(file()) };
        let entries = || text.split(',').map(str::trim);
        let hosts: Vec<Option<TrackerHost>> = entries().map(TrackerHost::parse).collect();
        if hosts.iter().all(Option::is_none) {
            return Ok(file());
        }
        match entries().zip(&hosts).find(|(_, host)| host.is_none()) {
            None => Ok(TrackersOption::Hosts(hosts.into_iter().flatten().collect())),
            Some((wrong, _)) => {
                Err(format!("`{wrong}` is not an address of a tracker; write HOST:PORT,HOST:PORT"))
            }
        }
    }
}

impl TrackerHost {
    /// Parses `HOST:PORT` or `[IPv6]:PORT`. A port is never 0.
    pub(crate) fn parse(text: &str) -> Option<TrackerHost> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_valid = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
        };
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| is_valid && is_number && *port != 0)?;
        Some(TrackerHost { host: bare.unwrap_or(host).to_owned(), port })
    }

    /// The host's name or IP.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for TrackerHost {
    fn from(address: SocketAddr) -> TrackerHost {
        TrackerHost { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for TrackerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_files_are_told_apart() {
        for (typed, shown) in [
            ("10.0.0.1:8000", "10.0.0.1:8000"),
            ("tracker.example.org:8000, 10.0.0.2:8001", "tracker.example.org:8000 10.0.0.2:8001"),
            ("[2001:db8::1]:8000", "[2001:db8::1]:8000"),
            ("localhost:1", "localhost:1"),
        ] {
            let Ok(TrackersOption::Hosts(hosts)) = TrackersOption::parse(Path::new(typed)) else {
                panic!("{typed}")
            };
            assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), shown);
        }
        for file in
            ["tracker_info.txt", "./host:8000", "/etc/t:80", "::1:8000", "host:0", "host:99999", "a,b"]
        {
            assert_eq!(
                TrackersOption::parse(Path::new(file)),
                Ok(TrackersOption::File(file.into())),
                "{file}"
            );
        }
        let fault = TrackersOption::parse(Path::new("host:8000,other")).unwrap_err();
        assert!(fault.contains("`other`"), "{fault}");
    }
}
