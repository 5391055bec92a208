//! Tests of the command line and of prompt lines.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;

use super::command::{ClientCommand, FileArgs, PolicyOption};
use super::options::{BackendOption, ClientOptions, ColorOption, ListenAddress};
use super::{CommandLine, PromptLine};

fn read(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::read(std::iter::once("client").chain(line.split_whitespace()).map(OsString::from))
}

fn file(group: &str, name: &str) -> FileArgs {
    FileArgs { group_id: group.into(), file_name: name.into() }
}

#[test]
fn options_stand_before_or_after_the_command() {
    for line in [
        "--state /s --json --wait 5 download_file g f /d",
        "download_file g f /d --state /s --json --wait 5",
        "--json download_file --state=/s g f --wait=5 /d",
    ] {
        let cli = read(line).unwrap();
        assert_eq!(cli.options.state, Some(PathBuf::from("/s")), "{line}");
        assert_eq!(cli.options.json, Some(true), "{line}");
        assert_eq!(cli.options.wait, Some(5), "{line}");
        let wanted = ClientCommand::DownloadFile { file: file("g", "f"), destination_path: "/d".into() };
        assert_eq!(cli.command, Some(wanted), "{line}");
    }
}

#[test]
fn no_command_is_the_prompt_and_policies_have_a_default() {
    assert_eq!(read("").unwrap().command, None);
    let group = |line| match read(line).unwrap().command {
        Some(ClientCommand::CreateGroup { policy, .. }) => policy,
        other => panic!("{other:?}"),
    };
    assert_eq!(group("create_group g"), PolicyOption::Open);
    assert_eq!(group("create_group g approval"), PolicyOption::Approval);
}

#[test]
fn node_options_on_the_command_line_are_recorded() {
    let cli = read("--io epoll whoami --limit-up 1M").unwrap();
    assert_eq!(cli.typed_node_options, ["--io", "--limit-up"]);
    assert_eq!(cli.options.io, Some(BackendOption::Epoll));
    assert!(read("whoami --json --color never").unwrap().typed_node_options.is_empty());
}

#[test]
fn invalid_arguments_are_refused_with_a_suggestion() {
    let unknown = read("donwload_file g f d").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidSubcommand);
    assert!(unknown.to_string().contains("download_file"), "{unknown}");
    assert_eq!(read("login").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(read("logout now").unwrap_err().kind(), ErrorKind::UnknownArgument);
    assert!(read("whoami --listen nowhere").is_err());
    assert!(read("whoami --limit-up 0").is_err());
    assert!(read("whoami --io fast").is_err());
}

#[test]
fn addresses_may_leave_out_the_port() {
    assert_eq!("127.0.0.1".parse(), Ok(ListenAddress { ip: [127, 0, 0, 1].into(), port: None }));
    assert_eq!("127.0.0.1:9".parse(), Ok(ListenAddress { ip: [127, 0, 0, 1].into(), port: Some(9) }));
    assert_eq!(
        "[::1]:9".parse(),
        Ok(ListenAddress { ip: std::net::Ipv6Addr::LOCALHOST.into(), port: Some(9) })
    );
    assert_eq!("[::1]".parse(), Ok(ListenAddress { ip: std::net::Ipv6Addr::LOCALHOST.into(), port: None }));
    assert!("localhost".parse::<ListenAddress>().is_err());
}

#[test]
fn the_command_line_overrides_the_config_file() {
    let file: ClientOptions = toml::from_str(
        "json = true\nquiet = true\nwait = 9\nlimit_up = \"1M\"\ncolor = \"never\"\nlisten = \"127.0.0.1\"",
    )
    .unwrap();
    let both = read("whoami --json=false --color always").unwrap().options.or(file);
    assert_eq!(both.json, Some(false));
    assert_eq!(both.quiet, Some(true));
    assert_eq!(both.wait, Some(9));
    assert_eq!(both.color, Some(ColorOption::Always));
    assert_eq!(both.limit_up.map(std::num::NonZeroU64::get), Some(1 << 20));
    assert_eq!(both.listen.map(|listen| listen.port), Some(None));
    assert!(
        toml::from_str::<ClientOptions>("jason = true").is_err(),
        "a misspelt option must not pass unnoticed"
    );
}

#[test]
fn a_prompt_line_has_the_same_commands() {
    let typed = |line: &str| PromptLine::read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let pause = ClientCommand::Pause(file("g", "f"));
    assert_eq!(typed("pause g f").unwrap().command, pause);
    assert!(typed("download_file g f d --overwrite").unwrap().options.overwrite);
    for help in ["help", "help pause"] {
        assert_eq!(typed(help).unwrap_err().kind(), ErrorKind::DisplayHelp);
    }
    assert!(!typed("help").unwrap_err().to_string().contains("serve "));
}
