//! Runs a log: opens it, serves proposals, and after a failed write serves reads until it can be reopened.
//!
//! ```text
//!   open ──► lead ──► serve_proposals ──(a write failed)──► serve_reads, refuse writes ──(writable again)──► open
//!     └─(refused)─► end          └─(stopped)─► end
//! ```
//!
//! Invariant: each opening has its own runtime. After that is dropped, nothing holds the log, and it can be reopened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::fault::ReplicaFault;
use super::limits::{
    BLOCKING_THREADS, ELECTION_MAX_MS, ELECTION_MIN_MS, HEARTBEAT_MS, INSTALL_MS, LAG_MAX_ENTRIES,
    LOG_KEEP_ENTRIES, OBSTACLE_CHECK_MS, PAYLOAD_MAX_ENTRIES, PURGE_BATCH_ENTRIES, READY_MS, REOPEN_MS,
    SNAPSHOT_EVERY_ENTRIES, SPACE_FLOOR_BYTES, SPACE_RESERVE_BYTES,
};
use super::location::{LogLocation, NamedFile};
use super::log_store::LogStore;
use super::machine_store::MachineStore;
use super::network::ClusterNetwork;
use super::proposal::{Proposal, ProposalError, gather_proposals, refuse_all, split_batch};
use super::published::{PublishedState, ReplicaOptions};
use super::raft_types::{NodeId, RaftTypes};
use super::store::ReplicaStore;

/// Number of the founder in its cluster; part of the log's format.
const FOUNDER: NodeId = 1;

/// Low bits of an epoch, which count openings of the log; the leader's term stands above them.
const START_BITS: u32 = 20;

type Ready = SyncSender<Result<(), ReplicaFault>>;

/// Why one opening of the log ended.
enum RunEnd {
    Stopped,
    Failed(ReplicaFault),
}

struct LogRunner<'a> {
    home: Box<dyn LogLocation>,
    /// The file that was opened.
    opened: NamedFile,
    options: &'a ReplicaOptions,
    proposals: mpsc::Receiver<Proposal>,
    /// The proposal that did not fit the previous entry.
    next_proposal: Option<Proposal>,
    stopped: oneshot::Receiver<()>,
    shared: &'a PublishedState,
    /// The receiver of the result of the first opening.
    ready: Option<Ready>,
}

/// Runs a log until it is asked to stop.
pub(super) fn run_log(
    home: Box<dyn LogLocation>,
    options: &ReplicaOptions,
    inbox: mpsc::Receiver<Proposal>,
    stopped: oneshot::Receiver<()>,
    shared: &PublishedState,
    ready: Ready,
) {
    let mut runner = LogRunner {
        home,
        opened: NamedFile::Unknown,
        options,
        proposals: inbox,
        next_proposal: None,
        stopped,
        shared,
        ready: Some(ready),
    };
    loop {
        let end = match build_runtime() {
            Ok(runtime) => runtime.block_on(runner.run_once()),
            Err(error) => {
                RunEnd::Failed(ReplicaFault::io(runner.home.name().as_ref(), "start a runtime", error))
            }
        };
        shared.publish(None);
        let RunEnd::Failed(fault) = end else { return };
        if let Some(ready) = runner.ready.take() {
            // The receiver is gone only if its thread died.
            let _ = ready.send(Err(fault));
            return;
        }
        tracing::error!(%fault, "the log has failed");
        shared.set_write_trouble(Some(fault.to_string()));
        let Ok(runtime) = build_runtime() else { return };
        if runtime.block_on(runner.serve_reads(&fault)).is_none() {
            return;
        }
        shared.publish(None);
    }
}

fn build_runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().max_blocking_threads(BLOCKING_THREADS).build()
}

impl LogRunner<'_> {
    async fn run_once(&mut self) -> RunEnd {
        let (store, raft) = match self.open_and_lead().await {
            Ok(begun) => begun,
            Err(fault) => return RunEnd::Failed(fault),
        };
        self.shared.publish(Some(store));
        if let Some(ready) = self.ready.take()
            && ready.send(Ok(())).is_err()
        {
            return RunEnd::Stopped;
        }
        let end = self.serve_proposals(&raft).await;
        // The error of a shutdown is that of `end`.
        let _ = raft.shutdown().await;
        end
    }

    /// Opens the log and becomes its leader, with every entry applied.
    async fn open_and_lead(&mut self) -> Result<(Arc<ReplicaStore>, Raft<RaftTypes>), ReplicaFault> {
        let store = Arc::new(self.home.open()?);
        self.opened = self.home.log_file();
        store.claim_cluster(&self.options.cluster)?;
        let stop = |reason: String| ReplicaFault::Stopped { path: store.path().to_owned(), reason };
        let config = raft_config().map_err(|error| stop(error.to_string()))?;
        let (log, machine) = (LogStore::new(Arc::clone(&store)), MachineStore::new(Arc::clone(&store)));
        let raft = Raft::new(FOUNDER, Arc::new(config), ClusterNetwork, log, machine)
            .await
            .map_err(|fatal| stop(fatal.to_string()))?;
        if !raft.is_initialized().await.map_err(|fatal| stop(fatal.to_string()))? {
            let node = BasicNode::new(&self.options.address);
            raft.initialize(BTreeMap::from([(FOUNDER, node)]))
                .await
                .map_err(|error| stop(error.to_string()))?;
        }
        raft.trigger().elect().await.map_err(|fatal| stop(fatal.to_string()))?;
        let leading = raft
            .wait(Some(Duration::from_millis(READY_MS)))
            .metrics(
                |metrics| {
                    metrics.current_leader == Some(FOUNDER)
                        && metrics.last_applied.map(|last| last.index) == metrics.last_log_index
                },
                "leading, with every entry applied",
            )
            .await
            .map_err(|error| stop(error.to_string()))?;
        let starts = store.starts()? & ((1 << START_BITS) - 1);
        self.shared.set_epoch(leading.current_term << START_BITS | starts);
        Ok((store, raft))
    }

    async fn serve_proposals(&mut self, raft: &Raft<RaftTypes>) -> RunEnd {
        let mut pause = tokio::time::interval(Duration::from_millis(OBSTACLE_CHECK_MS));
        loop {
            let proposals = tokio::select! {
                _ = &mut self.stopped => return RunEnd::Stopped,
                _ = pause.tick() => Vec::new(),
                proposals = gather_proposals(&mut self.proposals, &mut self.next_proposal) => match proposals {
                    Some(proposals) => proposals,
                    None => return RunEnd::Stopped,
                },
            };
            let proposals = self.admit_proposals(proposals);
            if proposals.is_empty() {
                continue;
            }
            let (batch, replies) = split_batch(proposals);
            match raft.client_write(batch).await {
                Ok(written) => {
                    for (reply, answer) in replies.into_iter().zip(written.data.0) {
                        reply(Ok(answer));
                    }
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    refuse_all(replies, &ProposalError::NoLeader);
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                    unreachable!("a batch of commands changes no membership: {error}")
                }
                Err(RaftError::Fatal(fatal)) => {
                    let reason = fatal.to_string();
                    refuse_all(replies, &ProposalError::Unknown(reason.clone()));
                    return RunEnd::Failed(ReplicaFault::Stopped { path: self.home.name().into(), reason });
                }
            }
        }
    }

    /// Refuses the proposals that cannot be made now, and returns the others.
    fn admit_proposals(&self, proposals: Vec<Proposal>) -> Vec<Proposal> {
        let obstacle = self.log_gone().or_else(|| self.disk_full());
        self.shared.set_write_trouble(obstacle.as_ref().map(ToString::to_string));
        let Some(obstacle) = obstacle else { return proposals };
        let reserve = self.options.space_floor_bytes / (SPACE_FLOOR_BYTES / SPACE_RESERVE_BYTES);
        let has_reserve = matches!(obstacle, ProposalError::Full { free, .. } if free >= reserve);
        let (admitted, refused) = proposals
            .into_iter()
            .partition(|proposal: &Proposal| has_reserve && proposal.command.action.spares_space());
        refuse_all(split_batch(refused).1, &obstacle);
        admitted
    }

    /// The log's name leads to another file than the one that is open, or to none: what is written would be lost.
    fn log_gone(&self) -> Option<ProposalError> {
        let named = self.home.log_file();
        let is_gone =
            named != self.opened && named != NamedFile::Unknown && self.opened != NamedFile::Unknown;
        is_gone.then(|| ProposalError::Gone { path: self.home.name() })
    }

    fn disk_full(&self) -> Option<ProposalError> {
        let wanted = self.options.space_floor_bytes;
        let free = self.home.free_bytes()?;
        (free < wanted).then(|| ProposalError::Full { path: self.home.name(), free, wanted })
    }

    /// Serves reads and refuses writes until the log may be reopened; `None` when asked to stop.
    async fn serve_reads(&mut self, fault: &ReplicaFault) -> Option<()> {
        match self.home.open_overlaid().and_then(catch_up_store) {
            Ok(store) => self.shared.publish(Some(Arc::new(store))),
            Err(fault) => tracing::error!(%fault, "the log cannot be read either"),
        }
        let mut pause = tokio::time::interval(Duration::from_millis(REOPEN_MS));
        pause.tick().await;
        loop {
            tokio::select! {
                _ = &mut self.stopped => return None,
                proposals = gather_proposals(&mut self.proposals, &mut self.next_proposal) => {
                    let (_, replies) = split_batch(proposals?);
                    let why = self.disk_full().unwrap_or_else(|| ProposalError::Unavailable(fault.to_string()));
                    refuse_all(replies, &why);
                }
                _ = pause.tick() => {
                    if fault.is_transient() && self.disk_full().is_none() {
                        return Some(());
                    }
                }
            }
        }
    }
}

/// Applies, in memory, the entries that the file's rows lack, so that reads contain everything acknowledged.
fn catch_up_store(store: ReplicaStore) -> Result<ReplicaStore, ReplicaFault> {
    let store = Arc::new(store);
    MachineStore::new(Arc::clone(&store)).catch_up()?;
    Arc::try_unwrap(store).map_err(|store| ReplicaFault::Stopped {
        path: store.path().to_owned(),
        reason: "another part of the tracker still holds it".to_owned(),
    })
}

fn raft_config() -> Result<Config, Box<openraft::ConfigError>> {
    Config {
        cluster_name: "shoal".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: INSTALL_MS,
        max_payload_entries: PAYLOAD_MAX_ENTRIES,
        replication_lag_threshold: LAG_MAX_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
        max_in_snapshot_log_to_keep: LOG_KEEP_ENTRIES,
        purge_batch_size: PURGE_BATCH_ENTRIES,
        ..Config::default()
    }
    .validate()
    .map_err(Box::new)
}
