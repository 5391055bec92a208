//! Writes records as they arrive: to standard output as JSON, and into the folder of `--out`.
//!
//! Invariant: the host and the run come first, results last, and every record names its run.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::folder::{self, StoredRun};
use super::latency;
use super::record::{AbsentRecord, BenchRecord, RunRecord, SampleRecord, SeriesRecord};
use super::summary;
use crate::clock;
use crate::host::HostDescription;
use crate::limits::SERIES_MAX_POINTS;

/// Where the records of a run go.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordOutput {
    /// Print them to standard output, one JSON object a line.
    pub(crate) json: bool,
    /// Keep them in this folder.
    pub(crate) folder: Option<PathBuf>,
}

/// The records of a running measurement.
pub(crate) struct RecordSink {
    output: RecordOutput,
    stored: StoredRun,
    /// The record file, and the path of the interval log.
    files: Option<(File, PathBuf)>,
    began: Duration,
    histograms: Vec<(String, Duration, Histogram<u64>)>,
    samples: Vec<SampleRecord>,
    loads: Vec<f64>,
}

/// A finished run.
pub(crate) struct FinishedRun {
    /// All of its records.
    pub(crate) stored: StoredRun,
    /// Where its records went.
    pub(crate) output: RecordOutput,
}

/// Workload, kind and metric. Records with equal keys form one row of a table or one curve.
pub(crate) type MetricKey<'a> = [&'a str; 3];

impl RecordSink {
    /// Begins a run of `workload` on this machine.
    pub(crate) fn begin(
        wanted: RecordOutput,
        workload: &str,
        size: Option<u64>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<RecordSink> {
        RecordSink::begin_on(HostDescription::describe(), wanted, workload, size, settings)
    }

    /// Begins a run on a machine that is already described.
    pub(crate) fn begin_on(
        host: HostDescription,
        wanted: RecordOutput,
        workload: &str,
        size: Option<u64>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<RecordSink> {
        let began_unix_s = clock::unix_s();
        let new = wanted
            .folder
            .as_ref()
            .map(|path| folder::create_run(path, workload, began_unix_s))
            .transpose()?;
        let id = new.as_ref().map_or_else(|| folder::run_id(workload, began_unix_s), |new| new.id.clone());
        let run = RunRecord {
            id,
            command: command_line(),
            began_unix_s,
            size,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            revision: build_revision(),
            other_load: None,
        };
        let mut sink = RecordSink {
            output: wanted,
            stored: StoredRun::default(),
            files: new.map(|new| (new.records, new.log)),
            began: clock::now(),
            histograms: Vec::new(),
            samples: Vec::new(),
            loads: Vec::new(),
        };
        sink.write_record(BenchRecord::Host(host))?;
        sink.write_record(BenchRecord::Run(run))?;
        Ok(sink)
    }

    /// The machine at the start of the run.
    pub(crate) fn host(&self) -> Option<&HostDescription> {
        self.stored.host.as_ref()
    }

    /// Records a value of one round.
    pub(crate) fn record_sample(
        &mut self,
        of: MetricKey<'_>,
        round: u32,
        value: f64,
        unit: &str,
    ) -> anyhow::Result<()> {
        self.record_value(of, round, value, unit, false)
    }

    /// Records a value of one round. Others of the same round and metric are compared with a reference.
    pub(crate) fn record_value(
        &mut self,
        [workload, kind, metric]: MetricKey<'_>,
        round: u32,
        value: f64,
        unit: &str,
        reference: bool,
    ) -> anyhow::Result<()> {
        let sample = SampleRecord {
            run: self.stored.run.id.clone(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            round,
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
            reference,
        };
        self.samples.push(sample.clone());
        self.write_record(BenchRecord::Sample(sample))
    }

    /// Records latencies, in nanoseconds.
    pub(crate) fn record_latency(
        &mut self,
        of: MetricKey<'_>,
        histogram: &Histogram<u64>,
    ) -> anyhow::Result<()> {
        let lasted = clock::now().saturating_sub(self.began);
        self.histograms.push((of.join("/"), lasted, histogram.clone()));
        let record = latency::latency_record(&self.stored.run.id, of, histogram)?;
        self.write_record(BenchRecord::Latency(record))
    }

    /// Records a value over time: points of milliseconds since the round began, and the value. Long series are
    /// thinned.
    pub(crate) fn record_series(
        &mut self,
        [workload, kind]: [&str; 2],
        unit: &str,
        mut points: Vec<(f64, f64)>,
    ) -> anyhow::Result<()> {
        while points.len() > SERIES_MAX_POINTS {
            points = points.into_iter().step_by(2).collect();
        }
        let run = self.stored.run.id.clone();
        let (workload, kind) = (workload.to_owned(), kind.to_owned());
        self.write_record(BenchRecord::Series(SeriesRecord {
            run,
            workload,
            kind,
            unit: unit.to_owned(),
            points,
        }))
    }

    /// Records that a measurement was left out, and why.
    pub(crate) fn record_skipped(&mut self, of: [&str; 2], why: &str) -> anyhow::Result<()> {
        let absent = self.absent_record(of, why);
        self.write_record(BenchRecord::Skipped(absent))
    }

    /// Records that a measurement failed, and why.
    pub(crate) fn record_failed(&mut self, of: [&str; 2], why: &str) -> anyhow::Result<()> {
        let absent = self.absent_record(of, why);
        self.write_record(BenchRecord::Failed(absent))
    }

    fn absent_record(&self, [workload, kind]: [&str; 2], why: &str) -> AbsentRecord {
        AbsentRecord {
            run: self.stored.run.id.clone(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            why: why.to_owned(),
        }
    }

    /// Adds an option or a finding to the run's record, which is written at its end.
    pub(crate) fn add_setting(&mut self, name: &str, value: &str) {
        self.stored.run.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Adds the CPUs that other programs kept busy during a round.
    pub(crate) fn add_other_load(&mut self, cpus: f64) {
        self.loads.push(cpus);
    }

    /// Ends the run: summarizes the samples and writes the interval log.
    pub(crate) fn finish(mut self) -> anyhow::Result<FinishedRun> {
        for result in summary::summarize_samples(&self.samples) {
            self.write_record(BenchRecord::Result(result))?;
        }
        let other_load = summary::value_spread(&self.loads).map(|load| load.median);
        let run = RunRecord { other_load, ..self.stored.run.clone() };
        self.write_record(BenchRecord::Run(run))?;
        if let Some((_, path)) = self.files.as_ref().filter(|_| !self.histograms.is_empty()) {
            let mut log = BufWriter::new(File::create_new(path)?);
            latency::write_interval_log(&mut log, self.stored.run.began_unix_s, &self.histograms)?;
            log.flush()?;
        }
        Ok(FinishedRun { stored: self.stored, output: self.output })
    }

    /// Writes a record to every output, and keeps it.
    fn write_record(&mut self, record: BenchRecord) -> anyhow::Result<()> {
        let line = serde_json::to_string(&record)? + "\n";
        if let Some((file, _)) = &mut self.files {
            file.write_all(line.as_bytes()).context("cannot write the records: choose another --out")?;
        }
        if self.output.json {
            io::stdout().write_all(line.as_bytes())?;
        }
        self.stored.add(record);
        Ok(())
    }
}

/// The command line, without the path of the program.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    std::iter::once("bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The version, and the commit if the build lies in a working tree.
fn build_revision() -> String {
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let commit = std::env::current_exe().ok().and_then(|exe| exe.parent().and_then(commit_of));
    commit.map_or(version.to_owned(), |commit| format!("{version} {commit}"))
}

/// The commit of the working tree that contains `folder`, marked if it has changes.
fn commit_of(folder: &Path) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(folder: &Path) -> RecordSink {
        let wanted = RecordOutput { json: false, folder: Some(folder.to_owned()) };
        RecordSink::begin(wanted, "test", Some(5), &[("seeders", "3".to_owned())]).unwrap()
    }

    #[test]
    fn written_records_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        sink.record_value(["w", "pump", "throughput"], 0, 2.0, "GB/s", true).unwrap();
        sink.record_sample(["w", "shoal", "throughput"], 0, 1.5, "GB/s").unwrap();
        sink.record_series(["w", "shoal"], "GB/s", vec![(0.0, 1.0), (10.5, 2.0)]).unwrap();
        sink.record_skipped(["w", "curl"], "curl is not installed: apt install curl").unwrap();
        sink.record_failed(["w", "aria2"], "it ended with code 3").unwrap();
        let mut histogram = latency::new_histogram();
        histogram.saturating_record(1_000);
        sink.record_latency(["w", "shoal", "piece"], &histogram).unwrap();
        sink.add_other_load(0.25);
        let ended = sink.finish().unwrap();
        let runs = folder::read_runs(folder.path()).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].records, ended.stored.records);
        assert_eq!(runs[0].run, ended.stored.run);
        assert_eq!(runs[0].host, ended.stored.host);
        assert_eq!(runs[0].run.other_load, Some(0.25));
        let ratios: Vec<f64> = runs[0]
            .records
            .iter()
            .filter_map(|record| match record {
                BenchRecord::Result(result) if result.kind == "shoal" => Some(result.ratios[0].spread.median),
                _ => None,
            })
            .collect();
        assert_eq!(ratios, [0.75]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 2, "records and an interval log");
    }

    #[test]
    fn an_interrupted_run_keeps_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        sink.record_sample(["w", "shoal", "throughput"], 0, 1.5, "GB/s").unwrap();
        drop(sink);
        let runs = folder::read_runs(folder.path()).unwrap();
        assert_eq!(runs[0].records.len(), 1);
        assert_eq!(runs[0].run.size, Some(5));
    }

    #[test]
    fn long_series_are_thinned_evenly() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        let points = (0..5_000_u32).map(|at| (f64::from(at), 1.0)).collect();
        sink.record_series(["w", "shoal"], "GB/s", points).unwrap();
        let Some(BenchRecord::Series(series)) = sink.stored.records.last() else { panic!("no series") };
        assert_eq!(series.points.len(), 1_250);
        assert_eq!(series.points[1].0.to_bits(), 4.0_f64.to_bits());
    }
}
