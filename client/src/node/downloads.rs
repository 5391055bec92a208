//! The node's downloads: started once for each file, attached to by whoever asks for the same again; those on record that
//! do not run, and how they come back.
//!
//! Invariants: one download a file key, running or dormant, and one record; one that has ended is replaced when the file is
//! asked for again; at most `DOWNLOADS_MAX` are under way; each is on record before it begins, and what was on record before
//! it until then. Whoever begins a download, or changes one that does not run, holds its claim.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use engine::Order;
use engine::proto::manifest::Manifest;
use engine::stats::Phase;
use engine::storage::fingerprint::Fingerprint;
use tracker::api::FileKey;

use super::claims::{Asked, Claim, Claims};
use super::comparing::{Comparing, Found, Wish};
use super::core::{Core, engine_key, words_of};
use super::describe::{self, Description};
use super::dormant::Dormant;
use super::entry::{Begun, Entry};
use super::events::Events;
use super::former::{self, Former};
use super::keeper;
use super::outlook::{Left, later};
use super::records::{RecordId, Records, Wanted};
use super::registry::Standing;
use super::shares;
use super::trackers::Urgency;
use crate::exit::{Exit, Fault};
use crate::front::protocol::Event;
use crate::front::rows::Transfer;
use crate::limits;
use crate::lock::lock;

/// All of them.
#[derive(Default)]
pub(super) struct Downloads {
    entries: Mutex<Vec<Arc<Entry>>>,
    dormant: Mutex<Vec<Dormant>>,
    claims: Claims,
    comparing: Comparing,
}

/// What came of a wish to fetch a file.
pub(super) enum Start {
    /// It is under way.
    UnderWay(Arc<Entry>),
    /// It is there already, at this path, and this long.
    Already { path: PathBuf, size_bytes: u64 },
}

/// Why a download does not come back.
enum Setback {
    /// What it waits for may pass.
    Later(Fault),
    /// Somebody else wants to do something about it.
    Awaited,
    /// It cannot succeed.
    Never(Fault),
}

impl Downloads {
    /// The downloads on record, none of them running.
    pub(super) fn on_record(records: &Records) -> Downloads {
        let dormant = records.read_downloads().into_iter().map(|(id, wanted)| {
            let wanted = former::settled(records, &id, wanted);
            Dormant { id, wanted, waits_for: None }
        });
        let mut all: Vec<Dormant> = Vec::new();
        for one in dormant {
            // They come in the order in which they were written, and the last word counts.
            match all.iter_mut().find(|known| known.wanted.key == one.wanted.key) {
                None => all.push(one),
                Some(known) => {
                    let before = std::mem::replace(known, one);
                    if let Err(fault) = records.forget_download(&before.id) {
                        tracing::warn!("{fault}");
                    }
                }
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
        let file = wish.key.name.to_string();
        let claim =
            self.claims.take_telling(&wish.key, &core.ending, || match self.comparing.row(&wish.key) {
                Some(Transfer { verified_bytes: done_bytes, total_bytes, .. }) => {
                    events.progress(|| Event::Comparing { file: file.clone(), done_bytes, total_bytes })
                }
                None => Ok(()),
            })?;
        // Whoever held the claim until just now has listed what it started.
        if let Some(entry) = self.under_way(wish)? {
            return Ok(Start::UnderWay(entry));
        }
        self.refuse_too_many()?;
        let dormant = self.of_the_same_place(wish, &user)?;
        let described = describe::describe(core, &user, &wish.key, Urgency::Asked)?;
        let manifest = Arc::clone(&described.manifest);
        let total_bytes = manifest.geometry().length();
        let compared = |done_bytes| {
            // Whether anybody listens is found out when there is something to lose by it.
            let _ = events.progress(|| Event::Comparing { file: file.clone(), done_bytes, total_bytes });
            go_on_while(claim.asked() < Asked::CalledOff && !core.ending.is_over())
        };
        match self.comparing.compare(core, wish, &manifest, &compared)? {
            Found::Room => {}
            Found::Same(path) => {
                if let Some(dormant) = dormant {
                    self.has_come(core, &dormant, &path, &manifest)?;
                }
                let size_bytes = path.metadata().map_or(total_bytes, |found| found.len());
                return Ok(Start::Already { path, size_bytes });
            }
            Found::GivenUp => return Err(called_off(core, &wish.key)),
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
            former: None,
        };
        let former = dormant.map(Former::dormant).or_else(|| self.failed(&wish.key).map(Former::failed));
        self.begin(core, former, wanted, described).map(Start::UnderWay)
    }

    /// Puts a download on record and starts it. What was on record before it stands again if that fails.
    fn begin(
        &self,
        core: &Arc<Core>,
        former: Option<Former>,
        wanted: Wanted,
        described: Description,
    ) -> Result<Arc<Entry>, Fault> {
        let Some(former) = former else {
            let id = self.new_record()?;
            core.records.write_download(&id, &wanted)?;
            return self.launch(core, &id, wanted, described).inspect_err(|_| {
                if let Err(fault) = core.records.forget_download(&id) {
                    core.notices.tell(&fault.message);
                }
            });
        };
        let wanted = former.replaced_by(wanted);
        let written = core.records.write_download(&former.id, &wanted);
        match written.and_then(|()| self.launch(core, &former.id, wanted, described)) {
            Ok(entry) => Ok(entry),
            Err(fault) => {
                former.stand_again(core);
                Err(fault)
            }
        }
    }

    /// The download of a file that failed in this process: whatever is begun under its key takes over its record, or a
    /// restart would find two. A complete one has none, or soon; a cancelled one has none.
    fn failed(&self, key: &FileKey) -> Option<Arc<Entry>> {
        self.find(key).filter(|entry| matches!(entry.download.progress().phase, Phase::Failed(_)))
    }

    /// A record more, if there is room for it.
    fn new_record(&self) -> Result<RecordId, Fault> {
        let entries = lock(&self.entries).clone();
        let kept = entries
            .iter()
            .filter(|entry| !matches!(entry.download.progress().phase, Phase::Durable | Phase::Cancelled));
        if kept.count() + lock(&self.dormant).len() < limits::DOWNLOAD_RECORDS_MAX {
            return RecordId::new();
        }
        let message =
            format!("{} downloads are on record, and more are not kept", limits::DOWNLOAD_RECORDS_MAX);
        Err(Fault::new(Exit::Other, message)
            .fix("`show_downloads`, then `cancel` what is not wanted any more"))
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
        // A download that nobody keeps supplied must not go on, so what may fail comes before it.
        let keeper = keeper::hire(Arc::clone(core))?;
        let download = core.peer.engine()?.download(order)?;
        download.offer(&peers);
        let limit_down = core.peer.limit_down();
        let entry = Arc::new(Entry::new(Begun { id: id.clone(), wanted, manifest, download, limit_down }));
        if let Err(fault) = entry.has_begun(core) {
            let key = &entry.key;
            core.notices.tell(&format!("a restart of this node would find {key} as it was before: {fault}"));
        }
        let mut entries = lock(&self.entries);
        entries.retain(|known| known.key != entry.key);
        entries.push(Arc::clone(&entry));
        drop(entries);
        self.wake_up(id);
        // A login holds back what it finds, and did not find this.
        entry.belong_to(core.trackers.user().as_deref());
        keeper.keep(Arc::clone(&entry));
        Ok(entry)
    }

    /// What `user` has on record here and does not run, as far as it could go on.
    pub(super) fn to_go_on(&self, user: &str) -> Vec<Wanted> {
        let dormant = lock(&self.dormant);
        dormant.iter().filter(|one| one.can_go_on(user)).map(|one| one.wanted.clone()).collect()
    }

    /// Lets one of them go on, as it stands by now; what is at its destination already is compared first.
    pub(super) fn go_on(&self, core: &Arc<Core>, user: &str, key: &FileKey) -> Left {
        let Some(claim) = self.claims.try_take(key) else { return Left::Something };
        let Some(mut dormant) = self.dormant(key).filter(|now| now.can_go_on(user)) else {
            return Left::Nothing;
        };
        let room = self.refuse_too_many().map_err(Setback::Later);
        let left = match room.and_then(|()| self.revive_one(core, &dormant, &claim)) {
            Ok(()) => return Left::Nothing,
            Err(Setback::Awaited) => return Left::Something,
            Err(Setback::Later(fault)) => {
                let left = later(&fault).unwrap_or(Left::Something);
                dormant.waits_for = Some(fault);
                left
            }
            Err(Setback::Never(fault)) => {
                core.notices.tell(&format!("{key} does not go on: {fault}"));
                dormant.wanted.failed = Some(fault);
                if let Err(fault) = core.records.write_download(&dormant.id, &dormant.wanted) {
                    core.notices.tell(&fault.message);
                }
                Left::Nothing
            }
        };
        self.put_back(dormant);
        left
    }

    fn revive_one(&self, core: &Arc<Core>, dormant: &Dormant, claim: &Claim<'_>) -> Result<(), Setback> {
        let wanted = &dormant.wanted;
        let described =
            describe::describe(core, &wanted.user, &wanted.key, Urgency::Background).map_err(|fault| {
                if later(&fault).is_some() { Setback::Later(fault) } else { Setback::Never(fault) }
            })?;
        let manifest = Arc::clone(&described.manifest);
        if manifest.proof().id() != wanted.content {
            let message = format!("{} is another file now than when its download was begun", wanted.key);
            let file = words_of(&wanted.key);
            let fix = format!("`cancel {file}`, then `download_file {file} DEST` fetches what it is now");
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
        let is_here = || core.trackers.user().as_ref() == Some(&wanted.user) && !core.ending.is_over();
        let compared = |_| go_on_while(claim.asked() == Asked::Nothing && is_here());
        match self.comparing.compare(core, &wish, &manifest, &compared).map_err(disk)? {
            Found::Room => self.launch(core, &dormant.id, wanted.clone(), described).map(drop).map_err(disk),
            Found::Same(path) => self.has_come(core, dormant, &path, &manifest).map_err(Setback::Later),
            Found::GivenUp => Err(Setback::Awaited),
        }
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
        let _share = core.claims.take(&wanted.key, &core.ending)?;
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
        if wish.destination == entry.destination() || same_place(&wish.destination, &path, &wish.key) {
            return Ok(Some(entry));
        }
        Err(elsewhere(&entry.key, &path))
    }

    /// The claim of a file's download, for whoever has its user's word: what is being compared for it is given up.
    ///
    /// # Errors
    /// The node ends.
    pub(super) fn call_off(&self, core: &Core, key: &FileKey) -> Result<Claim<'_>, Fault> {
        self.claims.call_off(key, &core.ending)
    }

    /// What is being compared for a file, if something is.
    pub(super) fn compared(&self, key: &FileKey) -> Option<Transfer> {
        self.comparing.row(key)
    }

    /// Refuses one more than may run, those that are being begun counted too; the caller's is one of these.
    fn refuse_too_many(&self) -> Result<(), Fault> {
        let running = lock(&self.entries).iter().filter(|entry| !entry.has_ended()).count();
        if running + self.claims.count() <= limits::DOWNLOADS_MAX {
            return Ok(());
        }
        let message = format!("{} downloads are under way, and more are not begun", limits::DOWNLOADS_MAX);
        Err(Fault::new(Exit::Other, message).fix("wait for one of them, or `cancel` one"))
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

    /// All of them, as they stand while `user` is logged in: those on record first, then the others, oldest first, and at last
    /// what is compared before it is either.
    pub(super) fn rows(&self, user: Option<&str>) -> Vec<Transfer> {
        let mut rows: Vec<Transfer> =
            lock(&self.dormant).iter().map(|dormant| dormant.transfer(user)).collect();
        let entries = lock(&self.entries).clone();
        rows.extend(entries.iter().map(|entry| entry.transfer()));
        for compared in self.comparing.rows() {
            match rows.iter_mut().find(|row| row.group == compared.group && row.file == compared.file) {
                Some(row) => *row = compared,
                None => rows.push(compared),
            }
        }
        rows
    }

    /// The files that a user fetches or has fetched here.
    pub(super) fn of(&self, user: &str) -> Vec<FileKey> {
        lock(&self.entries).iter().filter(|entry| entry.user == user).map(|entry| entry.key.clone()).collect()
    }

    /// Takes a download off the list.
    pub(super) fn forget(&self, entry: &Arc<Entry>) {
        lock(&self.entries).retain(|known| !Arc::ptr_eq(known, entry));
    }

    /// Lets the downloads of `user` go on that the node had paused, and pauses everybody else's; with `None`, all.
    pub(super) fn belong_to(&self, user: Option<&str>) {
        lock(&self.entries).clone().iter().for_each(|entry| entry.belong_to(user));
    }
}

/// Whether a destination that was typed leads to a file at `path`, which may be a directory that was typed as well.
fn same_place(typed: &Path, path: &Path, key: &FileKey) -> bool {
    let name = key.name.as_str();
    typed == path || typed.join(name) == path || path.join(name) == typed
}

fn go_on_while(wanted: bool) -> ControlFlow<()> {
    if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn called_off(core: &Core, key: &FileKey) -> Fault {
    if core.ending.is_over() {
        return Fault::ending();
    }
    let message = format!("{key} was paused or cancelled while what is at its destination was compared");
    Fault::new(Exit::Other, message)
        .fix("`show_downloads` shows how it stands; the same command compares it from the start")
}

fn elsewhere(key: &FileKey, path: &Path) -> Fault {
    let message = format!("{key} is being fetched to {} already", path.display());
    let fix = format!("wait until it is complete, or `cancel {}`", words_of(key));
    Fault::new(Exit::Exists, message).fix(fix)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use engine::proto::units::Digest;

    use super::super::records::tests::shared;
    use super::*;

    #[test]
    fn of_two_records_under_one_key_the_later_counts_and_the_other_goes() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::of(dir.path());
        let wanted = Wanted {
            key: shared("g", "u").key,
            user: "u".into(),
            destination: "/to".into(),
            overwrite: false,
            content: Digest([3; 20]),
            total_bytes: 9,
            paused: false,
            failed: Some(Fault::new(Exit::Exists, "why")),
            former: None,
        };
        let (first, second) = (RecordId::new().unwrap(), RecordId::new().unwrap());
        records.write_download(&first, &wanted).unwrap();
        for entry in fs::read_dir(dir.path().join("downloads")).unwrap() {
            File::open(entry.unwrap().path()).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        records.write_download(&second, &Wanted { failed: None, ..wanted.clone() }).unwrap();
        let downloads = Downloads::on_record(&records);
        let dormant = downloads.dormant(&wanted.key).unwrap();
        assert_eq!((dormant.id, dormant.wanted.failed), (second, None));
        assert_eq!(records.read_downloads().len(), 1);
    }
}
