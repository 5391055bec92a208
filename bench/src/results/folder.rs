//! The folder of `--out`: each run's records as `ID.jsonl` and its histograms as interval log `ID.hlog`.
//!
//! Invariant: the files of an earlier run are never changed.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::calendar::format_timestamp;
use super::record::{BenchRecord, RunRecord};
use crate::host::HostDescription;
use crate::limits::{RECORDS_FILE_MAX_BYTES, RUNS_A_SECOND_MAX, RUNS_READ_MAX};

/// Extension of record files.
const RECORDS_EXTENSION: &str = "jsonl";

/// Extension of interval logs.
const LOG_EXTENSION: &str = "hlog";

/// Name of the report of all runs of a folder.
const REPORT_NAME: &str = "report.html";

/// The files of a new run.
#[derive(Debug)]
pub(crate) struct NewRun {
    /// Identifies the run in records and file names.
    pub(crate) id: String,
    /// Its record file, empty.
    pub(crate) records: File,
    /// The path of its interval log.
    pub(crate) log: PathBuf,
}

/// The records of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredRun {
    /// The machine, if a record describes it.
    pub(crate) host: Option<HostDescription>,
    /// The latest `run` record.
    pub(crate) run: RunRecord,
    /// All other records, in order.
    pub(crate) records: Vec<BenchRecord>,
}

impl StoredRun {
    pub(crate) fn add(&mut self, record: BenchRecord) {
        match record {
            BenchRecord::Host(host) => self.host = Some(host),
            BenchRecord::Run(run) => self.run = run,
            other => self.records.push(other),
        }
    }
}

/// The id of a run of `workload` that began at `began_unix_s`, without the number that `create_run` adds to a second
/// run of that second.
pub(crate) fn run_id(workload: &str, began_unix_s: u64) -> String {
    format!("{}-{workload}", format_timestamp(began_unix_s))
}

/// The path of the report of all runs of `folder`.
pub(crate) fn report_path(folder: &Path) -> PathBuf {
    folder.join(REPORT_NAME)
}

/// Creates the folder if necessary, and in it the files of a new run.
pub(crate) fn create_run(folder: &Path, workload: &str, began_unix_s: u64) -> anyhow::Result<NewRun> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}: choose another --out", folder.display()))?;
    let plain = run_id(workload, began_unix_s);
    for number in 1..=RUNS_A_SECOND_MAX {
        let id = if number == 1 { plain.clone() } else { format!("{plain}-{number}") };
        let path = folder.join(&id).with_added_extension(RECORDS_EXTENSION);
        match File::create_new(&path) {
            Ok(records) => {
                let log = folder.join(&id).with_added_extension(LOG_EXTENSION);
                return Ok(NewRun { id, records, log });
            }
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {}
            Err(fault) => {
                return Err(fault).context(format!("cannot write {}: choose another --out", path.display()));
            }
        }
    }
    bail!("{} already has {RUNS_A_SECOND_MAX} runs of this second: choose another --out", folder.display())
}

/// The latest runs of a folder, earliest first. A file that cannot be read is reported on standard error and left out.
pub(crate) fn read_runs(folder: &Path) -> anyhow::Result<Vec<StoredRun>> {
    let listing =
        fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == RECORDS_EXTENSION))
        .collect();
    // Compares names without their extension: `-` sorts before `.`, so `ID-2.jsonl` would come before `ID.jsonl`.
    paths.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    let early = paths.len().saturating_sub(RUNS_READ_MAX);
    let mut runs = Vec::new();
    for path in &paths[early..] {
        match read_run_file(path) {
            Ok(run) => runs.push(run),
            Err(fault) => eprintln!("bench: left out of the report: {}: {fault:#}", path.display()),
        }
    }
    Ok(runs)
}

fn read_run_file(path: &Path) -> anyhow::Result<StoredRun> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > RECORDS_FILE_MAX_BYTES {
        bail!("it has {bytes} bytes, at most {RECORDS_FILE_MAX_BYTES} are read");
    }
    let mut kept = StoredRun::default();
    for (number, line) in BufReader::new(file.take(bytes)).lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            let record = serde_json::from_str(&line)
                .with_context(|| format!("line {} is not a record", number + 1))?;
            kept.add(record);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::results::record::AbsentRecord;

    #[test]
    fn a_later_run_keeps_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = create_run(folder.path(), "hash", 0).unwrap();
        let second = create_run(folder.path(), "hash", 0).unwrap();
        assert_eq!(first.id, "1970-01-01T00-00-00-hash");
        assert_eq!(second.id, "1970-01-01T00-00-00-hash-2");
        for mut new in [first, second] {
            let run = BenchRecord::Run(RunRecord { id: new.id.clone(), ..RunRecord::default() });
            let failed =
                AbsentRecord { run: new.id, workload: "w".into(), kind: "k".into(), why: "because".into() };
            for record in [run, BenchRecord::Failed(failed)] {
                writeln!(new.records, "{}", serde_json::to_string(&record).unwrap()).unwrap();
            }
        }
        let runs = read_runs(folder.path()).unwrap();
        let ids: Vec<&str> = runs.iter().map(|kept| kept.run.id.as_str()).collect();
        assert_eq!(ids, ["1970-01-01T00-00-00-hash", "1970-01-01T00-00-00-hash-2"]);
        assert!(runs.iter().all(|kept| kept.records.len() == 1));
    }

    #[test]
    fn a_damaged_file_does_not_hide_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jsonl"), "{\"record\":\"run\"").unwrap();
        fs::write(folder.path().join("b.txt"), "not ours").unwrap();
        let mut new = create_run(folder.path(), "hash", 0).unwrap();
        writeln!(new.records, "{}", serde_json::to_string(&BenchRecord::Run(RunRecord::default())).unwrap())
            .unwrap();
        assert_eq!(read_runs(folder.path()).unwrap().len(), 1);
    }
}
