//! `bench tracker` through the real programs: what it counts is what was sent.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .output()
        .expect("the binary was built beside this test")
}

/// Whether the tracker was built beside the harness; `cargo test --workspace` builds it.
fn is_built() -> bool {
    let built = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("tracker").is_file();
    if !built {
        println!("skipped: there is no tracker beside the harness: `cargo build -p tracker` builds it");
    }
    built
}

fn records(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).expect("records are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn a_fixed_rate_answers_for_every_request_that_was_due() {
    if !is_built() {
        return;
    }
    let mix = "ping=5,get_peers=3,update_pieces=3,upload_file=1";
    let args =
        ["tracker", "--json", "--connections", "24", "--active", "4", "--rate", "300", "--seconds", "1"];
    let records = records(&bench(&[&args[..], &["--mix", mix, "--no-maximum"]].concat()));
    let of = |record: &'static str| records.iter().filter(move |line| line["record"] == record);
    let value = |metric: &str| {
        let found = of("result").find(|line| line["workload"] == "fixed rate" && line["metric"] == metric);
        found.unwrap_or_else(|| panic!("no {metric}"))["median"].as_f64().unwrap()
    };
    assert_eq!(value("requests due").to_bits(), 300.0_f64.to_bits());
    assert_eq!(value("requests answered").to_bits(), 300.0_f64.to_bits());
    let counts: u64 = of("latency").map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!((of("latency").count(), counts), (4, 300));
    assert_eq!(of("failed").count(), 0);
    assert!(of("result").any(|line| line["metric"] == "memory a connection"));
}

#[test]
fn a_tracker_that_is_not_there_is_told_with_the_way_out() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_string_lossy().into_owned();
    let output = bench(&["tracker", "--connections", "1", "--bin", &folder]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--bin"));
    assert_eq!(bench(&["tracker", "--mix", "pong=1"]).status.code(), Some(2));
    assert_eq!(bench(&["tracker", "--rate", "0"]).status.code(), Some(2));
}
