//! The client at a terminal: what it shows there, and that it leaves the terminal as it was, however it ends.
//!
//! The terminal is one of `script`, on whose screen a shell says with what the client ended, and `stty` how the terminal is.
#![allow(clippy::unwrap_used, reason = "a terminal of the test's own that fails is a failed test")]

mod rig;

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use rig::{CLIENT, TestRig, UserHome, send, until};
use rustix::process::Signal;

/// A terminal on which a line of shell runs.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<Screen>>,
}

/// What the terminal shows and nobody has looked at yet.
#[derive(Default)]
struct Screen {
    text: String,
    /// Whether nothing more comes.
    over: bool,
}

/// Reads what is shown, until the end.
fn read(mut from: ChildStdout, screen: &Mutex<Screen>) {
    let mut block = [0; 256];
    while let Ok(read @ 1..) = from.read(&mut block) {
        screen.lock().unwrap().text.push_str(&String::from_utf8_lossy(&block[..read]));
    }
    screen.lock().unwrap().over = true;
}

impl Terminal {
    /// `None`, with a word, where there is no `script` to make one with.
    fn run(rig: &TestRig, home: &UserHome, line: &str) -> Option<Terminal> {
        let mut command = Command::new("script");
        command.args(["-qec", line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.current_dir(rig.path("")).env("TERM", "xterm");
        for (name, value) in home.command(std::iter::empty::<&str>()).env("SHELL", "/bin/sh").get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        match command.spawn() {
            Ok(mut child) => {
                let (keys, shown) = (child.stdin.take(), child.stdout.take().unwrap());
                let screen = Arc::<Mutex<Screen>>::default();
                let reading = Arc::clone(&screen);
                std::thread::spawn(move || read(shown, &reading));
                Some(Terminal { child, keys, screen })
            }
            Err(error) => {
                eprintln!("skipped: there is no `script` to make a terminal with ({error})");
                None
            }
        }
    }

    /// The client at a terminal, after whose end its exit code and the terminal's modes are shown.
    fn client(rig: &TestRig, home: &UserHome, words: &str) -> Option<Terminal> {
        let line = format!("sh -c 'echo pid=$$.; exec {CLIENT} {words}'; echo code=$?.; stty -a; echo over");
        Terminal::run(rig, home, &line)
    }

    /// What was shown since the last call, up to a text.
    fn until(&mut self, text: &str) -> String {
        let mut found = None;
        until(&format!("{text:?} is shown"), || {
            let mut screen = self.screen.lock().unwrap();
            let end = screen.text.find(text).map(|start| start + text.len());
            found = end.map(|end| screen.text.drain(..end).collect());
            assert!(found.is_some() || !screen.over, "it ended after {}", screen.text);
            found.is_some()
        });
        found.unwrap()
    }

    /// The client's process.
    fn pid(&mut self) -> u32 {
        self.until("pid=");
        self.until(".").trim_end_matches('.').parse().unwrap()
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the client's end; what was shown until then, and its exit code.
    fn end(&mut self) -> (String, i32) {
        let shown = self.until("code=");
        let code = self.until(".").trim_end_matches('.').parse().unwrap();
        (shown, code)
    }

    /// Asserts that lines are lines and typed keys are shown again.
    #[track_caller]
    fn assert_is_as_it_was(&mut self) {
        let modes = self.until("over");
        let has = |mode: &str| modes.split([' ', ';', '\r', '\n']).any(|word| word == mode);
        assert!(has("icanon") && has("echo") && has("icrnl") && has("opost"), "{modes}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // `script` ends when nobody types any more, or is ended.
        drop(self.keys.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_password_that_is_asked_for_is_not_shown() {
    let rig = TestRig::new();
    let home = rig.home("alice");
    home.run(["create_user", "alice", "hunter22"]).expect(0);
    let Some(mut terminal) = Terminal::client(&rig, &home, "login alice") else { return };
    terminal.until("Password of alice");
    terminal.type_keys("hunter22\r");
    let (shown, code) = terminal.end();
    assert!(shown.contains("********") && !shown.contains("hunter22"), "{shown}");
    assert_eq!(code, 0);
    terminal.assert_is_as_it_was();
    assert!(home.run(["whoami"]).expect(0).out.starts_with("alice"));
}

#[test]
fn what_is_asked_at_the_terminal_is_no_data() {
    let rig = TestRig::new();
    let home = rig.home("alice");
    let Some(mut terminal) = Terminal::client(&rig, &home, "create_user alice --json >out") else { return };
    terminal.until("Password of alice");
    terminal.type_keys("hunter22\r");
    terminal.until("Repeat it");
    terminal.type_keys("hunter22\r");
    assert_eq!(terminal.end().1, 0);
    let out = fs::read_to_string(rig.path("out")).unwrap();
    let object: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out:?}"));
    assert_eq!(object["result"], "said");
}

#[test]
fn a_password_typed_as_a_word_is_neither_shown_nor_kept() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let Some(mut terminal) = Terminal::client(&rig, &home, "") else { return };
    let mut shown = terminal.until("shoal> ");
    for line in ["--json login alice hunter22", "login alice --json hunter22", "\"login\" alice hunter22"] {
        terminal.type_keys(&format!("{line}\r"));
        shown += &terminal.until("no tracker can be reached");
        shown += &terminal.until("shoal> ");
    }
    terminal.type_keys("quit\r");
    let (rest, code) = terminal.end();
    shown += &rest;
    assert!(shown.contains("*******") && !shown.contains("hunter22"), "{shown}");
    assert_eq!(code, 0);
    terminal.assert_is_as_it_was();
    let history = fs::read_to_string(home.state().join("history")).unwrap();
    assert!(history.contains("quit") && !history.contains("login"), "{history}");
}

#[test]
fn a_prompt_whose_node_goes_says_so_and_leaves_the_terminal_as_it_was() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let node = home.serve(&[]);
    let Some(mut terminal) = Terminal::client(&rig, &home, "--color never") else { return };
    terminal.until("attached to the node");
    terminal.until("shoal> ");
    node.kill();
    let (shown, code) = terminal.end();
    assert!(shown.contains("error: the node of this state directory went away"), "{shown}");
    assert!(shown.contains("next: start it again with `client serve`"), "{shown}");
    assert_eq!(code, 1);
    terminal.assert_is_as_it_was();
}

#[test]
fn a_signal_ends_whoever_reads_a_line_and_leaves_the_terminal_as_it_was() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for (words, asked) in [("", "shoal> "), ("login alice", "Password of alice: ")] {
        for signal in [Signal::TERM, Signal::HUP] {
            let Some(mut terminal) = Terminal::client(&rig, &home, words) else { return };
            let pid = terminal.pid();
            terminal.until(asked);
            send(pid, signal);
            assert_eq!(terminal.end().1, 130, "{words} {signal:?}");
            terminal.assert_is_as_it_was();
        }
    }
}
