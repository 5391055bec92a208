//! Where a workload puts what it measures: at once on standard output, as JSON, and into the folder of `--out`.
//!
//! Invariant: the host and the run come first, results last, and every record names its run.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::folder::{self, Kept};
use super::latency;
use super::limits::SERIES_MAX_POINTS;
use super::record::{Absent, Record, Run, Sample, Series};
use super::revision::revision;
use super::summary;
use crate::clock;
use crate::host::Host;

/// Where records go besides standard output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// One JSON value a line on standard output.
    pub(crate) json: bool,
    /// A folder that keeps them.
    pub(crate) folder: Option<PathBuf>,
}

/// The records of a run that is under way.
pub(crate) struct Sink {
    wanted: Wanted,
    kept: Kept,
    /// The file of records and the path of the interval log.
    files: Option<(File, PathBuf)>,
    began: Duration,
    histograms: Vec<(String, Duration, Histogram<u64>)>,
    samples: Vec<Sample>,
    loads: Vec<f64>,
}

/// A run that has ended.
pub(crate) struct Ended {
    /// All of its records.
    pub(crate) kept: Kept,
    /// What its caller wanted.
    pub(crate) wanted: Wanted,
}

/// What was measured, by whom, and what of it; the same three words in all records of one row or curve.
pub(crate) type Of<'a> = [&'a str; 3];

impl Sink {
    /// Begins a run of `workload`: looks at the machine, and says what was called.
    pub(crate) fn begin(
        wanted: Wanted,
        workload: &str,
        size: Option<u64>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Sink> {
        Sink::begin_on(Host::read(), wanted, workload, size, settings)
    }

    /// The same, of a machine that has been looked at.
    pub(crate) fn begin_on(
        host: Host,
        wanted: Wanted,
        workload: &str,
        size: Option<u64>,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Sink> {
        let began_unix_s = clock::unix_s();
        let new =
            wanted.folder.as_ref().map(|path| folder::begin(path, workload, began_unix_s)).transpose()?;
        let id = new.as_ref().map_or_else(|| folder::id(workload, began_unix_s), |new| new.id.clone());
        let run = Run {
            id,
            command: command(),
            began_unix_s,
            size,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            revision: revision(),
            other_load: None,
        };
        let mut sink = Sink {
            wanted,
            kept: Kept::default(),
            files: new.map(|new| (new.records, new.log)),
            began: clock::now(),
            histograms: Vec::new(),
            samples: Vec::new(),
            loads: Vec::new(),
        };
        sink.put(Record::Host(host))?;
        sink.put(Record::Run(run))?;
        Ok(sink)
    }

    /// The machine that the run began on.
    pub(crate) fn host(&self) -> Option<&Host> {
        self.kept.host.as_ref()
    }

    /// A number of one round.
    pub(crate) fn sample(&mut self, of: Of<'_>, round: u32, value: f64, unit: &str) -> anyhow::Result<()> {
        self.note(of, round, value, unit, false)
    }

    /// The same; others of this round and metric are compared with it.
    pub(crate) fn reference(&mut self, of: Of<'_>, round: u32, value: f64, unit: &str) -> anyhow::Result<()> {
        self.note(of, round, value, unit, true)
    }

    fn note(
        &mut self,
        [workload, kind, metric]: Of<'_>,
        round: u32,
        value: f64,
        unit: &str,
        reference: bool,
    ) -> anyhow::Result<()> {
        let sample = Sample {
            run: self.kept.run.id.clone(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            round,
            metric: metric.to_owned(),
            value,
            unit: unit.to_owned(),
            reference,
        };
        self.samples.push(sample.clone());
        self.put(Record::Sample(sample))
    }

    /// How long requests took, in nanoseconds.
    pub(crate) fn latency(&mut self, of: Of<'_>, histogram: &Histogram<u64>) -> anyhow::Result<()> {
        let lasted = clock::now().saturating_sub(self.began);
        self.histograms.push((of.join("/"), lasted, histogram.clone()));
        let record = latency::record(&self.kept.run.id, of, histogram)?;
        self.put(Record::Latency(record))
    }

    /// A value over time: milliseconds since the round began, and the value then. Many points are thinned.
    pub(crate) fn series(
        &mut self,
        [workload, kind]: [&str; 2],
        unit: &str,
        mut points: Vec<(f64, f64)>,
    ) -> anyhow::Result<()> {
        while points.len() > SERIES_MAX_POINTS {
            points = points.into_iter().step_by(2).collect();
        }
        let run = self.kept.run.id.clone();
        let (workload, kind) = (workload.to_owned(), kind.to_owned());
        self.put(Record::Series(Series { run, workload, kind, unit: unit.to_owned(), points }))
    }

    /// Something is not run, and why.
    pub(crate) fn skipped(&mut self, of: [&str; 2], why: &str) -> anyhow::Result<()> {
        let absent = self.absent(of, why);
        self.put(Record::Skipped(absent))
    }

    /// Something was run and did not succeed.
    pub(crate) fn failed(&mut self, of: [&str; 2], why: &str) -> anyhow::Result<()> {
        let absent = self.absent(of, why);
        self.put(Record::Failed(absent))
    }

    fn absent(&self, [workload, kind]: [&str; 2], why: &str) -> Absent {
        Absent {
            run: self.kept.run.id.clone(),
            workload: workload.to_owned(),
            kind: kind.to_owned(),
            why: why.to_owned(),
        }
    }

    /// Something else that the run was told, or found out; it is written with the run's end.
    pub(crate) fn setting(&mut self, name: &str, value: &str) {
        self.kept.run.settings.push((name.to_owned(), value.to_owned()));
    }

    /// How many CPUs others kept busy during a round.
    pub(crate) fn other_load(&mut self, cpus: f64) {
        self.loads.push(cpus);
    }

    /// Ends the run: samples become results, and the interval log is written.
    pub(crate) fn end(mut self) -> anyhow::Result<Ended> {
        for result in summary::results(&self.samples) {
            self.put(Record::Result(result))?;
        }
        let other_load = summary::spread(&self.loads).map(|load| load.median);
        let run = Run { other_load, ..self.kept.run.clone() };
        self.put(Record::Run(run))?;
        if let Some((_, path)) = self.files.as_ref().filter(|_| !self.histograms.is_empty()) {
            let mut log = BufWriter::new(File::create_new(path)?);
            latency::write_log(&mut log, self.kept.run.began_unix_s, &self.histograms)?;
            log.flush()?;
        }
        Ok(Ended { kept: self.kept, wanted: self.wanted })
    }

    /// Writes a record wherever it is wanted, and keeps it.
    fn put(&mut self, record: Record) -> anyhow::Result<()> {
        let line = serde_json::to_string(&record)? + "\n";
        if let Some((file, _)) = &mut self.files {
            file.write_all(line.as_bytes())
                .context("the records could not be written: choose another --out")?;
        }
        if self.wanted.json {
            io::stdout().write_all(line.as_bytes())?;
        }
        self.kept.add(record);
        Ok(())
    }
}

/// The command line as it was typed, without the folders of the program.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    std::iter::once("bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(folder: &std::path::Path) -> Sink {
        let wanted = Wanted { json: false, folder: Some(folder.to_owned()) };
        Sink::begin(wanted, "test", Some(5), &[("seeders", "3".to_owned())]).unwrap()
    }

    #[test]
    fn what_is_put_in_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        sink.reference(["w", "pump", "throughput"], 0, 2.0, "GB/s").unwrap();
        sink.sample(["w", "shoal", "throughput"], 0, 1.5, "GB/s").unwrap();
        sink.series(["w", "shoal"], "GB/s", vec![(0.0, 1.0), (10.5, 2.0)]).unwrap();
        sink.skipped(["w", "curl"], "curl is not installed: apt install curl").unwrap();
        sink.failed(["w", "aria2"], "it ended with code 3").unwrap();
        let mut histogram = latency::histogram();
        histogram.saturating_record(1_000);
        sink.latency(["w", "shoal", "piece"], &histogram).unwrap();
        sink.other_load(0.25);
        let ended = sink.end().unwrap();
        let runs = folder::read(folder.path()).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].records, ended.kept.records);
        assert_eq!(runs[0].run, ended.kept.run);
        assert_eq!(runs[0].host, ended.kept.host);
        assert_eq!(runs[0].run.other_load, Some(0.25));
        let ratios: Vec<f64> = runs[0]
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Result(result) if result.kind == "shoal" => Some(result.ratios[0].spread.median),
                _ => None,
            })
            .collect();
        assert_eq!(ratios, [0.75]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 2, "records and an interval log");
    }

    #[test]
    fn a_run_that_never_ends_leaves_what_it_had() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        sink.sample(["w", "shoal", "throughput"], 0, 1.5, "GB/s").unwrap();
        drop(sink);
        let runs = folder::read(folder.path()).unwrap();
        assert_eq!(runs[0].records.len(), 1);
        assert_eq!(runs[0].run.size, Some(5));
    }

    #[test]
    fn long_series_are_thinned_evenly() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = sink(folder.path());
        let points = (0..5_000_u32).map(|at| (f64::from(at), 1.0)).collect();
        sink.series(["w", "shoal"], "GB/s", points).unwrap();
        let Some(Record::Series(series)) = sink.kept.records.last() else { panic!("no series") };
        assert_eq!(series.points.len(), 1_250);
        assert_eq!(series.points[1].0.to_bits(), 4.0_f64.to_bits());
    }
}
