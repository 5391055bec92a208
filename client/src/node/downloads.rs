//! The node's downloads: started once for each file, attached to by whoever asks for the same again.
//!
//! Invariants: one entry a file key; an entry that has ended is replaced when the file is asked for again; at most
//! `DOWNLOADS_MAX` are under way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::proto::manifest::Manifest;
use engine::stats::Phase;
use engine::{Existing, Order};
use tracker::api::FileKey;

use super::core::{Core, engine_key};
use super::describe::{self, Description};
use super::ending::Ending;
use super::entry::Entry;
use super::events::Events;
use super::keeper;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Event};
use crate::front::rows::Transfer;
use crate::limits;
use crate::lock::lock;

/// All of them.
#[derive(Default)]
pub(super) struct Downloads {
    entries: Mutex<Vec<Arc<Entry>>>,
    starting: Mutex<BTreeSet<FileKey>>,
}

/// What came of a wish to fetch a file.
pub(super) enum Start {
    /// It is under way.
    UnderWay(Arc<Entry>),
    /// It is there already, at this path, and this long.
    Already { path: PathBuf, size_bytes: u64 },
}

/// What a front end asked for.
pub(super) struct Wish {
    /// Which file.
    pub(super) key: FileKey,
    /// Where to, absolute.
    pub(super) destination: PathBuf,
    /// Replace a file that differs.
    pub(super) overwrite: bool,
}

impl Downloads {
    /// Starts a download, or finds the one that is under way.
    ///
    /// # Errors
    /// The trackers' refusal; exit 6 for a file that differs; whatever the disk says.
    pub(super) fn start(&self, core: &Arc<Core>, wish: &Wish, events: &Events<'_>) -> Result<Start, Fault> {
        let user = core.trackers.require_user()?;
        if let Some(entry) = self.under_way(wish)? {
            return Ok(Start::UnderWay(entry));
        }
        let _starting = self.claim(&wish.key)?;
        // Whoever held the claim until just now has listed what it started.
        if let Some(entry) = self.under_way(wish)? {
            return Ok(Start::UnderWay(entry));
        }
        let engine = core.peer.engine()?;
        let Description { manifest, peers, ticket } = describe::describe(core, &wish.key)?;
        if let Some(path) = already_there(core, wish, &manifest, events)? {
            let size_bytes = path.metadata().map_or(manifest.geometry().length(), |found| found.len());
            return Ok(Start::Already { path, size_bytes });
        }
        let order = Order {
            key: engine_key(&wish.key),
            manifest: Arc::clone(&manifest),
            destination: wish.destination.clone(),
            overwrite: wish.overwrite,
            ticket,
        };
        let download = engine.download(order)?;
        download.offer(&peers);
        let entry = Arc::new(Entry {
            key: wish.key.clone(),
            destination: wish.destination.clone(),
            user,
            proof: manifest.proof(),
            telling: Ending::default(),
            download,
            held_back: Mutex::default(),
        });
        // A download that nobody keeps supplied, and nobody can find, must not go on.
        keeper::spawn(Arc::clone(core), Arc::clone(&entry), manifest.pieces())
            .inspect_err(|_| entry.download.cancel())?;
        let mut entries = lock(&self.entries);
        entries.retain(|known| known.key != entry.key);
        entries.push(Arc::clone(&entry));
        Ok(Start::UnderWay(entry))
    }

    /// The download of this file that goes on, if it goes to the same place.
    fn under_way(&self, wish: &Wish) -> Result<Option<Arc<Entry>>, Fault> {
        let Some(entry) = self.find(&wish.key).filter(|entry| !entry.has_ended()) else { return Ok(None) };
        let path = entry.download.progress().path;
        let same = wish.destination == entry.destination
            || wish.destination == path
            || path.parent().is_some_and(|parent| parent == wish.destination);
        if same {
            return Ok(Some(entry));
        }
        let message = format!("{} is being fetched to {} already", entry.key, path.display());
        let fix = format!("wait until it is complete, or `cancel {} {}`", entry.key.group, entry.key.name);
        Err(Fault::new(Exit::Exists, message).fix(fix))
    }

    /// Marks a file as being started, until what is given back is dropped.
    fn claim(&self, key: &FileKey) -> Result<Claim<'_>, Fault> {
        let running = lock(&self.entries).iter().filter(|entry| !entry.has_ended()).count();
        let mut starting = lock(&self.starting);
        if running + starting.len() >= limits::DOWNLOADS_MAX {
            let message =
                format!("{} downloads are under way, and more are not begun", limits::DOWNLOADS_MAX);
            return Err(Fault::new(Exit::Other, message).fix("wait for one of them, or `cancel` one"));
        }
        if !starting.insert(key.clone()) {
            let message = format!("{key} is being started by somebody else just now");
            return Err(Fault::new(Exit::Other, message).fix("give the command again: it then attaches"));
        }
        Ok(Claim { starting: &self.starting, key: key.clone() })
    }

    fn find(&self, key: &FileKey) -> Option<Arc<Entry>> {
        lock(&self.entries).iter().find(|entry| entry.key == *key).cloned()
    }

    /// The download of a file.
    ///
    /// # Errors
    /// Exit 5 when there is none.
    pub(super) fn get(&self, key: &FileKey) -> Result<Arc<Entry>, Fault> {
        self.find(key).ok_or_else(|| {
            Fault::new(Exit::NotFound, format!("this node has no download of {key}")).fix("show_downloads")
        })
    }

    /// All of them, as they stand, oldest first.
    pub(super) fn rows(&self) -> Vec<Transfer> {
        let entries = lock(&self.entries).clone();
        entries.iter().map(|entry| entry.transfer()).collect()
    }

    /// The files that a user fetches or has fetched here.
    pub(super) fn of(&self, user: &str) -> Vec<FileKey> {
        lock(&self.entries).iter().filter(|entry| entry.user == user).map(|entry| entry.key.clone()).collect()
    }

    /// Takes a file off the list.
    pub(super) fn forget(&self, key: &FileKey) {
        lock(&self.entries).retain(|entry| entry.key != *key);
    }

    /// Lets the downloads of `user` go on that the node had paused, and pauses everybody else's; with `None`, all.
    pub(super) fn belong_to(&self, user: Option<&str>) {
        for entry in lock(&self.entries).clone() {
            let mut held_back = lock(&entry.held_back);
            let owned = user == Some(entry.user.as_str());
            if owned && held_back.take().is_some() {
                entry.download.resume();
            } else if !owned
                && !matches!(entry.download.progress().phase, Phase::Paused)
                && !entry.has_ended()
            {
                *held_back = Some(format!("it belongs to {}, who is not logged in here", entry.user));
                entry.download.pause();
            }
        }
    }
}

/// A file that is being started.
struct Claim<'a> {
    starting: &'a Mutex<BTreeSet<FileKey>>,
    key: FileKey,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(self.starting).remove(&self.key);
    }
}

/// Compares what is at the destination; its path when it is the file itself.
fn already_there(
    core: &Core,
    wish: &Wish,
    manifest: &Manifest,
    events: &Events<'_>,
) -> Result<Option<PathBuf>, Fault> {
    let total_bytes = manifest.geometry().length();
    let file = wish.key.name.to_string();
    let progress = |done_bytes| {
        // Whether anybody listens is found out when there is something to lose by it.
        let _ = events.progress(|| Event::Comparing { file: file.clone(), done_bytes, total_bytes });
    };
    match core.peer.engine()?.existing(&wish.destination, manifest, &progress)? {
        Existing::Absent => Ok(None),
        Existing::Same(path) => Ok(Some(path)),
        Existing::Differs(_) if wish.overwrite => Ok(None),
        Existing::Differs(path) => {
            let message = format!("{} exists and is not the file {}", path.display(), wish.key);
            Err(Fault::new(Exit::Exists, message).fix("choose another destination, or add `--overwrite`"))
        }
    }
}

/// Tells a front end how a download goes, until it ends.
///
/// # Errors
/// Why it failed; or the front end or the node went away.
pub(super) fn follow(core: &Core, entry: &Entry, events: &Events<'_>) -> Result<Answer, Fault> {
    let mut seen = 0;
    events.tell(Event::Transfer(entry.transfer()))?;
    loop {
        let progress = entry.download.wait(seen, Duration::from_millis(limits::HEARTBEAT_MS));
        seen = progress.version;
        match &progress.phase {
            Phase::Durable => {
                // So that whoever comes next finds this node among the seeders; but nobody waits long for a tracker.
                entry.telling.wait_for(Duration::from_millis(limits::TELLING_WAIT_MS));
                return Ok(Answer::Downloaded(entry.transfer_at(&progress)));
            }
            Phase::Failed(failure) => return Err(failure.into()),
            Phase::Cancelled => {
                let message = format!("the download of {} was cancelled", entry.key);
                return Err(Fault::new(Exit::Other, message).fix("give the command again to begin anew"));
            }
            _ => events.progress(|| Event::Transfer(entry.transfer_at(&progress)))?,
        }
        if core.ending.is_over() {
            let message = "the node is ending; what was fetched stays beside the destination";
            return Err(Fault::new(Exit::Interrupted, message).fix("give the same command again to go on"));
        }
    }
}
