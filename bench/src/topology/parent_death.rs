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
const DEATH_SIGNAL_WORDS: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// What gives it a namespace of processes that ends with it.
const PID_NAMESPACE_WORDS: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child=KILL"];

/// The same program with the same words, ended when this thread ends.
pub(crate) fn end_with_parent(command: &Command) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    // A program that is missing is to be told as such, and not as a failure of setpriv.
    if is_installed(command) && *WORKS.get_or_init(|| does_run(&DEATH_SIGNAL_WORDS)) {
        prefix_command(&DEATH_SIGNAL_WORDS, command)
    } else {
        prefix_command(&[], command)
    }
}

/// A program whose own children end with it; its process id is that of the one which holds them together.
pub(crate) fn in_pid_namespace(command: &Command) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let mut fold = PID_NAMESPACE_WORDS.to_vec();
    if !geteuid().is_root() {
        fold.extend(["--user", "--map-root-user"]);
    }
    if is_installed(command) && *WORKS.get_or_init(|| does_run(&fold)) {
        prefix_command(&fold, command)
    } else {
        prefix_command(&[], command)
    }
}

fn does_run(words: &[&str]) -> bool {
    let mut command = prefix_command(words, &Command::new("true"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_installed(command: &Command) -> bool {
    let program = Path::new(command.get_program());
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The command behind other words; its streams are not taken over.
fn prefix_command(words: &[&str], command: &Command) -> Command {
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
        for mut command in [end_with_parent(&plain), in_pid_namespace(&plain)] {
            assert_eq!(command.output().unwrap().stdout, b"1none /\n");
        }
    }

    #[test]
    fn a_missing_program_stays_missing() {
        let missing = Command::new("no-such-program-anywhere");
        let fault = end_with_parent(&missing).spawn().unwrap_err();
        assert_eq!(fault.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn what_a_folded_program_starts_ends_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo up; wait"]);
        let mut command = in_pid_namespace(&command);
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
