//! Connections to other trackers of the cluster, for the consensus library. A cluster of one has none.
//!
//! Invariant: every call fails as unreachable, so no vote is won and no entry committed by an absent tracker.

use std::future::Future;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};

use super::raft_types::{NodeId, RaftTypes, Vote};

/// Makes a [`ClusterLink`] for each other tracker.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterNetwork;

/// The connection to one other tracker, which is never open.
#[derive(Debug)]
pub(super) struct ClusterLink {
    address: String,
}

#[derive(Debug, thiserror::Error)]
#[error("no link to {0}: this tracker is a cluster of one")]
struct NoLink(String);

type CallError = RPCError<NodeId, BasicNode, RaftError<NodeId>>;

impl ClusterLink {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&NoLink(self.address.clone()))
    }
}

impl RaftNetworkFactory<RaftTypes> for ClusterNetwork {
    type Network = ClusterLink;

    async fn new_client(&mut self, _: NodeId, node: &BasicNode) -> ClusterLink {
        ClusterLink { address: node.addr.clone() }
    }
}

impl RaftNetwork<RaftTypes> for ClusterLink {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<RaftTypes>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, CallError> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: openraft::Snapshot<RaftTypes>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<RaftTypes, Fatal<NodeId>>> {
        Err(self.unreachable().into())
    }
}
