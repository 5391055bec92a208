//! Handles the requests of front ends by calling the node's parts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::Engine;
use engine::lock::lock;
use serde::de::{DeserializeOwned, IgnoredAny};
use tracker::api::answers::{
    FilesAnswer, GroupsAnswer, JoinAnswer, PeerEntry, PeersAnswer, RequestsAnswer, WhoamiAnswer,
};
use tracker::api::failure::FailureCode;
use tracker::api::limits::LIST_MAX_ENTRIES;
use tracker::api::request::{Command, ListPage, Password};
use tracker::api::{GroupFile, GroupId, Policy, UserId};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeRequest};
use crate::ipc::rows::{
    FileListRow, GroupListRow, NodeStatus, PeerRow, ShareRow, TransferRow, WaitingSharesRow,
};
use crate::limits;
use crate::node::core::{NodeCore, to_engine_key};
use crate::node::downloads::{DownloadControl, DownloadRequest, Downloads, StartOutcome, follow_download};
use crate::node::events::EventStream;
use crate::node::reachability::{check_reachability, start_reachability_check};
use crate::node::rows;
use crate::node::shares::{self, LocalShare, ShareState};
use crate::node::trackers::{RequestUrgency, TrackerStanding};

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

    /// Handles one request. The socket completes two of them: it handles `Watch`, and ends the node once the answer to
    /// `Stop` has been sent.
    ///
    /// # Errors
    /// The error of the request.
    pub(crate) fn handle(
        &self,
        request: NodeRequest,
        events: &EventStream<'_>,
    ) -> Result<NodeAnswer, ClientFault> {
        match request {
            NodeRequest::Control { command } => self.control(command),
            NodeRequest::Upload { file, path } => {
                shares::upload_file(&self.downloads.shares, &file, &path, events)
            }
            NodeRequest::Download { file, destination, overwrite, background } => {
                let request = DownloadRequest { key: file, destination, overwrite };
                self.download(&request, background, events)
            }
            NodeRequest::ShowDownloads => Ok(NodeAnswer::Downloads { downloads: self.rows() }),
            NodeRequest::Pause(file) => self.control_download(&file, DownloadControl::Pause),
            NodeRequest::Resume(file) => self.control_download(&file, DownloadControl::Resume),
            NodeRequest::Cancel(file) => self.control_download(&file, DownloadControl::Cancel),
            NodeRequest::Status => Ok(NodeAnswer::Node(self.status())),
            NodeRequest::CheckAddress => check_reachability(&self.core).map(NodeAnswer::Reachability),
            NodeRequest::Watch => Err(ClientFault::new(ExitCause::Protocol, "the socket handles `watch`")),
            NodeRequest::Stop => Ok(NodeAnswer::Said { message: "the node stops".into() }),
        }
    }

    /// Sends a command to the trackers and does the node's part of it. Any other command than the following is sent as it is,
    /// and answered by the trackers' message.
    fn control(&self, command: Command) -> Result<NodeAnswer, ClientFault> {
        match command {
            Command::CreateUser { user, password } => self.create_user(&user, &password),
            Command::Login { user, password, .. } => self.log_in(&user, &password),
            Command::Logout => self.log_out(),
            Command::Whoami => self.whoami(),
            Command::JoinGroup { group } => self.join_group(&group),
            Command::LeaveGroup { group } => self.leave_group(&group),
            Command::ListGroups { .. } => self.list_groups(),
            Command::ListRequests { group, .. } => self.list_requests(&group),
            Command::ListFiles { group, .. } => self.list_files(&group),
            Command::RemoveFile { file } => self.remove_file(&file),
            Command::GetPeers { file, .. } => self.get_peers(&file),
            Command::StopShare { file, .. } => {
                shares::stop_share(&self.downloads.shares, &file).map(|message| NodeAnswer::Said { message })
            }
            Command::AcceptRequest { .. } | Command::RejectRequest { .. } | Command::RemoveMember { .. } => {
                self.relay(command).map_err(advise_owner)
            }
            command @ Command::ChangePassword { .. } => self.retry_while_busy(|| self.relay(command.clone())),
            command => self.relay(command),
        }
    }

    fn request<T: DeserializeOwned>(&self, command: Command) -> Result<(T, String), ClientFault> {
        self.core.trackers.request(command, RequestUrgency::Immediate)
    }

    /// All entries of a list of the trackers.
    fn list_all<A: DeserializeOwned, E, N: Ord>(
        &self,
        command: impl Fn(ListPage<N>) -> Command,
        entries: impl Fn(A) -> Vec<E>,
        name: impl Fn(&E) -> N,
    ) -> Result<Vec<E>, ClientFault> {
        let fetch = |page| self.request::<A>(command(page)).map(|(answer, _)| entries(answer));
        fetch_pages(LIST_MAX_ENTRIES, fetch, name)
    }

    /// Sends a command whose only answer is a message.
    fn relay(&self, command: Command) -> Result<NodeAnswer, ClientFault> {
        self.request::<IgnoredAny>(command).map(|(_, message)| NodeAnswer::Said { message })
    }

    /// Sends a request with a password, again while the tracker has too many others to check.
    fn retry_while_busy<T>(&self, send: impl Fn() -> Result<T, ClientFault>) -> Result<T, ClientFault> {
        let mut pause = Duration::from_millis(limits::LOGIN_RETRY_FIRST_MS);
        for _ in 0..limits::LOGIN_RETRIES {
            match send() {
                Err(fault) if fault.refusal_code == Some(FailureCode::Busy) => {
                    if self.core.shutdown.wait_timeout(pause) {
                        return Err(fault);
                    }
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        send()
    }

    /// Creates a user, and logs the user in unless another one is logged in here.
    fn create_user(&self, user: &UserId, password: &Password) -> Result<NodeAnswer, ClientFault> {
        let create = Command::CreateUser { user: user.clone(), password: password.clone() };
        let (_, message) = self.retry_while_busy(|| self.request::<IgnoredAny>(create.clone()))?;
        let login = match self.core.trackers.user() {
            Some(other) => format!("{other} stays logged in here"),
            None => match self.log_in(user, password) {
                Ok(_) => format!("{user} is logged in here"),
                Err(fault) => format!("the login failed: {fault}; `login {user}` tries it again"),
            },
        };
        Ok(NodeAnswer::Said { message: format!("{message}; {login}") })
    }

    fn log_in(&self, user: &UserId, password: &Password) -> Result<NodeAnswer, ClientFault> {
        let _changing_user = lock(&self.login_lock);
        let name = user.to_string();
        let before = self.core.trackers.user().filter(|before| *before != name);
        let mut message =
            self.retry_while_busy(|| self.core.trackers.log_in(user.clone(), password.clone()))?;
        if let Some(before) = before {
            message = format!(
                "{message}; {before}, who was logged in here, is logged out: two users at a time need two state \
                 directories (`--state DIR`)"
            );
        }
        *lock(&self.core.reachability) = None;
        if self.core.peer.started_engine().is_some() {
            start_reachability_check(&self.core)?;
        }
        self.downloads.pause_unless_user(Some(&name));
        shares::unserve_other_users(&self.downloads.shares, &name, &self.downloads.keys_of_user(&name));
        Ok(NodeAnswer::Said { message })
    }

    fn log_out(&self) -> Result<NodeAnswer, ClientFault> {
        let _changing_user = lock(&self.login_lock);
        let answer = self.relay(Command::Logout);
        if answer.as_ref().is_err_and(|fault| fault.exit != ExitCause::NotLoggedIn) {
            return answer;
        }
        self.core.trackers.forget_session();
        *lock(&self.core.reachability) = None;
        self.core.peer.revoke_trust()?;
        self.downloads.pause_unless_user(None);
        answer
    }

    fn whoami(&self) -> Result<NodeAnswer, ClientFault> {
        let (answer, _) = self.request::<WhoamiAnswer>(Command::Whoami)?;
        // A node that lives for one command shares nothing: the address would be that of an earlier process.
        let address = answer.address.filter(|_| self.core.peer.started_engine().is_some());
        Ok(NodeAnswer::Whoami { user: answer.user_id.to_string(), address })
    }

    fn join_group(&self, group: &GroupId) -> Result<NodeAnswer, ClientFault> {
        let command = Command::JoinGroup { group: group.clone() };
        let (answer, message) = self.request::<JoinAnswer>(command)?;
        Ok(NodeAnswer::Joined { group: group.to_string(), pending: answer.pending, message })
    }

    fn leave_group(&self, group: &GroupId) -> Result<NodeAnswer, ClientFault> {
        let answer = self.relay(Command::LeaveGroup { group: group.clone() })?;
        shares::remove_shares(&self.downloads.shares, |key, _| key.group == *group);
        Ok(answer)
    }

    fn list_groups(&self) -> Result<NodeAnswer, ClientFault> {
        let listed = self.list_all(
            |page| Command::ListGroups { page },
            |answer: GroupsAnswer| answer.groups,
            |entry| entry.group_id.clone(),
        )?;
        let user = self.core.trackers.user();
        let groups = listed.into_iter().map(|entry| GroupListRow {
            group: entry.group_id.to_string(),
            owned: user.as_deref() == Some(entry.owner.as_str()),
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

    fn list_requests(&self, group: &GroupId) -> Result<NodeAnswer, ClientFault> {
        let listed = self
            .list_all(
                |page| Command::ListRequests { group: group.clone(), page },
                |answer: RequestsAnswer| answer.pending_list,
                UserId::clone,
            )
            .map_err(advise_owner)?;
        let users = listed.iter().map(ToString::to_string).collect();
        Ok(NodeAnswer::Requests { group: group.to_string(), users })
    }

    fn remove_file(&self, file: &GroupFile) -> Result<NodeAnswer, ClientFault> {
        let answer = self.relay(Command::RemoveFile { file: file.clone() })?;
        // Keep a share that the tracker refused under this name: its content differs, and the name is free now. A share whose
        // file has changed is kept, too: its user may have removed the file to upload it as it is now.
        let was_listed = |state: &ShareState| !matches!(state, ShareState::Refused(_));
        shares::remove_shares(&self.downloads.shares, |key, state| key == file && was_listed(state));
        Ok(answer)
    }

    fn list_files(&self, group: &GroupId) -> Result<NodeAnswer, ClientFault> {
        let listed = self.list_all(
            |page| Command::ListFiles { group: group.clone(), page },
            |answer: FilesAnswer| answer.files,
            |entry| entry.file_name.clone(),
        )?;
        let files = listed.into_iter().map(|entry| FileListRow {
            file: entry.file_name.to_string(),
            size_bytes: entry.file_size,
            sha1: (!entry.pieces_only).then(|| entry.file_sha.to_string()),
            seeders: entry.seeders,
            leechers: entry.leechers,
        });
        Ok(NodeAnswer::Files { group: group.to_string(), files: files.collect() })
    }

    fn get_peers(&self, file: &GroupFile) -> Result<NodeAnswer, ClientFault> {
        let command = Command::GetPeers { file: file.clone(), content: None, peer_key: None };
        let (answer, _) = self.request::<PeersAnswer>(command)?;
        let mut troubles = rows::keyless_peer_rows(&answer.peers);
        troubles.extend(self.downloads.peer_troubles(file));
        let row = |entry: &PeerEntry| {
            let address = entry.address();
            let trouble = troubles.iter().find(|trouble| trouble.address == address).cloned();
            PeerRow { address, complete: entry.complete, trouble }
        };
        let peers = answer.peers.iter().map(row).collect();
        // The trackers' list leaves out the asking node.
        let only_here =
            answer.peers.is_empty() && shares::is_serving_whole_file(&self.downloads.shares, file);
        Ok(NodeAnswer::Peers { group: file.group.to_string(), file: file.name.to_string(), peers, only_here })
    }

    fn download(
        &self,
        request: &DownloadRequest,
        background: bool,
        events: &EventStream<'_>,
    ) -> Result<NodeAnswer, ClientFault> {
        match self.downloads.start(request, events)? {
            StartOutcome::AlreadyComplete { path, size_bytes } => {
                let (group, file) = (request.key.group.to_string(), request.key.name.to_string());
                Ok(NodeAnswer::AlreadyThere { group, file, path, size_bytes })
            }
            StartOutcome::Running(run) if background => Ok(NodeAnswer::Started(run.row())),
            StartOutcome::Running(run) => follow_download(&self.core, &run, events),
        }
    }

    fn control_download(
        &self,
        file: &GroupFile,
        control: DownloadControl,
    ) -> Result<NodeAnswer, ClientFault> {
        self.downloads.control(file, control).map(|message| NodeAnswer::Said { message })
    }

    fn rows(&self) -> Vec<TransferRow> {
        self.downloads.rows(self.core.trackers.user().as_deref())
    }

    fn status(&self) -> NodeStatus {
        let engine = self.core.peer.started_engine();
        let tracker_status = self.core.trackers.status();
        NodeStatus {
            pid: std::process::id(),
            listen: engine.as_ref().map(Engine::listen_address),
            io: engine.as_ref().map(|engine| engine.io_name().to_owned()),
            zero_copy: engine.as_ref().map(|engine| rows::zero_copy_row(engine.zero_copy_sends())),
            hash: engine.as_ref().map(|engine| engine.hash_name().to_owned()),
            user: self.core.trackers.user(),
            unknown_there: self.core.trackers.standing().unknown_reason(),
            tracker: tracker_status.tracker,
            // What a tracker found earlier says nothing about now.
            reachability: lock(&self.core.reachability).clone().filter(|_| tracker_status.trouble.is_none()),
            waits_for: self.waits_for(),
            shares: self.share_rows(engine.as_ref()),
            waiting_shares: self.waiting_shares(),
            downloads: self.rows(),
            troubles: self.core.records.problems(),
        }
    }

    /// All shares of the logged-in user, including those that are not served.
    fn share_rows(&self, engine: Option<&Engine>) -> Vec<ShareRow> {
        // After a logout the engine still knows the shares, but no peer may fetch them.
        let Some(user) = self.core.trackers.user() else { return Vec::new() };
        let known = self.downloads.shares.table.shares_of_user(&user);
        let unserved: Vec<ShareRow> = known
            .iter()
            .filter_map(|share| {
                let reason = shares::unserved_reason(share)?;
                Some(rows::unserved_share_row(&to_engine_key(&share.file.key), reason))
            })
            .collect();
        let is_unserved =
            |row: &ShareRow| unserved.iter().any(|other| other.group == row.group && other.file == row.file);
        let standing = self.core.trackers.standing();
        let is_unknown = |row: &ShareRow| {
            let same = |share: &&LocalShare| {
                share.file.key.group.as_str() == row.group && share.file.key.name.as_str() == row.file
            };
            let is_told = known.iter().find(same).is_some_and(|share| share.state == ShareState::Announced);
            standing.is_behind() && !(is_told && matches!(standing, TrackerStanding::OlderState { .. }))
        };
        let served = engine.into_iter().flat_map(Engine::shares).map(|share| {
            let row = rows::share_row(&share);
            ShareRow { unknown_there: is_unknown(&row), ..row }
        });
        let mut rows: Vec<ShareRow> = served.filter(|row| !is_unserved(row)).collect();
        rows.extend(unserved);
        rows
    }

    /// The shares that wait for a login, while no user is logged in.
    fn waiting_shares(&self) -> Vec<WaitingSharesRow> {
        if self.core.trackers.user().is_some() {
            return Vec::new();
        }
        let counts = self.downloads.shares.table.listed_by_user();
        counts.into_iter().map(|(user, shares)| WaitingSharesRow { user, shares }).collect()
    }

    /// What the node waits for, in words.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let login = self.core.trackers.user().is_none().then(|| {
            "a login (`client login USER`, or `client create_user USER` for a new account)".to_owned()
        });
        let trouble = self.core.trackers.status().trouble.map(|why| format!("a tracker ({why})"));
        let trackers = trouble.or_else(|| {
            self.core.trackers.find_trackers().err().map(|fault| format!("the trackers' addresses ({fault})"))
        });
        login.into_iter().chain(trackers).collect()
    }
}

/// Fetches a list in pages of `count` entries.
fn fetch_pages<E, N: Ord>(
    count: u32,
    mut fetch: impl FnMut(ListPage<N>) -> Result<Vec<E>, ClientFault>,
    name: impl Fn(&E) -> N,
) -> Result<Vec<E>, ClientFault> {
    let mut listed: Vec<E> = Vec::new();
    loop {
        let after = listed.last().map(&name);
        let page = fetch(ListPage { after: listed.last().map(&name), count: Some(count) })?;
        if page.first().map(&name).zip(after).is_some_and(|(first, after)| first <= after) {
            let message = "the tracker's list does not go on behind the last entry";
            return Err(ClientFault::new(ExitCause::Protocol, message));
        }
        let is_last = page.len() < count as usize;
        listed.extend(page);
        if is_last {
            return Ok(listed);
        }
    }
}

/// For a command of a group's owner, advises to ask the owner. Joining the group, the tracker's advice, would not help.
fn advise_owner(fault: ClientFault) -> ClientFault {
    match fault.exit {
        ExitCause::NotAllowed => fault.fix("ask the group's owner: `list_groups --json` shows who that is"),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_fetched_in_pages_and_a_tracker_that_repeats_one_is_left() {
        let all: Vec<u32> = (0..7).collect();
        for count in 1..9 {
            let fetch = |page: ListPage<u32>| {
                let rest = all.iter().copied().filter(|entry| page.after.is_none_or(|after| *entry > after));
                Ok(rest.take(page.count.unwrap() as usize).collect())
            };
            assert_eq!(fetch_pages(count, fetch, |entry| *entry).unwrap(), all);
        }
        let repeat = |_| Ok(vec![1, 2]);
        assert_eq!(fetch_pages(2, repeat, |entry: &u32| *entry).unwrap_err().exit, ExitCause::Protocol);
    }
}
