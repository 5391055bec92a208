//! Options: on the command line before or after the command, in the environment, and in the config file.
//!
//! An option that was not given is `None`, or 0 for `verbose`: `plan` alone decides precedence and defaults. Flags are
//! set by `--name` or `--name=true` and unset by `--name=false`.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::rate;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColorOption {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// I/O back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackendOption {
    /// io_uring where it is allowed, else epoll.
    #[default]
    Auto,
    /// io_uring, or fail.
    Uring,
    /// epoll.
    Epoll,
}

/// When to send pieces without a copy in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ZeroCopyOption {
    /// To peers on other machines, while the kernel really avoids the copy.
    #[default]
    Auto,
    /// Never.
    Off,
    /// To every peer, even if the kernel copies.
    Always,
}

/// A listen address with an optional port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    pub(crate) ip: IpAddr,
    /// `None` reuses the previous port if it is free.
    pub(crate) port: Option<u16>,
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(ListenAddress { ip: address.ip(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let ip = bare.parse().map_err(|_| "expected an address: IP or IP:PORT".to_owned())?;
        Ok(ListenAddress { ip, port: None })
    }
}

/// All options.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[command(next_help_heading = "Options")]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientOptions {
    /// The trackers: HOST:PORT,HOST:PORT or a file with their addresses [default: ./tracker_info.txt, then
    /// ../tracker_info.txt, then those of the last login]
    #[arg(long, value_name = "TRACKERS", env = "SHOAL_TRACKERS", global = true)]
    pub(crate) trackers: Option<PathBuf>,
    /// Directory for session, node key, lock and socket [default: $XDG_STATE_HOME/shoal]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE", global = true)]
    pub(crate) state: Option<PathBuf>,
    /// Config file with these options in TOML [default: $XDG_CONFIG_HOME/shoal/config.toml]
    #[arg(long, value_name = "FILE", env = "SHOAL_CONFIG", global = true)]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Node: address to listen on for peers [default: all addresses, and the same port as last time]
    #[arg(long, value_name = "IP[:PORT]", env = "SHOAL_LISTEN", global = true)]
    #[serde(deserialize_with = "from_text")]
    pub(crate) listen: Option<ListenAddress>,
    /// Node: loopback address to announce to the trackers; other addresses are not supported in this version
    #[arg(long, value_name = "IP", env = "SHOAL_ADVERTISE", global = true)]
    pub(crate) advertise: Option<IpAddr>,
    /// Print one JSON object for a short command, one event per line for a long one
    #[arg(long, env = "SHOAL_JSON", global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) json: Option<bool>,
    /// Print neither progress nor notes
    #[arg(long, short, env = "SHOAL_QUIET", global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) quiet: Option<bool>,
    /// Log more to stderr; give it twice for debug output
    #[arg(long, short, env = "SHOAL_VERBOSE", global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Replace an existing file that differs
    #[arg(long, env = "SHOAL_OVERWRITE", global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) overwrite: Option<bool>,
    /// Seconds that a download may stay paused or without progress, and that uploads and downloads wait for a tracker [default: 60]
    #[arg(long, value_name = "SECONDS", env = "SHOAL_WAIT", global = true)]
    pub(crate) wait: Option<u64>,
    /// Node: upload limit in bytes a second (`10MiB`, `1G`)
    #[arg(long, value_name = "RATE", env = "SHOAL_LIMIT_UP", global = true, value_parser = rate::parse_rate)]
    #[serde(deserialize_with = "rate_from_text")]
    pub(crate) limit_up: Option<NonZeroU64>,
    /// Node: download limit in bytes a second (`10MiB`, `1G`)
    #[arg(long, value_name = "RATE", env = "SHOAL_LIMIT_DOWN", global = true, value_parser = rate::parse_rate)]
    #[serde(deserialize_with = "rate_from_text")]
    pub(crate) limit_down: Option<NonZeroU64>,
    /// Node: I/O back end [default: auto]
    #[arg(long, value_name = "BACKEND", env = "SHOAL_IO", global = true, value_enum)]
    pub(crate) io: Option<BackendOption>,
    /// Node: send pieces without a copy in the kernel [default: auto]
    #[arg(long, value_name = "WHEN", env = "SHOAL_ZERO_COPY", global = true, value_enum)]
    pub(crate) zero_copy: Option<ZeroCopyOption>,
    /// Node: SHA-1 implementation: auto, avx512, avx2, sha_ni or asm [default: auto]
    #[arg(long, value_name = "KIND", env = "SHOAL_HASH", global = true)]
    pub(crate) hash: Option<String>,
    /// Read the password from the first line of this file (`change_password`: the new one from its second)
    #[arg(long, value_name = "FILE", env = "SHOAL_PASSWORD_FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// When to use colours [default: auto]
    #[arg(long, value_name = "WHEN", env = "SHOAL_COLOR", global = true, value_enum)]
    pub(crate) color: Option<ColorOption>,
}

/// Options of a prompt line.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PromptOptions {
    /// Replace an existing file that differs.
    #[arg(long, global = true)]
    pub(crate) overwrite: bool,
    /// Read the password from the first line of this file.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// One JSON object a command.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ClientOptions {
    /// Takes each option that was not given from `other`. Of two `verbose` counts, the higher one counts.
    pub(crate) fn or(self, other: ClientOptions) -> ClientOptions {
        ClientOptions {
            trackers: self.trackers.or(other.trackers),
            state: self.state.or(other.state),
            config: self.config.or(other.config),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            json: self.json.or(other.json),
            quiet: self.quiet.or(other.quiet),
            verbose: self.verbose.max(other.verbose),
            overwrite: self.overwrite.or(other.overwrite),
            wait: self.wait.or(other.wait),
            limit_up: self.limit_up.or(other.limit_up),
            limit_down: self.limit_down.or(other.limit_down),
            io: self.io.or(other.io),
            zero_copy: self.zero_copy.or(other.zero_copy),
            hash: self.hash.or(other.hash),
            password_file: self.password_file.or(other.password_file),
            color: self.color.or(other.color),
        }
    }
}

fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn rate_from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    rate::parse_rate(&text).map(Some).map_err(serde::de::Error::custom)
}
