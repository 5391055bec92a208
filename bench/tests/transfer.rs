//! `bench transfer` as it is called, through the real programs: it counts right, survives rivals that fail or are missing,
//! and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Length of the file that is moved: sixteen pieces.
const BYTES: u64 = 8 << 20;

/// For the end of processes that the kernel ends is looked this often, so many times.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 2_000;

/// A harness whose files go to `place`; without the programs of a workspace build there is nothing to test.
fn bench(place: &Path, args: &[&str]) -> Command {
    let own = Path::new(env!("CARGO_BIN_EXE_bench"));
    for program in ["tracker", "client"] {
        assert!(
            own.with_file_name(program).is_file(),
            "{program} is not beside the harness: `cargo build -p tracker -p client` builds both"
        );
    }
    let mut command = Command::new(own);
    command.args(args).arg("--dir").arg(place);
    command
}

fn json_lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().expect("the harness can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    records(output.stdout)
}

fn records(stdout: Vec<u8>) -> Vec<Value> {
    let text = String::from_utf8(stdout).expect("records are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The values of one metric of one kind.
fn values(lines: &[Value], kind: &str, metric: &str) -> Vec<f64> {
    let wanted =
        |line: &&Value| line["record"] == "sample" && line["kind"] == kind && line["metric"] == metric;
    lines.iter().filter(wanted).map(|line| line["value"].as_f64().expect("a sample has a value")).collect()
}

fn is_empty(place: &Path) -> bool {
    place.read_dir().expect("the folder is there").next().is_none()
}

#[test]
fn a_transfer_of_known_size_is_counted_right() {
    let place = tempfile::tempdir().unwrap();
    let args =
        ["transfer", "--size", "8M", "--runs", "2", "--warmup", "0", "--seeders", "2", "--leechers", "2"];
    let lines = json_lines(bench(place.path(), &args).arg("--json"));
    let failed = lines.iter().find(|line| line["record"] == "failed");
    assert_eq!(failed, None);
    let durable = if lies_in_memory(place.path()) { "synced, in memory" } else { "durable" };
    for kind in ["pump", "cp", "sha1 pass", "shoal"] {
        for metric in ["throughput", durable] {
            let values = values(&lines, kind, metric);
            assert_eq!(values.len(), 2, "{kind} {metric}");
            assert!(values.iter().all(|value| *value > 0.0), "{kind} {metric}");
        }
        let (fast, slow) = (values(&lines, kind, "throughput"), values(&lines, kind, durable));
        assert!(
            fast.iter().zip(&slow).all(|(fast, slow)| fast >= slow),
            "{kind} is durable before it is complete"
        );
    }
    // The transfer is part of the command, for whoever tells both.
    for kind in ["pump", "shoal"] {
        let (command, itself) = (values(&lines, kind, "throughput"), values(&lines, kind, "transfer itself"));
        assert_eq!(itself.len(), 2, "{kind}");
        assert!(command.iter().zip(&itself).all(|(command, itself)| command <= itself), "{kind}");
    }
    let run = lines.iter().rfind(|line| line["record"] == "run").expect("a run is described");
    assert_eq!(run["size"], BYTES);
    let settings = run["settings"].as_array().unwrap();
    let apart =
        settings.iter().find(|pair| pair[0].as_str().unwrap().contains("a download of its own")).unwrap();
    assert_eq!(apart[1], "pump; cp");
    // Two rounds, two leechers, sixteen pieces: each was asked for and proven once, give or take duplicates.
    let latency = lines.iter().find(|line| line["record"] == "latency").expect("latencies are told");
    let duplicates = values(&lines, "shoal", "duplicates").iter().sum::<f64>();
    assert_eq!(latency["count"].as_u64().unwrap(), 2 * 2 * BYTES.div_ceil(512 << 10));
    assert!(latency["max"].as_u64() > latency["p50"].as_u64().map(|p50| p50 / 2), "{latency}");
    assert!(latency["p50"].as_u64().unwrap() > 10_000, "a piece took 10 µs: {latency}");
    assert!(duplicates < 100.0, "{duplicates}");
    // Beyond the bytes of the file: heads and handshakes, more than nothing and less than a twentieth.
    for beyond in values(&lines, "shoal", "beyond the file, as the node counts") {
        assert!(beyond > 0.0 && beyond < 5.0 + duplicates, "{beyond} %");
    }
    for memory in values(&lines, "shoal", "memory of a leecher, RssAnon") {
        assert!(memory > 1.0 && memory < 1_000.0, "{memory} MiB");
    }
    let ratio = |line: &&Value| {
        line["record"] == "result" && line["kind"] == "shoal" && line["metric"] == "throughput"
    };
    let result = lines.iter().find(ratio).expect("samples become results");
    let to: Vec<&str> =
        result["ratios"].as_array().unwrap().iter().filter_map(|ratio| ratio["to"].as_str()).collect();
    assert_eq!(to, ["pump", "sha1 pass", "cp"]);
    assert!(is_empty(place.path()), "something was left behind");
}

/// A folder with a program of that name, which runs `script`; first on the path, before nothing but the basics.
fn fake(name: &str, script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn rivals_that_fail_or_are_missing_are_records_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    // What the harness itself needs, and one rival, which is installed and fails when it is to serve.
    let tools = fake(
        "rsync",
        "[ \"$1\" = --version ] && echo 'rsync version 9.8.7' && exit; echo no bread >&2; exit 3",
    );
    // And one that serves, and fails when it is to fetch.
    let script = "case $1 in --version) echo sendme 1.2.3;; send) echo 'sendme receive x'; exec sleep 1000;; \
                  *) echo no butter >&2; exit 4;; esac";
    let sendme = fake("sendme", script);
    std::fs::rename(sendme.path().join("sendme"), tools.path().join("sendme")).unwrap();
    for tool in ["cp", "sh", "sleep", "unshare", "ip", "setpriv"] {
        let found =
            ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().map(|folder| Path::new(folder).join(tool));
        if let Some(path) = found.into_iter().find(|path| path.is_file()) {
            std::os::unix::fs::symlink(path, tools.path().join(tool)).unwrap();
        }
    }
    let args = ["transfer", "--size", "1M", "--runs", "1", "--warmup", "0", "--seeders", "1", "--rivals"];
    let lines = json_lines(bench(place.path(), &args).arg("--json").env("PATH", tools.path()));
    let absent = |record: &str, kind: &str| {
        lines
            .iter()
            .find(|line| {
                line["record"] == record && line["kind"].as_str().is_some_and(|found| found.starts_with(kind))
            })
            .unwrap_or_else(|| panic!("{kind} has no {record} record"))
    };
    let failed = absent("failed", "rsync")["why"].as_str().unwrap();
    assert!(failed.contains("no bread"), "{failed}");
    let failed = absent("failed", "sendme (1.2.3)")["why"].as_str().unwrap();
    assert!(failed.contains("no butter"), "{failed}");
    for missing in ["nginx, curl", "rqbit", "aria2"] {
        let why = absent("skipped", missing)["why"].as_str().unwrap();
        assert!(why.contains("bench-rivals.sh"), "{why}");
    }
    assert_eq!(values(&lines, "shoal", "throughput").len(), 1, "the others went on");
    assert_eq!(processes_at(place.path()), 0);
}

#[test]
fn a_failure_of_shoal_is_one_of_the_command_after_the_others_were_measured() {
    let place = tempfile::tempdir().unwrap();
    let beside = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("client");
    // All but downloads work.
    let script = format!(
        "for word; do [ \"$word\" = download_file ] && echo no bread >&2 && exit 3; done; exec '{}' \"$@\"",
        beside.display()
    );
    let programs = fake("client", &script);
    std::os::unix::fs::symlink(beside.with_file_name("tracker"), programs.path().join("tracker")).unwrap();
    let args = ["transfer", "--size", "1M", "--runs", "2", "--warmup", "0", "--seeders", "1", "--json"];
    let output = bench(place.path(), &args[..]).arg("--bin").arg(programs.path()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("failed: shoal"), "{said}");
    let lines = records(output.stdout);
    let failed: Vec<&Value> = lines.iter().filter(|line| line["record"] == "failed").collect();
    assert_eq!(failed.len(), 1, "it takes no part after its failure");
    assert_eq!(failed[0]["kind"], "shoal");
    assert_eq!(values(&lines, "pump", "throughput").len(), 2, "the others went on");
    assert!(lines.iter().any(|line| line["record"] == "result"));
    assert!(is_empty(place.path()), "something was left behind");
}

/// Whether a folder is of a memory filesystem.
fn lies_in_memory(place: &Path) -> bool {
    rustix::fs::statfs(place).unwrap().f_type == 0x0102_1994
}

#[test]
fn cold_is_cold_or_refused() {
    let place = tempfile::tempdir().unwrap();
    let args =
        ["transfer", "--size", "8M", "--runs", "2", "--warmup", "0", "--seeders", "2", "--cold", "--json"];
    if lies_in_memory(place.path()) {
        println!("skipped: the folder for temporary files lies in memory");
    } else if Command::new("fincore").arg("--version").output().is_err() {
        println!("skipped: fincore is not installed");
    } else {
        let lines = json_lines(&mut bench(place.path(), &args));
        assert_eq!(lines.iter().find(|line| line["record"] == "failed"), None);
        for kind in ["pump", "cp", "sha1 pass", "shoal"] {
            let cached = values(&lines, kind, "source cached at the start");
            assert_eq!(cached.len(), 2, "{kind}");
            assert!(cached.iter().all(|percent| *percent <= 1.0), "{kind}: {cached:?}");
        }
    }
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
    if lies_in_memory(memory.path()) {
        let refused = bench(memory.path(), &args).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("leave out --cold"), "{said}");
        assert!(is_empty(memory.path()));
    }
}

#[test]
fn a_comparison_tells_the_second_by_the_first() {
    let place = tempfile::tempdir().unwrap();
    let args = ["compare", "--io epoll", "--hash asm", "--size", "1M", "--runs", "1", "--warmup", "0"];
    let lines = json_lines(bench(place.path(), &args).arg("--json"));
    let result = lines
        .iter()
        .find(|line| {
            line["record"] == "result" && line["kind"] == "B --hash asm" && line["metric"] == "throughput"
        })
        .expect("B has a result");
    assert_eq!(result["ratios"][0]["to"], "A --io epoll");
    let refused = bench(place.path(), &["compare", "no-such-revision", "HEAD"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no-such-revision"));
}

/// Ends the harness when a test fails before it did.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes whose command line names the folder.
fn processes_at(place: &Path) -> usize {
    let needle = place.to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&needle)).count()
}

#[test]
fn a_run_that_is_told_to_end_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let args = ["transfer", "--size", "1M", "--runs", "1000", "--warmup", "0", "--seeders", "1", "--json"];
    let mut command = bench(place.path(), &args);
    let mut running = Ends(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let shoal = |line: std::io::Result<String>| line.unwrap().contains(r#""kind":"shoal""#);
    assert!(lines.by_ref().any(shoal), "the run ended without a sample");
    assert!(processes_at(place.path()) > 1);
    kill_process(Pid::from_child(&running.0), Signal::TERM).unwrap();
    let status = running.0.wait().unwrap();
    assert_eq!(status.code(), Some(128 + 15));
    // What was killed is gone when its output has ended; a zombie has no command line.
    assert!(lines.map_while(Result::ok).count() < usize::MAX);
    assert_eq!(processes_at(place.path()), 0);
    assert!(is_empty(place.path()), "something was left behind");
}

#[test]
fn a_run_that_is_killed_leaves_no_process() {
    let ties = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status();
    if !ties.is_ok_and(|status| status.success()) {
        println!("skipped: children cannot be tied to the harness: `apt install util-linux`");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let args = ["transfer", "--size", "1M", "--runs", "1000", "--warmup", "0", "--seeders", "1", "--json"];
    let mut command = bench(place.path(), &args);
    let mut running = Ends(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let shoal = |line: std::io::Result<String>| line.unwrap().contains(r#""kind":"shoal""#);
    assert!(lines.any(shoal), "the run ended without a sample");
    // The tracker, a seeder and a sender of the pump at least.
    assert!(processes_at(place.path()) > 2);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let gone = (0..LOOKS).any(|_| {
        std::thread::park_timeout(LOOK_EVERY);
        processes_at(place.path()) == 0
    });
    assert!(gone, "{} processes outlived the harness", processes_at(place.path()));
}
