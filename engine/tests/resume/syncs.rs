//! The order of disk calls, traced from outside, and what a failed flush costs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::PIECE;
use crate::kills::KillScenario;
use crate::rig::bytes;
use crate::trace::{Call, Trace, next, shown};

const PIECES: usize = 120;

/// Bytes a second: slow enough that records are due long before the end, even where a flush takes seconds.
const RATE: u64 = 4 * 1024 * 1024;

/// The calls of a leecher that downloaded the whole file, and its partial file as the trace shows it.
fn calls(scene: &KillScenario, trace: &Trace) -> (Vec<Call>, String) {
    let leecher = scene.start_traced(&scene.manifest, Some(RATE), trace);
    let pid = leecher.pid();
    let figures = leecher.wait(|figures| figures.durable);
    assert!(figures.durable, "{figures:?}");
    assert!(std::fs::read(scene.path().join("f")).unwrap() == scene.content, "the file differs");
    leecher.end();
    let calls = trace.all_calls(pid);
    let part = calls.iter().find_map(partial_file).expect("the partial file is synced");
    (calls, part)
}

/// The partial file behind a descriptor, as the trace shows it.
fn partial_file(call: &Call) -> Option<String> {
    let (before, _) = call.text.split_once(".part>")?;
    let (_, path) = before.rsplit_once('<')?;
    Some(format!("<{path}.part>"))
}

/// Renames of records that claim something: all but the first, which is made before any write.
fn records(calls: &[Call]) -> Vec<usize> {
    let is_record = |call: &Call| call.text.contains("rename") && call.text.contains(".record\"");
    (0..calls.len()).filter(|at| is_record(&calls[*at])).skip(1).collect()
}

#[test]
fn data_record_and_name_are_synced_in_order() {
    let scene = KillScenario::new(bytes(PIECES * PIECE, 21));
    let Some(trace) = Trace::to(scene.aside("trace")) else { return };
    let (calls, part) = calls(&scene, &trace);
    let directory = shown(scene.path());
    let records = records(&calls);
    assert!(!records.is_empty(), "no record was due, so nothing was tested");
    let mut before = 0;
    for record in records {
        let data = next(&calls[..record], before, &["sync(", &part]);
        next(&calls[..record], data, &["sync(", ".record.new>"]);
        before = next(&calls, record, &["fsync(", &directory]);
    }
    // The last record may still be in progress when the end begins.
    let named = next(&calls, 0, &["rename", ".part\"", "\"f\""]);
    next(&calls[..named], 0, &["fsync(", &part]);
    next(&calls, named, &["fsync(", &directory]);
}

#[test]
fn after_a_failed_flush_pieces_are_rewritten_before_they_are_claimed() {
    let scene = KillScenario::new(bytes(PIECES * PIECE, 22));
    let Some(trace) = Trace::to(scene.aside("trace")) else { return };
    // The first flush of data fails. The kernel may have dropped unwritten pages, and reports that once.
    let trace = trace.with("pwrite64").failing("fdatasync", 1);
    let (calls, part) = calls(&scene, &trace);
    let failed = next(&calls, 0, &["fdatasync(", &part, "EIO"]);
    let again = next(&calls, failed + 1, &["sync(", &part]);
    let record = next(&calls, failed, &["rename", ".record\""]);
    assert!(again < record, "claimed after a failed flush");
    let (failed_at, again_from) = (calls[failed].end.unwrap(), calls[again].begin);
    let before = written(&calls, &part, |call| call.end.is_some_and(|end| end < failed_at));
    let after =
        written(&calls, &part, |call| failed_at < call.begin && call.end.is_some_and(|end| end < again_from));
    assert!(!before.is_empty());
    let missing: Vec<_> = before.difference(&after).collect();
    assert!(missing.is_empty(), "claimed and not written again: {missing:?}");
}

/// Offsets in the file that these calls write to.
fn written(calls: &[Call], part: &str, counts: impl Fn(&Call) -> bool) -> BTreeSet<u64> {
    let writes = |call: &&Call| call.text.contains("pwrite64(") && call.text.contains(part);
    calls.iter().filter(writes).filter(|call| counts(call)).map(offset).collect()
}

/// The last argument of a pwrite64.
fn offset(call: &Call) -> u64 {
    let arguments = call.text.rsplit_once(')').map_or(call.text.as_str(), |(before, _)| before);
    arguments.rsplit(", ").next().unwrap().trim_end().parse().unwrap()
}

impl KillScenario {
    fn aside(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.manifests.path()).join(name)
    }
}
