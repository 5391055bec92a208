//! Turns the engine's snapshots into rows for front ends.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use engine::Download;
use engine::proto::manifest::FileKey;
use engine::proto::{PeerTrouble, PeerTroubles};
use engine::stats::{Bottleneck, DownloadPhase, DownloadProgress, ShareStatus, WaitReason, ZeroCopySends};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{
    LatencyRow, PeerTroubleRow, ShareRow, TransferFigures, TransferRow, TransferState, WaitCause, ZeroCopyRow,
};
use crate::printable::make_printable;

/// The row of a download. `absent_user` is its user if the node paused it because that user is not logged in,
/// `limit_down` the node's limit in bytes a second.
pub(crate) fn transfer_row(
    key: &FileKey,
    progress: &DownloadProgress,
    absent_user: Option<&str>,
    limit_down: Option<NonZeroU64>,
) -> TransferRow {
    let (state, cause) = transfer_state(&progress.phase, absent_user);
    TransferRow {
        group: key.group.clone(),
        file: key.name.to_string(),
        state,
        cause,
        path: progress.path.clone(),
        total_bytes: progress.total_bytes,
        verified_bytes: progress.verified_bytes,
        received_bytes: progress.received_bytes,
        duplicate_bytes: progress.duplicate_bytes,
        resumed_bytes: progress.resumed_bytes,
        rate: progress.verified_bytes_per_s,
        hashed_bytes: progress.check.map_or(0, |check| check.done_bytes),
        to_hash_bytes: progress.check.map_or(0, |check| check.total_bytes),
        peers: progress.peers,
        peer_troubles: peer_trouble_rows(&progress.peer_troubles),
        pieces_only: false,
        sequential_passes: progress.sequential_passes,
        limited_by: name_limit(progress.limited_by, overall_rate(progress), limit_down),
        proven_ms: progress.proven_after.map(whole_ms),
        durable_ms: progress.durable_after.map(whole_ms),
        figures: None,
    }
}

/// The rows of the peers that a download cannot fetch from.
pub(crate) fn peer_trouble_rows(troubles: &PeerTroubles) -> Vec<PeerTroubleRow> {
    let row = |trouble: &PeerTrouble| PeerTroubleRow {
        address: trouble.address,
        trouble: trouble.kind.code().to_owned(),
        message: make_printable(&trouble.to_string()),
    };
    troubles.iter().map(row).collect()
}

/// The row of a download that does not transfer.
pub(crate) fn idle_transfer_row(
    key: &FileKey,
    path: PathBuf,
    total_bytes: u64,
    (state, cause): (TransferState, Option<ClientFault>),
) -> TransferRow {
    TransferRow {
        group: key.group.clone(),
        file: key.name.to_string(),
        state,
        cause,
        path,
        total_bytes,
        verified_bytes: 0,
        received_bytes: 0,
        duplicate_bytes: 0,
        resumed_bytes: 0,
        rate: 0,
        hashed_bytes: 0,
        to_hash_bytes: 0,
        peers: 0,
        peer_troubles: Vec::new(),
        pieces_only: false,
        sequential_passes: 0,
        limited_by: String::new(),
        proven_ms: None,
        durable_ms: None,
        figures: None,
    }
}

/// The measured figures of a durable download; `None` before.
pub(crate) fn transfer_figures(download: &Download, progress: &DownloadProgress) -> Option<TransferFigures> {
    let (proven, durable) = (progress.proven_after?, progress.durable_after?);
    Some(TransferFigures {
        // Asked again, since the row may be made some time after the snapshot.
        age_us: whole_us(download.progress().age),
        first_verified_us: progress.first_verified_after.map(whole_us),
        proven_us: whole_us(proven),
        durable_us: whole_us(durable),
        wire_bytes: progress.wire_bytes,
        hashing_us: whole_us(progress.hashing_time),
        writing_us: whole_us(progress.writing_time),
        piece_latency: latency_row(&download.latency()),
    })
}

fn latency_row(histogram: &Histogram<u32>) -> LatencyRow {
    let at = |quantile| histogram.value_at_quantile(quantile);
    let mut bytes = Vec::new();
    // Cannot fail: a vector takes all bytes, and the format holds every count.
    let _ = V2Serializer::new().serialize(histogram, &mut bytes);
    LatencyRow {
        count: histogram.len(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max(),
        histogram: BASE64_STANDARD.encode(bytes),
    }
}

/// What limited a download most. Names the node's own limit if the network was the bottleneck and the rate reached three quarters
/// of the limit.
fn name_limit(found: Bottleneck, rate: u64, limit_down: Option<NonZeroU64>) -> String {
    match limit_down {
        Some(limit) if found == Bottleneck::Network && rate / 3 >= limit.get() / 4 => "`--limit-down`".into(),
        _ => found.to_string(),
    }
}

/// Bytes a second: the mean over the whole download once it is verified; before that, the current rate.
fn overall_rate(progress: &DownloadProgress) -> u64 {
    match progress.proven_after.map_or(0, |span| span.as_millis()) {
        0 => progress.verified_bytes_per_s,
        took => u64::try_from(u128::from(progress.received_bytes) * 1_000 / took).unwrap_or(u64::MAX),
    }
}

/// A download that lacks peers while no tracker can name any waits for a tracker. `trouble`: why none can.
pub(crate) fn wait_for_tracker(row: TransferRow, trouble: Option<&str>) -> TransferRow {
    let lacks_peers = row.state == TransferState::Waiting { waits_for: WaitCause::Peers };
    let (Some(cause), Some(trouble)) = (row.cause.as_ref().filter(|_| lacks_peers), trouble) else {
        return row;
    };
    let message = format!("{}; no tracker can be asked for others: {trouble}", cause.message);
    let fix = "check the trackers with `client doctor`; the download asks again by itself";
    let cause = Some(ClientFault::new(cause.exit, message).fix(fix));
    TransferRow { state: TransferState::Waiting { waits_for: WaitCause::Tracker }, cause, ..row }
}

fn transfer_state(phase: &DownloadPhase, absent_user: Option<&str>) -> (TransferState, Option<ClientFault>) {
    match phase {
        DownloadPhase::Transferring => (TransferState::Downloading, None),
        DownloadPhase::Waiting(wait) => {
            (TransferState::Waiting { waits_for: wait_cause(wait) }, Some(ClientFault::from(wait)))
        }
        DownloadPhase::Paused => match absent_user {
            Some(user) => {
                (TransferState::Waiting { waits_for: WaitCause::Login }, Some(user_absent_fault(user)))
            }
            None => (TransferState::Paused, None),
        },
        DownloadPhase::Checking => (TransferState::Checking, None),
        DownloadPhase::Syncing => (TransferState::Syncing, None),
        DownloadPhase::Durable => (TransferState::Complete, None),
        DownloadPhase::Failed(failure) => (TransferState::Failed, Some(ClientFault::from(failure))),
        DownloadPhase::Cancelled => (TransferState::Cancelled, None),
    }
}

fn wait_cause(wait: &WaitReason) -> WaitCause {
    match wait {
        WaitReason::NoPeers { .. } | WaitReason::BadPieces { .. } | WaitReason::SourceChanged { .. } => {
            WaitCause::Peers
        }
        WaitReason::DiskFull { .. } | WaitReason::QuotaFull { .. } | WaitReason::Io(_) => WaitCause::Disk,
        WaitReason::Ticket => WaitCause::Ticket,
    }
}

/// The reason why a download waits while its user is not logged in.
pub(crate) fn user_absent_fault(user: &str) -> ClientFault {
    ClientFault::new(ExitCause::NoProgress, format!("its user {user} is not logged in here"))
        .fix(format!("`login {user}`"))
}

/// The row of a share that is not served, with the reason.
pub(crate) fn unserved_share_row(key: &FileKey, why: String) -> ShareRow {
    ShareRow {
        group: key.group.clone(),
        file: key.name.to_string(),
        held: 0,
        pieces: 0,
        sent_bytes: 0,
        consumers: 0,
        changed: Some(why),
    }
}

/// The row of a served share.
pub(crate) fn share_row(status: &ShareStatus) -> ShareRow {
    ShareRow {
        group: status.key.group.clone(),
        file: status.key.name.to_string(),
        held: status.held.0,
        pieces: status.pieces.0,
        sent_bytes: status.sent_bytes,
        consumers: status.consumers,
        changed: status.source_change.clone().or_else(|| status.trouble.clone()),
    }
}

/// The row of zero-copy sends.
pub(crate) fn zero_copy_row(sends: ZeroCopySends) -> ZeroCopyRow {
    ZeroCopyRow { mapped_bytes: sends.mapped_bytes, copied_bytes: sends.copied_bytes, refused: sends.refused }
}

fn whole_us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use engine::stats::DownloadFailure;

    use super::*;

    #[test]
    fn waiting_and_failed_downloads_carry_their_exit_code() {
        let exit = |phase: DownloadPhase| transfer_state(&phase, None).1.map(|cause| cause.exit);
        assert_eq!(exit(DownloadPhase::Transferring), None);
        assert_eq!(exit(DownloadPhase::Paused), None);
        assert_eq!(
            exit(DownloadPhase::Waiting(WaitReason::NoPeers {
                missing: 1,
                first_missing: 0,
                troubles: PeerTroubles::default()
            })),
            Some(ExitCause::NoPeer)
        );
        let false_manifest = DownloadFailure::FalseManifest { found: "a".into(), stated: "b".into() };
        assert_eq!(exit(DownloadPhase::Failed(false_manifest)), Some(ExitCause::Corrupt));
    }

    #[test]
    fn only_a_pause_by_the_user_is_shown_as_one() {
        let state = |phase: DownloadPhase, absent| transfer_state(&phase, absent).0;
        let waits = |waits_for| TransferState::Waiting { waits_for };
        assert_eq!(state(DownloadPhase::Paused, None), TransferState::Paused);
        assert_eq!(state(DownloadPhase::Paused, Some("bob")), waits(WaitCause::Login));
        let disk = WaitReason::DiskFull { needed: 2, free: 1, directory: "/d".into() };
        for (wait, cause) in [
            (WaitReason::BadPieces { missing: 1, troubles: PeerTroubles::default() }, WaitCause::Peers),
            (disk, WaitCause::Disk),
            (WaitReason::Ticket, WaitCause::Ticket),
        ] {
            assert_eq!(state(DownloadPhase::Waiting(wait), None), waits(cause));
        }
    }

    #[test]
    fn the_nodes_limit_is_named_if_it_limits_a_download() {
        let limit = NonZeroU64::new(1_000_000);
        assert_eq!(name_limit(Bottleneck::Network, 1_000_000, limit), "`--limit-down`");
        assert_eq!(name_limit(Bottleneck::Network, 760_000, limit), "`--limit-down`");
        for (found, rate, limit) in [
            (Bottleneck::Network, 740_000, limit),
            (Bottleneck::Network, 1_000_000, None),
            (Bottleneck::Disk, 1_000_000, limit),
        ] {
            assert_eq!(name_limit(found, rate, limit), found.to_string());
        }
    }

    #[test]
    fn a_latency_carries_the_whole_histogram() {
        let mut histogram = Histogram::<u32>::new(2).unwrap();
        histogram.record_n(100, 9).unwrap();
        histogram.record(100_000).unwrap();
        let row = latency_row(&histogram);
        assert_eq!((row.count, row.p50_us, row.p90_us), (10, 100, 100));
        assert!(row.p999_us >= 100_000 && row.p999_us == row.max_us);
        let bytes = BASE64_STANDARD.decode(&row.histogram).unwrap();
        let read: Histogram<u32> =
            hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, histogram);
    }

    #[test]
    fn phases_and_row_states_end_together() {
        let ends = [
            DownloadPhase::Durable,
            DownloadPhase::Failed(DownloadFailure::Io(String::new())),
            DownloadPhase::Cancelled,
        ];
        let goes_on = [
            DownloadPhase::Transferring,
            DownloadPhase::Paused,
            DownloadPhase::Checking,
            DownloadPhase::Syncing,
            DownloadPhase::Waiting(WaitReason::Ticket),
        ];
        for phase in ends.into_iter().chain(goes_on) {
            assert_eq!(transfer_state(&phase, None).0.is_end(), phase.is_end(), "{phase:?}");
        }
    }
}
