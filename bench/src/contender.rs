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
use crate::topology::content::{Content, sync_copy};
use crate::topology::spawned::{self, Spawned};
use crate::topology::usage::{self, Cpu, Peaks, Sides, Watch};

/// What everybody is given.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The file.
    pub(crate) content: Content,
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

impl Terms {
    /// The same, with a folder of the contender's own in place of the one that all share.
    pub(crate) fn apart(&self, kind: &str) -> anyhow::Result<Terms> {
        let name: String = kind.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let place = self.place.join(name);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        Ok(Terms { place, ..self.clone() })
    }
}

/// What a round took.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
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
    pub(crate) source_cpu: Option<Cpu>,
    /// CPU time of those who receive.
    pub(crate) receiver_cpu: Option<Cpu>,
    /// Peaks of memory, and what it cost to look for them.
    pub(crate) peaks: Option<Peaks>,
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
    fn is_apart(&self) -> bool {
        false
    }

    /// Whether its receivers take all from one source, however many there are.
    fn takes_from_one(&self) -> bool {
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
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Moves the file into the folder.
    ///
    /// # Errors
    /// As [`Contender::prepare`].
    fn round(&mut self, into: &Path) -> anyhow::Result<Outcome>;

    /// Tidies up after a round; not measured.
    ///
    /// # Errors
    /// As [`Contender::prepare`].
    fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The commands of one receiver, to be run one after another, and the file that they make.
pub(crate) struct Steps {
    /// The commands.
    pub(crate) commands: Vec<Command>,
    /// The copy; `None` where none is made.
    pub(crate) copy: Option<PathBuf>,
}

/// Makes the commands of a receiver, by its number from 0 and the folder that is its own.
type MakeSteps = Box<dyn Fn(usize, &Path) -> Steps>;

/// Of the receivers that fail in one round, so many say why.
const FAULTS_TOLD: usize = 3;

/// What stands before the seconds that the transfer itself took, on a line of a command that tells them.
pub(crate) const TRANSFER_TOOK: &str = "transfer took ";

/// Programs that serve, and commands that fetch: all that most contenders are.
pub(crate) struct Programs {
    /// Name in reports.
    kind: String,
    /// Whether others are compared with it.
    reference: bool,
    /// Whether its receivers know each other.
    swarm: bool,
    /// Whether its receivers take all from one source.
    one_source: bool,
    /// Those that serve.
    servers: Vec<Spawned>,
    /// Those that fetch.
    steps: MakeSteps,
    /// How a command tells what the transfer itself took.
    took: ReadTook,
    /// The terms.
    terms: Terms,
}

impl Programs {
    /// Programs whose receivers know nothing of each other.
    pub(crate) fn new(
        kind: &str,
        terms: &Terms,
        servers: Vec<Spawned>,
        steps: impl Fn(usize, &Path) -> Steps + 'static,
    ) -> Programs {
        Programs {
            kind: kind.to_owned(),
            reference: false,
            swarm: false,
            one_source: false,
            servers,
            steps: Box::new(steps),
            took: seconds_told,
            terms: terms.clone(),
        }
    }

    /// Others are compared with them.
    pub(crate) fn into_reference(self) -> Programs {
        Programs { reference: true, ..self }
    }

    /// Their receivers give each other what they have.
    pub(crate) fn into_swarm(self) -> Programs {
        Programs { swarm: true, ..self }
    }

    /// Their receivers take all from one source, however many there are.
    pub(crate) fn into_one_source(self) -> Programs {
        Programs { one_source: true, ..self }
    }

    /// They tell in another way what the transfer itself took.
    pub(crate) fn telling(self, took: ReadTook) -> Programs {
        Programs { took, ..self }
    }
}

/// What the transfer itself took, by the last words of a command and the length of the file.
pub(crate) type ReadTook = fn(&str, u64) -> Option<Duration>;

/// As those of this harness tell it: seconds behind [`TRANSFER_TOOK`].
fn seconds_told(words: &str, _: u64) -> Option<Duration> {
    let seconds = words.lines().rev().find_map(|line| line.trim().strip_prefix(TRANSFER_TOOK))?;
    Duration::try_from_secs_f64(seconds.trim().parse().ok()?).ok()
}

impl Contender for Programs {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn is_reference(&self) -> bool {
        self.reference
    }

    fn is_apart(&self) -> bool {
        !self.swarm
    }

    fn takes_from_one(&self) -> bool {
        self.one_source
    }

    fn processes(&self) -> Vec<u32> {
        self.servers.iter().map(Spawned::pid).collect()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            if server.has_ended() {
                anyhow::bail!("a program that serves has ended by itself{}", server.last_words());
            }
        }
        Ok(())
    }

    fn round(&mut self, into: &Path) -> anyhow::Result<Outcome> {
        let mut receivers = Vec::new();
        for number in 0..self.terms.receivers {
            receivers.push((self.steps)(number, &spawned::folder(into.join(number.to_string()))?));
        }
        let copies: Vec<PathBuf> = receivers.iter().filter_map(|receiver| receiver.copy.clone()).collect();
        let sources = self.processes();
        let cpu_before = usage::cpu_of_trees(&sources);
        let (mut receiver_cpu, mut peaks, mut transfer) = (Cpu::default(), Peaks::default(), None);
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
            let done = self.step(&sources, &step)?;
            command += done.command;
            receiver_cpu = [receiver_cpu, done.cpu].into_iter().sum();
            peaks = peaks.and(done.peaks);
            transfer = transfer.max(done.transfer);
        }
        let (sync, synced) = clock::timed(|| copies.iter().try_for_each(|copy| sync_copy(copy)));
        synced?;
        let durable = (!copies.is_empty()).then_some(command + sync);
        Ok(Outcome {
            command,
            transfer,
            durable,
            copies,
            sources: sources.len(),
            source_cpu: Some(usage::cpu_of_trees(&sources) - cpu_before),
            receiver_cpu: Some(receiver_cpu),
            peaks: Some(peaks),
            ..Outcome::default()
        })
    }
}

/// What came of all receivers of a round, in their order; where one has failed, so has the round, for what the others took is
/// no answer to what was asked.
///
/// # Errors
/// Who has failed, and why.
pub(crate) fn all_succeeded<T>(ended: Vec<anyhow::Result<T>>, watch: &Watch) -> anyhow::Result<Vec<T>> {
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
    let more = faults.len().saturating_sub(FAULTS_TOLD);
    faults.truncate(FAULTS_TOLD);
    faults.extend((more > 0).then(|| format!("and {more} more leechers")));
    faults.extend(watch.told());
    anyhow::bail!("{}", faults.join("; "))
}

/// What one command of each receiver came to.
struct Step {
    /// From the start of the first to the exit of the last.
    command: Duration,
    cpu: Cpu,
    peaks: Peaks,
    transfer: Option<Duration>,
}

impl Programs {
    /// Runs one command of each receiver, all at once, to their ends.
    fn step(&self, sources: &[u32], commands: &[Command]) -> anyhow::Result<Step> {
        let mut running = Vec::new();
        let began = clock::now();
        for (number, command) in commands.iter().enumerate() {
            running.push(Spawned::start(&format!("receiver-{number}"), command, &self.terms.place)?);
        }
        let pids: Vec<u32> = running.iter().map(Spawned::pid).collect();
        let sides = Sides { sources: sources.to_vec(), receivers: pids.clone() };
        let watch = Watch::start(sides, &pids, self.terms.limit)?;
        let ended = running.iter_mut().map(Spawned::succeed).collect();
        let cpu = all_succeeded(ended, &watch)?.iter().map(|ended| ended.cpu).sum();
        // The last look at memory, and reading what was said, are nobody's time.
        let command = clock::now() - began;
        let took = |receiver: &Spawned| (self.took)(&receiver.words(), self.terms.content.bytes);
        let transfer = running.iter().filter_map(took).max();
        Ok(Step { command, cpu, peaks: watch.peaks(), transfer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_named_and_a_crowd_is_counted() {
        let watch = Watch::start(Sides::default(), &[], Duration::from_secs(600)).unwrap();
        assert_eq!(all_succeeded(vec![Ok(1), Ok(2)], &watch).unwrap(), [1, 2]);
        let fails = |number: usize| if number % 2 == 1 { Ok(()) } else { Err(anyhow::anyhow!("no bread")) };
        let fault =
            |count: usize| all_succeeded((0..count).map(fails).collect(), &watch).unwrap_err().to_string();
        assert_eq!(fault(3), "leecher 1 of 3: no bread; leecher 3 of 3: no bread");
        assert!(fault(9).ends_with("leecher 5 of 9: no bread; and 2 more leechers"), "{}", fault(9));
        let over = Watch::start(Sides::default(), &[], Duration::ZERO).unwrap();
        let late = all_succeeded(vec![fails(0)], &over).unwrap_err().to_string();
        assert!(late.contains("0.0 s, was over"), "{late}");
    }

    #[test]
    fn the_last_time_told_is_the_transfers() {
        let words = "transfer took 1\n transfer took 2.5\nsomething else\n";
        assert_eq!(seconds_told(words, 0), Some(Duration::from_millis(2_500)));
        assert_eq!(seconds_told("transfer took long", 0), None);
        assert_eq!(seconds_told("", 0), None);
    }
}
