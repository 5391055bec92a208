//! A leecher in its own process, so that it can be killed: this program again, running one test that does
//! nothing unless its variables are set.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use engine::Engine;
use engine::config::{EngineConfig, IoChoice, ZeroCopyChoice};
use engine::proto::action::PeerAddress;
use engine::proto::manifest::Manifest;
use engine::proto::ticket::{PeerKey, SecretKey};
use engine::stats::DownloadPhase;

use crate::rig::{PATIENCE, Patience, far_future, key, spawn, ticket, tracker_now, trackers};

/// The directory of the child's copy. Setting it makes the test below a leecher.
const DIRECTORY: &str = "SHOAL_TEST_LEECHER";
const MANIFEST: &str = "SHOAL_TEST_MANIFEST";
const PEER: &str = "SHOAL_TEST_PEER";
const RATE: &str = "SHOAL_TEST_RATE";

/// Lines that a child may be ahead of its reader.
const LINES_MAX: usize = 1_024;

/// Poll interval for the condition while the child prints nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Progress that a child prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildProgress {
    /// Whether everything that an earlier attempt left was checked.
    pub(crate) begun: bool,
    pub(crate) durable: bool,
    pub(crate) verified: u64,
    pub(crate) received: u64,
    pub(crate) duplicate: u64,
    pub(crate) resumed: u64,
    pub(crate) checked: u64,
    pub(crate) passes: u64,
}

impl ChildProgress {
    fn line(self) -> String {
        let ChildProgress { begun, durable, verified, received, duplicate, resumed, checked, passes } = self;
        let (begun, durable) = (u8::from(begun), u8::from(durable));
        format!("figures {begun} {durable} {verified} {received} {duplicate} {resumed} {checked} {passes}")
    }

    fn read(line: &str) -> Option<ChildProgress> {
        let (_, line) = line.split_once("figures ")?;
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [begun, durable, verified, received, duplicate, resumed, checked, passes] = numbers[..] else {
            return None;
        };
        let (begun, durable) = (begun == 1, durable == 1);
        Some(ChildProgress { begun, durable, verified, received, duplicate, resumed, checked, passes })
    }
}

/// A running child. Dropping it kills it.
pub(crate) struct Leecher {
    process: Child,
    figures: Receiver<ChildProgress>,
}

impl Leecher {
    /// Starts a leecher by a command that runs this program. It downloads the file of the manifest at
    /// `manifest` into `directory`, at `rate` bytes a second.
    pub(crate) fn start(
        mut command: Command,
        directory: &Path,
        manifest: &Path,
        peer: PeerAddress,
        rate: Option<u64>,
    ) -> Leecher {
        let hex: String = peer.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        command
            .args(["--exact", "child::leecher", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(MANIFEST, manifest)
            .env(PEER, format!("{} {hex}", peer.address))
            .stdout(Stdio::piped());
        if let Some(rate) = rate {
            command.env(RATE, rate.to_string());
        }
        let mut process = spawn(&mut command);
        let output = BufReader::new(process.stdout.take().unwrap());
        let (tell, figures) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in output.lines() {
                let told =
                    line.ok().and_then(|line| ChildProgress::read(&line)).map(|figures| tell.send(figures));
                if told.is_some_and(|told| told.is_err()) {
                    return;
                }
            }
        });
        Leecher { process, figures }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until `reached` and returns the progress then, or the last one if the child ends before.
    /// `reached` is polled, since it may also look at the child's files.
    pub(crate) fn wait(&self, reached: impl Fn(&ChildProgress) -> bool) -> ChildProgress {
        let mut last = None;
        let mut news = Patience::new();
        loop {
            match self.figures.recv_timeout(LOOK_EVERY) {
                Ok(figures) => (last, news) = (Some(figures), Patience::new()),
                Err(RecvTimeoutError::Disconnected) => return last.unwrap_or_default(),
                Err(RecvTimeoutError::Timeout) => {
                    assert!(news.is_left(), "no progress: {last:?}");
                }
            }
            if let Some(figures) = last
                && reached(&figures)
            {
                return figures;
            }
        }
    }

    /// Waits until the child has ended by itself.
    pub(crate) fn end(mut self) {
        while let Ok(figures) = self.figures.recv_timeout(PATIENCE) {
            assert!(figures.durable, "{figures:?}");
        }
        assert!(self.process.wait().unwrap().success());
    }

    /// Kills the child after a delay, and returns its last progress.
    pub(crate) fn kill_after(mut self, after: Duration) -> ChildProgress {
        let (_alive, nothing) = sync_channel::<()>(0);
        let _ = nothing.recv_timeout(after);
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.figures.iter().last().unwrap_or_default()
    }
}

impl Drop for Leecher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's program.
#[test]
fn leecher() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let manifest = std::fs::read(std::env::var_os(MANIFEST).unwrap()).unwrap();
    let manifest = Arc::new(Manifest::from_bytes(&manifest).unwrap());
    let rate = std::env::var(RATE).ok().map(|rate| rate.parse::<NonZeroU64>().unwrap());
    let config = EngineConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        io: IoChoice::Auto,
        zero_copy: ZeroCopyChoice::Auto,
        hash: None,
        workers: None,
        limit_up: None,
        limit_down: rate,
        secret: SecretKey::from_seed(&[99; 32]),
        scratch_dir: None,
    };
    let engine = Engine::start(config).unwrap();
    engine.set_trust(trackers().tracker_key(), tracker_now());
    let order = engine::DownloadOrder {
        key: key(manifest.name().as_str()),
        ticket: ticket(&manifest, engine.peer_key(), far_future()),
        manifest,
        destination: directory.into(),
        overwrite: false,
    };
    let download = engine.download(order).unwrap();
    download.add_peers(&[peer()]);
    let mut progress = download.progress();
    loop {
        let durable = progress.phase == DownloadPhase::Durable;
        let figures = ChildProgress {
            begun: durable || progress.phase != DownloadPhase::Checking,
            durable,
            verified: progress.verified_bytes,
            received: progress.received_bytes,
            duplicate: progress.duplicate_bytes,
            resumed: progress.resumed_bytes,
            checked: progress.checked_bytes,
            passes: progress.sequential_passes.into(),
        };
        writeln!(std::io::stdout(), "{}", figures.line()).unwrap();
        if progress.phase.is_end() {
            break;
        }
        progress = download.wait(progress.version, PATIENCE);
    }
    engine.stop();
}

fn peer() -> PeerAddress {
    let text = std::env::var(PEER).unwrap();
    let (address, hex) = text.split_once(' ').unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap();
    PeerAddress { address: address.parse::<SocketAddr>().unwrap(), key: PeerKey(std::array::from_fn(byte)) }
}
