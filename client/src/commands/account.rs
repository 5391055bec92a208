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
use tracker::api::UserId;
use tracker::api::request::{Command, Password};
use zeroize::{Zeroize, Zeroizing};

use super::context::{CommandContext, interrupted_fault};
use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::printable::show_path;
use crate::terminal::LineReadGuard;

pub(super) fn create_user(
    context: &mut CommandContext<'_>,
    user: UserId,
    typed: Option<String>,
) -> Result<(), ClientFault> {
    let password = read_password(context, &user, typed, true)?;
    context.request_and_show(&Command::CreateUser { user, password }.into())
}

pub(super) fn log_in(
    context: &mut CommandContext<'_>,
    user: UserId,
    typed: Option<String>,
) -> Result<(), ClientFault> {
    let password = read_password(context, &user, typed, false)?;
    // The node adds its own peer key.
    context.request_and_show(&Command::Login { user, password, peer_key: None }.into())
}

/// Changes the password of the logged-in user. `typed`: the old and the new one.
pub(super) fn change_password(
    context: &mut CommandContext<'_>,
    typed: Option<(String, String)>,
) -> Result<(), ClientFault> {
    let (old, new) = match (typed, &context.password_file) {
        (Some((old, new)), _) => (Zeroizing::new(old), Zeroizing::new(new)),
        (None, Some(file)) => (read_password_line(file, 0)?, read_password_line(file, 1)?),
        (None, None) => {
            refuse_without_terminal(
                "no passwords given",
                "give the old and the new one as arguments, or as two lines with `--password-file FILE`",
            )?;
            (ask_password("Current password: ")?, ask_password_twice("New password: ", "changed")?)
        }
    };
    let command = Command::ChangePassword { old: check_length(&old)?, new: check_length(&new)? };
    context.request_and_show(&command.into())
}

fn read_password(
    context: &CommandContext<'_>,
    user: &UserId,
    typed: Option<String>,
    twice: bool,
) -> Result<Password, ClientFault> {
    if let Some(typed) = typed {
        return check_length(&Zeroizing::new(typed));
    }
    if let Some(file) = &context.password_file {
        return check_length(&read_password_line(file, 0)?);
    }
    let missing = format!("no password given for {user}");
    refuse_without_terminal(&missing, "give it as the last argument, or with `--password-file FILE`")?;
    let prompt = format!("Password of {user}: ");
    let password = if twice { ask_password_twice(&prompt, "created")? } else { ask_password(&prompt)? };
    check_length(&password)
}

fn check_length(text: &str) -> Result<Password, ClientFault> {
    Password::new(text).ok_or_else(|| {
        ClientFault::new(ExitCause::Usage, "a password has 1 to 1,024 bytes").fix("choose another one")
    })
}

fn refuse_without_terminal(what: &str, fix: &str) -> Result<(), ClientFault> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(ClientFault::new(ExitCause::Usage, format!("{what}, and stdin is not a terminal")).fix(fix))
}

/// Asks twice for a new password, since it is typed blind. `done` completes the error "nothing was …" if the two differ.
fn ask_password_twice(prompt: &str, done: &str) -> Result<Zeroizing<String>, ClientFault> {
    let once = ask_password(prompt)?;
    if ask_password("Repeat it: ")? != once {
        let message = format!("the two passwords differ; nothing was {done}");
        return Err(ClientFault::new(ExitCause::Usage, message).fix("try again"));
    }
    Ok(once)
}

fn ask_password(prompt: &str) -> Result<Zeroizing<String>, ClientFault> {
    let fault = |error: ReadlineError| match error {
        ReadlineError::Interrupted => interrupted_fault(),
        error => {
            ClientFault::new(ExitCause::Usage, format!("cannot read a password from the terminal: {error}"))
                .fix("give it with `--password-file FILE`")
        }
    };
    // No history, and the terminal rather than stdio: the password is stored nowhere.
    let config = Config::builder().max_history_size(0).map_err(fault)?;
    let config = config.behavior(Behavior::PreferTerm).build();
    let mut line = Editor::<PasswordMask, DefaultHistory>::with_config(config).map_err(fault)?;
    line.set_helper(Some(PasswordMask));
    let _reading = LineReadGuard::begin();
    line.readline(prompt).map(Zeroizing::new).map_err(fault)
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
fn read_password_line(path: &Path, number: usize) -> Result<Zeroizing<String>, ClientFault> {
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
    let password = Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned());
    line.zeroize();
    if password.is_empty() {
        let message =
            format!("line {} of {} is empty, but a password is expected there", number + 1, show_path(path));
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
        assert_eq!(read_password_line(&path, 0).unwrap().as_str(), " se cret ");
        assert_eq!(read_password_line(&path, 1).unwrap().as_str(), "rest");
        assert_eq!(read_password_line(&path, 2).unwrap_err().exit, ExitCause::Usage);
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read_password_line(&path, 0).unwrap_err().exit, ExitCause::Usage);
        assert_eq!(read_password_line(&dir.path().join("none"), 0).unwrap_err().exit, ExitCause::NotFound);
    }
}
