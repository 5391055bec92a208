//! What was typed: words and options, as they stand, before anything is looked up.
//!
//! ```text
//!   arguments ──► Cli { options, words } ──► plan
//!   prompt line ──► line (words, quotes) ──► Typed { words }
//!        options ──► rate
//! ```
//!
//! Invariant: nothing here touches a file, a socket or a clock. Each option can also come from the environment
//! (`SHOAL_…`, read by clap) and from the config file (joined in `plan`).

pub(crate) mod command;
pub(crate) mod line;
pub(crate) mod options;
pub(crate) mod rate;

use clap::{CommandFactory, FromArgMatches, Parser, parser::ValueSource};

use command::ClientCommand;
use options::ClientOptions;

/// Shares very large files in groups and fetches them from everybody who has any part; without a command, a prompt.
#[derive(Debug, Parser)]
#[command(name = "client", version, about, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// What to do; nothing means the prompt.
    #[command(subcommand)]
    pub(crate) command: Option<ClientCommand>,
    /// How.
    #[command(flatten)]
    pub(crate) options: ClientOptions,
    /// Options of the node that stood on the command line itself, by their names.
    #[arg(skip)]
    pub(crate) typed_node_options: Vec<&'static str>,
}

/// A line typed at the prompt.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, about = "What can be typed here:", disable_help_flag = true)]
pub(crate) struct PromptLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ClientCommand,
    /// How: some options make sense for one line.
    #[command(flatten)]
    pub(crate) options: options::PromptOptions,
}

/// What is shown about one command: options are the same for all, and stand in `client --help`.
const COMMAND_HELP: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}";

/// The same for a command with words behind it.
const COMMAND_HELP_WITH_WORDS: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n\nArguments:\n{positionals}{after-help}";

/// Where the options are.
const OPTIONS_ELSEWHERE: &str = "`client --help` shows the options.";

/// Whether a word is a command of the command line.
pub(crate) fn is_command(word: &str) -> bool {
    word == "help" || CommandLine::command().get_subcommands().any(|command| command.get_name() == word)
}

impl PromptLine {
    /// The command that reads a line of the prompt: without `serve`, which is for the command line.
    pub(crate) fn grammar() -> clap::Command {
        PromptLine::command().mut_subcommand("serve", |serve| serve.hide(true))
    }

    /// Reads the words of a line.
    ///
    /// # Errors
    /// clap's message, as [`CommandLine::read_file`].
    pub(crate) fn read(words: &[String]) -> Result<PromptLine, clap::Error> {
        PromptLine::from_arg_matches(&PromptLine::grammar().try_get_matches_from(words)?)
    }
}

/// Options that shape the node; a front end of a running node cannot change them.
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
    /// The command that reads the arguments: help on one command leaves out the options that all share.
    fn grammar() -> clap::Command {
        CommandLine::command().mut_subcommands(|command| {
            let has_words = command.get_positionals().next().is_some();
            command
                .help_template(if has_words { COMMAND_HELP_WITH_WORDS } else { COMMAND_HELP })
                .after_help(OPTIONS_ELSEWHERE)
        })
    }

    /// Reads the arguments of a process (the program's own name first) and the environment.
    ///
    /// # Errors
    /// clap's message, suggestions included; `--help` and `--version` arrive this way too.
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
