//! `bench tracker` with the real programs: it counts what was sent.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .output()
        .expect("the binary was built beside this test")
}

/// Whether the tracker was built next to the harness, as `cargo test --workspace` does.
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

/// The median of a metric of one of Shoal's workloads.
fn median(records: &[Value], workload: &str, metric: &str) -> f64 {
    let is_it = |line: &&Value| {
        let of = (&line["record"], &line["workload"], &line["kind"], &line["metric"]);
        of == (&"result".into(), &workload.into(), &"shoal".into(), &metric.into())
    };
    let found = records.iter().find(is_it).unwrap_or_else(|| panic!("no {metric} of {workload}"));
    found["median"].as_f64().expect("a median is a number")
}

#[test]
fn every_due_request_is_counted_at_a_fixed_rate() {
    if !is_built() {
        return;
    }
    let mix = "ping=5,get_peers=3,update_pieces=3,upload_file=1";
    let args = ["tracker", "--json", "--connections", "24", "--active", "4", "--rate", "300"];
    let more = ["--seconds", "0.5", "--runs", "2", "--warmup", "1", "--size", "40M", "--mix", mix];
    let records = records(&bench(&[&args[..], &more, &["--no-maximum"]].concat()));
    let of = |record: &'static str| records.iter().filter(move |line| line["record"] == record);
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!(of("host").next().unwrap()["cpus"], cpus, "those of the machine, and not of the load alone");
    let is = |workload: &str, metric: &str, value: f64| {
        assert_eq!(median(&records, workload, metric).to_bits(), value.to_bits(), "{workload} {metric}");
    };
    is("fixed rate", "requests due", 150.0);
    is("fixed rate", "requests answered", 150.0);
    is("fixed rate", "requests unanswered", 0.0);
    let counts: u64 = of("latency").map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!((of("latency").count(), counts), (4, 2 * 150), "both rounds that count, and no other");
    assert_eq!(of("series").count(), 2);
    assert_eq!(of("failed").count(), 0);
    is("idle", "connections open", 20.0);
    is("after the load", "connections open", 20.0);
    is("after the load", "connections answering", 20.0);
    assert!(median(&records, "idle", "all memory, a connection") > 0.0);
}

/// Runs with `opentracker` replaced by this script, or missing.
fn with_opentracker(script: Option<&str>) -> Output {
    let tools = tempfile::tempdir().expect("a folder");
    if let Some(script) = script {
        let path = tools.path().join("opentracker");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }
    let args =
        ["tracker", "--json", "--connections", "2", "--active", "1", "--rate", "50", "--seconds", "0.1"];
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .args(["--runs", "1", "--no-maximum", "--rivals"])
        .env("PATH", tools.path())
        .output()
        .expect("the binary was built beside this test")
}

#[test]
fn a_missing_or_failing_rival_is_recorded_and_shoal_is_measured() {
    if !is_built() {
        return;
    }
    for (script, record, word) in
        [(None, "skipped", "apt install"), (Some("echo no port for me; exit 3"), "failed", "no port for me")]
    {
        let records = records(&with_opentracker(script));
        let rival: Vec<&Value> = records.iter().filter(|line| line["kind"] == "opentracker").collect();
        assert_eq!(rival.len(), 1, "{rival:?}");
        assert_eq!(rival[0]["record"], record);
        assert!(rival[0]["why"].as_str().unwrap().contains(word), "{rival:?}");
        assert!(median(&records, "fixed rate", "requests answered") > 0.0);
    }
}

#[test]
fn a_tracker_that_refuses_requests_fails_the_command() {
    // This tracker accepts logins and refuses every look-up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || refuse_after_login(&socket.unwrap()));
        }
    });
    let args = ["tracker", "--json", "--address", &address, "--connections", "3", "--active", "2"];
    let more = ["--rate", "100", "--seconds", "0.1", "--runs", "1", "--mix", "get_peers=1", "--no-maximum"];
    let output = bench(&[&args[..], &more].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = records.iter().find(|line| line["record"] == "failed").expect("what failed is told");
    assert_eq!(failed["why"], "10 of 10 answers were refusals");
    assert_eq!(median(&records, "fixed rate", "requests answered").to_bits(), 10.0_f64.to_bits());
}

fn refuse_after_login(mut socket: &std::net::TcpStream) {
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("requests are JSON");
        let answer = match request["command"].as_str().unwrap_or_default() {
            "get_peers" => "{\"status\":\"failure\",\"code\":\"busy\"}\n",
            _ => "{\"status\":\"success\",\"session\":\"s\"}\n",
        };
        // The client may have closed the connection.
        let _ = socket.write_all(answer.as_bytes());
    }
}

#[test]
fn a_missing_tracker_program_is_reported_with_a_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_string_lossy().into_owned();
    let output = bench(&["tracker", "--connections", "1", "--bin", &folder]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--bin"));
    assert_eq!(bench(&["tracker", "--mix", "pong=1"]).status.code(), Some(2));
    assert_eq!(bench(&["tracker", "--rate", "0"]).status.code(), Some(2));
    assert_eq!(bench(&["tracker", "--runs", "0"]).status.code(), Some(2));
}
