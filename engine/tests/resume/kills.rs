//! Kills at random moments, and crashes of the machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engine::config::IoChoice;
use engine::proto::action::PeerAddress;
use engine::proto::limits::CONNECTIONS_WANTED;
use engine::proto::manifest::Manifest;

use crate::child::{ChildProgress, Leecher};
use crate::partial_files::{AllButLast, ending};
use crate::rig::{Node, bytes};
use crate::trace::Trace;
use crate::{PIECE, leftovers};

/// Minimum number of kills of a download.
const KILLS: usize = 24;

/// Minimum number of pieces that are there after the last kill.
const KILLED_PIECES_MIN: u64 = 34;

/// Pieces of the downloaded file.
const PIECES: usize = 240;

/// Bytes a second: slow enough that a download is killed many times before it has every piece it can get.
const RATE: u64 = 32 * 1024 * 1024;

/// Bytes a second: slow enough that a record is due long before the end.
const SLOW_RATE: u64 = 4 * 1024 * 1024;

/// Latest moment of a kill, in microseconds after the start. Some kills come while earlier pieces are
/// checked.
const KILL_MAX_US: u64 = 150_000;

/// A seeder, its file, and a directory for leechers that are killed.
pub(crate) struct KillScenario {
    pub(crate) seeder: Node,
    pub(crate) content: Vec<u8>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) manifests: tempfile::TempDir,
}

impl KillScenario {
    pub(crate) fn new(content: Vec<u8>) -> KillScenario {
        let seeder = Node::start(1, IoChoice::Auto);
        let manifest = seeder.upload("f", &content);
        let (directory, manifests) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        KillScenario { seeder, content, manifest, directory, manifests }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn start(&self, manifest: &Manifest, rate: Option<u64>) -> Leecher {
        self.start_by(Command::new(std::env::current_exe().unwrap()), manifest, self.seeder.address(), rate)
    }

    /// As `start`, with its disk calls traced.
    pub(crate) fn start_traced(&self, manifest: &Manifest, rate: Option<u64>, trace: &Trace) -> Leecher {
        self.start_by(trace.command(std::env::current_exe().unwrap()), manifest, self.seeder.address(), rate)
    }

    /// Starts a leecher to be killed: its source never gives the last piece.
    fn start_endless(&self, source: &AllButLast, rate: u64) -> Leecher {
        let command = Command::new(std::env::current_exe().unwrap());
        self.start_by(command, &self.manifest, source.address(), Some(rate))
    }

    /// The source of leechers that are killed.
    fn source(&self) -> AllButLast {
        AllButLast::start(2, &self.manifest, &self.content)
    }

    fn start_by(
        &self,
        command: Command,
        manifest: &Manifest,
        peer: PeerAddress,
        rate: Option<u64>,
    ) -> Leecher {
        let path = self.manifests.path().join("manifest");
        std::fs::write(&path, manifest.to_bytes()).unwrap();
        Leecher::start(command, self.path(), &path, peer, rate)
    }

    /// Kills a leecher after it has recorded some pieces and written more.
    fn kill_after_a_record(&self) {
        let source = self.source();
        let leecher = self.start_endless(&source, SLOW_RATE);
        let claimed = || {
            let record = ending(self.path(), ".record");
            record.map_or(0, |path| {
                u64::from(leftovers::claims(&path, PIECES).durable.count().0) * PIECE as u64
            })
        };
        let written_more = |figures: &ChildProgress| {
            let claimed = claimed();
            claimed > 0 && figures.verified >= claimed + 8 * PIECE as u64
        };
        leecher.wait(written_more);
        leecher.kill_after(Duration::ZERO);
    }

    /// Kills a leecher after it has verified so many bytes.
    fn kill_at(&self, verified: u64) {
        let source = self.source();
        let leecher = self.start_endless(&source, RATE);
        let figures = leecher.wait(|figures| figures.verified >= verified);
        assert!(figures.verified >= verified, "{figures:?}");
        leecher.kill_after(Duration::ZERO);
    }

    /// Lets a leecher finish; then the file is right, and nothing else is left.
    pub(crate) fn finish(&self, manifest: &Manifest) -> ChildProgress {
        let figures = self.start(manifest, None).wait(|figures| figures.durable);
        assert!(figures.durable, "{figures:?}");
        assert!(std::fs::read(self.path().join("f")).unwrap() == self.content, "the file differs");
        assert_eq!(ending(self.path(), ".part"), None::<PathBuf>);
        assert_eq!(ending(self.path(), ".record"), None::<PathBuf>);
        figures
    }
}

#[test]
fn repeated_kills_never_fetch_a_written_piece_again() {
    let seed = 20_261_122;
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = KillScenario::new(bytes(PIECES * PIECE - 77, seed));
    let source = scene.source();
    let right =
        || leftovers::bytes_of(&leftovers::right_pieces(scene.path(), &scene.content), &scene.content);
    let mut kills = 0;
    while kills < KILLS || right() <= KILLED_PIECES_MIN * PIECE as u64 {
        let right = right();
        let leecher = scene.start_endless(&source, RATE);
        // Every second attempt makes progress, however slow the machine is; the others may be killed before
        // they have begun.
        if kills % 2 == 1 {
            let further =
                |figures: &ChildProgress| figures.verified > right || figures.verified == source.held;
            let figures = leecher.wait(further);
            assert!(further(&figures), "kill {kills}: {figures:?} after {right}");
        } else if random.bool() {
            leecher.wait(|_| true);
        }
        let figures = leecher.kill_after(Duration::from_micros(random.u64(0..KILL_MAX_US)));
        assert!(figures.resumed <= right, "kill {kills}: {figures:?} of {right}");
        if figures.begun {
            assert_eq!(figures.resumed, right, "kill {kills}: exactly the correct pieces are found");
        }
        kills += 1;
    }
    drop(source);
    let right = right();
    let figures = scene.finish(&scene.manifest);
    assert_eq!((figures.resumed, figures.passes), (right, 0));
    let missing = scene.content.len() as u64 - right;
    // At the end each connection, except that of the last piece, may be closed while it receives a duplicate.
    let cut_off = (CONNECTIONS_WANTED as u64 - 1) * PIECE as u64;
    assert!(figures.received - figures.duplicate <= missing + cut_off, "{figures:?} of {missing}");
}

#[test]
fn a_machine_crash_costs_only_unflushed_pieces() {
    for notes_survive in [true, false] {
        let scene = KillScenario::new(bytes(PIECES * PIECE, 5));
        scene.kill_after_a_record();
        let right =
            leftovers::bytes_of(&leftovers::right_pieces(scene.path(), &scene.content), &scene.content);
        let kept = leftovers::lose_what_was_not_flushed(scene.path(), &scene.content, notes_survive);
        assert!(0 < kept && kept < right);
        let figures = scene.finish(&scene.manifest);
        assert_eq!((figures.resumed, figures.passes), (kept, 0), "{figures:?}");
        if notes_survive {
            assert!(figures.checked >= right, "{figures:?}: the recorded and the noted pieces");
        } else {
            assert_eq!(figures.checked, kept, "the recorded pieces");
        }
    }
}

#[test]
fn a_rewritten_partial_file_is_checked_before_its_pieces_count() {
    let scene = KillScenario::new(bytes(PIECES * PIECE, 8));
    scene.kill_after_a_record();
    let part = File::options().write(true).open(ending(scene.path(), ".part").unwrap()).unwrap();
    let modified = part.metadata().unwrap().modified().unwrap();
    part.write_all_at(&vec![0; 9 * PIECE], 0).unwrap();
    part.set_modified(modified).unwrap();
    let right = leftovers::bytes_of(&leftovers::right_pieces(scene.path(), &scene.content), &scene.content);
    let figures = scene.finish(&scene.manifest);
    assert_eq!((figures.resumed, figures.passes), (right, 0), "{figures:?}");
}

#[test]
fn a_damaged_record_is_renamed_and_every_piece_hashed() {
    let scene = KillScenario::new(bytes(PIECES * PIECE, 6));
    scene.kill_at(20 * PIECE as u64);
    let record = ending(scene.path(), ".record").unwrap();
    let mut bytes = std::fs::read(&record).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let right = leftovers::right_pieces(scene.path(), &scene.content);
    let figures = scene.finish(&scene.manifest);
    assert!(ending(scene.path(), ".damaged").is_some());
    assert_eq!(figures.checked, scene.content.len() as u64);
    assert_eq!(figures.resumed, leftovers::bytes_of(&right, &scene.content));
}

#[test]
fn without_the_recorded_chain_one_pass_proves_the_file() {
    let scene = KillScenario::new(bytes(PIECES * PIECE, 7));
    scene.kill_at(100 * PIECE as u64);
    let right = leftovers::right_pieces(scene.path(), &scene.content);
    let whole = &scene.manifest;
    let (name, length) = (whole.name().clone(), Some(whole.geometry().length()));
    let unchained = Manifest::new(name, length, whole.digests().to_vec(), whole.proof(), None).unwrap();
    let figures = scene.finish(&unchained);
    assert_eq!(figures.passes, 1);
    assert_eq!(
        figures.resumed,
        leftovers::bytes_of(&right, &scene.content),
        "pieces stay proven by their digests"
    );
}
