//! The command line and the prompt's lines, parsed but not interpreted.
//!
//! ```text
//!   arguments ──► CommandLine { options, command } ──► plan
//!   prompt line ──► line (words, quotes) ──► PromptLine { command, options }
//! ```
//!
//! Nothing here touches a file, a socket or a clock. Each option can also come from the environment (`SHOAL_…`, read by
//! clap) and from the config file (joined in `plan`).

pub(crate) mod command;
pub(crate) mod line;
pub(crate) mod options;
pub(crate) mod rate;
pub(crate) mod trackers;

use clap::{CommandFactory, FromArgMatches, Parser, parser::ValueSource};

use command::ClientCommand;
use options::ClientOptions;

/// Shares very large files in groups and downloads them from all peers that have any part; without a command, a prompt.
#[derive(Debug, Parser)]
#[command(name = "client", version, about, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// What to do; without a command, a prompt.
    #[command(subcommand)]
    pub(crate) command: Option<ClientCommand>,
    /// Options.
    #[command(flatten)]
    pub(crate) options: ClientOptions,
    /// Node options given on the command line itself, by name.
    #[arg(skip)]
    pub(crate) typed_node_options: Vec<&'static str>,
}

#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, about = "Commands of the prompt", disable_help_flag = true)]
pub(crate) struct PromptLine {
    /// Command.
    #[command(subcommand)]
    pub(crate) command: ClientCommand,
    /// Options that apply to one line.
    #[command(flatten)]
    pub(crate) options: options::PromptOptions,
}

/// Help of one command, without the options that all commands share.
const COMMAND_HELP: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}";

/// Help of one command with arguments.
const COMMAND_HELP_WITH_WORDS: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:\n{positionals}{after-help}";

const OPTIONS_ELSEWHERE: &str = "`client --help` shows the options.";

/// Whether a word is the name of a command.
pub(crate) fn is_command(word: &str) -> bool {
    word == "help" || CommandLine::command().get_subcommands().any(|command| command.get_name() == word)
}

impl PromptLine {
    /// The grammar of a prompt line: `serve` is hidden, since it is for the command line.
    pub(crate) fn grammar() -> clap::Command {
        PromptLine::command().mut_subcommand("serve", |serve| serve.hide(true))
    }

    /// Parses the words of a line.
    ///
    /// # Errors
    /// clap's message, as [`CommandLine::read`].
    pub(crate) fn read(words: &[String]) -> Result<PromptLine, clap::Error> {
        PromptLine::from_arg_matches(&PromptLine::grammar().try_get_matches_from(words)?)
    }
}

/// Options of the node; a front end of a running node cannot change them.
const NODE_OPTIONS: [(&str, &str); 7] = [
    ("listen", "--listen"),
    ("advertise", "--advertise"),
    ("io", "--io"),
    ("zero_copy", "--zero-copy"),
    ("hash", "--hash"),
    ("limit_up", "--limit-up"),
    ("limit_down", "--limit-down"),
];

impl CommandLine {
    /// The grammar of the command line: help on one command leaves out the shared options.
    fn grammar() -> clap::Command {
        CommandLine::command().mut_subcommands(|command| {
            let has_words = command.get_positionals().next().is_some();
            command
                .help_template(if has_words { COMMAND_HELP_WITH_WORDS } else { COMMAND_HELP })
                .after_help(OPTIONS_ELSEWHERE)
        })
    }

    /// Parses the arguments of a process (the program's name first) and the environment.
    ///
    /// # Errors
    /// clap's message, with suggestions; `--help` and `--version` arrive this way too.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = std::ffi::OsString>,
    ) -> Result<CommandLine, clap::Error> {
        let matches = CommandLine::grammar().try_get_matches_from(arguments)?;
        let mut cli = CommandLine::from_arg_matches(&matches)?;
        let leaf =
            std::iter::successors(Some(&matches), |matches| matches.subcommand().map(|(_, inner)| inner));
        for level in leaf {
            for (id, name) in NODE_OPTIONS {
                let typed = level.try_contains_id(id).is_ok()
                    && level.value_source(id) == Some(ValueSource::CommandLine);
                if typed && !cli.typed_node_options.contains(&name) {
                    cli.typed_node_options.push(name);
                }
            }
        }
        Ok(cli)
    }
}

#[cfg(test)]
mod tests;
