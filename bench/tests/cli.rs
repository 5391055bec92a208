//! The harness's command line: its JSON lines and its refusals.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use engine::hash::HashKind;
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .output()
        .expect("the binary was built beside this test")
}

fn json_lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).expect("reports are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn hash_reports_every_kind_and_the_reference() {
    let lines = json_lines(&bench(&["hash", "--size", "1M", "--runs", "2", "--warmup", "0", "--json"]));
    assert_eq!(lines[0]["record"], "host");
    assert_eq!(lines[1]["record"], "run");
    assert_eq!(lines[1]["size"], 1 << 20);
    let of = |record: &'static str| lines.iter().filter(move |line| line["record"] == record);
    let results: Vec<&Value> = of("result").collect();
    assert_eq!(results[0]["kind"], "sha1 crate");
    let ratio = &results[0]["ratios"][0];
    assert!(["median", "min", "max"].iter().all(|of| (ratio[of].as_f64().unwrap() - 1.0).abs() < 1e-9));
    // Three workloads for each implementation, the reference, the upload.
    let supported: Vec<String> = HashKind::supported().map(|kind| kind.to_string()).collect();
    assert_eq!(results.len(), 3 * supported.len() + 2);
    assert_eq!(of("sample").count(), 2 * results.len());
    for kind in &supported {
        for workload in ["stream", "digests", "both_states"] {
            let matching = |line: &&&Value| line["kind"] == kind.as_str() && line["workload"] == workload;
            assert_eq!(results.iter().filter(matching).count(), 1, "{kind} {workload}");
        }
    }
    assert_eq!(results.last().unwrap()["workload"], "upload");
    for line in results {
        assert_eq!(line["run"], lines[1]["id"]);
        assert_eq!((&line["metric"], &line["unit"]), (&"throughput".into(), &"GB/s".into()));
        assert_eq!(line["runs"], 2);
        assert!(line["min"].as_f64().unwrap() > 0.0);
        assert!(line["min"].as_f64().unwrap() <= line["median"].as_f64().unwrap());
        assert!(line["median"].as_f64().unwrap() <= line["max"].as_f64().unwrap());
    }
}

#[test]
fn rivals_hash_the_same_file_in_the_same_rounds() {
    let place = tempfile::tempdir().unwrap();
    let tools = tempfile::tempdir().unwrap();
    // One program that works, one that fails; a third is missing.
    for (name, script) in
        [("openssl", "echo 'OpenSSL 9.8.7'"), ("sha1sum", "[ $1 = --version ] && echo 1.2.3")]
    {
        let program = tools.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["hash", "--size", "1M", "--runs", "2", "--warmup", "0", "--json", "--rivals", "--dir"])
        .arg(place.path())
        .env("PATH", tools.path())
        .output()
        .unwrap();
    let lines = json_lines(&output);
    let of = |record: &str, kind: &str| {
        let matching = |line: &&Value| line["record"] == record && line["kind"] == kind;
        lines.iter().filter(matching).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("sample", "openssl sha1 (9.8.7)").len(), 2);
    assert_eq!(of("failed", "sha1sum (1.2.3)").len(), 1);
    assert_eq!(of("skipped", "mktorrent").len(), 1);
    let ours = |line: &&Value| line["record"] == "sample" && line["workload"] == "upload of the file";
    assert_eq!(lines.iter().filter(ours).count(), 2);
    assert!(place.path().read_dir().unwrap().next().is_none(), "something was left behind");
}

#[test]
fn the_table_names_every_workload() {
    let output = bench(&["hash", "--size", "600K", "--runs", "1", "--warmup", "0"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["sha1 crate", "digests", "both_states", "upload", "ratio", HashKind::best().name()] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
}

#[test]
fn host_describes_the_machine() {
    let lines = json_lines(&bench(&["host", "--json"]));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["hash_kinds"][0], HashKind::best().name());
    assert!(lines[0]["memory_bytes"].as_u64().unwrap() > 0);
    assert!(lines[0]["io_uring"].is_boolean());
    assert_eq!(lines[0]["io_uring"] == true, lines[0]["io_uring_refusal"].is_null());
    let text = String::from_utf8(bench(&["host"]).stdout).unwrap();
    for word in ["kernel", "memory", "tcp", "io_uring", "open files"] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
}

#[test]
fn host_describes_the_filesystem_and_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (place, kept) = (folder.path().to_str().unwrap(), folder.path().join("kept"));
    let lines = json_lines(&bench(&["host", "--json", "--dir", place, "--out", kept.to_str().unwrap()]));
    let told = lines[0]["filesystem"].as_str().unwrap();
    assert!(told.contains(place) && told.contains("free"), "{told}");
    let page = std::fs::read_to_string(kept.join("report.html")).unwrap();
    assert!(page.contains("filesystem") && page.contains(place));
    assert_eq!(bench(&["host", "--dir", "/no/such/folder"]).status.code(), Some(1));
}

#[test]
fn wrong_arguments_exit_with_code_2_and_a_remedy() {
    for size in ["0", "12Q", "", "1.5M", "-1"] {
        let size = format!("--size={size}");
        let output = bench(&["hash", &size]);
        assert_eq!(output.status.code(), Some(2), "{size}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("--size"), "{message}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(bench(&["hash", "--runs", "0"]).status.code(), Some(2));
    assert_eq!(bench(&["nonsense"]).status.code(), Some(2));
    assert_eq!(bench(&[]).status.code(), Some(2));
}

#[test]
fn a_size_beyond_the_memory_fails_before_allocation() {
    let output = bench(&["hash", "--size", "4096T"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("use a smaller --size"));
}
