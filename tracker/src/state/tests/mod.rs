//! Tests of the rules through commands and queries, and the rig that they share.
//!
//! ```text
//!   accounts  groups  files  leases  peer_choice ──► Rig (machine, time, counted session ids)
//!   random ──► two machines and a naive model
//!   unread ──► every query over tables whose reads fail
//! ```

mod accounts;
mod files;
mod groups;
mod leases;
mod peer_choice;
mod random;
mod unread;

use std::net::SocketAddr;

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::ticket::PeerKey;
use engine::proto::units::Digest;

use super::command::{LogAction, LogCommand, ManifestEnd, ManifestPart, Policy};
use super::id::{Actor, GroupFile, GroupId, RequestId, SessionId, UserId};
use super::machine::StateMachine;
use super::memory_tables::MemoryTables;
use super::node::NodeEndpoint;
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal};
use super::queries::StateQueries;

/// A state machine with a clock that the test sets.
#[derive(Default)]
pub(super) struct Rig {
    pub(super) machine: StateMachine<MemoryTables>,
    pub(super) at_s: u64,
    sessions: u8,
}

impl Rig {
    /// A user, new or known, in a new session whose node has no key and listens at `port`.
    pub(super) fn user(&mut self, name: &str, port: u16) -> Actor {
        self.user_at(name, node(port))
    }

    pub(super) fn user_at(&mut self, name: &str, node: NodeEndpoint) -> Actor {
        let user = user(name);
        let create = LogAction::CreateUser { user: user.clone(), password_hash: format!("hash of {name}") };
        let _ = self.anonymous(create);
        let password_epoch = self.queries().account(&user).unwrap().password_epoch;
        self.sessions += 1;
        let session = SessionId([self.sessions; 16]);
        let login = LogAction::Login { user: user.clone(), password_epoch, session, node: Some(node) };
        assert_eq!(self.anonymous(login), Ok(CommandOutcome::LoggedIn));
        Actor { user, session }
    }

    pub(super) fn anonymous(&mut self, action: LogAction) -> ApplyResult {
        self.machine.apply(&LogCommand::anonymous(self.at_s, action))
    }

    pub(super) fn act(&mut self, actor: &Actor, action: LogAction) -> ApplyResult {
        self.machine.apply(&LogCommand::by(actor.clone(), self.at_s, None, action))
    }

    pub(super) fn act_as_request(&mut self, actor: &Actor, id: &str, action: LogAction) -> ApplyResult {
        self.machine.apply(&LogCommand::by(actor.clone(), self.at_s, Some(RequestId::of(id)), action))
    }

    pub(super) fn queries(&self) -> StateQueries<'_> {
        self.machine.queries()
    }

    /// Creates an open group with these members, the first as owner.
    pub(super) fn group(&mut self, name: &str, members: &[&Actor]) -> GroupId {
        let group = group(name);
        let (owner, others) = members.split_first().unwrap();
        let create = LogAction::CreateGroup { group: group.clone(), policy: Policy::Open };
        assert_eq!(self.act(owner, create), Ok(CommandOutcome::GroupCreated));
        for other in others {
            let joined = self.act(other, LogAction::JoinGroup { group: group.clone() });
            assert_eq!(joined, Ok(CommandOutcome::Joined { pending: false }));
        }
        group
    }

    /// Ports of the seeders of a file.
    pub(super) fn holders(&self, file: &GroupFile) -> Vec<u16> {
        self.queries().seeders(file).iter().map(|peer| peer.holder.address.port()).collect()
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub(super) fn name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

pub(super) fn file(group: &GroupId, file: &str) -> GroupFile {
    GroupFile { group: group.clone(), name: name(file) }
}

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

pub(super) fn node(port: u16) -> NodeEndpoint {
    NodeEndpoint { address: address(port), peer_key: None }
}

pub(super) fn keyed(port: u16, key: u8) -> NodeEndpoint {
    NodeEndpoint { address: address(port), peer_key: Some(PeerKey([key; 32])) }
}

/// A manifest of a few pieces whose digests are all `content`.
pub(super) fn manifest(content: u8, pieces: usize) -> ManifestEnd {
    let digest = Digest([content; 20]);
    ManifestEnd {
        upload: None,
        first: 0,
        part: ManifestPart::new(&vec![digest; pieces], None),
        length: None,
        proof: FileProof::Whole(digest),
    }
}

pub(super) fn upload(file: &GroupFile, content: u8, port: u16) -> LogAction {
    LogAction::Upload { file: file.clone(), manifest: manifest(content, 2), node: node(port) }
}
