//! `create_user` and `login`: with a password that is typed, read from a file, or asked for and shown as stars.
//!
//! Invariant: Ctrl-C or a signal while a password is asked for ends the command with exit 130, and the terminal is as it was.
//! What is asked goes to the terminal, never among the data on stdout.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, Completer, Config, Editor, Helper, Hinter, Validator};
use zeroize::Zeroize;

use super::context::{Context, interrupted};
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Ask, Secret};
use crate::limits;
use crate::terminal::Reading;

/// Makes a user.
pub(super) fn create_user(
    context: &mut Context<'_>,
    user: String,
    typed: Option<String>,
) -> Result<(), Fault> {
    let password = password(context, &user, typed, true)?;
    context.show(&Ask::CreateUser { user, password })
}

/// Logs in.
pub(super) fn login(context: &mut Context<'_>, user: String, typed: Option<String>) -> Result<(), Fault> {
    let password = password(context, &user, typed, false)?;
    context.show(&Ask::Login { user, password })
}

fn password(context: &Context<'_>, user: &str, typed: Option<String>, twice: bool) -> Result<Secret, Fault> {
    if let Some(typed) = typed {
        return Ok(Secret(typed));
    }
    if let Some(file) = &context.password_file {
        return from_file(file);
    }
    if !std::io::stdin().is_terminal() {
        let fault = Fault::new(Exit::Usage, format!("no password for {user}, and no terminal to ask on"));
        return Err(fault.fix("give it as the last word, or with `--password-file FILE`"));
    }
    let asked = asked(&format!("Password of {user}: "))?;
    if twice && self::asked("The same again: ")? != asked {
        return Err(Fault::new(Exit::Usage, "the two passwords differ; nothing was made").fix("try again"));
    }
    Ok(asked)
}

fn asked(prompt: &str) -> Result<Secret, Fault> {
    let fault = |error: ReadlineError| match error {
        ReadlineError::Interrupted => interrupted(),
        error => Fault::new(Exit::Usage, format!("the password cannot be asked for: {error}"))
            .fix("give it with `--password-file FILE`"),
    };
    // No history and no external editor: what is typed is kept nowhere.
    let config = Config::builder().max_history_size(0).map_err(fault)?;
    let config = config.behavior(Behavior::PreferTerm).build();
    let mut line = Editor::<Stars, DefaultHistory>::with_config(config).map_err(fault)?;
    line.set_helper(Some(Stars));
    let _reading = Reading::begin();
    line.readline(prompt).map(Secret).map_err(fault)
}

/// Shows stars for whatever is typed.
#[derive(Completer, Helper, Hinter, Validator)]
struct Stars;

impl Highlighter for Stars {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _line: &str, _pos: usize, _kind: CmdKind) -> bool {
        // Each character typed is drawn by `highlight`, never as itself.
        true
    }
}

/// The first line of a file, without its end.
fn from_file(path: &Path) -> Result<Secret, Fault> {
    let fault = |error: &std::io::Error| {
        Fault::io("read the password file", path, error)
            .fix("name a file whose first line is the password: `--password-file FILE`")
    };
    let file = File::open(path).map_err(|error| fault(&error))?;
    let mut line = String::new();
    BufReader::new(file.take(limits::PASSWORD_FILE_MAX_BYTES))
        .read_line(&mut line)
        .map_err(|error| fault(&error))?;
    let password = Secret(line.trim_end_matches(['\n', '\r']).to_owned());
    line.zeroize();
    if password.0.is_empty() {
        let fault = Fault::new(Exit::Usage, format!("the first line of {} is empty", path.display()));
        return Err(fault.fix("write the password there, and nothing else"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, " se cret \r\nrest").unwrap();
        assert_eq!(from_file(&path).unwrap().0, " se cret ");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(from_file(&path).unwrap_err().exit, Exit::Usage);
        assert_eq!(from_file(&dir.path().join("none")).unwrap_err().exit, Exit::NotFound);
    }
}
