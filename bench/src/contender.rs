//! Contenders: implementations that transfer the file on equal terms. Shoal, the baseline and the rivals are
//! contenders.
//!
//! Invariant: the compared time runs from the start of the receiving command to its exit, for every contender. Servers
//! that run before the command (trackers, seeders, the receiver's node) and their clean-up are not measured. The time
//! of the transfer alone is a separate figure, where a program reports it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::clock;
use crate::limits::FAULTS_SHOWN;
use crate::topology::spawned::{self, SpawnedProgram};
use crate::topology::test_file::{TestFile, sync_copy};
use crate::topology::usage::{self, CpuSeconds, MemoryPeaks, RoundPids, RoundWatch};

/// The terms of a transfer, equal for every contender.
#[derive(Clone, Debug)]
pub(crate) struct TransferTerms {
    pub(crate) file: TestFile,
    /// Number of seeders.
    pub(crate) seeders: usize,
    /// Number of leechers.
    pub(crate) leechers: usize,
    /// A folder for everything that the contender creates.
    pub(crate) folder: PathBuf,
    /// The longest time that a round may take.
    pub(crate) round_limit: Duration,
    /// Whether the file is out of the page cache when a round begins.
    pub(crate) is_source_cold: bool,
}

impl TransferTerms {
    /// The same terms with the contender's own folder below the shared one.
    pub(crate) fn with_own_folder(&self, kind: &str) -> anyhow::Result<TransferTerms> {
        let name: String = kind.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let place = self.folder.join(name);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(TransferTerms { folder: place, ..self.clone() })
    }
}

/// The measurements of one round.
#[derive(Debug, Default)]
pub(crate) struct RoundOutcome {
    /// From the start of the first command to the exit of the last.
    pub(crate) command: Duration,
    /// From the start of the first command until the last copy was complete, if the command then still makes it
    /// durable.
    pub(crate) complete: Option<Duration>,
    /// The transfer alone, until the last receiver has verified everything that its program verifies; `None` if the
    /// program does not report it.
    pub(crate) transfer: Option<Duration>,
    /// From the start of the first command until all commands have exited and the copies are durable; `None` without a
    /// copy.
    pub(crate) durable: Option<Duration>,
    /// The received files.
    pub(crate) copies: Vec<PathBuf>,
    /// Number of seeders that took part.
    pub(crate) sources: usize,
    /// CPU time of the seeders.
    pub(crate) source_cpu: Option<CpuSeconds>,
    /// CPU time of the leechers.
    pub(crate) receiver_cpu: Option<CpuSeconds>,
    /// Peak memory, and the cost of measuring it.
    pub(crate) peaks: Option<MemoryPeaks>,
    /// Other figures: metric, value, unit.
    pub(crate) numbers: Vec<(String, f64, &'static str)>,
    /// From request to verification of each piece, in nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Milliseconds since the start, and bytes verified by then.
    pub(crate) progress: Vec<(f64, f64)>,
}

/// An implementation that transfers the file.
pub(crate) trait Contender {
    /// Its name in reports.
    fn kind(&self) -> &str;

    /// Whether other contenders are compared with it.
    fn is_reference(&self) -> bool {
        false
    }

    /// Whether it is Shoal: its failure fails the whole command.
    fn is_ours(&self) -> bool {
        false
    }

    /// Whether leechers do not exchange pieces with each other.
    fn has_separate_downloads(&self) -> bool {
        false
    }

    /// Whether its leechers download everything from one source, however many there are.
    fn uses_one_source(&self) -> bool {
        false
    }

    /// The processes that run between rounds, without their descendants.
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Prepares a round; not measured.
    ///
    /// # Errors
    /// The contender is not run again.
    fn prepare_round(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Transfers the file into the folder.
    ///
    /// # Errors
    /// As [`Contender::prepare_round`].
    fn run_round(&mut self, into: &Path) -> anyhow::Result<RoundOutcome>;

    /// Cleans up after a round; not measured.
    ///
    /// # Errors
    /// As [`Contender::prepare_round`].
    fn finish_round(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The commands of one receiver, in order, and the file that they create.
pub(crate) struct FetchSteps {
    pub(crate) commands: Vec<Command>,
    /// The copy, if the commands create one.
    pub(crate) copy: Option<PathBuf>,
}

/// Makes the commands of a receiver from its number, counted from 0, and its own folder.
type MakeFetchSteps = Box<dyn Fn(usize, &Path) -> FetchSteps>;

/// Text before the transfer's duration in seconds, in the output of a command that reports it.
pub(crate) const TRANSFER_TIME_PREFIX: &str = "transfer took ";

/// A contender made of servers and receiving commands. Most contenders are one.
pub(crate) struct ProgramContender {
    kind: String,
    is_reference: bool,
    /// Whether leechers exchange pieces with each other.
    is_swarm: bool,
    has_one_source: bool,
    servers: Vec<SpawnedProgram>,
    make_steps: MakeFetchSteps,
    /// Reads the transfer's duration from a command's output.
    parse_time: ParseTransferTime,
    terms: TransferTerms,
}

impl ProgramContender {
    /// A contender whose receivers do not know each other.
    pub(crate) fn new(
        kind: &str,
        terms: &TransferTerms,
        servers: Vec<SpawnedProgram>,
        steps: impl Fn(usize, &Path) -> FetchSteps + 'static,
    ) -> ProgramContender {
        ProgramContender {
            kind: kind.to_owned(),
            is_reference: false,
            is_swarm: false,
            has_one_source: false,
            servers,
            make_steps: Box::new(steps),
            parse_time: parse_transfer_time,
            terms: terms.clone(),
        }
    }

    /// Makes it a reference, with which others are compared.
    pub(crate) fn into_reference(self) -> ProgramContender {
        ProgramContender { is_reference: true, ..self }
    }

    /// Marks that its leechers exchange pieces.
    pub(crate) fn into_swarm(self) -> ProgramContender {
        ProgramContender { is_swarm: true, ..self }
    }

    /// Marks that its leechers download everything from one source.
    pub(crate) fn into_one_source(self) -> ProgramContender {
        ProgramContender { has_one_source: true, ..self }
    }

    /// Sets how the transfer's duration is read.
    pub(crate) fn with_time_parser(self, took: ParseTransferTime) -> ProgramContender {
        ProgramContender { parse_time: took, ..self }
    }
}

/// Reads the transfer's duration from the end of a command's output, given the length of the file.
pub(crate) type ParseTransferTime = fn(&str, u64) -> Option<Duration>;

/// Reads the seconds behind [`TRANSFER_TIME_PREFIX`].
fn parse_transfer_time(words: &str, _: u64) -> Option<Duration> {
    let seconds = words.lines().rev().find_map(|line| line.trim().strip_prefix(TRANSFER_TIME_PREFIX))?;
    Duration::try_from_secs_f64(seconds.trim().parse().ok()?).ok()
}

impl Contender for ProgramContender {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn is_reference(&self) -> bool {
        self.is_reference
    }

    fn has_separate_downloads(&self) -> bool {
        !self.is_swarm
    }

    fn uses_one_source(&self) -> bool {
        self.has_one_source
    }

    fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(SpawnedProgram::pid).collect()
    }

    fn prepare_round(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            if server.has_ended() {
                anyhow::bail!("a server has exited early{}", server.failure_output());
            }
        }
        Ok(())
    }

    fn run_round(&mut self, into: &Path) -> anyhow::Result<RoundOutcome> {
        let mut receivers = Vec::new();
        for number in 0..self.terms.leechers {
            receivers.push((self.make_steps)(
                number,
                &spawned::create_empty_folder(into.join(number.to_string()))?,
            ));
        }
        let copies: Vec<PathBuf> = receivers.iter().filter_map(|receiver| receiver.copy.clone()).collect();
        let sources = self.pids();
        let cpu_before = usage::cpu_of_trees(&sources);
        let (mut receiver_cpu, mut peaks, mut transfer) =
            (CpuSeconds::default(), MemoryPeaks::default(), None);
        let mut command = Duration::ZERO;
        loop {
            let step: Vec<Command> = receivers
                .iter_mut()
                .filter(|receiver| !receiver.commands.is_empty())
                .map(|receiver| receiver.commands.remove(0))
                .collect();
            if step.is_empty() {
                break;
            }
            let done = self.run_step(&sources, &step)?;
            command += done.command;
            receiver_cpu = [receiver_cpu, done.cpu].into_iter().sum();
            peaks = peaks.merge(done.peaks);
            transfer = transfer.max(done.transfer);
        }
        let (sync, synced) = clock::time_work(|| copies.iter().try_for_each(|copy| sync_copy(copy)));
        synced?;
        let durable = (!copies.is_empty()).then_some(command + sync);
        Ok(RoundOutcome {
            command,
            transfer,
            durable,
            copies,
            sources: sources.len(),
            source_cpu: Some(usage::cpu_of_trees(&sources) - cpu_before),
            receiver_cpu: Some(receiver_cpu),
            peaks: Some(peaks),
            ..RoundOutcome::default()
        })
    }
}

/// The results of all receivers of a round, in order. One failed receiver fails the round: the times of the others
/// would not answer the question.
///
/// # Errors
/// Which receivers failed, and why.
pub(crate) fn collect_succeeded<T>(
    ended: Vec<anyhow::Result<T>>,
    watch: &RoundWatch,
) -> anyhow::Result<Vec<T>> {
    let of = ended.len();
    let mut succeeded = Vec::new();
    let mut faults = Vec::new();
    for (number, one) in ended.into_iter().enumerate() {
        match one {
            Ok(one) => succeeded.push(one),
            Err(fault) => faults.push(format!("leecher {} of {of}: {fault:#}", number + 1)),
        }
    }
    if faults.is_empty() {
        return Ok(succeeded);
    }
    let more = faults.len().saturating_sub(FAULTS_SHOWN);
    faults.truncate(FAULTS_SHOWN);
    faults.extend((more > 0).then(|| format!("and {more} more leechers")));
    faults.extend(watch.timeout_reason());
    anyhow::bail!("{}", faults.join("; "))
}

/// The result of one step of all receivers.
struct StepOutcome {
    /// From the start of the first command to the exit of the last.
    command: Duration,
    cpu: CpuSeconds,
    peaks: MemoryPeaks,
    transfer: Option<Duration>,
}

impl ProgramContender {
    /// Runs one command of each receiver, all at once, until all have exited.
    fn run_step(&self, sources: &[u32], commands: &[Command]) -> anyhow::Result<StepOutcome> {
        let mut running = Vec::new();
        let began = clock::now();
        for (number, command) in commands.iter().enumerate() {
            running.push(SpawnedProgram::start(&format!("receiver-{number}"), command, &self.terms.folder)?);
        }
        let pids: Vec<u32> = running.iter().map(SpawnedProgram::pid).collect();
        let round_pids = RoundPids { sources: sources.to_vec(), receivers: pids.clone() };
        let watch = RoundWatch::start(round_pids, &pids, self.terms.round_limit)?;
        let ended = running.iter_mut().map(SpawnedProgram::wait_for_success).collect();
        let cpu = collect_succeeded(ended, &watch)?.iter().map(|ended| ended.cpu).sum();
        // The last memory sample and reading the output come after the measured time.
        let command = clock::now() - began;
        let took = |receiver: &SpawnedProgram| (self.parse_time)(&receiver.log_tail(), self.terms.file.bytes);
        let transfer = running.iter().filter_map(took).max();
        Ok(StepOutcome { command, cpu, peaks: watch.peaks(), transfer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_receivers_are_named_up_to_a_limit() {
        let watch = RoundWatch::start(RoundPids::default(), &[], Duration::from_secs(600)).unwrap();
        assert_eq!(collect_succeeded(vec![Ok(1), Ok(2)], &watch).unwrap(), [1, 2]);
        let fails = |number: usize| if number % 2 == 1 { Ok(()) } else { Err(anyhow::anyhow!("disk full")) };
        let fault = |count: usize| {
            collect_succeeded((0..count).map(fails).collect(), &watch).unwrap_err().to_string()
        };
        assert_eq!(fault(3), "leecher 1 of 3: disk full; leecher 3 of 3: disk full");
        assert!(fault(9).ends_with("leecher 5 of 9: disk full; and 2 more leechers"), "{}", fault(9));
        let over = RoundWatch::start(RoundPids::default(), &[], Duration::ZERO).unwrap();
        let late = collect_succeeded(vec![fails(0)], &over).unwrap_err().to_string();
        assert!(late.contains("0.0 s, was over"), "{late}");
    }

    #[test]
    fn the_last_reported_time_counts() {
        let words = "transfer took 1\n transfer took 2.5\nsomething else\n";
        assert_eq!(parse_transfer_time(words, 0), Some(Duration::from_millis(2_500)));
        assert_eq!(parse_transfer_time("transfer took long", 0), None);
        assert_eq!(parse_transfer_time("", 0), None);
    }
}
