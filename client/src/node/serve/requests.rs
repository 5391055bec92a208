//! Handles the requests of front ends by calling the node's parts.

use std::sync::{Arc, Mutex};

use engine::Engine;
use engine::lock::lock;
use serde::de::{DeserializeOwned, IgnoredAny};
use tracker::api::Policy;
use tracker::api::answers::{
    FilesAnswer, GroupsAnswer, JoinAnswer, PeersAnswer, RequestsAnswer, WhoamiAnswer,
};
use tracker::api::request::Command;

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{FileRef, NodeAnswer, NodeRequest, SecretText};
use crate::ipc::rows::{FileListRow, GroupListRow, NodeStatus, PeerRow, ShareRow, TransferRow};
use crate::node::core::{NodeCore, parse_group_id, parse_user_id, to_engine_key};
use crate::node::downloads::{self, DownloadControl, DownloadRequest, Downloads, StartOutcome};
use crate::node::events::EventStream;
use crate::node::rows;
use crate::node::shares::{self, ShareState};
use crate::node::trackers::{self, RequestUrgency};

/// The parts that handle requests.
pub(crate) struct RequestHandler {
    pub(crate) core: Arc<NodeCore>,
    pub(crate) downloads: Arc<Downloads>,
    /// Held while the logged-in user changes: the saved session and the shares belong to one user.
    login_lock: Mutex<()>,
}

impl RequestHandler {
    pub(crate) fn new(core: Arc<NodeCore>, downloads: Arc<Downloads>) -> RequestHandler {
        RequestHandler { core, downloads, login_lock: Mutex::default() }
    }

    /// Handles one request. `Watch` is handled by the socket; `Stop` ends the node only after its answer has been sent, which
    /// the socket does too.
    ///
    /// # Errors
    /// The error of the request.
    pub(crate) fn handle(
        &self,
        ask: NodeRequest,
        events: &EventStream<'_>,
    ) -> Result<NodeAnswer, ClientFault> {
        match ask {
            NodeRequest::CreateUser { user, password } => {
                let password = trackers::parse_password(&password)?;
                self.relay(Command::CreateUser { user: parse_user_id(&user)?, password })
            }
            NodeRequest::Login { user, password } => self.login(&user, &password),
            NodeRequest::ChangePassword { old, new } => {
                let (old, new) = (trackers::parse_password(&old)?, trackers::parse_password(&new)?);
                self.relay(Command::ChangePassword { old, new })
            }
            NodeRequest::Logout => self.logout(),
            NodeRequest::Whoami => self.whoami(),
            NodeRequest::CreateGroup { group, approval } => {
                let policy = if approval { Policy::Approval } else { Policy::Open };
                self.relay(Command::CreateGroup { group: parse_group_id(&group)?, policy })
            }
            NodeRequest::JoinGroup { group } => self.join(&group),
            NodeRequest::LeaveGroup { group } => self.leave(&group),
            NodeRequest::ListGroups => self.list_groups(),
            NodeRequest::ListRequests { group } => self.list_requests(group),
            NodeRequest::AcceptRequest { group, user } => self.relay_for_owner(Command::AcceptRequest {
                group: parse_group_id(&group)?,
                user: parse_user_id(&user)?,
            }),
            NodeRequest::RejectRequest { group, user } => self.relay_for_owner(Command::RejectRequest {
                group: parse_group_id(&group)?,
                user: parse_user_id(&user)?,
            }),
            NodeRequest::RemoveMember { group, user } => self.relay_for_owner(Command::RemoveMember {
                group: parse_group_id(&group)?,
                user: parse_user_id(&user)?,
            }),
            NodeRequest::RemoveFile(at) => self.remove_file(&at),
            NodeRequest::ListFiles { group } => self.list_files(group),
            NodeRequest::GetPeers(at) => self.get_peers(at),
            NodeRequest::Upload { group, path } => {
                shares::upload_file(&self.downloads.shares, &group, &path, events)
            }
            NodeRequest::StopShare(at) => shares::stop_share(&self.downloads.shares, &at.key()?)
                .map(|message| NodeAnswer::Said { message }),
            NodeRequest::Download { at, destination, overwrite, background } => {
                let wish = DownloadRequest { key: at.key()?, destination, overwrite };
                self.download(&wish, background, events)
            }
            NodeRequest::ShowDownloads => Ok(NodeAnswer::Downloads { downloads: self.rows() }),
            NodeRequest::Pause(at) => self.control_download(&at, DownloadControl::Pause),
            NodeRequest::Resume(at) => self.control_download(&at, DownloadControl::Resume),
            NodeRequest::Cancel(at) => self.control_download(&at, DownloadControl::Cancel),
            NodeRequest::Status => Ok(NodeAnswer::Node(self.status())),
            NodeRequest::Watch => {
                Err(ClientFault::new(ExitCause::Protocol, "watching is answered elsewhere"))
            }
            NodeRequest::Stop => Ok(NodeAnswer::Said { message: "the node ends".into() }),
        }
    }

    fn ask<T: DeserializeOwned>(&self, command: Command) -> Result<(T, String), ClientFault> {
        self.core.trackers.request(command, RequestUrgency::Immediate)
    }

    /// Sends a command whose only answer is a message.
    fn relay(&self, command: Command) -> Result<NodeAnswer, ClientFault> {
        self.ask::<IgnoredAny>(command).map(|(_, message)| NodeAnswer::Said { message })
    }

    /// Like [`RequestHandler::relay`], for a command of a group's owner.
    fn relay_for_owner(&self, command: Command) -> Result<NodeAnswer, ClientFault> {
        self.relay(command).map_err(advise_owner)
    }

    fn login(&self, user: &str, password: &SecretText) -> Result<NodeAnswer, ClientFault> {
        let _turn = lock(&self.login_lock);
        let message = self.core.trackers.login(parse_user_id(user)?, password)?;
        self.downloads.set_active_user(Some(user));
        shares::set_active_user(&self.downloads.shares, user, &self.downloads.keys_of_user(user));
        Ok(NodeAnswer::Said { message })
    }

    fn logout(&self) -> Result<NodeAnswer, ClientFault> {
        let _turn = lock(&self.login_lock);
        let told = self.relay(Command::Logout);
        if told.as_ref().is_err_and(|fault| fault.exit != ExitCause::NotLoggedIn) {
            return told;
        }
        self.core.trackers.forget_session();
        self.core.peer.revoke_trust()?;
        self.downloads.set_active_user(None);
        told
    }

    fn whoami(&self) -> Result<NodeAnswer, ClientFault> {
        let (answer, _) = self.ask::<WhoamiAnswer>(Command::Whoami)?;
        // A node that lives for one command shares nothing: the address would be that of an earlier process.
        let address = answer.address.filter(|_| self.core.peer.started_engine().is_some());
        Ok(NodeAnswer::Whoami { user: answer.user_id.to_string(), address })
    }

    fn join(&self, group: &str) -> Result<NodeAnswer, ClientFault> {
        let (answer, message) =
            self.ask::<JoinAnswer>(Command::JoinGroup { group: parse_group_id(group)? })?;
        Ok(NodeAnswer::Joined { group: group.to_owned(), pending: answer.pending, message })
    }

    fn leave(&self, group: &str) -> Result<NodeAnswer, ClientFault> {
        let told = self.relay(Command::LeaveGroup { group: parse_group_id(group)? })?;
        shares::drop_shares(&self.downloads.shares, |key, _| key.group.as_str() == group);
        Ok(told)
    }

    fn list_groups(&self) -> Result<NodeAnswer, ClientFault> {
        let (answer, _) = self.ask::<GroupsAnswer>(Command::ListGroups)?;
        let groups = answer.groups.into_iter().map(|entry| GroupListRow {
            group: entry.group_id.to_string(),
            owner: entry.owner.to_string(),
            policy: match entry.policy {
                Policy::Open => "open".into(),
                Policy::Approval => "approval".into(),
            },
            members: entry.members,
            member: entry.is_member,
        });
        Ok(NodeAnswer::Groups { groups: groups.collect() })
    }

    fn list_requests(&self, group: String) -> Result<NodeAnswer, ClientFault> {
        let command = Command::ListRequests { group: parse_group_id(&group)? };
        let (answer, _) = self.ask::<RequestsAnswer>(command).map_err(advise_owner)?;
        let users = answer.pending_list.iter().map(ToString::to_string).collect();
        Ok(NodeAnswer::Requests { group, users })
    }

    fn remove_file(&self, at: &FileRef) -> Result<NodeAnswer, ClientFault> {
        let key = at.key()?;
        let told = self.relay(Command::RemoveFile { file: key.clone() })?;
        // A share that was refused under this name is another file, which can be listed now.
        shares::drop_shares(&self.downloads.shares, |served, state| {
            *served == key && !matches!(state, ShareState::Refused(_))
        });
        Ok(told)
    }

    fn list_files(&self, group: String) -> Result<NodeAnswer, ClientFault> {
        let command = Command::ListFiles { group: parse_group_id(&group)?, after: None, count: None };
        let (answer, _) = self.ask::<FilesAnswer>(command)?;
        let files = answer.files.into_iter().map(|entry| FileListRow {
            file: entry.file_name.to_string(),
            size_bytes: entry.file_size,
            sha1: (!entry.pieces_only).then(|| entry.file_sha.to_string()),
            seeders: entry.seeders,
            leechers: entry.leechers,
        });
        Ok(NodeAnswer::Files { group, files: files.collect() })
    }

    fn get_peers(&self, at: FileRef) -> Result<NodeAnswer, ClientFault> {
        let key = at.key()?;
        let command = Command::GetPeers { file: key.clone(), peer_key: None };
        let (answer, _) = self.ask::<PeersAnswer>(command)?;
        let peers =
            answer.peers.iter().map(|entry| PeerRow { address: entry.address(), complete: entry.complete });
        // The trackers' list leaves out the asking node.
        let only_here =
            answer.peers.is_empty() && shares::is_serving_whole_file(&self.downloads.shares, &key);
        Ok(NodeAnswer::Peers { group: at.group, file: at.file, peers: peers.collect(), only_here })
    }

    fn download(
        &self,
        wish: &DownloadRequest,
        background: bool,
        events: &EventStream<'_>,
    ) -> Result<NodeAnswer, ClientFault> {
        match self.downloads.start(wish, events)? {
            StartOutcome::AlreadyComplete { path, size_bytes } => {
                let (group, file) = (wish.key.group.to_string(), wish.key.name.to_string());
                Ok(NodeAnswer::AlreadyThere { group, file, path, size_bytes })
            }
            StartOutcome::Running(entry) if background => Ok(NodeAnswer::Started(entry.row())),
            StartOutcome::Running(entry) => downloads::follow_download(&self.core, &entry, events),
        }
    }

    fn control_download(&self, at: &FileRef, how: DownloadControl) -> Result<NodeAnswer, ClientFault> {
        self.downloads.control(&at.key()?, how).map(|message| NodeAnswer::Said { message })
    }

    fn rows(&self) -> Vec<TransferRow> {
        self.downloads.rows(self.core.trackers.user().as_deref())
    }

    fn status(&self) -> NodeStatus {
        let engine = self.core.peer.started_engine();
        let link = self.core.trackers.status();
        NodeStatus {
            pid: std::process::id(),
            listen: engine.as_ref().map(Engine::listen_address),
            io: engine.as_ref().map(|engine| engine.io_name().to_owned()),
            zero_copy: engine.as_ref().map(|engine| rows::zero_copy_row(engine.zero_copy_sends())),
            hash: engine.as_ref().map(|engine| engine.hash_name().to_owned()),
            user: self.core.trackers.user(),
            tracker: link.tracker,
            waits_for: self.waits_for(),
            shares: self.share_rows(engine.as_ref()),
            downloads: self.rows(),
            troubles: self.core.records.problems(),
        }
    }

    /// All shares, including those that are not served.
    fn share_rows(&self, engine: Option<&Engine>) -> Vec<ShareRow> {
        let mut rows: Vec<ShareRow> =
            engine.into_iter().flat_map(Engine::shares).map(|share| rows::share_row(&share)).collect();
        let user = self.core.trackers.user().unwrap_or_default();
        rows.extend(self.downloads.shares.table.of_user(&user).iter().filter_map(|share| {
            let reason = shares::unserved_reason(share)?;
            Some(rows::unserved_share_row(&to_engine_key(&share.file.key), reason))
        }));
        rows
    }

    /// What the node waits for, in words.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let login = self.core.trackers.user().is_none().then(|| "a login (`client login USER`)".to_owned());
        let trouble = self.core.trackers.status().trouble.map(|why| format!("a tracker ({why})"));
        let trackers = trouble.or_else(|| {
            self.core
                .trackers
                .find_addresses()
                .err()
                .map(|fault| format!("the trackers' addresses ({fault})"))
        });
        login.into_iter().chain(trackers).collect()
    }
}

/// For a command of a group's owner, advises to ask the owner. Joining the group, the tracker's advice, would not help.
fn advise_owner(fault: ClientFault) -> ClientFault {
    match fault.exit {
        ExitCause::NotAllowed => fault.fix("ask the group's owner: `list_groups --json` shows who that is"),
        _ => fault,
    }
}
