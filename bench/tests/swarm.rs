//! `bench swarm` as it is called, through the real programs: what it measures, what a failure costs, and that it leaves nothing
//! behind, however it ends. Where namespaces are refused there is nothing to test.
#![allow(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For the end of processes that the kernel ends is looked this often, so many times.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 6_000;

/// In the environment of every process of a run, with a value of its own.
const MARK: &str = "BENCH_SWARM_TEST";

/// A harness whose files go to `place`, by which its processes are known too.
fn bench(place: &Path, args: &[&str]) -> Command {
    let own = Path::new(env!("CARGO_BIN_EXE_bench"));
    for program in ["tracker", "client"] {
        assert!(
            own.with_file_name(program).is_file(),
            "{program} is not beside the harness: `cargo build -p tracker -p client` builds both"
        );
    }
    let mut command = Command::new(own);
    command.args(["swarm", "--json", "--leechers", "2", "--uplink", "64M", "--size", "1M"]);
    command.args(args).arg("--dir").arg(place).env(MARK, place);
    command
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether the run told that it may not have what it needs.
fn is_skipped(lines: &[Value]) -> bool {
    let skipped = lines.iter().find(|line| line["record"] == "skipped");
    if let Some(skipped) = skipped {
        println!("skipped: {}", skipped["why"]);
    }
    skipped.is_some()
}

/// Processes of a run, whatever namespace they are in.
fn processes_of(place: &Path) -> usize {
    let mark = format!("{MARK}={}", place.display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|all| all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())).count()
}

/// No process, so no namespace either, since none is mounted; no device of a run; no file.
fn assert_nothing_is_left(place: &Path) {
    let gone = (0..LOOKS).any(|_| {
        let gone = processes_of(place) == 0;
        if !gone {
            std::thread::park_timeout(LOOK_EVERY);
        }
        gone
    });
    assert!(gone, "{} processes outlived the harness", processes_of(place));
    let devices = std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|entry| entry.file_name());
    let ours: Vec<_> = devices
        .filter(|name| {
            let name = name.to_string_lossy();
            name == "swarm" || name.starts_with("host")
        })
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(place.read_dir().unwrap().next().is_none(), "a file was left behind");
}

fn of_record<'a>(lines: &'a [Value], record: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["record"] == record)
}

#[test]
fn a_swarm_is_measured_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let output = bench(place.path(), &["--runs", "2", "--seeders", "2"]).output().unwrap();
    let lines = json_lines(&output);
    if is_skipped(&lines) {
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let medians = |kind: &str, metric: &str| -> Vec<f64> {
        let wanted = |line: &&Value| line["kind"] == kind && line["metric"] == metric && line["runs"] == 2;
        of_record(&lines, "result").filter(wanted).map(|line| line["median"].as_f64().unwrap()).collect()
    };
    for (kind, metric) in [("leecher 01", "finish"), ("leecher 02", "finish"), ("shoal", "last finish")] {
        let found = medians(kind, metric);
        assert!(found.len() == 1 && found[0] > 0.0, "{kind} {metric}: {found:?}");
    }
    // Two leechers have all of it, whoever sent it to them.
    let each = medians("leechers, each on average", "copies sent")[0];
    let all = medians("seeder 1", "copies sent")[0] + medians("seeder 2", "copies sent")[0] + 2.0 * each;
    assert!(all >= 2.0, "{all} copies left the hosts");
    assert_eq!(of_record(&lines, "failed").count(), 0);
    assert_nothing_is_left(place.path());
}

#[test]
fn a_leecher_that_fails_loses_its_own_copy_and_ends_the_command_with_a_failure() {
    let (place, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = Path::new(env!("CARGO_BIN_EXE_bench"));
    symlink(own.with_file_name("tracker"), programs.path().join("tracker")).unwrap();
    let client = programs.path().join("client");
    let real = own.with_file_name("client");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *download_file*/copy1) echo no bread >&2; exit 7;; esac\nexec '{}' \"$@\"\n",
        real.display()
    );
    std::fs::write(&client, script).unwrap();
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = bench(place.path(), &["--bin", &programs.path().to_string_lossy()]).output().unwrap();
    let lines = json_lines(&output);
    if is_skipped(&lines) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let failed: Vec<&Value> = of_record(&lines, "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["kind"], "leecher 01");
    assert!(failed[0]["why"].as_str().unwrap().contains("no bread"), "{failed:?}");
    let finishes: Vec<&Value> =
        of_record(&lines, "sample").filter(|line| line["metric"] == "finish").collect();
    assert!(finishes.len() == 1 && finishes[0]["kind"] == "leecher 02", "{finishes:?}");
    assert_nothing_is_left(place.path());
}

/// Ends the harness when a test fails before it did.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_interrupted_swarm_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut command = bench(place.path(), &["--runs", "100"]);
    let mut running = Ends(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The first round is over, and the next one begins.
    let first = lines.find(|line| line.contains(r#""kind":"leecher 01""#) || line.contains(r#""skipped""#));
    let first = first.expect("the run ended without a sample");
    if first.contains(r#""skipped""#) {
        println!("skipped: {first}");
        return;
    }
    assert!(processes_of(place.path()) > 1);
    kill_process(Pid::from_child(&running.0), Signal::INT).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(128 + 2));
    assert_nothing_is_left(place.path());
}
