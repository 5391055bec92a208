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

use super::fault::Fault;
use super::home::Home;
use super::kinds::{Kinds, NodeId};
use super::limits::{
    BLOCKING_THREADS, ELECTION_MAX_MS, ELECTION_MIN_MS, HEARTBEAT_MS, INSTALL_MS, LAG_MAX_ENTRIES,
    LOG_KEEP_ENTRIES, PAYLOAD_MAX_ENTRIES, PURGE_BATCH_ENTRIES, READY_MS, REOPEN_MS, SNAPSHOT_EVERY_ENTRIES,
};
use super::log_store::LogStore;
use super::machine_store::MachineStore;
use super::network::Network;
use super::proposal::{Proposal, Unproposed, gather, refuse, split};
use super::shared::{Options, Shared};
use super::store::Store;

/// The founder's number in its cluster. Those who join get others.
const FOUNDER: NodeId = 1;

/// Bits of an epoch that count starts; the term of office stands above them.
const START_BITS: u32 = 20;

type Ready = SyncSender<Result<(), Fault>>;

/// Why a life ended.
enum End {
    Asked,
    Failed(Fault),
}

struct Life<'a> {
    home: Box<dyn Home>,
    options: &'a Options,
    inbox: mpsc::Receiver<Proposal>,
    /// Did not fit the entry before.
    next: Option<Proposal>,
    stopped: oneshot::Receiver<()>,
    shared: &'a Shared,
    /// Whoever waits for the first opening.
    ready: Option<Ready>,
}

/// Runs a log until it is asked to stop.
pub(super) fn run(
    home: Box<dyn Home>,
    options: &Options,
    inbox: mpsc::Receiver<Proposal>,
    stopped: oneshot::Receiver<()>,
    shared: &Shared,
    ready: Ready,
) {
    let mut life = Life { home, options, inbox, next: None, stopped, shared, ready: Some(ready) };
    loop {
        let end = match runtime() {
            Ok(runtime) => runtime.block_on(life.live()),
            Err(error) => End::Failed(Fault::io(life.home.name().as_ref(), "start a runtime", error)),
        };
        shared.publish(None);
        let End::Failed(fault) = end else { return };
        if let Some(ready) = life.ready.take() {
            // The starter has gone only if its thread died.
            let _ = ready.send(Err(fault));
            return;
        }
        tracing::error!(%fault, "the log has failed");
        let Ok(runtime) = runtime() else { return };
        if runtime.block_on(life.look_on(&fault)).is_none() {
            return;
        }
        shared.publish(None);
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_time().max_blocking_threads(BLOCKING_THREADS).build()
}

impl Life<'_> {
    async fn live(&mut self) -> End {
        let (store, raft) = match self.begin().await {
            Ok(begun) => begun,
            Err(fault) => return End::Failed(fault),
        };
        self.shared.publish(Some(store));
        if let Some(ready) = self.ready.take()
            && ready.send(Ok(())).is_err()
        {
            return End::Asked;
        }
        let end = self.serve(&raft).await;
        // It may have stopped by itself, which is then why the life ended.
        let _ = raft.shutdown().await;
        end
    }

    /// Opens the log and leads it; all its entries are applied then.
    async fn begin(&mut self) -> Result<(Arc<Store>, Raft<Kinds>), Fault> {
        let store = Arc::new(self.home.open()?);
        store.belongs_to(&self.options.cluster)?;
        let stop = |reason: String| Fault::Stopped { path: store.path().to_owned(), reason };
        let config = config().map_err(|error| stop(error.to_string()))?;
        let (log, machine) = (LogStore::new(Arc::clone(&store)), MachineStore::new(Arc::clone(&store)));
        let raft = Raft::new(FOUNDER, Arc::new(config), Network, log, machine)
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

    async fn serve(&mut self, raft: &Raft<Kinds>) -> End {
        loop {
            let together = tokio::select! {
                _ = &mut self.stopped => return End::Asked,
                together = gather(&mut self.inbox, &mut self.next) => match together {
                    Some(together) => together,
                    None => return End::Asked,
                },
            };
            let (batch, replies) = split(together);
            if let Some(full) = self.full() {
                refuse(replies, &full);
                continue;
            }
            match raft.client_write(batch).await {
                Ok(written) => {
                    for (reply, answer) in replies.into_iter().zip(written.data.0) {
                        reply(Ok(answer));
                    }
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    refuse(replies, &Unproposed::NoLeader);
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                    unreachable!("a batch of commands changes no membership: {error}")
                }
                Err(RaftError::Fatal(fatal)) => {
                    let reason = fatal.to_string();
                    refuse(replies, &Unproposed::Unknown(reason.clone()));
                    return End::Failed(Fault::Stopped { path: self.home.name().into(), reason });
                }
            }
        }
    }

    fn full(&self) -> Option<Unproposed> {
        let wanted = self.options.space_floor_bytes;
        let free = self.home.free_bytes()?;
        (free < wanted).then(|| Unproposed::Full { path: self.home.name(), free, wanted })
    }

    /// Reads on and refuses writes until a new opening is worth a try; `None` when asked to stop.
    async fn look_on(&mut self, fault: &Fault) -> Option<()> {
        match self.home.look().and_then(caught_up) {
            Ok(store) => self.shared.publish(Some(Arc::new(store))),
            Err(fault) => tracing::error!(%fault, "the log cannot even be read"),
        }
        let mut pause = tokio::time::interval(Duration::from_millis(REOPEN_MS));
        pause.tick().await;
        loop {
            tokio::select! {
                _ = &mut self.stopped => return None,
                together = gather(&mut self.inbox, &mut self.next) => {
                    let (_, replies) = split(together?);
                    let why = self.full().unwrap_or_else(|| Unproposed::Unavailable(fault.to_string()));
                    refuse(replies, &why);
                }
                _ = pause.tick() => {
                    if fault.may_pass() && self.full().is_none() {
                        return Some(());
                    }
                }
            }
        }
    }
}

/// Applies, in memory, the entries that the rows in the file lack: what was acknowledged is seen.
fn caught_up(store: Store) -> Result<Store, Fault> {
    let store = Arc::new(store);
    MachineStore::new(Arc::clone(&store)).catch_up()?;
    Arc::try_unwrap(store).map_err(|store| Fault::Stopped {
        path: store.path().to_owned(),
        reason: "someone else still holds it".to_owned(),
    })
}

fn config() -> Result<Config, Box<openraft::ConfigError>> {
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
