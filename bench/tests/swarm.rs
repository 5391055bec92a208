//! `bench swarm` with the real programs: its figures, its failures, and that it leaves nothing behind. Where the
//! system refuses namespaces, the tests are skipped.
#![allow(clippy::unwrap_used, reason = "what cannot be set up is a failed test")]

mod rig;

use std::path::Path;
use std::process::Command;

use rig::{Running, client_that, of_record, processes_of, records};
use rustix::process::Signal;
use serde_json::Value;

fn bench(place: &Path, args: &[&str]) -> Command {
    let words = ["swarm", "--json", "--leechers", "2", "--uplink", "64M", "--size", "1M"];
    rig::bench(place, &[&words, args].concat())
}

/// Whether the run was skipped because the system refuses namespaces.
fn is_skipped(lines: &[Value]) -> bool {
    let skipped = lines.iter().find(|line| line["record"] == "skipped");
    if let Some(skipped) = skipped {
        println!("skipped: {}", skipped["why"]);
    }
    skipped.is_some()
}

/// No process, hence no namespace, since none is mounted; no network device of a run; no file.
fn assert_nothing_is_left(place: &Path) {
    rig::assert_nothing_is_left(place);
    let devices = std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|entry| entry.file_name());
    let ours: Vec<_> = devices
        .filter(|name| {
            let name = name.to_string_lossy();
            name == "swarm" || name.starts_with("host")
        })
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn a_swarm_is_measured_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let output = bench(place.path(), &["--runs", "2", "--seeders", "2"]).output().unwrap();
    let lines = records(&output.stdout);
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
    // Both leechers have the whole file, no matter which host sent it.
    let each = medians("leechers, each on average", "copies sent")[0];
    let all = medians("seeder 1", "copies sent")[0] + medians("seeder 2", "copies sent")[0] + 2.0 * each;
    assert!(all >= 2.0, "{all} copies left the hosts");
    assert_eq!(of_record(&lines, "failed").count(), 0);
    assert_nothing_is_left(place.path());
}

#[test]
fn a_failed_leecher_fails_the_command_but_not_the_others() {
    let place = tempfile::tempdir().unwrap();
    let programs = client_that("case \"$*\" in *download_file*/copy1) echo disk full >&2; exit 7;; esac");
    let output = bench(place.path(), &["--bin", &programs.path().to_string_lossy()]).output().unwrap();
    let lines = records(&output.stdout);
    if is_skipped(&lines) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let failed: Vec<&Value> = of_record(&lines, "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["kind"], "leecher 01");
    assert!(failed[0]["why"].as_str().unwrap().contains("disk full"), "{failed:?}");
    let finishes: Vec<&Value> =
        of_record(&lines, "sample").filter(|line| line["metric"] == "finish").collect();
    assert!(finishes.len() == 1 && finishes[0]["kind"] == "leecher 02", "{finishes:?}");
    assert_nothing_is_left(place.path());
}

#[test]
fn a_hanging_download_is_ended_and_reported() {
    let place = tempfile::tempdir().unwrap();
    let programs = client_that("case \"$*\" in *download_file*) exec sleep 100000;; esac");
    let programs = programs.path().to_string_lossy().into_owned();
    let output = bench(place.path(), &["--bin", &programs, "--limit", "1"]).output().unwrap();
    let lines = records(&output.stdout);
    if is_skipped(&lines) {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let failed: Vec<&Value> = of_record(&lines, "failed").collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    for (at, one) in failed.iter().enumerate() {
        assert_eq!(one["kind"], format!("leecher {:02}", at + 1));
        assert!(one["why"].as_str().unwrap().contains("--limit"), "{one}");
    }
    assert_nothing_is_left(place.path());
}

#[test]
fn an_interrupted_swarm_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut running = Running::start(bench(place.path(), &["--runs", "100"]));
    // The first round is over and the next one begins.
    let first = running.wait_for(&[r#""kind":"leecher 01""#, r#""skipped""#]);
    if first.contains(r#""skipped""#) {
        println!("skipped: {first}");
        return;
    }
    assert!(processes_of(place.path()) > 1);
    assert_eq!(running.end_by(Signal::INT).code(), Some(128 + 2));
    assert_nothing_is_left(place.path());
}
