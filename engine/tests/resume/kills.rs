//! Kills at random moments, and crashes of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engine::config::IoChoice;
use engine::proto::manifest::Manifest;

use crate::child::{Figures, Leecher};
use crate::rig::{Node, bytes};
use crate::trace::Trace;
use crate::{CHECKED_BYTES, PIECE, left};

/// How often a download is killed.
const KILLS: usize = 24;

/// Pieces of the file that is fetched.
const PIECES: usize = 240;

/// Bytes a second, so that no download ends before it is killed.
const RATE: u64 = 64 * 1024 * 1024;

/// Bytes a second, so that a record is due long before the end.
const SLOW_RATE: u64 = 16 * 1024 * 1024;

/// Latest moment of a kill, in microseconds after its start: some come while what was left is being checked.
const KILL_MAX_US: u64 = 150_000;

/// A seeder, a file of its, and a directory for leechers that are killed.
pub(crate) struct Scene {
    pub(crate) seeder: Node,
    pub(crate) content: Vec<u8>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) manifests: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new(content: Vec<u8>) -> Scene {
        let seeder = Node::start(1, IoChoice::Auto);
        let manifest = seeder.upload("f", &content);
        let (directory, manifests) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Scene { seeder, content, manifest, directory, manifests }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn start(&self, manifest: &Manifest, rate: Option<u64>) -> Leecher {
        self.start_by(Command::new(std::env::current_exe().unwrap()), manifest, rate)
    }

    /// The same, with its calls to the disk traced.
    pub(crate) fn start_traced(&self, manifest: &Manifest, rate: Option<u64>, trace: &Trace) -> Leecher {
        self.start_by(trace.command(std::env::current_exe().unwrap()), manifest, rate)
    }

    fn start_by(&self, command: Command, manifest: &Manifest, rate: Option<u64>) -> Leecher {
        let path = self.manifests.path().join("manifest");
        std::fs::write(&path, manifest.to_bytes()).unwrap();
        Leecher::start(command, self.path(), &path, self.seeder.address(), rate)
    }

    /// Has a leecher killed when it has recorded something and written more.
    fn kill_after_a_record(&self) {
        let leecher = self.start(&self.manifest, Some(SLOW_RATE));
        let claimed = || {
            let record = left::ending(self.path(), ".record");
            record.map_or(0, |path| u64::from(left::claims(&path, PIECES).durable.count().0) * PIECE as u64)
        };
        let figures = leecher.wait(|figures| {
            let claimed = claimed();
            claimed > 0 && figures.verified >= claimed + 8 * PIECE as u64
        });
        assert!(!figures.durable, "the leecher was done before it was killed");
        leecher.kill_after(Duration::ZERO);
    }

    /// Has a leecher killed when it has verified so many bytes.
    pub(crate) fn kill_at(&self, verified: u64) {
        let leecher = self.start(&self.manifest, Some(RATE));
        let figures = leecher.wait(|figures| figures.verified >= verified);
        assert!(!figures.durable, "the leecher was done before it was killed");
        leecher.kill_after(Duration::ZERO);
    }

    /// Lets a leecher go on until the end; the file is right then, and nothing else is left.
    pub(crate) fn finish(&self, manifest: &Manifest) -> Figures {
        let figures = self.start(manifest, None).wait(|figures| figures.durable);
        assert!(figures.durable, "{figures:?}");
        assert!(std::fs::read(self.path().join("f")).unwrap() == self.content, "the file is another");
        assert_eq!(left::ending(self.path(), ".part"), None::<PathBuf>);
        assert_eq!(left::ending(self.path(), ".record"), None::<PathBuf>);
        figures
    }
}

#[test]
fn however_often_it_is_killed_nothing_that_is_there_is_fetched_again() {
    let seed = 20_261_122;
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new(bytes(PIECES * PIECE - 77, seed));
    for kill in 0..KILLS {
        let right = left::bytes_of(&left::right_pieces(scene.path(), &scene.content), &scene.content);
        let leecher = scene.start(&scene.manifest, Some(RATE));
        if random.bool() {
            leecher.wait(|_| true);
        }
        let figures = leecher.kill_after(Duration::from_micros(random.u64(0..KILL_MAX_US)));
        assert!(!figures.durable, "it was done before kill {kill}: make it slower");
        assert!(figures.checked <= CHECKED_BYTES, "kill {kill}: {figures:?}");
        assert!(figures.resumed <= right, "kill {kill}: {figures:?} of {right}");
        if figures.begun {
            assert_eq!(figures.resumed, right, "kill {kill}: all that is right is found, and nothing else");
        }
    }
    let right = left::bytes_of(&left::right_pieces(scene.path(), &scene.content), &scene.content);
    assert!(right > 2 * CHECKED_BYTES, "the kills came too early to show anything: {right}");
    let figures = scene.finish(&scene.manifest);
    assert_eq!((figures.resumed, figures.passes), (right, 0));
    assert!(figures.checked <= CHECKED_BYTES, "{figures:?}");
    let missing = scene.content.len() as u64 - right;
    // At the end two pieces may be asked for twice.
    assert!(figures.received <= missing + 2 * PIECE as u64, "{figures:?} of {missing}");
}

#[test]
fn a_crash_of_the_machine_costs_what_was_not_flushed() {
    for notes_survive in [true, false] {
        let scene = Scene::new(bytes(PIECES * PIECE, 5));
        scene.kill_after_a_record();
        let right = left::bytes_of(&left::right_pieces(scene.path(), &scene.content), &scene.content);
        let kept = left::lose_what_was_not_flushed(scene.path(), &scene.content, notes_survive);
        assert!(0 < kept && kept < right);
        let figures = scene.finish(&scene.manifest);
        assert_eq!((figures.resumed, figures.passes), (kept, 0), "{figures:?}");
        let checked = if notes_survive { right - kept..=right - kept + CHECKED_BYTES } else { 0..=0 };
        assert!(checked.contains(&figures.checked), "{figures:?} and not {checked:?}");
    }
}

#[test]
fn a_crash_of_the_machine_that_lost_nothing_costs_no_fetching() {
    let scene = Scene::new(bytes(PIECES * PIECE, 8));
    scene.kill_at(20 * PIECE as u64);
    let right = left::bytes_of(&left::right_pieces(scene.path(), &scene.content), &scene.content);
    let claims = left::claims(&left::ending(scene.path(), ".record").unwrap(), PIECES);
    let recorded = u64::from(claims.durable.count().0) * PIECE as u64;
    left::boot_again(scene.path(), PIECES, true);
    let figures = scene.finish(&scene.manifest);
    assert_eq!((figures.resumed, figures.passes), (right, 0), "{figures:?}");
    assert!(figures.checked >= right - recorded, "{figures:?}");
}

#[test]
fn a_damaged_record_is_set_aside_and_everything_is_hashed() {
    let scene = Scene::new(bytes(PIECES * PIECE, 6));
    scene.kill_at(20 * PIECE as u64);
    let record = left::ending(scene.path(), ".record").unwrap();
    let mut bytes = std::fs::read(&record).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let right = left::right_pieces(scene.path(), &scene.content);
    let figures = scene.finish(&scene.manifest);
    assert!(left::ending(scene.path(), ".damaged").is_some());
    assert_eq!(figures.checked, scene.content.len() as u64);
    assert_eq!(figures.resumed, left::bytes_of(&right, &scene.content));
}

#[test]
fn without_the_chain_that_was_recorded_one_pass_decides() {
    let scene = Scene::new(bytes(PIECES * PIECE, 7));
    scene.kill_at(100 * PIECE as u64);
    let right = left::right_pieces(scene.path(), &scene.content);
    let whole = &scene.manifest;
    let (name, length) = (whole.name().clone(), Some(whole.geometry().length()));
    let unchained = Manifest::new(name, length, whole.digests().to_vec(), whole.proof(), None).unwrap();
    let figures = scene.finish(&unchained);
    assert_eq!(figures.passes, 1);
    assert_eq!(figures.resumed, left::bytes_of(&right, &scene.content), "pieces keep their digests' proof");
    assert!(figures.checked <= CHECKED_BYTES, "{figures:?}");
}
