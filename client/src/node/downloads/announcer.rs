//! Talks to the trackers for one run of a download: asks for peers and tickets, announces pieces, and at the
//! end makes the file a share.
//!
//! Always true: a download goes on without a tracker; it only finds no new peers. A failed announcement is
//! sent again later. After the tracker's epoch changes, all gained pieces are announced again. Each request names
//! the content; a tracker that no longer grants it ends the download.
//!
//! Times: the pauses between requests for peers double from `PEERS_FIRST_MS` to `PEERS_MAX_MS`; a download
//! that has just run out of peers asks at once. Pieces are announced at most once each `ANNOUNCE_EVERY_MS`. A
//! ticket is renewed after two thirds of its life, or when the download waits for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use engine::proto::bitfield::Bitfield;
use engine::proto::limits::TICKET_LIFE_S;
use engine::proto::manifest::Manifest;
use engine::proto::units::PieceRange;
use engine::stats::{DownloadFailure, DownloadPhase, WaitReason};
use serde::de::IgnoredAny;
use tracker::api::answers::PeersAnswer;
use tracker::api::limits::{RANGES_PER_MESSAGE, REASON_MAX_BYTES};
use tracker::api::request::{Command, GainedPieces};

use super::describe;
use super::running::DownloadRun;
use crate::clock;
use crate::exit::ClientFault;
use crate::limits;
use crate::node::retry_policy::withdrawal_cause;
use crate::node::shares::{self, ShareOrigin, ShareState, Shares};
use crate::node::trackers::RequestUrgency;
use crate::printable::show_path;

struct DownloadAnnouncer {
    shares: Arc<Shares>,
    run: Arc<DownloadRun>,
    manifest: Arc<Manifest>,
    /// The final path at the last check.
    path: PathBuf,
    schedule: AnnounceSchedule,
    started_at: Instant,
    /// Pieces that this run has verified.
    gained: Bitfield,
    /// The gained pieces that have not been announced in the tracker's current epoch.
    unannounced: Bitfield,
    /// The tracker's epoch at the last check.
    epoch: Option<u64>,
}

/// An announcer thread that waits for its run.
pub(super) struct IdleAnnouncer(SyncSender<(Arc<DownloadRun>, Arc<Manifest>)>);

/// Starts an announcer thread. This comes before the start of the run, because a started run must have an
/// announcer. The thread ends if the [`IdleAnnouncer`] is dropped without a run.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn spawn_announcer(shares: Arc<Shares>) -> Result<IdleAnnouncer, ClientFault> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new()
        .name("announcer".into())
        .spawn(move || {
            if let Ok((run, manifest)) = receiver.recv() {
                DownloadAnnouncer::new(shares, run, manifest).run();
            }
        })
        .map(|_| IdleAnnouncer(sender))
        .map_err(|error| ClientFault::no_thread(&error))
}

impl IdleAnnouncer {
    /// Gives the announcer its run, and the manifest of the file.
    pub(super) fn attach(self, run: Arc<DownloadRun>, manifest: Arc<Manifest>) {
        // Cannot fail: the thread waits for the run, and the channel has room for one.
        let _ = self.0.send((run, manifest));
    }
}

impl DownloadAnnouncer {
    fn new(shares: Arc<Shares>, run: Arc<DownloadRun>, manifest: Arc<Manifest>) -> DownloadAnnouncer {
        let pieces = manifest.pieces();
        DownloadAnnouncer {
            epoch: shares.core.trackers.status().epoch,
            shares,
            path: run.download.progress().path,
            run,
            manifest,
            schedule: AnnounceSchedule::new(),
            started_at: clock::now(),
            gained: Bitfield::empty(pieces),
            unannounced: Bitfield::empty(pieces),
        }
    }

    fn run(mut self) {
        let mut version = 0;
        let tick = Duration::from_millis(limits::ANNOUNCER_TICK_MS);
        while !self.shares.core.shutdown.is_set() {
            let progress = self.run.download.wait(version, tick);
            version = progress.version;
            self.collect_gained();
            self.report_suspects();
            self.record_moved_destination(&progress.path);
            let now = clock::now().duration_since(self.started_at);
            let urgency = if self.run.take_retry() {
                self.schedule.ask_at_once(now);
                RequestUrgency::Immediate
            } else {
                RequestUrgency::Background
            };
            let need = match &progress.phase {
                DownloadPhase::Durable => return self.complete(),
                DownloadPhase::Failed(failure) => {
                    self.record_failure(failure);
                    return self.report_stopped();
                }
                DownloadPhase::Cancelled => return self.report_stopped(),
                DownloadPhase::Waiting(
                    WaitReason::NoPeers { .. }
                    | WaitReason::BadPieces { .. }
                    | WaitReason::SourceChanged { .. },
                ) => DownloadNeed::Peers,
                DownloadPhase::Waiting(WaitReason::Ticket) => DownloadNeed::Ticket,
                // A paused download too has to know whether its content is still listed.
                _ => DownloadNeed::Nothing,
            };
            if self.schedule.peers_due(now, need) {
                self.request_peers(now, urgency);
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

    /// Another program may have moved the directory of the destination. A restart of this node looks there.
    fn record_moved_destination(&mut self, path: &Path) {
        if self.path == path {
            return;
        }
        let core = &self.shares.core;
        core.notices.post(&format!(
            "the destination of {} was moved: it is now {}",
            self.run.key,
            show_path(path)
        ));
        self.path = path.to_owned();
        if let Err(fault) = self.run.update_record(core, |record| record.destination = path.to_owned()) {
            core.notices.post(&fault.message);
        }
    }

    fn record_failure(&self, failure: &DownloadFailure) {
        let core = &self.shares.core;
        core.notices.post(&format!("{} failed: {failure}", self.run.key));
        if let Err(fault) = self.run.update_record(core, |record| record.failed = Some(failure.into())) {
            core.notices.post(&fault.message);
        }
    }

    /// Sends a command in the name of the run's user.
    fn request(&self, command: Command) -> Result<(), ClientFault> {
        let trackers = &self.shares.core.trackers;
        trackers.request_as::<IgnoredAny>(&self.run.user, command, RequestUrgency::Background).map(drop)
    }

    fn request_peers(&mut self, now: Duration, urgency: RequestUrgency) {
        let core = &self.shares.core;
        let command = Command::GetPeers {
            file: self.run.key.clone(),
            content: Some(self.run.content()),
            peer_key: Some(core.peer.key()),
        };
        match core.trackers.request_as::<PeersAnswer>(&self.run.user, command, urgency) {
            Ok((answer, _)) => {
                core.trackers.learn_time(answer.server_time);
                if let Some(ticket) = answer.ticket
                    && self.schedule.renew_due(now)
                {
                    self.run.download.renew_ticket(ticket);
                }
                self.run.record_keyless_peers(&answer.peers);
                self.run.download.add_peers(describe::connectable_peers(&answer.peers));
            }
            Err(fault) => {
                tracing::info!("no new peers for {}: {fault}", self.run.key);
                self.end_if_withdrawn(&fault);
            }
        }
    }

    /// Announces unannounced pieces if the schedule allows it. After a change of the tracker's epoch all gained
    /// pieces count as unannounced.
    fn announce_gained(&mut self, now: Duration) {
        let epoch = self.shares.core.trackers.status().epoch;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.unannounced = self.gained.clone();
        }
        if self.unannounced.count().0 == 0 || !self.schedule.announce_due(now) {
            return;
        }
        let mut ranges = self.unannounced.ranges();
        ranges.truncate(RANGES_PER_MESSAGE);
        let gained = GainedPieces::Ranges(ranges.clone());
        let (file, content) = (self.run.key.clone(), Some(self.run.content()));
        match self.request(Command::UpdatePieces { file, content, gained }) {
            Ok(()) => {
                for piece in ranges.into_iter().flat_map(PieceRange::indices) {
                    self.unannounced.remove(piece);
                }
            }
            Err(fault) => {
                tracing::info!("the pieces of {} are announced later: {fault}", self.run.key);
                self.end_if_withdrawn(&fault);
            }
        }
    }

    /// Ends the download if the tracker no longer grants its content: no peer is named and no ticket renewed any more.
    fn end_if_withdrawn(&self, fault: &ClientFault) {
        if let Some(cause) = withdrawal_cause(fault) {
            self.run.download.withdraw(cause, fault.message.clone());
        }
    }

    fn report_suspects(&self) {
        for suspect in self.run.download.take_suspects() {
            let notice = format!("{}: {} {}", self.run.key, suspect.address, suspect.reason);
            self.shares.core.notices.post(&notice);
            let mut reason = suspect.reason;
            reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
            let (file, content) = (self.run.key.clone(), Some(self.run.content()));
            let report = Command::ReportPeer { file, content, peer: suspect.address, reason };
            if let Err(fault) = self.request(report) {
                tracing::info!("{} could not be reported: {fault}", suspect.address);
            }
        }
    }

    /// Tells the tracker that this node does not serve the file, unless the node does. This is needed even
    /// without a piece: a tracker lists a node as a leecher from its first request for the file.
    fn report_stopped(&self) {
        let core = &self.shares.core;
        if shares::is_served(core, &self.run.key) != Some(true) {
            shares::report_stopped(core, &self.run.user, &self.run.key, Some(self.run.content()));
        }
    }

    /// Makes the complete file a share and announces it, unless its user has already stopped the share. If the
    /// announcement fails, the recovery thread repeats it later.
    fn complete(&self) {
        let core = &self.shares.core;
        let DownloadRun { key, id, end_recorded, end_announced, .. } = &*self.run;
        let path = self.run.download.progress().path;
        core.notices.post(&format!("{key} is complete: {}", show_path(&path)));
        // During shutdown no lock is granted; after a restart the complete file is found.
        if let Ok(_share_lock) = core.locks.scope().lock_share(key) {
            if self.was_stopped() {
                if let Err(fault) = core.records.remove_download(id) {
                    core.notices.post(&fault.message);
                }
            } else {
                self.become_share(&path);
            }
        }
        end_recorded.set();
        end_announced.set();
    }

    /// Whether the user stopped the share after the download completed. The engine serves a complete download
    /// without being asked, so a file that is not served was stopped.
    fn was_stopped(&self) -> bool {
        let core = &self.shares.core;
        let DownloadRun { key, user, .. } = &*self.run;
        core.trackers.user().as_ref() == Some(user) && shares::is_served(core, key) == Some(false)
    }

    fn become_share(&self, path: &Path) {
        let core = &self.shares.core;
        let DownloadRun { key, user, end_recorded, .. } = &*self.run;
        if let Err(fault) = self.record_completion(path) {
            core.notices.post(&format!("a restart of this node would not share {key}: {fault}"));
        }
        end_recorded.set();
        let content = Some(self.run.content());
        let gained = GainedPieces::Complete;
        match self.request(Command::UpdatePieces { file: key.clone(), content, gained }) {
            Ok(()) => shares::mark_announced(&self.shares, user, key),
            Err(fault) => {
                if withdrawal_cause(&fault).is_some() {
                    self.run.set_unshared(fault.clone());
                }
                tracing::info!("the complete file {key} is announced later: {fault}");
                core.recovery_wakeup.set();
            }
        }
    }

    /// Writes the record of the share, then removes the record of the download.
    fn record_completion(&self, path: &Path) -> Result<(), ClientFault> {
        let DownloadRun { key, user, id, download, .. } = &*self.run;
        if let Some(fingerprint) = download.fingerprint() {
            let origin =
                ShareOrigin { user: user.clone(), path: path.to_owned(), fingerprint, is_upload: false };
            shares::share_download(&self.shares, key, origin, &self.manifest, ShareState::Served)?;
        }
        self.shares.core.records.remove_download(id)
    }
}

/// What a download lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DownloadNeed {
    Nothing,
    /// A peer that has missing pieces.
    Peers,
    /// A valid ticket.
    Ticket,
}

/// The times of the next requests and announcements, counted from the start of the run.
#[derive(Debug)]
struct AnnounceSchedule {
    peers_at: Duration,
    peers_pause: Duration,
    announce_at: Duration,
    renew_at: Duration,
    need: DownloadNeed,
}

impl AnnounceSchedule {
    /// The schedule of a run that starts with fresh peers and a fresh ticket.
    fn new() -> AnnounceSchedule {
        AnnounceSchedule {
            peers_at: Duration::from_millis(limits::PEERS_FIRST_MS),
            peers_pause: Duration::from_millis(limits::PEERS_FIRST_MS),
            announce_at: Duration::ZERO,
            renew_at: ticket_renewal_delay(),
            need: DownloadNeed::Nothing,
        }
    }

    /// Makes the next request for peers due now, and starts the pauses over.
    fn ask_at_once(&mut self, now: Duration) {
        self.peers_pause = Duration::from_millis(limits::PEERS_FIRST_MS);
        self.peers_at = now;
    }

    /// Whether to ask for peers and a ticket now. If so, sets the time of the next request.
    fn peers_due(&mut self, now: Duration, need: DownloadNeed) -> bool {
        let is_new_need = need != DownloadNeed::Nothing && self.need == DownloadNeed::Nothing;
        self.need = need;
        if is_new_need {
            self.ask_at_once(now);
        }
        if now < self.peers_at {
            return false;
        }
        self.peers_at = now + self.peers_pause;
        self.peers_pause = (self.peers_pause * 2).min(Duration::from_millis(limits::PEERS_MAX_MS));
        true
    }

    /// Whether to announce pieces now. If so, sets the time of the next announcement.
    fn announce_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.announce_at;
        if is_due {
            self.announce_at = now + Duration::from_millis(limits::ANNOUNCE_EVERY_MS);
        }
        is_due
    }

    /// Whether to use a ticket that was received. If so, sets the time of the next renewal.
    fn renew_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.renew_at || self.need == DownloadNeed::Ticket;
        if is_due {
            self.renew_at = now + ticket_renewal_delay();
        }
        is_due
    }
}

fn ticket_renewal_delay() -> Duration {
    Duration::from_secs(TICKET_LIFE_S * 2 / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times in ms at which a run with the given need asks for peers. It checks every 500 ms.
    fn peer_requests(
        schedule: &mut AnnounceSchedule,
        need: DownloadNeed,
        from_ms: u64,
        to_ms: u64,
    ) -> Vec<u64> {
        let is_due = |at: &u64| schedule.peers_due(Duration::from_millis(*at), need);
        (from_ms..to_ms).step_by(500).filter(is_due).collect()
    }

    #[test]
    fn pauses_between_requests_for_peers_double() {
        let asked = peer_requests(&mut AnnounceSchedule::new(), DownloadNeed::Nothing, 0, 130_000);
        assert_eq!(asked, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 62_000, 92_000, 122_000]);
    }

    #[test]
    fn a_download_without_peers_asks_at_once() {
        let mut schedule = AnnounceSchedule::new();
        peer_requests(&mut schedule, DownloadNeed::Nothing, 0, 63_000);
        let asked = peer_requests(&mut schedule, DownloadNeed::Peers, 63_000, 68_000);
        assert_eq!(asked, [63_000, 64_000, 66_000]);
    }

    #[test]
    fn a_retry_asks_at_once_and_starts_the_pauses_over() {
        let mut schedule = AnnounceSchedule::new();
        peer_requests(&mut schedule, DownloadNeed::Peers, 0, 80_000);
        schedule.ask_at_once(Duration::from_millis(80_500));
        let asked = peer_requests(&mut schedule, DownloadNeed::Peers, 80_500, 84_500);
        assert_eq!(asked, [80_500, 81_500, 83_500]);
    }

    #[test]
    fn announcements_are_a_second_apart() {
        let mut schedule = AnnounceSchedule::new();
        let is_due = |at: &u64| schedule.announce_due(Duration::from_millis(*at));
        let times: Vec<u64> = (0..3_000).step_by(100).filter(is_due).collect();
        assert_eq!(times, [0, 1_000, 2_000]);
    }

    #[test]
    fn tickets_are_renewed_in_time_or_when_needed() {
        let mut schedule = AnnounceSchedule::new();
        let life = Duration::from_secs(TICKET_LIFE_S);
        assert!(!schedule.renew_due(life / 2));
        assert!(schedule.renew_due(life * 3 / 4));
        assert!(!schedule.renew_due(life));
        schedule.peers_due(life, DownloadNeed::Ticket);
        assert!(schedule.renew_due(life));
    }
}
