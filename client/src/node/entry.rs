//! One download of this node: what it is, whose, and where to; and its record.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use engine::Download;
use engine::proto::manifest::{FileProof, Manifest};
use engine::stats::{Phase, Progress};
use tracker::api::FileKey;

use super::core::{Core, engine_key};
use super::dormant;
use super::ending::Ending;
use super::records::{RecordId, Wanted};
use super::view;
use crate::exit::Fault;
use crate::front::rows::Transfer;
use crate::lock::lock;

/// What is on record of a download.
struct Record {
    wanted: Wanted,
    /// Whether the record was given up, or is another download's by now: then this one writes it no more.
    given_up: bool,
}

/// What a download begins with.
pub(super) struct Begun {
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) wanted: Wanted,
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// The engine's part.
    pub(super) download: Download,
    /// The node's limit for what it receives, in bytes a second.
    pub(super) limit_down: Option<NonZeroU64>,
}

/// One download.
pub(super) struct Entry {
    /// Which file.
    pub(super) key: FileKey,
    /// Whose it is.
    pub(super) user: String,
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    record: Mutex<Record>,
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// Ends when its end is on record.
    pub(super) recorded: Ending,
    /// Ends when the trackers were told for the first time that it is complete, whatever they said.
    pub(super) telling: Ending,
    /// The engine's part.
    pub(super) download: Download,
    /// Why the node paused it, when it did.
    pub(super) held_back: Mutex<Option<String>>,
    /// The node's limit for what it receives, in bytes a second.
    pub(super) limit_down: Option<NonZeroU64>,
}

impl Entry {
    /// One that has just begun.
    pub(super) fn new(begun: Begun) -> Entry {
        let Begun { id, wanted, manifest, download, limit_down } = begun;
        Entry {
            key: wanted.key.clone(),
            user: wanted.user.clone(),
            id,
            record: Mutex::new(Record { wanted, given_up: false }),
            manifest,
            recorded: Ending::default(),
            telling: Ending::default(),
            download,
            held_back: Mutex::default(),
            limit_down,
        }
    }

    /// Where it was asked to go.
    pub(super) fn destination(&self) -> PathBuf {
        lock(&self.record).wanted.destination.clone()
    }

    /// As it stands.
    pub(super) fn transfer(&self) -> Transfer {
        self.transfer_at(&self.download.progress())
    }

    /// As it stood.
    pub(super) fn transfer_at(&self, progress: &Progress) -> Transfer {
        let held_back = lock(&self.held_back);
        let transfer =
            view::transfer(&engine_key(&self.key), progress, held_back.as_deref(), self.limit_down);
        let pieces_only = matches!(self.manifest.proof(), FileProof::PiecesOnly(_));
        Transfer { pieces_only, figures: view::figures(&self.download, progress), ..transfer }
    }

    /// Pauses for its user, who alone lets it go on from here: whatever else had held it back does not count any more.
    pub(super) fn pause(&self) {
        let mut held_back = lock(&self.held_back);
        *held_back = None;
        self.download.pause();
    }

    /// Goes on, whoever had paused it.
    pub(super) fn release(&self) {
        let mut held_back = lock(&self.held_back);
        *held_back = None;
        self.download.resume();
    }

    /// Goes on if the node had held it back and `user` is whose it is; is held back if it is another's.
    pub(super) fn belong_to(&self, user: Option<&str>) {
        let mut held_back = lock(&self.held_back);
        if user == Some(self.user.as_str()) {
            if held_back.take().is_some() {
                self.download.resume();
            }
        } else if !matches!(self.download.progress().phase, Phase::Paused) && !self.has_ended() {
            *held_back = Some(dormant::not_here(&self.user).message);
            self.download.pause();
        }
    }

    /// Changes its record, here and on the disk, unless it was given up.
    ///
    /// # Errors
    /// A fault when it cannot be written.
    pub(super) fn record(&self, core: &Core, change: impl FnOnce(&mut Wanted)) -> Result<(), Fault> {
        let mut record = lock(&self.record);
        if record.given_up {
            return Ok(());
        }
        change(&mut record.wanted);
        core.records.write_download(&self.id, &record.wanted)
    }

    /// It runs: what was on record before it is forgotten.
    ///
    /// # Errors
    /// A fault when that cannot be written.
    pub(super) fn has_begun(&self, core: &Core) -> Result<(), Fault> {
        if lock(&self.record).wanted.former.is_none() {
            return Ok(());
        }
        self.record(core, |wanted| wanted.former = None)
    }

    /// Leaves its record to another download, and gives what is on it: from here on this one writes it no more.
    pub(super) fn leave_record(&self) -> Wanted {
        let mut record = lock(&self.record);
        record.given_up = true;
        // Its keeper may not have come to note that.
        if let Phase::Failed(failure) = &self.download.progress().phase {
            record.wanted.failed = Some(failure.into());
        }
        record.wanted.clone()
    }

    /// The other one did not begin: its record is its own again.
    pub(super) fn take_back_record(&self) {
        lock(&self.record).given_up = false;
    }

    /// Removes its record, for good: whatever its keeper notes from here on is not written.
    ///
    /// # Errors
    /// A fault when it cannot be removed.
    pub(super) fn forget_record(&self, core: &Core) -> Result<(), Fault> {
        let mut record = lock(&self.record);
        record.given_up = true;
        core.records.forget_download(&self.id)
    }

    /// Whether nothing more will happen to it.
    pub(super) fn has_ended(&self) -> bool {
        self.download.progress().phase.is_end()
    }
}
