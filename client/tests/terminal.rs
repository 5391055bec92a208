//! The client at a terminal: its output, and that it restores the terminal's modes however it ends.
//!
//! `script` provides the terminal. A shell on it prints the client's exit code and the modes that `stty` reports.
#![allow(clippy::unwrap_used, reason = "a terminal of the test's own that fails is a failed test")]

mod rig;

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use rig::{CLIENT, TestRig, UserHome, send, until};
use rustix::process::Signal;

/// A terminal that runs a shell command.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<Screen>>,
}

/// Output that no test has read yet.
#[derive(Default)]
struct Screen {
    text: String,
    /// The output has ended.
    over: bool,
}

/// Collects output until its end.
fn read(mut from: ChildStdout, screen: &Mutex<Screen>) {
    let mut block = [0; 256];
    while let Ok(read @ 1..) = from.read(&mut block) {
        screen.lock().unwrap().text.push_str(&String::from_utf8_lossy(&block[..read]));
    }
    screen.lock().unwrap().over = true;
}

impl Terminal {
    /// `None`, with a message, if `script` is not installed.
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

    /// Runs the client on a terminal, then prints its exit code and the terminal's modes.
    fn client(rig: &TestRig, home: &UserHome, words: &str) -> Option<Terminal> {
        let line = format!("sh -c 'echo pid=$$.; exec {CLIENT} {words}'; echo code=$?.; stty -a; echo over");
        Terminal::run(rig, home, &line)
    }

    /// Output since the last call, up to a text.
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

    /// Presses a key again and again until a text is shown.
    fn press_until(&mut self, key: &str, text: &str) {
        const POLLS_BETWEEN: usize = 100;
        let mut polls = 0;
        until(&format!("{text:?} is shown"), || {
            if polls % POLLS_BETWEEN == 0 {
                self.type_keys(key);
            }
            polls += 1;
            let screen = self.screen.lock().unwrap();
            assert!(!screen.over, "it ended after {}", screen.text);
            screen.text.contains(text)
        });
        self.until(text);
    }

    /// The client's process id.
    fn pid(&mut self) -> u32 {
        self.until("pid=");
        self.until(".").trim_end_matches('.').parse().unwrap()
    }

    fn type_keys(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the client's end; returns the output until then and the exit code.
    fn end(&mut self) -> (String, i32) {
        let shown = self.until("code=");
        let code = self.until(".").trim_end_matches('.').parse().unwrap();
        (shown, code)
    }

    /// Asserts that line mode and echo are on.
    #[track_caller]
    fn assert_is_as_it_was(&mut self) {
        let modes = self.until("over");
        let has = |mode: &str| modes.split([' ', ';', '\r', '\n']).any(|word| word == mode);
        assert!(has("icanon") && has("echo") && has("icrnl") && has("opost"), "{modes}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // `script` ends at the end of its input, or by this kill.
        drop(self.keys.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_typed_password_is_not_shown() {
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
fn password_prompts_are_not_written_to_stdout() {
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
fn a_password_argument_is_neither_shown_nor_stored() {
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
fn a_prompt_whose_node_goes_away_restores_the_terminal() {
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
fn a_signal_at_the_prompt_restores_the_terminal() {
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

#[test]
fn groups_and_files_complete_at_the_prompt() {
    let rig = TestRig::new();
    let (home, _node) = rig.user("alice");
    home.run(["create_group", "weights"]).expect(0);
    rig.file("base model.bin", b"x");
    home.run(["upload_file", "weights", "base model.bin"]).expect(0);
    let Some(mut terminal) = Terminal::client(&rig, &home, "") else { return };
    terminal.until("shoal> ");
    // The names may come after the first key was answered.
    terminal.type_keys("get_peers we");
    terminal.press_until("\t", "weights ");
    terminal.press_until("\t", "'base model.bin'");
    terminal.type_keys("\r");
    terminal.until("no other node has it");
    terminal.type_keys("exit\r");
    assert_eq!(terminal.end().1, 0);
    terminal.assert_is_as_it_was();
}

#[test]
fn leaving_a_group_that_would_be_lost_asks_first() {
    let rig = TestRig::new();
    let (alice, _node) = rig.user("alice");
    let (bob, _node) = rig.user("bob");
    alice.run(["create_group", "g"]).expect(0);
    bob.run(["join_group", "g"]).expect(0);
    let owner = |home: &UserHome| {
        let out = home.run(["list_groups", "--json"]).expect(0).out;
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        answer["groups"][0]["owner"].as_str().map(str::to_owned)
    };
    for (answer, code, left) in
        [("\r", 1, "alice"), ("n\r", 1, "alice"), ("\x03", 130, "alice"), ("yes\r", 0, "bob")]
    {
        let Some(mut terminal) = Terminal::client(&rig, &alice, "leave_group g") else { return };
        terminal.until("You own g");
        terminal.until("[y/N] ");
        terminal.type_keys(answer);
        let (shown, ended) = terminal.end();
        assert_eq!((ended, owner(&bob).as_deref()), (code, Some(left)), "{answer:?}: {shown}");
        terminal.assert_is_as_it_was();
    }
    let Some(mut terminal) = Terminal::client(&rig, &bob, "--color never") else { return };
    terminal.until("shoal> ");
    terminal.type_keys("leave_group g\r");
    terminal.until("You are the last member of g");
    terminal.until("[y/N] ");
    terminal.type_keys("n\r");
    terminal.until("error: you are still a member of g");
    terminal.until("shoal> ");
    terminal.type_keys("leave_group g --yes\r");
    terminal.until("the group and its files are gone");
    terminal.type_keys("quit\r");
    assert_eq!(terminal.end().1, 0);
}

#[test]
fn a_member_who_owns_nothing_is_not_asked_and_tables_fit_the_terminal() {
    let rig = TestRig::new();
    let (alice, _node) = rig.user("alice");
    let (bob, _node) = rig.user("bob");
    alice.run(["create_group", "a-group-with-a-rather-long-name"]).expect(0);
    bob.run(["join_group", "a-group-with-a-rather-long-name"]).expect(0);
    let name = "a-model-with-a-very-long-name-00001-of-00191.safetensors";
    rig.file(name, b"x");
    alice.run(["upload_file", "a-group-with-a-rather-long-name", name]).expect(0);
    let words = "sh -c 'stty cols 60; for list in list_groups \"list_files a-group-with-a-rather-long-name\" status; do";
    let line = format!(
        "{words} {CLIENT} $list; done; {CLIENT} leave_group a-group-with-a-rather-long-name; echo over'"
    );
    let Some(mut terminal) = Terminal::run(&rig, &bob, &line) else { return };
    let shown = terminal.until("over");
    assert!(shown.contains("member") && shown.contains("seeders") && shown.contains("process"), "{shown}");
    let table_lines = shown.lines().filter(|line| !line.contains("left group"));
    for line in table_lines {
        assert!(line.trim_end().chars().count() <= 60, "{line:?} in {shown}");
    }
    assert!(!shown.contains("[y/N]"), "{shown}");
}
