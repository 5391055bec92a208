//! Joins the command line with the config file and the defaults.
//!
//! Precedence for every option: command line, environment (both read by `cli`), config file, default. After this module no
//! code reads the environment, and every path is absolute.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::config::{IoChoice, ZeroCopyChoice};
use engine::hash::{HashKind, UnknownKind, UnsupportedKind};

use crate::cli::CommandLine;
use crate::cli::command::ClientCommand;
use crate::cli::options::{BackendOption, ClientOptions, ColorOption, ListenAddress, ZeroCopyOption};
use crate::cli::trackers::TrackersOption;
use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::printable::show_path;

/// Environment and working directory of the process.
pub(crate) struct ClientEnvironment<'a> {
    pub(crate) var: &'a dyn Fn(&str) -> Option<OsString>,
    pub(crate) directory: PathBuf,
}

/// Options for the node, used if this process becomes one.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// State directory.
    pub(crate) state: PathBuf,
    /// Trackers given by option; `None` searches from the working directory.
    pub(crate) trackers: Option<TrackersOption>,
    /// Listen address for peers; `None` means all addresses.
    pub(crate) listen: Option<ListenAddress>,
    /// Loopback address announced to the trackers.
    pub(crate) advertise: Option<IpAddr>,
    pub(crate) io: IoChoice,
    pub(crate) zero_copy: ZeroCopyChoice,
    /// SHA-1 implementation; `None` selects the fastest one.
    pub(crate) hash: Option<HashKind>,
    /// Upload limit in bytes a second.
    pub(crate) limit_up: Option<NonZeroU64>,
    /// Download limit in bytes a second.
    pub(crate) limit_down: Option<NonZeroU64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputPlan {
    pub(crate) json: bool,
    /// Neither progress nor notes.
    pub(crate) quiet: bool,
    pub(crate) color: ColorOption,
}

/// All options of this process, resolved.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) node: NodePlan,
    pub(crate) directory: PathBuf,
    pub(crate) output: OutputPlan,
    pub(crate) overwrite: bool,
    /// How long a download on the command line may stay paused or without progress.
    pub(crate) wait: Duration,
    pub(crate) password_file: Option<PathBuf>,
    /// Log level: 0 warnings, 1 info, 2 or more debug.
    pub(crate) verbose: u8,
    /// Node options on the command line. They are refused when another process is the node.
    pub(crate) typed_node_options: Vec<&'static str>,
    /// Why the config file was not used. Only `doctor` goes on without it, and reports this.
    pub(crate) config_fault: Option<ClientFault>,
}

impl ClientPlan {
    /// Joins the command line with the config file and the defaults.
    ///
    /// # Errors
    /// Usage error for a config file that is missing or invalid, an unknown SHA-1 implementation, or when no state directory can
    /// be determined. Exit 10 for a config file that cannot be read.
    pub(crate) fn resolve(cli: &CommandLine, env: &ClientEnvironment<'_>) -> Result<ClientPlan, ClientFault> {
        let (config, config_fault) = match read_config_file(cli.options.config.as_deref(), env) {
            Err(fault) if matches!(cli.command, Some(ClientCommand::Doctor)) => {
                (ClientOptions::default(), Some(fault))
            }
            config => (config?, None),
        };
        let options = cli.options.clone().or(config);
        let absolute = |path: &PathBuf| env.directory.join(path);
        let state = match &options.state {
            Some(state) => absolute(state),
            None => default_state_dir(env)?,
        };
        let trackers = options.trackers.as_deref().map(|typed| read_trackers(typed, env)).transpose()?;
        check_advertised(options.advertise)?;
        let hash = match options.hash.as_deref() {
            None | Some("auto") => None,
            Some(name) => Some(parse_hash_kind(name)?),
        };
        let no_color = (env.var)("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(ClientPlan {
            node: NodePlan {
                state,
                trackers,
                listen: options.listen,
                advertise: options.advertise,
                io: match options.io.unwrap_or_default() {
                    BackendOption::Auto => IoChoice::Auto,
                    BackendOption::Uring => IoChoice::Uring,
                    BackendOption::Epoll => IoChoice::Epoll,
                },
                zero_copy: match options.zero_copy.unwrap_or_default() {
                    ZeroCopyOption::Auto => ZeroCopyChoice::Auto,
                    ZeroCopyOption::Off => ZeroCopyChoice::Off,
                    ZeroCopyOption::Always => ZeroCopyChoice::Always,
                },
                hash,
                limit_up: options.limit_up,
                limit_down: options.limit_down,
            },
            directory: env.directory.clone(),
            output: OutputPlan {
                json: options.json.unwrap_or(false),
                quiet: options.quiet.unwrap_or(false),
                color: options.color.unwrap_or(if no_color { ColorOption::Never } else { ColorOption::Auto }),
            },
            overwrite: options.overwrite.unwrap_or(false),
            wait: Duration::from_secs(options.wait.unwrap_or(limits::WAIT_DEFAULT_S)),
            password_file: options.password_file.as_ref().map(absolute),
            verbose: options.verbose,
            typed_node_options: cli.typed_node_options.clone(),
            config_fault,
        })
    }
}

fn read_trackers(typed: &Path, env: &ClientEnvironment<'_>) -> Result<TrackersOption, ClientFault> {
    match TrackersOption::parse(typed) {
        Ok(TrackersOption::File(path)) => Ok(TrackersOption::File(env.directory.join(path))),
        Ok(hosts) => Ok(hosts),
        Err(wrong) => Err(ClientFault::new(ExitCause::Usage, format!("--trackers: {wrong}"))
            .fix("`--trackers HOST:PORT,HOST:PORT`, or `--trackers FILE`")),
    }
}

/// Trackers accept an advertised address only between loopback addresses. Any other one would be ignored, and peers would
/// look for the node elsewhere.
fn check_advertised(advertised: Option<IpAddr>) -> Result<(), ClientFault> {
    match advertised {
        Some(address) if !address.is_loopback() => Err(ClientFault::new(
            ExitCause::Usage,
            format!(
                "--advertise {address}: in this version trackers tell peers the address that a node's connection comes from, \
                 and accept another one only on loopback"
            ),
        )
        .fix("leave `--advertise` out; peers must reach this machine at the address that the tracker sees")),
        _ => Ok(()),
    }
}

fn parse_hash_kind(name: &str) -> Result<HashKind, ClientFault> {
    let fault = |message: String| ClientFault::new(ExitCause::Usage, message).fix("--hash auto");
    let kind: HashKind = name.parse().map_err(|unknown: UnknownKind| fault(unknown.to_string()))?;
    if kind.is_supported() { Ok(kind) } else { Err(fault(UnsupportedKind { kind }.to_string())) }
}

fn read_config_file(named: Option<&Path>, env: &ClientEnvironment<'_>) -> Result<ClientOptions, ClientFault> {
    let path = match named {
        Some(path) => env.directory.join(path),
        None => match xdg_base_dir(env, "XDG_CONFIG_HOME", ".config") {
            Some(home) => home.join("shoal/config.toml"),
            None => return Ok(ClientOptions::default()),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
            return Ok(ClientOptions::default());
        }
        Err(error) => {
            let fix = "name another file with `--config FILE`, or fix this one";
            let exit =
                if error.kind() == ErrorKind::NotFound { ExitCause::Usage } else { ExitCause::LocalIo };
            return Err(
                ClientFault { exit, ..ClientFault::io("read the config file", &path, &error) }.fix(fix)
            );
        }
    };
    toml::from_str(&text).map_err(|error| {
        ClientFault::new(
            ExitCause::Usage,
            format!("the config file {} is invalid: {error}", show_path(&path)),
        )
        .fix("its keys are the long options with `_` for `-`: `limit_up = \"10MiB\"`, `json = true`")
    })
}

fn default_state_dir(env: &ClientEnvironment<'_>) -> Result<PathBuf, ClientFault> {
    xdg_base_dir(env, "XDG_STATE_HOME", ".local/state").map(|home| home.join("shoal")).ok_or_else(|| {
        ClientFault::new(
            ExitCause::Usage,
            "no state directory is known: neither XDG_STATE_HOME nor HOME is set",
        )
        .fix("name one: `--state DIR`")
    })
}

/// XDG base directory: the variable when it is an absolute path, else a directory below `$HOME`.
fn xdg_base_dir(env: &ClientEnvironment<'_>, variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = (env.var)(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || (env.var)("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| home().map(|home| home.join(below_home)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn plan(line: &str, vars: &[(&str, &str)], directory: &Path) -> Result<ClientPlan, ClientFault> {
        let arguments = std::iter::once("client").chain(line.split_whitespace()).map(OsString::from);
        let vars: HashMap<String, OsString> =
            vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let var = |name: &str| vars.get(name).cloned();
        ClientPlan::resolve(
            &CommandLine::read(arguments).unwrap(),
            &ClientEnvironment { var: &var, directory: directory.to_owned() },
        )
    }

    #[test]
    fn the_state_directory_follows_the_xdg_specification() {
        let here = Path::new("/here");
        let state = |line: &str, vars: &[(&str, &str)]| plan(line, vars, here).map(|plan| plan.node.state);
        assert_eq!(state("--state s", &[]), Ok("/here/s".into()));
        assert_eq!(state("", &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]), Ok("/x/shoal".into()));
        assert_eq!(
            state("", &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]),
            Ok("/h/.local/state/shoal".into())
        );
        assert_eq!(state("", &[]).map_err(|fault| fault.exit), Err(ExitCause::Usage));
    }

    #[test]
    fn a_config_file_sets_options_that_were_not_given() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shoal")).unwrap();
        let file = dir.path().join("shoal/config.toml");
        std::fs::write(
            &file,
            "wait = 7\nio = \"epoll\"\nzero_copy = \"off\"\nhash = \"asm\"\ntrackers = \"t.txt\"\n",
        )
        .unwrap();
        let vars = [("XDG_CONFIG_HOME", dir.path().to_str().unwrap()), ("HOME", "/h")];
        let found = plan("--wait 3", &vars, dir.path()).unwrap();
        assert_eq!(found.wait, Duration::from_secs(3));
        assert_eq!(found.node.io, IoChoice::Epoll);
        assert_eq!(found.node.zero_copy, ZeroCopyChoice::Off);
        let typed = plan("--zero-copy always", &vars, dir.path()).unwrap();
        assert_eq!(typed.node.zero_copy, ZeroCopyChoice::Always);
        assert_eq!(found.node.hash, Some(HashKind::Asm));
        assert_eq!(found.node.trackers, Some(TrackersOption::File(dir.path().join("t.txt"))));
        let hosts = plan("--trackers host:8000", &vars, dir.path()).unwrap().node.trackers;
        assert!(matches!(hosts, Some(TrackersOption::Hosts(_))), "{hosts:?}");
        std::fs::write(&file, "wate = 7\n").unwrap();
        assert_eq!(
            plan("", &vars, dir.path()).map(|_| ()).map_err(|fault| fault.exit),
            Err(ExitCause::Usage)
        );
    }

    #[test]
    fn a_named_config_file_must_exist_and_hash_must_be_known() {
        let exit = |line| plan(line, &[("HOME", "/h")], Path::new("/nowhere")).map(|_| ()).unwrap_err().exit;
        assert_eq!(exit("--config missing.toml"), ExitCause::Usage);
        assert_eq!(exit("--hash md5"), ExitCause::Usage);
    }

    #[test]
    fn an_address_that_trackers_ignore_is_refused() {
        let advertise = |line| plan(line, &[("HOME", "/h")], Path::new("/")).map(|plan| plan.node.advertise);
        assert_eq!(advertise("--advertise 127.0.0.9"), Ok(Some([127, 0, 0, 9].into())));
        let fault = advertise("--advertise 203.0.113.5").unwrap_err();
        assert!(fault.exit == ExitCause::Usage && fault.message.contains("203.0.113.5"), "{fault}");
    }

    #[test]
    fn no_color_applies_unless_colour_is_requested() {
        let color =
            |line| plan(line, &[("HOME", "/h"), ("NO_COLOR", "1")], Path::new("/")).unwrap().output.color;
        assert_eq!(color(""), ColorOption::Never);
        assert_eq!(color("--color always"), ColorOption::Always);
    }
}
