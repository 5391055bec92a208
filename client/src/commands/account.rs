//! `create_user`, `login` and `change_password`. Passwords come from arguments, from a file, or from the terminal.
//!
//! Ctrl-C or a signal while a password is read ends the command with exit 130 and restores the terminal. Password prompts
//! are written to the terminal, never to stdout.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, Completer, Config, Editor, Helper, Hinter, Validator};
use zeroize::Zeroize;

use super::context::{CommandContext, interrupted_fault};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeRequest, SecretText};
use crate::limits;
use crate::terminal::LineReadGuard;

pub(super) fn create_user(
    context: &mut CommandContext<'_>,
    user: String,
    typed: Option<String>,
) -> Result<(), ClientFault> {
    let password = read_password(context, &user, typed, true)?;
    context.request_and_show(&NodeRequest::CreateUser { user, password })
}

pub(super) fn log_in(
    context: &mut CommandContext<'_>,
    user: String,
    typed: Option<String>,
) -> Result<(), ClientFault> {
    let password = read_password(context, &user, typed, false)?;
    context.request_and_show(&NodeRequest::Login { user, password })
}

pub(super) fn change_password(
    context: &mut CommandContext<'_>,
    typed: Option<(String, String)>,
) -> Result<(), ClientFault> {
    let (old, new) = match (typed, &context.password_file) {
        (Some((old, new)), _) => (SecretText(old), SecretText(new)),
        (None, Some(file)) => (read_password_line(file, 0)?, read_password_line(file, 1)?),
        (None, None) => {
            refuse_without_terminal(
                "no passwords",
                "give the old and the new one as words, or as two lines with `--password-file FILE`",
            )?;
            (ask_password("Password so far: ")?, ask_password_twice("New password: ", "changed")?)
        }
    };
    context.request_and_show(&NodeRequest::ChangePassword { old, new })
}

fn read_password(
    context: &CommandContext<'_>,
    user: &str,
    typed: Option<String>,
    twice: bool,
) -> Result<SecretText, ClientFault> {
    if let Some(typed) = typed {
        return Ok(SecretText(typed));
    }
    if let Some(file) = &context.password_file {
        return read_password_line(file, 0);
    }
    let wanted = format!("no password for {user}");
    refuse_without_terminal(&wanted, "give it as the last word, or with `--password-file FILE`")?;
    let prompt = format!("Password of {user}: ");
    if twice { ask_password_twice(&prompt, "made") } else { ask_password(&prompt) }
}

fn refuse_without_terminal(what: &str, fix: &str) -> Result<(), ClientFault> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(ClientFault::new(ExitCause::Usage, format!("{what}, and no terminal to ask on")).fix(fix))
}

/// Asks twice for a new password, since it is typed blind. `done` completes the error "nothing was …" if the two differ.
fn ask_password_twice(prompt: &str, done: &str) -> Result<SecretText, ClientFault> {
    let once = ask_password(prompt)?;
    if ask_password("The same again: ")? != once {
        let message = format!("the two passwords differ; nothing was {done}");
        return Err(ClientFault::new(ExitCause::Usage, message).fix("try again"));
    }
    Ok(once)
}

fn ask_password(prompt: &str) -> Result<SecretText, ClientFault> {
    let fault = |error: ReadlineError| match error {
        ReadlineError::Interrupted => interrupted_fault(),
        error => ClientFault::new(ExitCause::Usage, format!("the password cannot be asked for: {error}"))
            .fix("give it with `--password-file FILE`"),
    };
    // No history, and the terminal rather than stdio: the password is stored nowhere.
    let config = Config::builder().max_history_size(0).map_err(fault)?;
    let config = config.behavior(Behavior::PreferTerm).build();
    let mut line = Editor::<PasswordMask, DefaultHistory>::with_config(config).map_err(fault)?;
    line.set_helper(Some(PasswordMask));
    let _reading = LineReadGuard::begin();
    line.readline(prompt).map(SecretText).map_err(fault)
}

/// Shows a star for each typed character.
#[derive(Completer, Helper, Hinter, Validator)]
struct PasswordMask;

impl Highlighter for PasswordMask {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _line: &str, _pos: usize, _kind: CmdKind) -> bool {
        // Forces a redraw through `highlight` for each typed character.
        true
    }
}

/// Reads a password from one line of a file. `number` counts from 0.
fn read_password_line(path: &Path, number: usize) -> Result<SecretText, ClientFault> {
    let fault = |error: &std::io::Error| {
        ClientFault::io("read the password file", path, error)
            .fix("name a file whose first line is the password: `--password-file FILE`")
    };
    let file = File::open(path).map_err(|error| fault(&error))?;
    let mut lines = BufReader::new(file.take(limits::PASSWORD_FILE_MAX_BYTES));
    let mut line = String::new();
    for _line in 0..=number {
        line.zeroize();
        lines.read_line(&mut line).map_err(|error| fault(&error))?;
    }
    let password = SecretText(line.trim_end_matches(['\n', '\r']).to_owned());
    line.zeroize();
    if password.0.is_empty() {
        let message =
            format!("line {} of {} is empty, where a password is wanted", number + 1, path.display());
        return Err(
            ClientFault::new(ExitCause::Usage, message).fix("write the password there, and nothing else")
        );
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_whole_lines_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        std::fs::write(&path, " se cret \r\nrest").unwrap();
        assert_eq!(read_password_line(&path, 0).unwrap().0, " se cret ");
        assert_eq!(read_password_line(&path, 1).unwrap().0, "rest");
        assert_eq!(read_password_line(&path, 2).unwrap_err().exit, ExitCause::Usage);
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read_password_line(&path, 0).unwrap_err().exit, ExitCause::Usage);
        assert_eq!(read_password_line(&dir.path().join("none"), 0).unwrap_err().exit, ExitCause::NotFound);
    }
}
