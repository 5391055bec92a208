//! The life of a log: open, run, fail, look on, open again.
//!
//! ```text
//!   open ──► lead ──► serve ──(a write failed)──► look on: read, refuse writes ──(room again)──► open
//!     └─(refused)─► end          └─(asked)─► end
//! ```
//!
//! Invariant: each life has its own runtime; when that is dropped, nothing holds the log any more, and it can be opened anew.

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
    LOG_KEEP_ENTRIES, PAYLOAD_MAX_ENTRIES, PURGE_BATCH_ENTRIES, READY_MS, REOPEN_MS, SNAPSHOT_EVERY_ENTRIES,
};
use super::location::LogLocation;
use super::log_store::LogStore;
use super::machine_store::MachineStore;
use super::network::ClusterNetwork;
use super::proposal::{Proposal, ProposalError, gather_proposals, refuse_all, split_batch};
use super::published::{PublishedState, ReplicaOptions};
use super::raft_types::{NodeId, RaftTypes};
use super::store::ReplicaStore;

/// The founder's number in its cluster. Those who join get others.
const FOUNDER: NodeId = 1;

/// Bits of an epoch that count starts; the term of office stands above them.
const START_BITS: u32 = 20;

type Ready = SyncSender<Result<(), ReplicaFault>>;

/// Why a life ended.
enum RunEnd {
    Stopped,
    Failed(ReplicaFault),
}

struct LogRunner<'a> {
    home: Box<dyn LogLocation>,
    options: &'a ReplicaOptions,
    proposals: mpsc::Receiver<Proposal>,
    /// Did not fit the entry before.
    next_proposal: Option<Proposal>,
    stopped: oneshot::Receiver<()>,
    shared: &'a PublishedState,
    /// Whoever waits for the first opening.
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
    let mut life = LogRunner {
        home,
        options,
        proposals: inbox,
        next_proposal: None,
        stopped,
        shared,
        ready: Some(ready),
    };
    loop {
        let end = match build_runtime() {
            Ok(runtime) => runtime.block_on(life.run_once()),
            Err(error) => {
                RunEnd::Failed(ReplicaFault::io(life.home.name().as_ref(), "start a runtime", error))
            }
        };
        shared.publish(None);
        let RunEnd::Failed(fault) = end else { return };
        if let Some(ready) = life.ready.take() {
            // The starter has gone only if its thread died.
            let _ = ready.send(Err(fault));
            return;
        }
        tracing::error!(%fault, "the log has failed");
        let Ok(runtime) = build_runtime() else { return };
        if runtime.block_on(life.serve_reads(&fault)).is_none() {
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
        // It may have stopped by itself, which is then why the life ended.
        let _ = raft.shutdown().await;
        end
    }

    /// Opens the log and leads it; all its entries are applied then.
    async fn open_and_lead(&mut self) -> Result<(Arc<ReplicaStore>, Raft<RaftTypes>), ReplicaFault> {
        let store = Arc::new(self.home.open()?);
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
                "leads, with every entry applied",
            )
            .await
            .map_err(|error| stop(error.to_string()))?;
        let starts = store.starts()? & ((1 << START_BITS) - 1);
        self.shared.set_epoch(leading.current_term << START_BITS | starts);
        Ok((store, raft))
    }

    async fn serve_proposals(&mut self, raft: &Raft<RaftTypes>) -> RunEnd {
        loop {
            let together = tokio::select! {
                _ = &mut self.stopped => return RunEnd::Stopped,
                together = gather_proposals(&mut self.proposals, &mut self.next_proposal) => match together {
                    Some(together) => together,
                    None => return RunEnd::Stopped,
                },
            };
            let (batch, replies) = split_batch(together);
            if let Some(full) = self.disk_full() {
                refuse_all(replies, &full);
                continue;
            }
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

    fn disk_full(&self) -> Option<ProposalError> {
        let wanted = self.options.space_floor_bytes;
        let free = self.home.free_bytes()?;
        (free < wanted).then(|| ProposalError::Full { path: self.home.name(), free, wanted })
    }

    /// Reads on and refuses writes until a new opening is worth a try; `None` when asked to stop.
    async fn serve_reads(&mut self, fault: &ReplicaFault) -> Option<()> {
        match self.home.open_overlaid().and_then(catch_up_store) {
            Ok(store) => self.shared.publish(Some(Arc::new(store))),
            Err(fault) => tracing::error!(%fault, "the log cannot even be read"),
        }
        let mut pause = tokio::time::interval(Duration::from_millis(REOPEN_MS));
        pause.tick().await;
        loop {
            tokio::select! {
                _ = &mut self.stopped => return None,
                together = gather_proposals(&mut self.proposals, &mut self.next_proposal) => {
                    let (_, replies) = split_batch(together?);
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

/// Applies, in memory, the entries that the rows in the file lack: what was acknowledged is seen.
fn catch_up_store(store: ReplicaStore) -> Result<ReplicaStore, ReplicaFault> {
    let store = Arc::new(store);
    MachineStore::new(Arc::clone(&store)).catch_up()?;
    Arc::try_unwrap(store).map_err(|store| ReplicaFault::Stopped {
        path: store.path().to_owned(),
        reason: "someone else still holds it".to_owned(),
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
