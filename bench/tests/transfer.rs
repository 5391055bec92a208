//! `bench transfer` with the real programs: its figures, failing and missing rivals, and that it leaves nothing
//! behind.
#![allow(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

mod rig;

use std::path::Path;
use std::process::Command;

use rig::{
    Running, assert_no_process_is_left, assert_nothing_is_left, bench, client_that, fake, of_record,
    processes_of, records, values,
};
use rustix::process::Signal;
use serde_json::Value;

/// Length of the file: sixteen pieces.
const BYTES: u64 = 8 << 20;

fn json_lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().expect("the harness can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    records(&output.stdout)
}

#[test]
fn a_transfer_is_counted_correctly() {
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
    // The transfer is part of the command, for contenders that report both.
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
    // Two rounds, two leechers, sixteen pieces: each piece is requested and verified once, apart from duplicates.
    let latency = lines.iter().find(|line| line["record"] == "latency").expect("latencies are told");
    let duplicates = values(&lines, "shoal", "duplicates").iter().sum::<f64>();
    assert_eq!(latency["count"].as_u64().unwrap(), 2 * 2 * BYTES.div_ceil(512 << 10));
    assert!(latency["max"].as_u64() > latency["p50"].as_u64().map(|p50| p50 / 2), "{latency}");
    assert!(latency["p50"].as_u64().unwrap() > 10_000, "a piece took 10 µs: {latency}");
    assert!(duplicates < 100.0, "{duplicates}");
    // Frame headers and handshakes: more than 0 and less than a twentieth.
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
    assert_nothing_is_left(place.path());
}

#[test]
fn failing_and_missing_rivals_are_only_recorded() {
    let place = tempfile::tempdir().unwrap();
    // The tools that the harness needs, and a rival whose server fails.
    let tools = tempfile::tempdir().unwrap();
    fake(
        tools.path(),
        "rsync",
        "[ \"$1\" = --version ] && echo 'rsync version 9.8.7' && exit; echo disk full >&2; exit 3",
    );
    // A second rival, which serves and fails to download.
    let script = "case $1 in --version) echo sendme 1.2.3;; send) echo 'sendme receive x'; exec sleep 1000;; \
                  *) echo no route >&2; exit 4;; esac";
    fake(tools.path(), "sendme", script);
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
    assert!(failed.contains("disk full"), "{failed}");
    let failed = absent("failed", "sendme (1.2.3)")["why"].as_str().unwrap();
    assert!(failed.contains("no route"), "{failed}");
    for missing in ["nginx, curl", "rqbit", "aria2"] {
        let why = absent("skipped", missing)["why"].as_str().unwrap();
        assert!(why.contains("bench-rivals.sh"), "{why}");
    }
    assert_eq!(values(&lines, "shoal", "throughput").len(), 1, "the others went on");
    assert_nothing_is_left(place.path());
}

#[test]
fn a_failure_of_shoal_fails_the_command_after_all_measurements() {
    let place = tempfile::tempdir().unwrap();
    // Everything works but downloads.
    let programs = client_that("case \"$*\" in *download_file*) echo disk full >&2; exit 3;; esac");
    let args = ["transfer", "--size", "1M", "--runs", "2", "--warmup", "0", "--seeders", "1", "--json"];
    let output = bench(place.path(), &args[..]).arg("--bin").arg(programs.path()).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("failed: shoal"), "{said}");
    let lines = records(&output.stdout);
    let failed: Vec<&Value> = of_record(&lines, "failed").collect();
    assert_eq!(failed.len(), 1, "it takes no part after its failure");
    assert_eq!(failed[0]["kind"], "shoal");
    assert_eq!(values(&lines, "pump", "throughput").len(), 2, "the others went on");
    assert!(lines.iter().any(|line| line["record"] == "result"));
    assert_nothing_is_left(place.path());
}

#[test]
fn one_failed_leecher_fails_the_round_and_is_named() {
    let place = tempfile::tempdir().unwrap();
    let programs = client_that("case \"$*\" in *download_file*/copies/1) echo disk full >&2; exit 3;; esac");
    let args = ["transfer", "--size", "1M", "--runs", "1", "--warmup", "0", "--seeders", "1"];
    let args = [&args[..], &["--leechers", "3", "--json"]].concat();
    let output = bench(place.path(), &args).arg("--bin").arg(programs.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = records(&output.stdout);
    let failed: Vec<&Value> = of_record(&lines, "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let why = failed[0]["why"].as_str().unwrap();
    assert!(why.contains("leecher 2 of 3") && why.contains("disk full"), "{why}");
    assert!(!why.contains("leecher 1 of") && !why.contains("leecher 3 of"), "{why}");
    assert!(values(&lines, "shoal", "throughput").is_empty(), "a round of two of three is no round");
    assert_eq!(values(&lines, "pump", "throughput").len(), 1, "the others went on");
    assert_nothing_is_left(place.path());
}

#[test]
fn several_numbers_of_nodes_are_measured_and_drawn() {
    let place = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let args = ["transfer", "--size", "1M", "--runs", "1", "--warmup", "0", "--json"];
    let args = [&args[..], &["--seeders", "1,2", "--leechers", "1,3"]].concat();
    let lines = json_lines(bench(place.path(), &args).arg("--out").arg(out.path()));
    for workload in [
        "1 seeder to 1 leecher",
        "1 seeder to 3 leechers",
        "2 seeders to 1 leecher",
        "2 seeders to 3 leechers",
    ] {
        let of_workload = lines.iter().filter(|line| line["workload"] == workload).cloned();
        let of_workload: Vec<Value> = of_workload.collect();
        for metric in ["throughput", "cpu", "memory of a leecher, RssAnon"] {
            assert_eq!(values(&of_workload, "shoal", metric).len(), 1, "{workload} {metric}");
        }
    }
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    for axis in ["leechers, of 1 seeder", "leechers, of 2 seeders", "seeders, for 3 leechers"] {
        assert!(page.contains(axis), "{axis} is missing");
    }
    // A second run is added to the report.
    let again = ["transfer", "--size", "1M", "--runs", "1", "--warmup", "0", "--seeders", "1"];
    assert!(bench(place.path(), &again).arg("--out").arg(out.path()).output().unwrap().status.success());
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert_eq!(page.matches("<section>").count(), 2);
    assert_nothing_is_left(place.path());
}

/// Whether a folder lies on a tmpfs.
fn lies_in_memory(place: &Path) -> bool {
    rustix::fs::statfs(place).unwrap().f_type == 0x0102_1994
}

#[test]
fn cold_rounds_are_cold_or_refused() {
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
        assert_nothing_is_left(memory.path());
    }
}

#[test]
fn a_comparison_gives_b_as_a_multiple_of_a() {
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

#[test]
fn a_terminated_run_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut running = Running::start(endless(place.path()));
    running.wait_for(&[r#""kind":"shoal""#]);
    assert!(processes_of(place.path()) > 1);
    assert_eq!(running.end_by(Signal::TERM).code(), Some(128 + 15));
    assert_nothing_is_left(place.path());
}

#[test]
fn a_killed_run_leaves_no_process() {
    let ties = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status();
    if !ties.is_ok_and(|status| status.success()) {
        println!("skipped: children cannot be tied to the harness: `apt install util-linux`");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut running = Running::start(endless(place.path()));
    running.wait_for(&[r#""kind":"shoal""#]);
    // At least the harness, the tracker, a seeder and a sender of the pump.
    assert!(processes_of(place.path()) > 3);
    running.end_by(Signal::KILL);
    assert_no_process_is_left(place.path());
}

/// A run that ends only by a signal.
fn endless(place: &Path) -> Command {
    bench(place, &["transfer", "--size", "1M", "--runs", "1000", "--warmup", "0", "--seeders", "1", "--json"])
}
