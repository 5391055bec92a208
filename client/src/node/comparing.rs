//! Comparing what is at a destination with the file that is wanted there.
//!
//! All of it is hashed, and so this takes as long as that does. It is told how far it is, and is given up when somebody who
//! means otherwise asks for the claim under which it is done.
//!
//! Invariant: at most one for each claim; one that was given up has found nothing and changed nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use engine::Existing;
use engine::proto::manifest::Manifest;
use tracker::api::FileKey;

use super::core::{Core, engine_key};
use super::view;
use crate::exit::{Exit, Fault};
use crate::front::rows::{State, Transfer};
use crate::lock::lock;

/// What a front end asked for.
pub(super) struct Wish {
    /// Which file.
    pub(super) key: FileKey,
    /// Where to, absolute.
    pub(super) destination: PathBuf,
    /// Replace a file that differs.
    pub(super) overwrite: bool,
}

/// What was found at a destination.
pub(super) enum Found {
    /// Nothing, or what is to be replaced.
    Room,
    /// The very file, at this path.
    Same(PathBuf),
    /// Nothing yet: it was not wanted any more.
    GivenUp,
}

/// Those under way that have read something.
#[derive(Default)]
pub(super) struct Comparing {
    under_way: Mutex<Vec<Arc<Comparison>>>,
}

struct Comparison {
    key: FileKey,
    destination: PathBuf,
    total_bytes: u64,
    done_bytes: AtomicU64,
}

impl Comparing {
    /// Compares; `tell` is told after each piece how many bytes are, and says whether to go on.
    ///
    /// # Errors
    /// Exit 6 for what is not to be replaced: a file that differs, or something that is no file; whatever the disk says.
    pub(super) fn compare(
        &self,
        core: &Core,
        wish: &Wish,
        manifest: &Manifest,
        tell: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
    ) -> Result<Found, Fault> {
        let comparison = Arc::new(Comparison {
            key: wish.key.clone(),
            destination: wish.destination.clone(),
            total_bytes: manifest.geometry().length(),
            done_bytes: AtomicU64::new(0),
        });
        // Where nothing is there nothing is compared, and nobody is told so.
        let begun = Once::new();
        let progress = |done_bytes| {
            comparison.done_bytes.store(done_bytes, Ordering::Relaxed);
            begun.call_once(|| lock(&self.under_way).push(Arc::clone(&comparison)));
            tell(done_bytes)
        };
        let existing = core.peer.engine()?.existing(&wish.destination, manifest, &progress);
        lock(&self.under_way).retain(|other| !Arc::ptr_eq(other, &comparison));
        match existing? {
            Existing::Absent => Ok(Found::Room),
            Existing::Same(path) => Ok(Found::Same(path)),
            Existing::GivenUp => Ok(Found::GivenUp),
            Existing::Other(path, what) => {
                let message = format!("{} is {what}, which is never replaced", path.display());
                Err(Fault::new(Exit::Exists, message).fix("choose another destination"))
            }
            Existing::Differs(_) if wish.overwrite => Ok(Found::Room),
            Existing::Differs(path) => {
                let message = format!("{} exists and is not the file {}", path.display(), wish.key);
                Err(Fault::new(Exit::Exists, message).fix("choose another destination, or add `--overwrite`"))
            }
        }
    }

    /// The one for a file, as a download that is no further yet.
    pub(super) fn row(&self, key: &FileKey) -> Option<Transfer> {
        lock(&self.under_way).iter().find(|comparison| comparison.key == *key).map(|found| found.row())
    }

    /// All of them, likewise.
    pub(super) fn rows(&self) -> Vec<Transfer> {
        lock(&self.under_way).iter().map(|comparison| comparison.row()).collect()
    }
}

impl Comparison {
    fn row(&self) -> Transfer {
        let verified_bytes = self.done_bytes.load(Ordering::Relaxed);
        let still = view::still(
            &engine_key(&self.key),
            self.destination.clone(),
            self.total_bytes,
            (State::Comparing, None),
        );
        Transfer { verified_bytes, ..still }
    }
}
