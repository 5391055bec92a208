//! The command line without a tracker and without peers: invalid arguments, missing files, unreachable trackers.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be made is a failed test")]

mod rig;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rig::{CommandResult, TestRig};

#[test]
fn help_is_data_and_success() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let help = home.run(["help"]).expect(0);
    for word in ["download_file", "show_downloads", "serve", "doctor", "--overwrite", "SHOAL_STATE"] {
        assert!(help.out.contains(word), "{word} is missing in:\n{}", help.out);
    }
    assert!(help.err.is_empty());
    for words in [["help", "upload_file"], ["upload_file", "--help"]] {
        let help = home.run(words).expect(0).out;
        assert!(help.contains("<GROUP_ID>") && help.contains("Ctrl-C"), "{help}");
        assert!(!help.contains("SHOAL_"), "the help of one command shows the options of all:\n{help}");
    }
    assert!(home.run(["--version"]).expect(0).out.starts_with("client "));
}

#[test]
fn wrong_words_are_exit_2_and_say_what_is_right() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let unknown = home.run(["donwload_file", "g", "f", "d"]).expect(2);
    assert!(unknown.err.contains("download_file") && unknown.err.contains("client help"), "{}", unknown.err);
    for words in [
        &["login"][..],
        &["join_group"],
        &["download_file", "g"],
        &["logout", "now"],
        &["whoami", "--wait", "soon"],
        &["whoami", "--limit-up", "0"],
        &["whoami", "--io", "fast"],
        &["whoami", "--hash", "md5"],
        &["create_group", "g", "closed"],
    ] {
        let ended = home.run(words).expect(2);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{words:?}");
    }
}

#[test]
fn invalid_names_are_refused_before_a_node_is_contacted() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for name in ["..", "a/b", "", "x\u{202E}y", "a\nb"] {
        let ended = home.run(["download_file", "g", name, "."]).expect(2);
        assert!(ended.err.contains("next:"), "{}", ended.err);
    }
    home.run(["get_peers", "no group", "f"]).expect(2);
    assert!(!home.state().exists(), "a refused command creates no state directory");
}

#[test]
fn a_missing_file_is_exit_5_and_a_directory_is_refused() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let missing = home.run(["upload_file", "g", "nowhere.bin"]).expect(5);
    assert!(missing.err.contains("nowhere.bin"), "{}", missing.err);
    assert!(missing.err.contains("check the path"), "{}", missing.err);
    let turned = home.run(["upload_file", "gone/away.bin", "g"]).expect(5);
    assert!(turned.err.contains("gone/away.bin"), "{}", turned.err);
    for (words, code) in [
        (&["upload_file", "g", "."][..], 2),
        (&["upload_file", "g", "/dev/null"], 2),
        (&["login", "a", "--password-file", "nowhere"], 5),
        (&["join_group", "no/group"], 2),
    ] {
        let ended = home.run(words).expect(code);
        assert!(ended.err.contains("next:"), "{words:?}: {}", ended.err);
    }
}

#[test]
fn an_unreachable_tracker_is_exit_7_with_the_fix() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let ended = home.run(["login", "a", "password"]).expect(7);
    assert!(
        ended.err.contains("no tracker can be reached") && ended.err.contains("--trackers"),
        "{}",
        ended.err
    );
    let json = home.run(["create_user", "a", "password", "--json"]).expect(7);
    let object: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((object["result"].as_str(), object["exit"].as_u64()), (Some("failed"), Some(7)));
}

#[test]
fn a_missing_or_wrong_tracker_file_is_named() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let missing = home.run(["whoami", "--trackers", "nowhere.txt"]).expect(2);
    assert!(missing.err.contains("nowhere.txt"), "{}", missing.err);
    let directory = home.run(["whoami", "--trackers", "."]).expect(2);
    assert!(directory.err.contains("is a directory"), "{}", directory.err);
    rig.file("wrong.txt", b"127.0.0.1 8000\nlocalhost 1\n");
    let wrong = home.run(["whoami", "--trackers", "wrong.txt"]).expect(2);
    assert!(wrong.err.contains("wrong.txt") && wrong.err.contains("line 2"), "{}", wrong.err);
}

#[test]
fn suggested_commands_fit_the_shell_or_the_prompt() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let in_a_shell = home.run(["pause", "g", "f"]).expect(5);
    assert!(in_a_shell.err.contains("`client show_downloads`"), "{}", in_a_shell.err);
    let json = home.run(["pause", "g", "f", "--json"]).expect(5);
    assert!(json.out.contains("`client show_downloads`"), "{}", json.out);
    let at_the_prompt = home.prompt("pause g f\n").expect(5);
    assert!(at_the_prompt.err.contains("`show_downloads`"), "{}", at_the_prompt.err);
}

#[test]
fn an_address_that_trackers_ignore_is_refused() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let refused = home.run(["status", "--advertise", "203.0.113.5"]).expect(2);
    assert!(refused.err.contains("--advertise 203.0.113.5"), "{}", refused.err);
    home.run(["status", "--advertise", "127.0.0.5"]).expect(1);
}

#[test]
fn commands_that_need_a_login_say_so() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("f", b"x");
    for words in [&["upload_file", "g", "f"][..], &["download_file", "g", "f", "."]] {
        let ended = home.run(words).expect(3);
        assert!(ended.err.contains("login"), "{}", ended.err);
    }
    let long = u64::MAX.to_string();
    home.run(["download_file", "g", "f", ".", "--wait", &long]).expect(3);
    let asked = home.run(["login", "a"]).expect(2);
    assert!(asked.err.contains("--password-file"), "stdin is not a terminal: {}", asked.err);
}

#[test]
fn status_and_quit_without_a_node_are_exit_1() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for word in ["status", "quit"] {
        let ended = home.run([word]).expect(1);
        assert!(ended.err.contains("no node runs") && ended.err.contains("client serve"), "{}", ended.err);
    }
}

#[test]
fn a_bad_config_file_is_a_usage_fault() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("c.toml", b"jason = true\n");
    let ended = home.run(["status", "--config", "c.toml"]).expect(2);
    assert!(ended.err.contains("c.toml") && ended.err.contains("jason"), "{}", ended.err);
    rig.file("c.toml", b"json = true\n");
    assert!(home.run(["status", "--config", "c.toml"]).expect(1).out.starts_with('{'));
    assert!(home.run(["status", "--config", "c.toml", "--json=false"]).expect(1).out.is_empty());
}

#[test]
fn a_state_directory_that_cannot_be_is_exit_10() {
    let rig = TestRig::without_tracker();
    rig.file("plain", b"");
    let ended = rig.home("a").run(["whoami", "--state", "plain/state"]).expect(10);
    assert!(ended.err.contains("plain/state") && ended.err.contains("--state"), "{}", ended.err);
}

#[test]
fn a_file_or_another_user_s_directory_as_state_is_reported() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("plain", b"");
    // `status` exits with 1 for every failure.
    for (word, exit) in [("status", 1), ("quit", 10), ("whoami", 10), ("serve", 10)] {
        let ended = home.run([word, "--state", "plain"]).expect(exit);
        assert!(ended.err.contains("is a file, not a directory"), "{word}: {}", ended.err);
    }
}

#[test]
fn a_config_file_that_cannot_be_read_stops_all_but_doctor() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    home.run(["status", "--config", "."]).expect(10);
    let ended = home.run(["doctor", "--config", "."]).expect(10);
    assert!(ended.out.contains("BAD  config") && ended.out.contains("trackers"), "{}", ended.out);
}

#[test]
fn doctor_names_what_is_wrong() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let ended = home.run(["doctor"]).expect(7);
    assert!(ended.out.contains("BAD  trackers") && ended.out.contains("ok   state"), "{}", ended.out);
    assert!(ended.out.contains("open files"), "{}", ended.out);
    assert!(!ended.out.contains("client doctor"), "suggests the running command: {}", ended.out);
    let object = object(&home.run(["doctor", "--json"]).expect(7));
    assert!(object["checks"].as_array().unwrap().iter().any(|check| check["ok"] == false), "{object}");
    assert_eq!((&object["result"], &object["exit"]), (&"failed".into(), &7.into()));
}

/// The JSON object on stdout.
fn object(ended: &CommandResult) -> serde_json::Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error} in {:?}", ended.out))
}

#[test]
fn usage_errors_are_json_objects_too() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for words in [&["--json", "download_file", "g"][..], &["donwload_file", "--json=true"]] {
        let ended = home.run(words).expect(2);
        let object = object(&ended);
        assert_eq!((&object["result"], &object["cause"]), (&"failed".into(), &"usage".into()));
        assert!(object["message"].as_str().unwrap().len() > 10 && ended.err.contains("next:"), "{object}");
    }
    assert_eq!(home.run(["login", "--json=false"]).expect(2).out, "");
    assert!(home.run(["--json", "help"]).expect(0).out.contains("download_file"), "help is printed");
}

#[test]
fn destinations_that_are_not_utf_8_are_refused() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::create_dir(rig.path(name)).unwrap();
    let ended = home.run([OsStr::new("download_file"), OsStr::new("g"), OsStr::new("f"), name]).expect(2);
    assert!(ended.err.contains("caf\\xE9 is not UTF-8"), "{}", ended.err);
    let mut here = home.command(["download_file", "g", "f"]);
    let output = here.current_dir(rig.path(name)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("next: name a directory"), "{said}");
}

#[test]
fn local_names_are_escaped_where_they_are_printed() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    for (name, shown) in [
        (&b"red\x1b[31m"[..], r"red\u{1b}[31m"),
        (b"two\nlines", r"two\nlines"),
        (b"caf\xe9", r"caf\xE9"),
        (b"\xe2\x80\xaeexe", r"\u{202e}exe"),
    ] {
        let name = OsStr::from_bytes(name);
        let mut words = vec![vec![OsStr::new("upload_file"), OsStr::new("g"), name]];
        words.push(vec![OsStr::new("login"), OsStr::new("a"), OsStr::new("--password-file"), name]);
        words.push(vec![OsStr::new("status"), OsStr::new("--state"), name]);
        words.push(vec![OsStr::new("status"), OsStr::new("--config"), name]);
        words.push(vec![OsStr::new("whoami"), OsStr::new("--trackers"), name]);
        for words in words {
            let said = home.run(&words).err;
            let plain = said.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'));
            assert!(plain && said.contains(shown), "{words:?}: {said:?}");
        }
        // The parser of the command line shows an argument too many, without escape sequences.
        let said = home.run([OsStr::new("whoami"), name]).expect(2).err;
        assert!(said.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{said:?}");
        fs::create_dir(rig.path(name)).unwrap();
        let said = home.run([OsStr::new("upload_file"), OsStr::new("g"), name]).expect(2).err;
        assert!(said.contains(&format!("{shown} is a directory")), "{said:?}");
    }
}

#[test]
fn swapped_and_mistyped_words_get_a_suggestion() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("notes.txt", b"x");
    let swapped = home.run(["download_file", "my file.bin", "weights", "/d"]).expect(2).err;
    assert!(swapped.contains("did you mean `client download_file weights 'my file.bin' /d`?"), "{swapped}");
    assert!(!home.state().exists(), "a refused command creates no state directory");
    let near = home.run(["upload_file", "g", "note.txt"]).expect(5).err;
    assert!(near.contains("did you mean") && near.contains("notes.txt?"), "{near}");
    let command = home.run(["list_file", "g"]).expect(2).err;
    assert!(command.contains("list_files"), "{command}");
}

#[test]
fn words_of_other_programs_are_understood() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("f", b"x");
    for (words, code) in [(&["ls", "g"][..], 7), (&["get", "g", "f"], 3), (&["put", "g", "f"], 3)] {
        home.run(words).expect(code);
    }
    assert!(home.run(["exit"]).expect(1).err.contains("no node runs"));
    home.prompt("exit\nno_command\n").expect(0);
    let help = home.run(["help"]).expect(0).out;
    assert!(!help.contains(" ls ") && !help.contains(" get "), "{help}");
}

#[test]
fn trackers_can_be_named_by_host_and_port() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let address = rig.tracker();
    fs::remove_file(rig.path("tracker_info.txt")).unwrap();
    let named = format!("{address},localhost:{}", address.port());
    let ended = home.run(["whoami", "--trackers", &named]).expect(7).err;
    assert!(ended.contains(&format!("{address}: ")) && ended.contains("named by `--trackers`"), "{ended}");
    let wrong = home.run(["whoami", "--trackers", "10.0.0.1:8000,nonsense"]).expect(2).err;
    assert!(wrong.contains("`nonsense`") && wrong.contains("HOST:PORT"), "{wrong}");
    let unknown = home.run(["whoami", "--trackers", "no-such-host.invalid:1"]).expect(7).err;
    assert!(unknown.contains("no-such-host.invalid:1: "), "{unknown}");
    let none = home.run(["whoami"]).expect(2).err;
    assert!(none.contains("tracker_info.txt") && none.contains("--trackers HOST:PORT"), "{none}");
}

#[test]
fn a_full_stdout_is_a_failure_and_a_closed_pipe_is_not() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let _node = home.serve(&[]);
    for words in [&["show_downloads", "--json"][..], &["status"], &["help"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = home.command(words).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(9), "{words:?}: {said}");
        assert!(said.contains("standard output") && said.contains("next:"), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(home.command(words).stdout(writer).output().unwrap().status.success(), "{words:?}");
    }
}

#[test]
fn a_directory_of_other_files_is_refused_as_state_directory() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    rig.file("open/letter", b"");
    let mode = |name: &str, mode| fs::set_permissions(rig.path(name), Permissions::from_mode(mode)).unwrap();
    let is = |name: &str| rig.path(name).metadata().unwrap().permissions().mode() & 0o7777;
    for (name, open) in [("open", 0o755), ("shared", 0o1777)] {
        fs::create_dir_all(rig.path(name)).unwrap();
        mode(name, open);
        let doctor = home.run(["--state", name, "doctor"]).expect(10);
        assert!(doctor.out.contains("BAD  state") && !doctor.out.contains("next: `chmod"), "{}", doctor.out);
        let ended = home.run(["--state", name, "show_downloads"]).expect(10);
        assert!(ended.err.contains("next: name "), "{}", ended.err);
        assert_eq!(is(name), open, "{name}");
    }
    fs::create_dir(rig.path("empty")).unwrap();
    mode("empty", 0o755);
    let doctor = home.run(["--state", "empty", "doctor"]).expect(7);
    assert!(doctor.out.contains("next: `chmod 700"), "{}", doctor.out);
    // Log lines follow `--color`, whether or not stderr is a terminal.
    let closed = home.run(["--state", "empty", "show_downloads", "--color", "always"]).expect(0);
    assert!(closed.err.contains("closed to them") && closed.err.contains("\x1b["), "{}", closed.err);
    assert_eq!(is("empty"), 0o700);
    mode("empty", 0o755);
    let plain = home.run(["--state", "empty", "show_downloads"]).expect(0);
    assert!(plain.err.contains("closed to them") && !plain.err.contains('\x1b'), "{}", plain.err);
}

#[test]
fn verbosity_can_be_set_in_the_environment() {
    let rig = TestRig::without_tracker();
    let home = rig.home("a");
    let mut wrong = home.command(["status"]);
    assert_eq!(wrong.env("SHOAL_VERBOSE", "much").output().unwrap().status.code(), Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = |verbose: &str| {
        fs::create_dir_all(home.state()).unwrap();
        fs::write(home.state().join("port"), taken.local_addr().unwrap().port().to_string()).unwrap();
        fs::set_permissions(home.state(), Permissions::from_mode(0o700)).unwrap();
        let mut serve = home.command(["serve", "--listen", "127.0.0.1"]);
        serve.env("SHOAL_VERBOSE", verbose).env_remove("RUST_LOG").stdout(Stdio::piped());
        let node = serve.stderr(Stdio::piped()).spawn().unwrap();
        rig::until("the new node answers", || home.run(["status"]).code == 0);
        home.run(["quit"]).expect(0);
        String::from_utf8(node.wait_with_output().unwrap().stderr).unwrap()
    };
    assert!(said("1").contains("is taken; another one is used"));
    assert!(!said("0").contains("is taken; another one is used"));
}

#[test]
fn doctor_detects_a_server_that_is_not_a_tracker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = TestRig::with_tracker_at(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            // The client may have closed the connection.
            let _ = connection.read(&mut [0; 64]);
            let _ = connection.write_all(b"SSH-2.0-example\r\n");
        }
    });
    let ended = rig.home("a").run(["doctor"]).expect(7);
    assert!(ended.out.contains("BAD  trackers") && ended.out.contains("not a tracker"), "{}", ended.out);
    let right = TestRig::new();
    let ended = right.home("a").run(["doctor"]).expect(0);
    assert!(ended.out.contains(&format!("{} answers", right.tracker())), "{}", ended.out);
}
