//! The node's downloads: started once for each file, attached to by whoever asks for the same again; those on record that
//! do not run, and how they come back.
//!
//! Invariants: one download a file key, running or dormant; one that has ended is replaced when the file is asked for
//! again; at most `DOWNLOADS_MAX` are under way; each is on record before it begins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::proto::manifest::Manifest;
use engine::stats::Phase;
use engine::storage::fingerprint::Fingerprint;
use engine::{Existing, Order};
use tracker::api::FileKey;

use super::core::{Core, engine_key};
use super::describe::{self, Description};
use super::dormant::{self, Dormant};
use super::ending::Ending;
use super::entry::Entry;
use super::events::Events;
use super::keeper;
use super::outlook::{Left, later};
use super::records::{RecordId, Records, Wanted};
use super::registry::Standing;
use super::shares;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Event};
use crate::front::rows::Transfer;
use crate::limits;
use crate::lock::lock;

/// All of them.
#[derive(Default)]
pub(super) struct Downloads {
    entries: Mutex<Vec<Arc<Entry>>>,
    dormant: Mutex<Vec<Dormant>>,
    starting: Mutex<BTreeSet<FileKey>>,
    started: Condvar,
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

/// Why a download does not come back.
enum Setback {
    /// What it waits for may pass.
    Later(Fault),
    /// It cannot succeed.
    Never(Fault),
}

impl Downloads {
    /// The downloads on record, none of them running.
    pub(super) fn on_record(records: &Records) -> Downloads {
        let dormant =
            records.read_downloads().into_iter().map(|(id, wanted)| Dormant { id, wanted, waits_for: None });
        let mut all: Vec<Dormant> = Vec::new();
        for one in dormant {
            // Copies are nobody's work but a person's: the first counts.
            if all.iter().all(|known| known.wanted.key != one.wanted.key) {
                all.push(one);
            }
        }
        Downloads { dormant: Mutex::new(all), ..Downloads::default() }
    }

    /// Starts a download, or finds the one that is under way.
    ///
    /// # Errors
    /// The trackers' refusal; exit 6 for a file that differs; whatever the disk says; also that it cannot be recorded, since
    /// a restart would lose it: then nothing is begun.
    pub(super) fn start(&self, core: &Arc<Core>, wish: &Wish, events: &Events<'_>) -> Result<Start, Fault> {
        let user = core.trackers.require_user()?;
        if let Some(entry) = self.under_way(wish)? {
            return Ok(Start::UnderWay(entry));
        }
        let _starting = self.claim(core, &wish.key)?;
        // Whoever held the claim until just now has listed what it started.
        if let Some(entry) = self.under_way(wish)? {
            return Ok(Start::UnderWay(entry));
        }
        let dormant = self.of_the_same_place(wish, &user)?;
        let described = describe::describe(core, &wish.key)?;
        let manifest = Arc::clone(&described.manifest);
        let total_bytes = manifest.geometry().length();
        let file = wish.key.name.to_string();
        let progress = |done_bytes| {
            // Whether anybody listens is found out when there is something to lose by it.
            let _ = events.progress(|| Event::Comparing { file: file.clone(), done_bytes, total_bytes });
        };
        if let Some(path) = already_there(core, wish, &manifest, &progress)? {
            if let Some(dormant) = dormant {
                self.has_come(core, &dormant, &path, &manifest)?;
            }
            let size_bytes = path.metadata().map_or(total_bytes, |found| found.len());
            return Ok(Start::Already { path, size_bytes });
        }
        let wanted = Wanted {
            key: wish.key.clone(),
            user,
            destination: wish.destination.clone(),
            overwrite: wish.overwrite,
            content: manifest.proof().id(),
            total_bytes,
            paused: false,
            failed: None,
        };
        let known = dormant.map(|dormant| dormant.id);
        let id = known.clone().map_or_else(RecordId::new, Ok)?;
        core.records.write_download(&id, &wanted)?;
        let entry = self.launch(core, &id, wanted, described).inspect_err(|_| {
            if known.is_none()
                && let Err(fault) = core.records.forget_download(&id)
            {
                core.notices.tell(&fault.message);
            }
        })?;
        Ok(Start::UnderWay(entry))
    }

    /// Starts what is on record.
    fn launch(
        &self,
        core: &Arc<Core>,
        id: &RecordId,
        wanted: Wanted,
        described: Description,
    ) -> Result<Arc<Entry>, Fault> {
        let Description { manifest, peers, ticket } = described;
        let order = Order {
            key: engine_key(&wanted.key),
            manifest: Arc::clone(&manifest),
            destination: wanted.destination.clone(),
            overwrite: wanted.overwrite,
            ticket,
        };
        let download = core.peer.engine()?.download(order)?;
        download.offer(&peers);
        let entry = Arc::new(Entry {
            key: wanted.key.clone(),
            user: wanted.user.clone(),
            id: id.clone(),
            wanted: Mutex::new(wanted),
            manifest,
            recorded: Ending::default(),
            telling: Ending::default(),
            download,
            held_back: Mutex::default(),
            limit_down: core.peer.limit_down(),
        });
        // A download that nobody keeps supplied, and nobody can find, must not go on.
        keeper::spawn(Arc::clone(core), Arc::clone(&entry)).inspect_err(|_| entry.download.cancel())?;
        let mut entries = lock(&self.entries);
        entries.retain(|known| known.key != entry.key);
        entries.push(Arc::clone(&entry));
        self.wake_up(id);
        Ok(entry)
    }

    /// Lets go on what `user` has on record here.
    pub(super) fn revive(&self, core: &Arc<Core>, user: &str) -> Left {
        let mut left = Left::Nothing;
        let all: Vec<Dormant> = lock(&self.dormant).clone();
        for mut dormant in all.into_iter().filter(|dormant| dormant.can_go_on(user)) {
            if core.ending.is_over() || core.trackers.user().as_deref() != Some(user) {
                break;
            }
            let outcome = self.claim(core, &dormant.wanted.key).map_err(Setback::Later).and_then(|_claim| {
                // Somebody may have asked for it meanwhile, or given it up.
                let waits = self.dormant(&dormant.wanted.key).is_some_and(|now| now.can_go_on(user));
                if waits { self.revive_one(core, &dormant) } else { Ok(()) }
            });
            match outcome {
                Ok(()) => continue,
                Err(Setback::Later(fault)) => {
                    left = left.max(later(&fault).unwrap_or(Left::Something));
                    dormant.waits_for = Some(fault);
                }
                Err(Setback::Never(fault)) => {
                    core.notices.tell(&format!("{} does not go on: {fault}", dormant.wanted.key));
                    dormant.wanted.failed = Some(fault);
                    if let Err(fault) = core.records.write_download(&dormant.id, &dormant.wanted) {
                        core.notices.tell(&fault.message);
                    }
                }
            }
            self.put_back(dormant);
        }
        left
    }

    fn revive_one(&self, core: &Arc<Core>, dormant: &Dormant) -> Result<(), Setback> {
        let wanted = &dormant.wanted;
        let described = describe::describe(core, &wanted.key).map_err(|fault| {
            if later(&fault).is_some() { Setback::Later(fault) } else { Setback::Never(fault) }
        })?;
        let manifest = Arc::clone(&described.manifest);
        if manifest.proof().id() != wanted.content {
            let message = format!("{} is another file now than when its download was begun", wanted.key);
            let fix = format!(
                "`cancel {0} {1}`, then `download_file {0} {1} DEST` fetches what it is now",
                wanted.key.group, wanted.key.name
            );
            return Err(Setback::Never(Fault::new(Exit::Other, message).fix(fix)));
        }
        let wish = Wish {
            key: wanted.key.clone(),
            destination: wanted.destination.clone(),
            overwrite: wanted.overwrite,
        };
        let disk = |fault: Fault| match fault.exit {
            Exit::Exists | Exit::Usage => Setback::Never(fault),
            _ => Setback::Later(fault),
        };
        if let Some(path) = already_there(core, &wish, &manifest, &|_| {}).map_err(disk)? {
            return self.has_come(core, dormant, &path, &manifest).map_err(Setback::Later);
        }
        self.launch(core, &dormant.id, wanted.clone(), described).map(drop).map_err(disk)
    }

    /// A download on record turns out to be complete: a crash came between its last step and the record of that.
    fn has_come(
        &self,
        core: &Core,
        dormant: &Dormant,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<(), Fault> {
        let fingerprint = Fingerprint::at(path)
            .map_err(|error| Fault::io("look at", path, &error).fix("check the path"))?;
        let wanted = &dormant.wanted;
        shares::become_share(core, &wanted.key, &wanted.user, path, fingerprint, manifest, Standing::Down)?;
        core.records.forget_download(&dormant.id)?;
        self.wake_up(&dormant.id);
        core.notices.tell(&format!("{} is complete: {}", wanted.key, path.display()));
        core.bell.ring();
        Ok(())
    }

    /// The download on record of the file that is wished for.
    fn of_the_same_place(&self, wish: &Wish, user: &str) -> Result<Option<Dormant>, Fault> {
        let Some(dormant) = self.dormant(&wish.key) else { return Ok(None) };
        let wanted = &dormant.wanted;
        if wanted.user != user {
            let message = format!("{} is being fetched by {} on this node", wish.key, wanted.user);
            let fix =
                format!("use a node of your own (`--state DIR`), or log in as {} to cancel it", wanted.user);
            return Err(Fault::new(Exit::Exists, message).fix(fix));
        }
        if wanted.failed.is_some() || same_place(&wish.destination, &wanted.destination, &wish.key) {
            return Ok(Some(dormant));
        }
        Err(elsewhere(&wish.key, &wanted.destination))
    }

    /// The download of this file that goes on, if it goes to the same place.
    fn under_way(&self, wish: &Wish) -> Result<Option<Arc<Entry>>, Fault> {
        let Some(entry) = self.find(&wish.key).filter(|entry| !entry.has_ended()) else { return Ok(None) };
        let path = entry.download.progress().path;
        let destination = lock(&entry.wanted).destination.clone();
        if wish.destination == destination || same_place(&wish.destination, &path, &wish.key) {
            return Ok(Some(entry));
        }
        Err(elsewhere(&entry.key, &path))
    }

    /// Marks a file as being started, until what is given back is dropped. Waits for whoever is starting it.
    fn claim(&self, core: &Core, key: &FileKey) -> Result<Claim<'_>, Fault> {
        let running = lock(&self.entries).iter().filter(|entry| !entry.has_ended()).count();
        let mut starting = lock(&self.starting);
        while starting.contains(key) && !core.ending.is_over() {
            let waited = self.started.wait_timeout(starting, Duration::from_millis(limits::HEARTBEAT_MS));
            starting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if running + starting.len() >= limits::DOWNLOADS_MAX {
            let message =
                format!("{} downloads are under way, and more are not begun", limits::DOWNLOADS_MAX);
            return Err(Fault::new(Exit::Other, message).fix("wait for one of them, or `cancel` one"));
        }
        if !starting.insert(key.clone()) {
            return Err(Fault::new(Exit::Interrupted, "the node is ending").fix("give the command again"));
        }
        Ok(Claim { downloads: self, key: key.clone() })
    }

    /// The download of a file, if it runs or has run in this process.
    pub(super) fn find(&self, key: &FileKey) -> Option<Arc<Entry>> {
        lock(&self.entries).iter().find(|entry| entry.key == *key).cloned()
    }

    /// The download of a file that is on record alone.
    pub(super) fn dormant(&self, key: &FileKey) -> Option<Dormant> {
        lock(&self.dormant).iter().find(|dormant| dormant.wanted.key == *key).cloned()
    }

    /// Notes what became of a dormant download, if it is still one.
    pub(super) fn put_back(&self, dormant: Dormant) {
        if let Some(known) = lock(&self.dormant).iter_mut().find(|known| known.id == dormant.id) {
            *known = dormant;
        }
    }

    /// Takes a download off the list of dormant ones.
    pub(super) fn wake_up(&self, id: &RecordId) {
        lock(&self.dormant).retain(|dormant| dormant.id != *id);
    }

    /// All of them, as they stand while `user` is logged in: those on record first, then the others, oldest first.
    pub(super) fn rows(&self, user: Option<&str>) -> Vec<Transfer> {
        let mut rows: Vec<Transfer> =
            lock(&self.dormant).iter().map(|dormant| dormant.transfer(user)).collect();
        let entries = lock(&self.entries).clone();
        rows.extend(entries.iter().map(|entry| entry.transfer()));
        rows
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
                *held_back = Some(dormant::not_here(&entry.user).message);
                entry.download.pause();
            }
        }
    }
}

/// A file that is being started.
struct Claim<'a> {
    downloads: &'a Downloads,
    key: FileKey,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.downloads.starting).remove(&self.key);
        self.downloads.started.notify_all();
    }
}

/// Whether a destination that was typed leads to a file at `path`, which may be a directory that was typed as well.
fn same_place(typed: &Path, path: &Path, key: &FileKey) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn elsewhere(key: &FileKey, path: &Path) -> Fault {
    let message = format!("{key} is being fetched to {} already", path.display());
    let fix = format!("wait until it is complete, or `cancel {} {}`", key.group, key.name);
    Fault::new(Exit::Exists, message).fix(fix)
}

/// Compares what is at the destination; its path when it is the file itself.
fn already_there(
    core: &Core,
    wish: &Wish,
    manifest: &Manifest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<PathBuf>, Fault> {
    match core.peer.engine()?.existing(&wish.destination, manifest, progress)? {
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
                // So that a restart shares it; a disk that does not answer is waited for as long.
                entry.recorded.wait_for(Duration::from_millis(limits::TELLING_WAIT_MS));
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
