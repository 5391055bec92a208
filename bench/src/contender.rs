//! Someone who moves the file, on the same terms as all others: Shoal, the floor, the rivals.
//!
//! Invariants: what contenders are compared by counts from the start of the receiving command to its exit, for all of them:
//! its own start and its tidying up are part of that. The transfer itself stands beside it where the program tells it. What
//! runs before the command (trackers, those who serve, Shoal's node of the receiver) and is done after it is not part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::clock;
use crate::topology::spawned::{self, SpawnedProgram};
use crate::topology::test_file::{TestFile, sync_copy};
use crate::topology::usage::{self, CpuSeconds, MemoryPeaks, RoundPids, RoundWatch};

/// What everybody is given.
#[derive(Clone, Debug)]
pub(crate) struct TransferTerms {
    /// The file.
    pub(crate) content: TestFile,
    /// How many have it.
    pub(crate) sources: usize,
    /// How many want it.
    pub(crate) receivers: usize,
    /// A folder for whatever a contender needs besides.
    pub(crate) place: PathBuf,
    /// The longest that a round may take.
    pub(crate) limit: Duration,
    /// The file is not in the page cache when a round begins.
    pub(crate) cold: bool,
}

impl TransferTerms {
    /// The same, with a folder of the contender's own in place of the one that all share.
    pub(crate) fn with_own_folder(&self, kind: &str) -> anyhow::Result<TransferTerms> {
        let name: String = kind.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let place = self.place.join(name);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(TransferTerms { place, ..self.clone() })
    }
}

/// What a round took.
#[derive(Debug, Default)]
pub(crate) struct RoundOutcome {
    /// From the start of the first command to the exit of the last.
    pub(crate) command: Duration,
    /// From the start of the first command until the last copy was complete, where the command goes on to make it durable.
    pub(crate) complete: Option<Duration>,
    /// The transfer itself, to the last receiver's having all of it, proven as far as that program proves; of programs that
    /// tell it.
    pub(crate) transfer: Option<Duration>,
    /// From the start of the first command until its exit and until the copies would survive a loss of power; `None` for
    /// what writes nothing.
    pub(crate) durable: Option<Duration>,
    /// The files that arrived.
    pub(crate) copies: Vec<PathBuf>,
    /// How many send.
    pub(crate) sources: usize,
    /// CPU time of those who send.
    pub(crate) source_cpu: Option<CpuSeconds>,
    /// CPU time of those who receive.
    pub(crate) receiver_cpu: Option<CpuSeconds>,
    /// Peaks of memory, and what it cost to look for them.
    pub(crate) peaks: Option<MemoryPeaks>,
    /// Whatever else was counted: metric, value, unit.
    pub(crate) numbers: Vec<(String, f64, &'static str)>,
    /// From request to proof of each piece, in nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Milliseconds since the start, and bytes proven by then.
    pub(crate) progress: Vec<(f64, f64)>,
}

/// Someone who moves the file.
pub(crate) trait Contender {
    /// Its name in reports.
    fn kind(&self) -> &str;

    /// Whether others are compared with it.
    fn is_reference(&self) -> bool {
        false
    }

    /// Whether it is what is developed here: its failure is one of the whole command.
    fn is_ours(&self) -> bool {
        false
    }

    /// Whether several receivers are downloads of their own, which give each other nothing.
    fn has_separate_downloads(&self) -> bool {
        false
    }

    /// Whether its receivers take all from one source, however many there are.
    fn uses_one_source(&self) -> bool {
        false
    }

    /// What of it runs between rounds, without descendants.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Gets ready for a round; not measured.
    ///
    /// # Errors
    /// What went wrong: then it takes no further part.
    fn prepare_round(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Moves the file into the folder.
    ///
    /// # Errors
    /// As [`Contender::prepare_round`].
    fn run_round(&mut self, into: &Path) -> anyhow::Result<RoundOutcome>;

    /// Tidies up after a round; not measured.
    ///
    /// # Errors
    /// As [`Contender::prepare_round`].
    fn finish_round(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The commands of one receiver, to be run one after another, and the file that they make.
pub(crate) struct FetchSteps {
    /// The commands.
    pub(crate) commands: Vec<Command>,
    /// The copy; `None` where none is made.
    pub(crate) copy: Option<PathBuf>,
}

/// Makes the commands of a receiver, by its number from 0 and the folder that is its own.
type MakeFetchSteps = Box<dyn Fn(usize, &Path) -> FetchSteps>;

/// Of the receivers that fail in one round, so many say why.
const FAULTS_SHOWN: usize = 3;

/// What stands before the seconds that the transfer itself took, on a line of a command that tells them.
pub(crate) const TRANSFER_TIME_PREFIX: &str = "transfer took ";

/// Programs that serve, and commands that fetch: all that most contenders are.
pub(crate) struct ProgramContender {
    /// Name in reports.
    kind: String,
    /// Whether others are compared with it.
    is_reference: bool,
    /// Whether its receivers know each other.
    is_swarm: bool,
    /// Whether its receivers take all from one source.
    has_one_source: bool,
    /// Those that serve.
    servers: Vec<SpawnedProgram>,
    /// Those that fetch.
    make_steps: MakeFetchSteps,
    /// How a command tells what the transfer itself took.
    parse_time: ParseTransferTime,
    /// The terms.
    terms: TransferTerms,
}

impl ProgramContender {
    /// Programs whose receivers know nothing of each other.
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

    /// Others are compared with them.
    pub(crate) fn into_reference(self) -> ProgramContender {
        ProgramContender { is_reference: true, ..self }
    }

    /// Their receivers give each other what they have.
    pub(crate) fn into_swarm(self) -> ProgramContender {
        ProgramContender { is_swarm: true, ..self }
    }

    /// Their receivers take all from one source, however many there are.
    pub(crate) fn into_one_source(self) -> ProgramContender {
        ProgramContender { has_one_source: true, ..self }
    }

    /// They tell in another way what the transfer itself took.
    pub(crate) fn with_time_parser(self, took: ParseTransferTime) -> ProgramContender {
        ProgramContender { parse_time: took, ..self }
    }
}

/// What the transfer itself took, by the last words of a command and the length of the file.
pub(crate) type ParseTransferTime = fn(&str, u64) -> Option<Duration>;

/// As those of this harness tell it: seconds behind [`TRANSFER_TIME_PREFIX`].
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

    fn processes(&self) -> Vec<u32> {
        self.servers.iter().map(SpawnedProgram::pid).collect()
    }

    fn prepare_round(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            if server.has_ended() {
                anyhow::bail!("a program that serves has ended by itself{}", server.failure_output());
            }
        }
        Ok(())
    }

    fn run_round(&mut self, into: &Path) -> anyhow::Result<RoundOutcome> {
        let mut receivers = Vec::new();
        for number in 0..self.terms.receivers {
            receivers.push((self.make_steps)(number, &spawned::empty_folder(into.join(number.to_string()))?));
        }
        let copies: Vec<PathBuf> = receivers.iter().filter_map(|receiver| receiver.copy.clone()).collect();
        let sources = self.processes();
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

/// What came of all receivers of a round, in their order; where one has failed, so has the round, for what the others took is
/// no answer to what was asked.
///
/// # Errors
/// Who has failed, and why.
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

/// What one command of each receiver came to.
struct StepOutcome {
    /// From the start of the first to the exit of the last.
    command: Duration,
    cpu: CpuSeconds,
    peaks: MemoryPeaks,
    transfer: Option<Duration>,
}

impl ProgramContender {
    /// Runs one command of each receiver, all at once, to their ends.
    fn run_step(&self, sources: &[u32], commands: &[Command]) -> anyhow::Result<StepOutcome> {
        let mut running = Vec::new();
        let began = clock::now();
        for (number, command) in commands.iter().enumerate() {
            running.push(SpawnedProgram::start(&format!("receiver-{number}"), command, &self.terms.place)?);
        }
        let pids: Vec<u32> = running.iter().map(SpawnedProgram::pid).collect();
        let sides = RoundPids { sources: sources.to_vec(), receivers: pids.clone() };
        let watch = RoundWatch::start(sides, &pids, self.terms.limit)?;
        let ended = running.iter_mut().map(SpawnedProgram::wait_for_success).collect();
        let cpu = collect_succeeded(ended, &watch)?.iter().map(|ended| ended.cpu).sum();
        // The last look at memory, and reading what was said, are nobody's time.
        let command = clock::now() - began;
        let took =
            |receiver: &SpawnedProgram| (self.parse_time)(&receiver.log_tail(), self.terms.content.bytes);
        let transfer = running.iter().filter_map(took).max();
        Ok(StepOutcome { command, cpu, peaks: watch.peaks(), transfer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_named_and_a_crowd_is_counted() {
        let watch = RoundWatch::start(RoundPids::default(), &[], Duration::from_secs(600)).unwrap();
        assert_eq!(collect_succeeded(vec![Ok(1), Ok(2)], &watch).unwrap(), [1, 2]);
        let fails = |number: usize| if number % 2 == 1 { Ok(()) } else { Err(anyhow::anyhow!("no bread")) };
        let fault = |count: usize| {
            collect_succeeded((0..count).map(fails).collect(), &watch).unwrap_err().to_string()
        };
        assert_eq!(fault(3), "leecher 1 of 3: no bread; leecher 3 of 3: no bread");
        assert!(fault(9).ends_with("leecher 5 of 9: no bread; and 2 more leechers"), "{}", fault(9));
        let over = RoundWatch::start(RoundPids::default(), &[], Duration::ZERO).unwrap();
        let late = collect_succeeded(vec![fails(0)], &over).unwrap_err().to_string();
        assert!(late.contains("0.0 s, was over"), "{late}");
    }

    #[test]
    fn the_last_time_told_is_the_transfers() {
        let words = "transfer took 1\n transfer took 2.5\nsomething else\n";
        assert_eq!(parse_transfer_time(words, 0), Some(Duration::from_millis(2_500)));
        assert_eq!(parse_transfer_time("transfer took long", 0), None);
        assert_eq!(parse_transfer_time("", 0), None);
    }
}
