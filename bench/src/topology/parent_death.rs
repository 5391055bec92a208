//! Child processes that end with the harness, even when it is killed.
//!
//! `setpriv --pdeathsig` requests a signal at the parent's death and then becomes the program, with the same pid.
//! Children of the program are not covered. Programs that leave workers behind run in a pid namespace, which ends with
//! its first process.
//!
//! Invariant: the signal comes when the starting *thread* ends, so the harness's first thread starts all children.
//! Without these tools, children are started unchanged.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::geteuid;

/// Makes the kernel kill a program at its parent's death.
const DEATH_SIGNAL_WORDS: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Runs a program in a pid namespace that ends with it.
const PID_NAMESPACE_WORDS: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child=KILL"];

/// The same command, killed when the calling thread ends.
pub(crate) fn end_with_parent(command: &Command) -> Command {
    static WORKS: OnceLock<bool> = OnceLock::new();
    // A missing program must fail as itself, not as setpriv.
    if is_installed(command) && *WORKS.get_or_init(|| does_run(&DEATH_SIGNAL_WORDS)) {
        prefix_command(&DEATH_SIGNAL_WORDS, command)
    } else {
        prefix_command(&[], command)
    }
}

/// The same command in a pid namespace; its pid is that of `unshare`, which kills all processes of the namespace when
/// it ends.
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

/// Prefixes a command with the words of another program that runs it. Redirections are not copied.
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
    fn arguments_folder_and_environment_are_kept() {
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
    fn children_of_a_program_in_a_pid_namespace_end_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo up; wait"]);
        let mut command = in_pid_namespace(&command);
        if command.get_program() != "unshare" {
            println!("skipped: this system refuses pid namespaces");
            return;
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut output, &mut [0; 3]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The sleeper holds the pipe as well: it closes at its end.
        assert_eq!(std::io::Read::read(&mut output, &mut [0; 1]).unwrap(), 0);
    }
}
