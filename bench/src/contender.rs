//! Someone who moves the file, on the same terms as all others: Shoal, the floor, the rivals.
//!
//! Invariants: times count from the start of the receiving program to the complete file, and to the durable one; what is
//! done before and after is not part of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock;
use crate::topology::content::{Content, sync_file};
use crate::topology::spawned::Spawned;
use crate::topology::usage::{self, Cpu, Sides, Watch};

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
}

/// What a round took.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Until the last receiver had all of it, proven as far as that program proves.
    pub(crate) complete: Duration,
    /// Until it would survive a loss of power; `None` for what writes nothing.
    pub(crate) durable: Option<Duration>,
    /// The files that arrived.
    pub(crate) copies: Vec<PathBuf>,
    /// CPU time of those who send.
    pub(crate) source_cpu: Option<Cpu>,
    /// CPU time of those who receive.
    pub(crate) receiver_cpu: Option<Cpu>,
    /// Peaks of anonymous memory: sources in all, receivers in all.
    pub(crate) anonymous: Option<[u64; 2]>,
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

/// Makes the commands of a receiver that gets a folder of its own.
pub(crate) type MakeSteps = Box<dyn Fn(&Path) -> Steps>;

/// Programs that serve, and commands that fetch: all that most contenders are.
pub(crate) struct Programs {
    /// Name in reports.
    pub(crate) kind: String,
    /// Whether others are compared with it.
    pub(crate) reference: bool,
    /// Those that serve.
    pub(crate) servers: Vec<Spawned>,
    /// Those that fetch.
    pub(crate) steps: MakeSteps,
    /// The terms.
    pub(crate) terms: Terms,
}

impl Contender for Programs {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn is_reference(&self) -> bool {
        self.reference
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
            let folder = crate::topology::spawned::folder(into.join(number.to_string()))?;
            receivers.push((self.steps)(&folder));
        }
        let sources: Vec<u32> = self.servers.iter().map(Spawned::pid).collect();
        let cpu_before = usage::cpu_of_trees(&sources);
        let (mut receiver_cpu, mut peaks) = (Cpu::default(), [0; 2]);
        let copies: Vec<PathBuf> = receivers.iter().filter_map(|receiver| receiver.copy.clone()).collect();
        let began = clock::now();
        loop {
            let step: Vec<Command> = receivers
                .iter_mut()
                .filter(|receiver| !receiver.commands.is_empty())
                .map(|receiver| receiver.commands.remove(0))
                .collect();
            if step.is_empty() {
                break;
            }
            let mut running = Vec::new();
            for (number, command) in step.into_iter().enumerate() {
                let name = format!("{}-receiver-{number}", self.kind.replace([' ', '/'], "-"));
                running.push(Spawned::start(&name, &command, &self.terms.place)?);
            }
            let pids: Vec<u32> = running.iter().map(Spawned::pid).collect();
            let sides = Sides { sources: sources.clone(), receivers: pids.clone() };
            let watch = Watch::start(sides, pids, self.terms.limit)?;
            for receiver in &mut running {
                receiver_cpu = [receiver_cpu, receiver.succeed()?.cpu].into_iter().sum();
            }
            let now = watch.peaks();
            peaks = [peaks[0].max(now[0]), peaks[1].max(now[1])];
        }
        let complete = clock::now() - began;
        let durable = (!copies.is_empty()).then(|| copies.iter().try_for_each(|copy| sync_file(copy)));
        let durable = durable.transpose()?.map(|()| clock::now() - began);
        Ok(Outcome {
            complete,
            durable,
            copies,
            source_cpu: Some(usage::cpu_of_trees(&sources) - cpu_before),
            receiver_cpu: Some(receiver_cpu),
            anonymous: Some(peaks),
            ..Outcome::default()
        })
    }
}
