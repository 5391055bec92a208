//! Completion of commands and paths, and stars in place of passwords.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use crate::cli::PromptLine;
use crate::cli::line;
use crate::quoting::quote_word;

/// Commands with a path argument, and its index among the words (the command is 0).
const PATH_ARGUMENTS: [(&str, usize); 2] = [("upload_file", 2), ("download_file", 3)];

/// Completes and highlights prompt lines.
pub(super) struct PromptCompleter {
    commands: Vec<String>,
    password_commands: Vec<PasswordCommand>,
    options: Vec<LineOption>,
    directory: PathBuf,
}

/// A command that takes a password, and the index of the first word that may be one (the command is 0).
struct PasswordCommand {
    command: String,
    password_index: usize,
}

/// An option of a prompt line. Options may stand anywhere between the words.
struct LineOption {
    name: String,
    takes_value: bool,
}

impl PromptCompleter {
    /// Relative paths are completed from `directory`.
    pub(super) fn new(directory: PathBuf) -> PromptCompleter {
        let commands = PromptLine::grammar()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .chain(["help".to_owned()])
            .collect();
        let options = PromptLine::grammar().get_arguments().filter_map(line_option).collect();
        PromptCompleter { commands, password_commands: password_commands(), options, directory }
    }

    /// Whether a line may contain a password: the name of such a command anywhere in it counts, since a mistyped line has the
    /// password too.
    pub(super) fn may_contain_password(&self, typed: &str) -> bool {
        line::split_unfinished(typed)
            .0
            .iter()
            .any(|word| self.password_commands.iter().any(|known| known.command == word.text))
    }

    /// Start of the password in a line; the rest of the line counts as password.
    fn password_start(&self, typed: &str) -> Option<usize> {
        let mut words = line::split_unfinished(typed).0.into_iter().peekable();
        let mut plain = Vec::new();
        while let Some(word) = words.next() {
            if word.text == "--" && words.peek().is_some() {
                plain.extend(words.by_ref());
                break;
            }
            match self.options.iter().find(|option| option.is_in(&word, words.peek().is_none())) {
                Some(option) if option.takes_value && option.name == word.text => drop(words.next()),
                Some(_) => {}
                None => plain.push(word),
            }
        }
        let command = &plain.first()?.text;
        let known = self.password_commands.iter().find(|known| known.command == *command)?;
        plain.get(known.password_index).map(|word| word.range.start)
    }

    /// Start of the last word, and its completions.
    fn complete_word(&self, typed: &str) -> (usize, Vec<String>) {
        let unfinished = line::split_unfinished(typed).0.pop().filter(|word| word.range.end == typed.len());
        let start = unfinished.map_or(typed.len(), |word| word.range.start);
        let word = &typed[start..];
        let before = line::split_words(&typed[..start]).unwrap_or_default();
        let wants_path = |(command, at): &(&str, usize)| {
            before.first().is_some_and(|first| first == command) && before.len() == *at
        };
        match before.as_slice() {
            [] => (start, filter_by_prefix(&self.commands, word)),
            [help] if help == "help" => (start, filter_by_prefix(&self.commands, word)),
            _ if PATH_ARGUMENTS.iter().any(wants_path) => (start, complete_path(&self.directory, word)),
            _ => (start, Vec::new()),
        }
    }
}

fn filter_by_prefix(names: &[String], word: &str) -> Vec<String> {
    names.iter().filter(|name| name.starts_with(word)).map(|name| format!("{name} ")).collect()
}

impl LineOption {
    /// Whether a word is this option or, as the last word, the beginning of it.
    fn is_in(&self, word: &line::LineWord, last: bool) -> bool {
        let value = |rest: &str| self.takes_value && rest.starts_with('=');
        word.text.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || value(rest))
            || (last && word.text.starts_with('-') && self.name.starts_with(&word.text))
    }
}

fn line_option(argument: &clap::Arg) -> Option<LineOption> {
    let name = format!("--{}", argument.get_long()?);
    Some(LineOption { name, takes_value: argument.get_action().takes_values() })
}

/// Commands with a password argument or with "password" in their name.
fn password_commands() -> Vec<PasswordCommand> {
    let grammar = PromptLine::grammar();
    let at = |command: &clap::Command| {
        let taken = command.get_positionals().position(|word| word.get_id().as_str().contains("password"));
        taken.or(command.get_name().contains("password").then_some(0)).map(|at| at + 1)
    };
    let commands = grammar.get_subcommands();
    commands
        .filter_map(|command| {
            Some(PasswordCommand { command: command.get_name().to_owned(), password_index: at(command)? })
        })
        .collect()
}

/// Paths that begin with an unfinished word, quoted where needed.
fn complete_path(directory: &Path, word: &str) -> Vec<String> {
    let Some(text) = [word.to_owned(), format!("{word}'"), format!("{word}\"")]
        .iter()
        .find_map(|word| line::split_words(word).ok())
        .map(|words| words.into_iter().next().unwrap_or_default())
    else {
        return Vec::new();
    };
    let (folder, begin) = text
        .rsplit_once('/')
        .map_or(("", text.as_str()), |(_, begin)| (&text[..text.len() - begin.len()], begin));
    let Ok(entries) = std::fs::read_dir(directory.join(folder)) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let hidden = name.starts_with('.') && !begin.starts_with('.');
            (name.starts_with(begin) && !hidden).then(|| {
                let slash = if entry.path().is_dir() { "/" } else { "" };
                quote_word(&format!("{folder}{name}{slash}"))
            })
        })
        .collect();
    found.sort();
    found
}

impl Completer for PromptCompleter {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.complete_word(&line[..pos]);
        let pairs = candidates
            .into_iter()
            .map(|text| Pair { display: text.trim_end().to_owned(), replacement: text })
            .collect();
        Ok((start, pairs))
    }
}

impl Highlighter for PromptCompleter {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        match self.password_start(line) {
            Some(start) => {
                let (shown, password) = line.split_at(start);
                Cow::Owned(format!("{shown}{}", "*".repeat(password.chars().count())))
            }
            None => Cow::Borrowed(line),
        }
    }

    fn highlight_char(&self, line: &str, _pos: usize, _kind: CmdKind) -> bool {
        self.password_start(line).is_some()
    }
}

impl Hinter for PromptCompleter {
    type Hint = String;
}

impl Validator for PromptCompleter {}

impl Helper for PromptCompleter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_detected() {
        let assist = PromptCompleter::new("/".into());
        for (line, shown) in [
            ("login alice hunter2", "login alice *******"),
            ("change_password old new", "change_password *******"),
            (" create_user  bob  pässwort ", " create_user  bob  *********"),
            ("--json login alice hunter2", "--json login alice *******"),
            ("login alice --json hunter2", "login alice --json *******"),
            ("\"login\" alice hunter2", "\"login\" alice *******"),
            ("lo'g'in al\\ ice 'hun ter", "lo'g'in al\\ ice ********"),
            ("login --password-file f alice hunter2", "login --password-file f alice *******"),
            ("login --password-file=f alice hunter2", "login --password-file=f alice *******"),
            ("--overwrite login alice --json --hunter2", "--overwrite login alice --json *********"),
            ("login -- alice --json", "login -- alice ******"),
        ] {
            assert_eq!(assist.highlight(line, 0), shown);
            assert!(assist.may_contain_password(line), "{line}");
        }
        for line in [
            "login alice",
            "login alice ",
            "whoami x y",
            "login alice --password-file f",
            "login alice --js",
            "change_password",
            "change_password --password-file f",
            "",
        ] {
            assert_eq!(assist.highlight(line, 0), line);
        }
        for line in ["login alice", "-x login alice hunter2", "oops create_user bob hunter2"] {
            assert!(assist.may_contain_password(line), "{line}");
        }
        for line in ["whoami", "logins g", "upload_file g 'login alice'", ""] {
            assert!(!assist.may_contain_password(line), "{line}");
        }
    }

    #[test]
    fn commands_and_paths_complete() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my file"), "").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        std::fs::create_dir(dir.path().join("music")).unwrap();
        let assist = PromptCompleter::new(dir.path().to_owned());
        assert_eq!(assist.complete_word("upl"), (0, vec!["upload_file ".to_owned()]));
        assert_eq!(assist.complete_word("help who"), (5, vec!["whoami ".to_owned()]));
        assert_eq!(
            assist.complete_word("upload_file g m"),
            (14, vec!["'my file'".to_owned(), "music/".to_owned()])
        );
        assert_eq!(assist.complete_word("upload_file g 'my f").1, ["'my file'"]);
        assert_eq!(assist.complete_word("upload_file m").1, Vec::<String>::new());
        assert!(assist.complete_word("").1.iter().all(|name| name.trim() != "serve"));
    }
}
