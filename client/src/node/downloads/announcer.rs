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
use engine::stats::{DownloadPhase, WaitReason};
use serde::de::IgnoredAny;
use tracker::api::answers::PeersAnswer;
use tracker::api::limits::{RANGES_PER_MESSAGE, REASON_MAX_BYTES};
use tracker::api::request::{Command, GainedPieces};

use super::describe;
use super::running::DownloadRun;
use super::schedule::{AnnounceSchedule, DownloadNeed};
use crate::clock;
use crate::exit::ClientFault;
use crate::limits;
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::share::ShareState;
use crate::node::shares;
use crate::node::trackers::RequestUrgency;

/// Keeps one download.
struct DownloadAnnouncer {
    core: Arc<NodeCore>,
    run: Arc<DownloadRun>,
    schedule: AnnounceSchedule,
    started_at: Instant,
    gained: Bitfield,
    unannounced: Bitfield,
    epoch: Option<u64>,
}

/// A keeper that waits for its download.
pub(in crate::node) struct IdleAnnouncer(SyncSender<Arc<DownloadRun>>);

/// Starts a keeper before there is anything to keep, since nothing may fail any more once there is. It ends when it is given
/// nothing.
///
/// # Errors
/// A fault when the system gives no thread.
pub(in crate::node) fn spawn_announcer(core: Arc<NodeCore>) -> Result<IdleAnnouncer, ClientFault> {
    let (sender, given) = sync_channel(1);
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || {
            if let Ok(entry) = given.recv() {
                DownloadAnnouncer::new(core, entry).run();
            }
        })
        .map(|_| IdleAnnouncer(sender))
        .map_err(|error| ClientFault::no_thread(&error))
}

impl IdleAnnouncer {
    /// Gives it the download to keep.
    pub(in crate::node) fn attach(self, entry: Arc<DownloadRun>) {
        // It waits, and there is room for one.
        let _ = self.0.send(entry);
    }
}

impl DownloadAnnouncer {
    fn new(core: Arc<NodeCore>, run: Arc<DownloadRun>) -> DownloadAnnouncer {
        let pieces = run.manifest.pieces();
        DownloadAnnouncer {
            epoch: core.trackers.status().epoch,
            core,
            run,
            schedule: AnnounceSchedule::new(),
            started_at: clock::now(),
            gained: Bitfield::empty(pieces),
            unannounced: Bitfield::empty(pieces),
        }
    }

    fn run(mut self) {
        let mut seen = 0;
        let tick = Duration::from_millis(limits::ANNOUNCER_TICK_MS);
        while !self.core.shutdown.is_set() {
            let progress = self.run.download.wait(seen, tick);
            seen = progress.version;
            self.collect_gained();
            self.report_suspects();
            let now = clock::now().duration_since(self.started_at);
            let need = match &progress.phase {
                DownloadPhase::Durable => return self.complete(),
                DownloadPhase::Failed(failure) => {
                    self.core.notices.post(&format!("{} failed: {failure}", self.run.key));
                    let why = ClientFault::from(failure);
                    if let Err(fault) = self.run.update_record(&self.core, |wanted| wanted.failed = Some(why))
                    {
                        self.core.notices.post(&fault.message);
                    }
                    return self.report_stopped();
                }
                DownloadPhase::Cancelled => return self.report_stopped(),
                DownloadPhase::Paused => {
                    // Nothing is asked for, but what is held is still shared.
                    self.announce_gained(now);
                    continue;
                }
                DownloadPhase::Waiting(
                    WaitReason::NoPeers { .. }
                    | WaitReason::BadPieces { .. }
                    | WaitReason::SourceChanged { .. },
                ) => DownloadNeed::Peers,
                DownloadPhase::Waiting(WaitReason::Ticket) => DownloadNeed::Ticket,
                _ => DownloadNeed::Nothing,
            };
            if self.schedule.peers_due(now, need) {
                self.request_peers(now);
            }
            self.announce_gained(now);
        }
    }

    fn collect_gained(&mut self) {
        for piece in self.run.download.take_gained().into_iter().flat_map(PieceRange::indices) {
            self.gained.insert(piece);
            self.unannounced.insert(piece);
        }
    }

    fn request_peers(&mut self, now: Duration) {
        let command = Command::GetPeers { file: self.run.key.clone(), peer_key: Some(self.core.peer.key()) };
        match self.core.trackers.request_as::<PeersAnswer>(
            &self.run.user,
            command,
            RequestUrgency::Background,
        ) {
            Ok((answer, _)) => {
                self.core.trackers.learn_time(answer.server_time);
                if let Some(ticket) = answer.ticket
                    && self.schedule.renew_due(now)
                {
                    self.run.download.renew_ticket(ticket);
                }
                self.run.download.add_peers(&describe::connectable_peers(&answer.peers));
            }
            Err(fault) => tracing::info!("no fresh peers for {}: {fault}", self.run.key),
        }
    }

    /// Tells what was gained, at most once a second; all of it when the trackers' memory is another's.
    fn announce_gained(&mut self, now: Duration) {
        let epoch = self.core.trackers.status().epoch;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.unannounced = self.gained.clone();
        }
        if self.unannounced.count().0 == 0 || !self.schedule.announce_due(now) {
            return;
        }
        let mut ranges = self.unannounced.ranges();
        ranges.truncate(RANGES_PER_MESSAGE);
        let command = Command::UpdatePieces {
            file: self.run.key.clone(),
            gained: GainedPieces::Ranges(ranges.clone()),
        };
        match self.core.trackers.request_as::<IgnoredAny>(&self.run.user, command, RequestUrgency::Background)
        {
            Ok(_) => {
                for piece in ranges.into_iter().flat_map(PieceRange::indices) {
                    self.unannounced.remove(piece);
                }
            }
            Err(fault) => tracing::info!("what {} gained is told later: {fault}", self.run.key),
        }
    }

    fn report_suspects(&self) {
        for suspect in self.run.download.take_suspects() {
            self.core.notices.post(&format!("{}: {} {}", self.run.key, suspect.address, suspect.reason));
            let mut reason = suspect.reason;
            reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
            let command = Command::ReportPeer { file: self.run.key.clone(), peer: suspect.address, reason };
            if let Err(fault) = self.core.trackers.request_as::<IgnoredAny>(
                &self.run.user,
                command,
                RequestUrgency::Background,
            ) {
                tracing::info!("{} could not be reported: {fault}", suspect.address);
            }
        }
    }

    /// Tells the trackers that nothing of it is here any more, where it is so: to them whoever asks for a file is one of its
    /// leechers, even before the first piece.
    fn report_stopped(&self) {
        let key = to_engine_key(&self.run.key);
        let shares = self.core.peer.started_engine().map(|engine| engine.shares()).unwrap_or_default();
        if shares.iter().any(|share| share.key == key) {
            return;
        }
        let command = Command::StopShare { file: self.run.key.clone() };
        if let Err(fault) =
            self.core.trackers.request_as::<IgnoredAny>(&self.run.user, command, RequestUrgency::Background)
        {
            tracing::info!("the trackers still take {} as a share: {fault}", self.run.key);
        }
    }

    /// From now on it is a share: first that is on record, then the download is not.
    fn record_completion(&self, path: &Path) -> Result<(), ClientFault> {
        let DownloadRun { key, user, id, manifest, download, .. } = &*self.run;
        if let Some(fingerprint) = download.fingerprint() {
            shares::share_download(&self.core, key, user, path, fingerprint, manifest, ShareState::Served)?;
        }
        self.core.records.forget_download(id)
    }

    /// Whether its user has stopped sharing it since it came: the engine serves what has come until somebody says so.
    fn was_stopped(&self) -> bool {
        let DownloadRun { key, user, .. } = &*self.run;
        self.core.trackers.user().as_ref() == Some(user) && shares::is_served(&self.core, key) == Some(false)
    }

    fn become_share(&self, path: &Path) {
        let DownloadRun { key, user, end_recorded: recorded, .. } = &*self.run;
        if let Err(fault) = self.record_completion(path) {
            self.core.notices.post(&format!("a restart of this node would not share {key}: {fault}"));
        }
        recorded.set();
        let command = Command::UpdatePieces { file: key.clone(), gained: GainedPieces::Complete };
        match self.core.trackers.request_as::<IgnoredAny>(user, command, RequestUrgency::Background) {
            Ok(_) => {
                let known = self.core.shares.get(user, key);
                known.iter().for_each(|known| self.core.shares.mark_announced(&known.id));
            }
            Err(fault) => {
                tracing::info!("that {key} is complete is told later: {fault}");
                self.core.recovery_wakeup.set();
            }
        }
    }

    /// Tells the trackers that all of it is here; whoever brings shares back does it later, where they cannot be told now.
    fn complete(&self) {
        let DownloadRun { key, id, end_recorded: recorded, end_announced: telling, .. } = &*self.run;
        let path = self.run.download.progress().path;
        self.core.notices.post(&format!("{key} is complete: {}", path.display()));
        // Without it the node ends, and finds the file complete when it is back.
        if let Ok(_claim) = self.core.share_locks.acquire(key, &self.core.shutdown) {
            if self.was_stopped() {
                if let Err(fault) = self.core.records.forget_download(id) {
                    self.core.notices.post(&fault.message);
                }
            } else {
                self.become_share(&path);
            }
        }
        recorded.set();
        telling.set();
    }
}
