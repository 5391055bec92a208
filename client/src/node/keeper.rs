//! The keeper of one download: asks the trackers for peers and tickets, tells them what was gained, and in the end that
//! all of it is there.
//!
//! Invariant: a lost tracker costs nothing but fresh peers: what could not be told is told later, and after a change of
//! epoch all of it is told again.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use engine::proto::bitfield::Bitfield;
use engine::proto::units::PieceRange;
use engine::stats::{Phase, Wait};
use serde::de::IgnoredAny;
use tracker::api::answers::PeersAnswer;
use tracker::api::limits::{RANGES_PER_MESSAGE, REASON_MAX_BYTES};
use tracker::api::request::{Command, Gained};

use super::core::{Core, engine_key};
use super::describe;
use super::entry::Entry;
use super::registry::Standing;
use super::schedule::{Need, Schedule};
use super::shares;
use super::trackers::Urgency;
use crate::clock;
use crate::exit::Fault;
use crate::limits;

/// Keeps one download.
struct Keeper {
    core: Arc<Core>,
    entry: Arc<Entry>,
    schedule: Schedule,
    started: Instant,
    held: Bitfield,
    untold: Bitfield,
    epoch: Option<u64>,
}

/// A keeper that waits for its download.
pub(super) struct Hired(SyncSender<Arc<Entry>>);

/// Starts a keeper before there is anything to keep, since nothing may fail any more once there is. It ends when it is given
/// nothing.
///
/// # Errors
/// A fault when the system gives no thread.
pub(super) fn hire(core: Arc<Core>) -> Result<Hired, Fault> {
    let (sender, given) = sync_channel(1);
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || {
            if let Ok(entry) = given.recv() {
                Keeper::of(core, entry).run();
            }
        })
        .map(|_| Hired(sender))
        .map_err(|error| Fault::no_thread(&error))
}

impl Hired {
    /// Gives it the download to keep.
    pub(super) fn keep(self, entry: Arc<Entry>) {
        // It waits, and there is room for one.
        let _ = self.0.send(entry);
    }
}

impl Keeper {
    fn of(core: Arc<Core>, entry: Arc<Entry>) -> Keeper {
        let pieces = entry.manifest.pieces();
        Keeper {
            epoch: core.trackers.view().epoch,
            core,
            entry,
            schedule: Schedule::new(),
            started: clock::now(),
            held: Bitfield::empty(pieces),
            untold: Bitfield::empty(pieces),
        }
    }

    fn run(mut self) {
        let mut seen = 0;
        let tick = Duration::from_millis(limits::KEEPER_TICK_MS);
        while !self.core.ending.is_over() {
            let progress = self.entry.download.wait(seen, tick);
            seen = progress.version;
            self.gather();
            self.report_suspects();
            let now = clock::now().duration_since(self.started);
            let need = match &progress.phase {
                Phase::Durable => return self.complete(),
                Phase::Failed(failure) => {
                    self.core.notices.tell(&format!("{} failed: {failure}", self.entry.key));
                    let why = Fault::from(failure);
                    if let Err(fault) = self.entry.record(&self.core, |wanted| wanted.failed = Some(why)) {
                        self.core.notices.tell(&fault.message);
                    }
                    return self.withdraw();
                }
                Phase::Cancelled => return self.withdraw(),
                Phase::Paused => {
                    // Nothing is asked for, but what is held is still shared.
                    self.announce(now);
                    continue;
                }
                Phase::Waiting(
                    Wait::NoPeers { .. } | Wait::BadPieces { .. } | Wait::SourceChanged { .. },
                ) => Need::Peers,
                Phase::Waiting(Wait::Ticket) => Need::Ticket,
                _ => Need::Nothing,
            };
            if self.schedule.ask_due(now, need) {
                self.ask_for_peers(now);
            }
            self.announce(now);
        }
    }

    fn gather(&mut self) {
        for piece in self.entry.download.take_gained().into_iter().flat_map(PieceRange::indices) {
            self.held.insert(piece);
            self.untold.insert(piece);
        }
    }

    fn ask_for_peers(&mut self, now: Duration) {
        let command =
            Command::GetPeers { file: self.entry.key.clone(), peer_key: Some(self.core.peer.key()) };
        match self.core.trackers.ask_as::<PeersAnswer>(&self.entry.user, command, Urgency::Background) {
            Ok((answer, _)) => {
                self.core.trackers.learn_time(answer.server_time);
                if let Some(ticket) = answer.ticket
                    && self.schedule.renew_due(now)
                {
                    self.entry.download.renew(ticket);
                }
                self.entry.download.offer(&describe::peers(&answer.peers));
            }
            Err(fault) => tracing::info!("no fresh peers for {}: {fault}", self.entry.key),
        }
    }

    /// Tells what was gained, at most once a second; all of it when the trackers' memory is another's.
    fn announce(&mut self, now: Duration) {
        let epoch = self.core.trackers.view().epoch;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.untold = self.held.clone();
        }
        if self.untold.count().0 == 0 || !self.schedule.announce_due(now) {
            return;
        }
        let mut ranges = self.untold.ranges();
        ranges.truncate(RANGES_PER_MESSAGE);
        let command =
            Command::UpdatePieces { file: self.entry.key.clone(), gained: Gained::Ranges(ranges.clone()) };
        match self.core.trackers.ask_as::<IgnoredAny>(&self.entry.user, command, Urgency::Background) {
            Ok(_) => {
                for piece in ranges.into_iter().flat_map(PieceRange::indices) {
                    self.untold.remove(piece);
                }
            }
            Err(fault) => tracing::info!("what {} gained is told later: {fault}", self.entry.key),
        }
    }

    fn report_suspects(&self) {
        for suspect in self.entry.download.take_suspects() {
            self.core.notices.tell(&format!("{}: {} {}", self.entry.key, suspect.address, suspect.reason));
            let mut reason = suspect.reason;
            reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
            let command = Command::ReportPeer { file: self.entry.key.clone(), peer: suspect.address, reason };
            if let Err(fault) =
                self.core.trackers.ask_as::<IgnoredAny>(&self.entry.user, command, Urgency::Background)
            {
                tracing::info!("{} could not be reported: {fault}", suspect.address);
            }
        }
    }

    /// Tells the trackers that nothing of it is here any more, where it is so: to them whoever asks for a file is one of its
    /// leechers, even before the first piece.
    fn withdraw(&self) {
        let key = engine_key(&self.entry.key);
        let shares = self.core.peer.running().map(|engine| engine.shares()).unwrap_or_default();
        if shares.iter().any(|share| share.key == key) {
            return;
        }
        let command = Command::StopShare { file: self.entry.key.clone() };
        if let Err(fault) =
            self.core.trackers.ask_as::<IgnoredAny>(&self.entry.user, command, Urgency::Background)
        {
            tracing::info!("the trackers still take {} as a share: {fault}", self.entry.key);
        }
    }

    /// From now on it is a share: first that is on record, then the download is not.
    fn record_end(&self, path: &Path) -> Result<(), Fault> {
        let Entry { key, user, id, manifest, download, .. } = &*self.entry;
        if let Some(fingerprint) = download.fingerprint() {
            shares::become_share(&self.core, key, user, path, fingerprint, manifest, Standing::Served)?;
        }
        self.core.records.forget_download(id)
    }

    /// Whether its user has stopped sharing it since it came: the engine serves what has come until somebody says so.
    fn was_stopped(&self) -> bool {
        let Entry { key, user, .. } = &*self.entry;
        self.core.trackers.user().as_ref() == Some(user) && shares::is_served(&self.core, key) == Some(false)
    }

    fn become_share(&self, path: &Path) {
        let Entry { key, user, recorded, .. } = &*self.entry;
        if let Err(fault) = self.record_end(path) {
            self.core.notices.tell(&format!("a restart of this node would not share {key}: {fault}"));
        }
        recorded.end();
        let command = Command::UpdatePieces { file: key.clone(), gained: Gained::Complete };
        match self.core.trackers.ask_as::<IgnoredAny>(user, command, Urgency::Background) {
            Ok(_) => {
                let known = self.core.registry.get(user, key);
                known.iter().for_each(|known| self.core.registry.told(&known.id));
            }
            Err(fault) => {
                tracing::info!("that {key} is complete is told later: {fault}");
                self.core.bell.ring();
            }
        }
    }

    /// Tells the trackers that all of it is here; whoever brings shares back does it later, where they cannot be told now.
    fn complete(&self) {
        let Entry { key, id, recorded, telling, .. } = &*self.entry;
        let path = self.entry.download.progress().path;
        self.core.notices.tell(&format!("{key} is complete: {}", path.display()));
        // Without it the node ends, and finds the file complete when it is back.
        if let Ok(_claim) = self.core.claims.take(key, &self.core.ending) {
            if self.was_stopped() {
                if let Err(fault) = self.core.records.forget_download(id) {
                    self.core.notices.tell(&fault.message);
                }
            } else {
                self.become_share(&path);
            }
        }
        recorded.end();
        telling.end();
    }
}
