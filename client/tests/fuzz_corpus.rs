//! Replays the corpora of the fuzz targets on the stable compiler. A file whose name starts with `refused_` is refused,
//! every other one accepted, and no parser panics.
#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use client::fuzzing::TARGETS;

/// Longest file of a corpus, in bytes: it only has to reach each branch of its parser.
const FILE_MAX_BYTES: u64 = 4_096;

fn fuzz_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

fn file_names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let programs = file_names(&fuzz_folder("fuzz_targets"));
    let programs: BTreeSet<String> = programs.iter().map(|name| name.replace(".rs", "")).collect();
    assert_eq!(programs, targets);
    assert_eq!(file_names(&fuzz_folder("corpus")), targets);
}

#[test]
fn every_corpus_file_is_accepted_or_refused_as_its_name_says() {
    for (target, parse) in TARGETS {
        let folder = fuzz_folder("corpus").join(target);
        let names = file_names(&folder);
        for name in &names {
            let bytes = fs::read(folder.join(name)).unwrap();
            assert!(bytes.len() as u64 <= FILE_MAX_BYTES, "{target}/{name} is too long for the tree");
            assert_eq!(parse(&bytes), !is_refused(name), "{target}/{name}");
        }
        let refused = names.iter().filter(|name| is_refused(name)).count();
        assert!(refused > 0 && refused < names.len(), "{target} needs accepted and refused files");
    }
}

fn is_refused(name: &str) -> bool {
    name.starts_with("refused_")
}
