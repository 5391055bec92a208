//! Children that end with the harness, also when it is killed and can clean up nothing.
//!
//! The kernel does it: `setpriv --pdeathsig` asks for a signal at the parent's end and then becomes the program, so that the
//! process id is the program's own. What a program starts in turn is not tied by that; those that leave workers behind get a
//! namespace of processes, which ends with its first one.
//!
//! Invariant: the signal comes when the starting *thread* ends, so children are started by the harness's first thread. Where
//! the tools are missing or refused, children are started as they are.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::geteuid;

/// What ties a program to its parent.
const TIE: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// What gives it a namespace of processes that ends with it.
const FOLD: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child=KILL"];

/// The same program with the same words, ended when this thread ends.
pub(crate) fn tied(command: &Command) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    // A program that is missing is to be told as such, and not as a failure of setpriv.
    if is_there(command) && *WORKS.get_or_init(|| succeeds(&TIE)) {
        before(&TIE, command)
    } else {
        before(&[], command)
    }
}

/// A program whose own children end with it; its process id is that of the one which holds them together.
pub(crate) fn folded(command: &Command) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let mut fold = FOLD.to_vec();
    if !geteuid().is_root() {
        fold.extend(["--user", "--map-root-user"]);
    }
    if is_there(command) && *WORKS.get_or_init(|| succeeds(&fold)) {
        before(&fold, command)
    } else {
        before(&[], command)
    }
}

fn succeeds(words: &[&str]) -> bool {
    let mut command = before(words, &Command::new("true"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_there(command: &Command) -> bool {
    let program = Path::new(command.get_program());
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The command behind other words; its streams are not taken over.
fn before(words: &[&str], command: &Command) -> Command {
    let mut all = match words {
        [first, rest @ ..] => {
            let mut all = Command::new(first);
            all.args(rest).arg("--").arg(command.get_program());
            all
        }
        [] => Command::new(command.get_program()),
    };
    all.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        all.current_dir(folder);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_folder_and_environment_stay() {
        let mut plain = Command::new("sh");
        plain.args(["-c", "echo $A${B-none} $PWD", "x"]).env("A", "1").env_remove("B").current_dir("/");
        for mut command in [tied(&plain), folded(&plain)] {
            assert_eq!(command.output().unwrap().stdout, b"1none /\n");
        }
    }

    #[test]
    fn a_missing_program_stays_missing() {
        let missing = Command::new("no-such-program-anywhere");
        let fault = tied(&missing).spawn().unwrap_err();
        assert_eq!(fault.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn what_a_folded_program_starts_ends_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo up; wait"]);
        let mut command = folded(&command);
        if command.get_program() != "unshare" {
            println!("skipped: namespaces of processes are refused here");
            return;
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut output, &mut [0; 3]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The sleeper has it too: its end closes it.
        assert_eq!(std::io::Read::read(&mut output, &mut [0; 1]).unwrap(), 0);
    }
}
