//! The order in which things reach the disk, seen from outside, and what a flush that fails costs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::kills::Scene;
use crate::rig::bytes;
use crate::trace::{Trace, next, shown};
use crate::{PIECE, left};

const PIECES: usize = 120;

/// Bytes a second, so that records are due before the end.
const RATE: u64 = 16 * 1024 * 1024;

/// The calls of a leecher that fetched the whole file, with where the file was then.
fn calls(scene: &Scene, trace: &Trace) -> (Vec<String>, String) {
    let leecher = scene.start_traced(&scene.manifest, Some(RATE), trace);
    leecher.wait(|figures| figures.verified > 0);
    let part = shown(&left::ending(scene.path(), ".part").unwrap());
    let pid = leecher.pid();
    let figures = leecher.wait(|figures| figures.durable);
    assert!(figures.durable, "{figures:?}");
    assert!(std::fs::read(scene.path().join("f")).unwrap() == scene.content, "the file is another");
    drop(leecher);
    (trace.all_calls(pid), part)
}

/// Where records got their name that claim something: all but the first, which is made before anything is written.
fn records(calls: &[String]) -> Vec<usize> {
    let is_record = |call: &str| call.contains("rename") && call.contains(".record\"");
    (0..calls.len()).filter(|at| is_record(&calls[*at])).skip(1).collect()
}

#[test]
fn data_then_record_then_name_and_each_is_synced() {
    let scene = Scene::new(bytes(PIECES * PIECE, 21));
    let Some(trace) = Trace::to(scene.aside("trace")) else { return };
    let (calls, part) = calls(&scene, &trace);
    let directory = shown(scene.path());
    let records = records(&calls);
    assert!(!records.is_empty(), "no record was due: nothing was tested");
    let mut before = 0;
    for record in records {
        let data = next(&calls[..record], before, &["sync(", &part]);
        next(&calls[..record], data, &["sync(", ".record.new>"]);
        before = next(&calls, record, &["fsync(", &directory]);
    }
    // The last record may still be under way when the end begins.
    let named = next(&calls, 0, &["rename", ".part\"", "\"f\""]);
    next(&calls[..named], 0, &["fsync(", &part]);
    next(&calls, named, &["fsync(", &directory]);
}

#[test]
fn after_a_flush_that_failed_everything_is_written_again_before_it_is_claimed() {
    let scene = Scene::new(bytes(PIECES * PIECE, 22));
    let Some(trace) = Trace::to(scene.aside("trace")) else { return };
    // The first flush of data; the kernel may have dropped what it could not write, and says so this once.
    let trace = trace.with("pwrite64").failing("fdatasync", 1);
    let (calls, part) = calls(&scene, &trace);
    let failed = next(&calls, 0, &["fdatasync(", &part, "EIO"]);
    let again = next(&calls, failed + 1, &["sync(", &part]);
    let record = next(&calls, failed, &["rename", ".record\""]);
    assert!(again < record, "claimed after a failed flush");
    let written = |calls: &[String]| -> BTreeSet<u64> {
        calls
            .iter()
            .filter(|call| call.contains("pwrite64(") && call.contains(&part))
            .map(|call| offset(call))
            .collect()
    };
    let (before, after) = (written(&calls[..failed]), written(&calls[failed..again]));
    assert!(!before.is_empty());
    let missing: Vec<_> = before.difference(&after).collect();
    assert!(missing.is_empty(), "claimed, and not written again: {missing:?}");
}

/// The last argument of a pwrite64.
fn offset(call: &str) -> u64 {
    let arguments = call.split_once(") =").or_else(|| call.split_once(" <unfinished")).unwrap().0;
    arguments.rsplit(", ").next().unwrap().parse().unwrap()
}

/// A file beside the manifests, out of the way of what is looked at.
impl Scene {
    fn aside(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.manifests.path()).join(name)
    }
}
