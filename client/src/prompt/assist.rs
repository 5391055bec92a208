//! Completion of commands and paths, and stars in place of passwords.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use crate::cli::Typed;
use crate::cli::line;

/// Commands with a password, and how many words stand before it.
const WITH_PASSWORD: [(&str, usize); 3] = [("login", 2), ("create_user", 2), ("change_password", 1)];

/// Commands with a path, and which word (from 0) it is.
const WITH_PATH: [(&str, usize); 2] = [("upload_file", 2), ("download_file", 3)];

/// What helps at the prompt.
pub(super) struct Assist {
    commands: Vec<String>,
    directory: PathBuf,
}

impl Assist {
    /// Completes paths from `directory` on.
    pub(super) fn new(directory: PathBuf) -> Assist {
        let commands = Typed::grammar()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name().to_owned())
            .chain(["help".to_owned()])
            .collect();
        Assist { commands, directory }
    }

    /// Where the last word begins, and what it may become.
    fn candidates(&self, typed: &str) -> (usize, Vec<String>) {
        let start = last_word_start(typed);
        let word = &typed[start..];
        let before = line::words(&typed[..start]).unwrap_or_default();
        let wants_path = |(command, at): &(&str, usize)| {
            before.first().is_some_and(|first| first == command) && before.len() == *at
        };
        match before.as_slice() {
            [] => (start, starting_with(&self.commands, word)),
            [help] if help == "help" => (start, starting_with(&self.commands, word)),
            _ if WITH_PATH.iter().any(wants_path) => (start, paths(&self.directory, word)),
            _ => (start, Vec::new()),
        }
    }
}

fn starting_with(names: &[String], word: &str) -> Vec<String> {
    names.iter().filter(|name| name.starts_with(word)).map(|name| format!("{name} ")).collect()
}

/// Where the last word of an unfinished line begins: after the last blank that stands in no quote.
fn last_word_start(typed: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    let mut start = 0;
    for (at, c) in typed.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => start = at + c.len_utf8(),
            _ => {}
        }
    }
    start
}

/// The paths that begin as an unfinished word does, quoted where they must be.
fn paths(directory: &Path, word: &str) -> Vec<String> {
    let Some(text) = [word.to_owned(), format!("{word}'"), format!("{word}\"")]
        .iter()
        .find_map(|word| line::words(word).ok())
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
                line::quote(&format!("{folder}{name}{slash}"))
            })
        })
        .collect();
    found.sort();
    found
}

/// Whether a line has a password in it.
pub(super) fn has_password(typed: &str) -> bool {
    password_start(typed).is_some()
}

/// Where the passwords begin, in a line that has any.
fn password_start(typed: &str) -> Option<usize> {
    let mut rest = typed.trim_start();
    let command = rest.split_whitespace().next()?;
    let (_, before) = WITH_PASSWORD.iter().find(|(name, _)| *name == command)?;
    for _word in 0..*before {
        rest = rest.trim_start();
        rest = &rest[rest.find(char::is_whitespace)?..];
    }
    let password = rest.trim_start();
    (!password.is_empty() && !password.starts_with("--")).then(|| typed.len() - password.len())
}

impl Completer for Assist {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.candidates(&line[..pos]);
        let pairs = candidates
            .into_iter()
            .map(|text| Pair { display: text.trim_end().to_owned(), replacement: text })
            .collect();
        Ok((start, pairs))
    }
}

impl Highlighter for Assist {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        match password_start(line) {
            Some(start) => {
                let (shown, password) = line.split_at(start);
                Cow::Owned(format!("{shown}{}", "*".repeat(password.chars().count())))
            }
            None => Cow::Borrowed(line),
        }
    }

    fn highlight_char(&self, line: &str, _pos: usize, _kind: CmdKind) -> bool {
        has_password(line)
    }
}

impl Hinter for Assist {
    type Hint = String;
}

impl Validator for Assist {}

impl Helper for Assist {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_starred_and_known() {
        let assist = Assist::new("/".into());
        assert_eq!(assist.highlight("login alice hunter2", 0), "login alice *******");
        assert_eq!(assist.highlight(" create_user  bob  pässwort ", 0), " create_user  bob  *********");
        assert_eq!(assist.highlight("change_password old new", 0), "change_password *******");
        for line in [
            "login alice",
            "change_password",
            "change_password --password-file f",
            "login alice ",
            "whoami x y",
            "login alice --password-file f",
            "",
        ] {
            assert!(!has_password(line), "{line}");
            assert_eq!(assist.highlight(line, 0), line);
        }
    }

    #[test]
    fn commands_and_paths_complete() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my file"), "").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        std::fs::create_dir(dir.path().join("music")).unwrap();
        let assist = Assist::new(dir.path().to_owned());
        assert_eq!(assist.candidates("upl"), (0, vec!["upload_file ".to_owned()]));
        assert_eq!(assist.candidates("help who"), (5, vec!["whoami ".to_owned()]));
        assert_eq!(
            assist.candidates("upload_file g m"),
            (14, vec!["'my file'".to_owned(), "music/".to_owned()])
        );
        assert_eq!(assist.candidates("upload_file g 'my f").1, ["'my file'"]);
        assert_eq!(assist.candidates("upload_file m").1, Vec::<String>::new());
        assert!(assist.candidates("").1.iter().all(|name| name.trim() != "serve"));
    }
}
