//! Completion of commands, groups, listed files and paths, and stars in place of passwords.
//!
//! What a word is follows from the grammar: the name of each argument says what it takes.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use tracker::api::GroupId;

use super::remote_names::{NameList, RemoteNames};
use crate::cli::PromptLine;
use crate::cli::line;
use crate::quoting::quote_word;

/// Completes and highlights prompt lines.
pub(super) struct PromptCompleter {
    commands: Vec<String>,
    password_commands: Vec<PasswordCommand>,
    options: Vec<LineOption>,
    grammar: clap::Command,
    directory: PathBuf,
    /// `None` completes commands and paths alone.
    remote_names: Option<RemoteNames>,
}

/// What can complete a word.
enum WordKind {
    Group,
    /// A listed file of this group.
    FileOf(String),
    Path,
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
    pub(super) fn new(directory: PathBuf, remote_names: Option<RemoteNames>) -> PromptCompleter {
        let commands = PromptLine::grammar()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .chain(["help".to_owned()])
            .collect();
        let options = PromptLine::grammar().get_arguments().filter_map(line_option).collect();
        PromptCompleter {
            commands,
            password_commands: password_commands(),
            options,
            grammar: PromptLine::grammar(),
            directory,
            remote_names,
        }
    }

    /// Whether a line may contain a password: the name of such a command anywhere in it counts, since a mistyped line has the
    /// password too.
    pub(super) fn may_contain_password(&self, typed: &str) -> bool {
        line::split_unfinished(typed)
            .0
            .iter()
            .any(|word| self.password_commands.iter().any(|known| known.command == word.text))
    }

    /// The words of a line without its options.
    fn plain_words(&self, typed: &str) -> Vec<line::LineWord> {
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
        plain
    }

    /// Start of the password in a line; the rest of the line counts as password.
    fn password_start(&self, typed: &str) -> Option<usize> {
        let plain = self.plain_words(typed);
        let command = &plain.first()?.text;
        let known = self.password_commands.iter().find(|known| known.command == *command)?;
        plain.get(known.password_index).map(|word| word.range.start)
    }

    /// Start of the last word, and its completions.
    fn complete_word(&self, typed: &str) -> (usize, Vec<String>) {
        let unfinished = line::split_unfinished(typed).0.pop().filter(|word| word.range.end == typed.len());
        let start = unfinished.map_or(typed.len(), |word| word.range.start);
        let word = &typed[start..];
        let before: Vec<String> =
            self.plain_words(&typed[..start]).into_iter().map(|word| word.text).collect();
        let completions = match before.as_slice() {
            [] => filter_by_prefix(&self.commands, word),
            [help] if help == "help" => filter_by_prefix(&self.commands, word),
            before => match self.word_kind(before) {
                Some(WordKind::Path) => complete_path(&self.directory, word),
                Some(WordKind::Group) => self.complete_name(&NameList::Groups, word),
                Some(WordKind::FileOf(group)) => match GroupId::new(&group) {
                    Ok(group) => self.complete_name(&NameList::Files(group), word),
                    Err(_) => Vec::new(),
                },
                None => Vec::new(),
            },
        };
        (start, completions)
    }

    /// What the word after these is.
    fn word_kind(&self, before: &[String]) -> Option<WordKind> {
        let (command, arguments) = before.split_first()?;
        let command = self.grammar.find_subcommand(command)?;
        if command.get_name() == "create_group" {
            return None;
        }
        let argument = command.get_positionals().nth(arguments.len())?;
        match argument.get_id().as_str() {
            "group_id" => Some(WordKind::Group),
            "file_name" => Some(WordKind::FileOf(arguments.first()?.clone())),
            "file_path" | "destination_path" => Some(WordKind::Path),
            _ => None,
        }
    }

    /// Names that begin with an unfinished word, quoted where needed.
    fn complete_name(&self, list: &NameList, word: &str) -> Vec<String> {
        let (Some(remote), Some(begin)) = (&self.remote_names, unquote(word)) else { return Vec::new() };
        let names = remote.names(list).into_iter().filter(|name| name.starts_with(&begin));
        names.map(|name| format!("{} ", quote_word(&name))).collect()
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

/// An unfinished word without its quotes.
fn unquote(word: &str) -> Option<String> {
    [word.to_owned(), format!("{word}'"), format!("{word}\"")]
        .iter()
        .find_map(|word| line::split_words(word).ok())
        .map(|words| words.into_iter().next().unwrap_or_default())
}

/// Paths that begin with an unfinished word, quoted where needed.
fn complete_path(directory: &Path, word: &str) -> Vec<String> {
    let Some(text) = unquote(word) else { return Vec::new() };
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
        let assist = PromptCompleter::new("/".into(), None);
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
        let assist = PromptCompleter::new(dir.path().to_owned(), None);
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

    #[test]
    fn groups_and_their_files_complete() {
        let names = RemoteNames::start(|list| {
            Some(match list {
                NameList::Groups => vec!["weights".into(), "photos".into()],
                NameList::Files(group) if group.as_str() == "weights" => vec!["a b.bin".into(), "ac".into()],
                NameList::Files(_) => vec![],
            })
        });
        let assist = PromptCompleter::new("/nowhere".into(), names.ok());
        let complete = |line: &str| assist.complete_word(line).1;
        assert_eq!(complete("list_files we"), ["weights "]);
        assert_eq!(complete("ls "), ["weights ", "photos "]);
        assert_eq!(complete("--json get wei"), ["weights "]);
        assert_eq!(complete("upload_file p"), ["photos "]);
        assert_eq!(complete("download_file weights a"), ["'a b.bin' ", "ac "]);
        assert_eq!(complete("pause weights 'a b"), ["'a b.bin' "]);
        for nothing in
            ["create_group we", "list_files weights a", "get_peers photos a", "login we", "get 'a b' a"]
        {
            assert_eq!(complete(nothing), Vec::<String>::new(), "{nothing}");
        }
    }
}
