//! What a front end asks, carried out: the one place where questions meet the node's parts.

use std::sync::{Arc, Mutex};

use engine::Engine;
use serde::de::{DeserializeOwned, IgnoredAny};
use tracker::api::Policy;
use tracker::api::answers::{
    FilesAnswer, GroupsAnswer, JoinAnswer, PeersAnswer, RequestsAnswer, WhoamiAnswer,
};
use tracker::api::request::Command;

use super::comparing::Wish;
use super::core::{Core, engine_key, group_id, user_id};
use super::downloads::{Downloads, Start};
use super::events::Events;
use super::records::Stage;
use super::registry::Standing;
use super::steering::{Steer, steer};
use super::trackers::{self, Urgency};
use super::{following, restore, shares, view};
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Ask, FileAt, Secret};
use crate::front::rows::{FileRow, GroupRow, NodeRow, PeerRow, ShareRow, Transfer};
use crate::lock::lock;

/// The parts that answer.
pub(super) struct Desk {
    /// What all threads share.
    pub(super) core: Arc<Core>,
    /// The downloads.
    pub(super) downloads: Arc<Downloads>,
    /// Held by whoever changes who is logged in: what is kept of it on the disk and what is served belong to one user.
    turn: Mutex<()>,
}

impl Desk {
    /// A desk with these parts.
    pub(super) fn new(core: Arc<Core>, downloads: Arc<Downloads>) -> Desk {
        Desk { core, downloads, turn: Mutex::default() }
    }

    /// Answers one question. `Watch` is no question for the desk, and what `Stop` asks for comes after
    /// its answer: both are up to whoever reads the socket.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub(super) fn answer(&self, ask: Ask, events: &Events<'_>) -> Result<Answer, Fault> {
        let core = &self.core;
        match ask {
            Ask::CreateUser { user, password } => {
                let password = trackers::password_of(&password)?;
                self.told(Command::CreateUser { user: user_id(&user)?, password })
            }
            Ask::Login { user, password } => self.login(&user, &password),
            Ask::ChangePassword { old, new } => {
                let (old, new) = (trackers::password_of(&old)?, trackers::password_of(&new)?);
                self.told(Command::ChangePassword { old, new })
            }
            Ask::Logout => self.logout(),
            Ask::Whoami => self.whoami(),
            Ask::CreateGroup { group, approval } => {
                let policy = if approval { Policy::Approval } else { Policy::Open };
                self.told(Command::CreateGroup { group: group_id(&group)?, policy })
            }
            Ask::JoinGroup { group } => self.join(&group),
            Ask::LeaveGroup { group } => self.leave(&group),
            Ask::ListGroups => self.list_groups(),
            Ask::ListRequests { group } => self.list_requests(group),
            Ask::AcceptRequest { group, user } => {
                self.told_owner(Command::AcceptRequest { group: group_id(&group)?, user: user_id(&user)? })
            }
            Ask::RejectRequest { group, user } => {
                self.told_owner(Command::RejectRequest { group: group_id(&group)?, user: user_id(&user)? })
            }
            Ask::RemoveMember { group, user } => {
                self.told_owner(Command::RemoveMember { group: group_id(&group)?, user: user_id(&user)? })
            }
            Ask::RemoveFile(at) => self.remove_file(&at),
            Ask::ListFiles { group } => self.list_files(group),
            Ask::GetPeers(at) => self.get_peers(at),
            Ask::Upload { group, path } => shares::upload(core, &group, &path, events),
            Ask::StopShare(at) => shares::stop(core, &at.key()?).map(|message| Answer::Said { message }),
            Ask::Download { at, destination, overwrite, background } => {
                let wish = Wish { key: at.key()?, destination, overwrite };
                self.download(&wish, background, events)
            }
            Ask::ShowDownloads => Ok(Answer::Downloads { downloads: self.rows() }),
            Ask::Pause(at) => self.steer(&at, Steer::Pause),
            Ask::Resume(at) => self.steer(&at, Steer::Resume),
            Ask::Cancel(at) => self.steer(&at, Steer::Cancel),
            Ask::Status => Ok(Answer::Node(self.status())),
            Ask::Watch => Err(Fault::new(Exit::Protocol, "watching is answered elsewhere")),
            Ask::Stop => Ok(Answer::Said { message: "the node ends".into() }),
        }
    }

    fn ask<T: DeserializeOwned>(&self, command: Command) -> Result<(T, String), Fault> {
        self.core.trackers.ask(command, Urgency::Asked)
    }

    /// Asks for something whose answer is the trackers' word that it is done.
    fn told(&self, command: Command) -> Result<Answer, Fault> {
        self.ask::<IgnoredAny>(command).map(|(_, message)| Answer::Said { message })
    }

    /// As [`Desk::told`], for what a group's owner alone may do.
    fn told_owner(&self, command: Command) -> Result<Answer, Fault> {
        self.told(command).map_err(owners_alone)
    }

    fn login(&self, user: &str, password: &Secret) -> Result<Answer, Fault> {
        let _turn = lock(&self.turn);
        let message = self.core.trackers.login(user_id(user)?, password)?;
        self.downloads.belong_to(Some(user));
        shares::belong_to(&self.core, user, &self.downloads.of(user));
        Ok(Answer::Said { message })
    }

    fn logout(&self) -> Result<Answer, Fault> {
        let _turn = lock(&self.turn);
        let told = self.told(Command::Logout);
        if told.as_ref().is_err_and(|fault| fault.exit != Exit::NotLoggedIn) {
            return told;
        }
        self.core.trackers.forget_session();
        self.core.peer.trust_nobody()?;
        self.downloads.belong_to(None);
        told
    }

    fn whoami(&self) -> Result<Answer, Fault> {
        let (answer, _) = self.ask::<WhoamiAnswer>(Command::Whoami)?;
        // A command that is its own node shares nothing: the address would be that of an earlier process.
        let address = answer.address.filter(|_| self.core.peer.running().is_some());
        Ok(Answer::Whoami { user: answer.user_id.to_string(), address })
    }

    fn join(&self, group: &str) -> Result<Answer, Fault> {
        let (answer, message) = self.ask::<JoinAnswer>(Command::JoinGroup { group: group_id(group)? })?;
        Ok(Answer::Joined { group: group.to_owned(), pending: answer.pending, message })
    }

    fn leave(&self, group: &str) -> Result<Answer, Fault> {
        let told = self.told(Command::LeaveGroup { group: group_id(group)? })?;
        shares::drop_shares(&self.core, |key, _| key.group.as_str() == group);
        Ok(told)
    }

    fn list_groups(&self) -> Result<Answer, Fault> {
        let (answer, _) = self.ask::<GroupsAnswer>(Command::ListGroups)?;
        let groups = answer.groups.into_iter().map(|entry| GroupRow {
            group: entry.group_id.to_string(),
            owner: entry.owner.to_string(),
            policy: match entry.policy {
                Policy::Open => "open".into(),
                Policy::Approval => "approval".into(),
            },
            members: entry.members,
            member: entry.is_member,
        });
        Ok(Answer::Groups { groups: groups.collect() })
    }

    fn list_requests(&self, group: String) -> Result<Answer, Fault> {
        let command = Command::ListRequests { group: group_id(&group)? };
        let (answer, _) = self.ask::<RequestsAnswer>(command).map_err(owners_alone)?;
        let users = answer.pending_list.iter().map(ToString::to_string).collect();
        Ok(Answer::Requests { group, users })
    }

    fn remove_file(&self, at: &FileAt) -> Result<Answer, Fault> {
        let key = at.key()?;
        let told = self.told(Command::RemoveFile { file: key.clone() })?;
        // What was refused under its name was another file, and may be listed now.
        shares::drop_shares(&self.core, |served, stage| *served == key && stage != Stage::Refused);
        Ok(told)
    }

    fn list_files(&self, group: String) -> Result<Answer, Fault> {
        let command = Command::ListFiles { group: group_id(&group)?, after: None, count: None };
        let (answer, _) = self.ask::<FilesAnswer>(command)?;
        let files = answer.files.into_iter().map(|entry| FileRow {
            file: entry.file_name.to_string(),
            size_bytes: entry.file_size,
            sha1: (!entry.pieces_only).then(|| entry.file_sha.to_string()),
            seeders: entry.seeders,
            leechers: entry.leechers,
        });
        Ok(Answer::Files { group, files: files.collect() })
    }

    fn get_peers(&self, at: FileAt) -> Result<Answer, Fault> {
        let key = at.key()?;
        let command = Command::GetPeers { file: key.clone(), peer_key: None };
        let (answer, _) = self.ask::<PeersAnswer>(command)?;
        let peers =
            answer.peers.iter().map(|entry| PeerRow { address: entry.address(), complete: entry.complete });
        // The trackers leave out whoever asks.
        let only_here = answer.peers.is_empty() && shares::is_shared_whole(&self.core, &key);
        Ok(Answer::Peers { group: at.group, file: at.file, peers: peers.collect(), only_here })
    }

    fn download(&self, wish: &Wish, background: bool, events: &Events<'_>) -> Result<Answer, Fault> {
        match self.downloads.start(&self.core, wish, events)? {
            Start::Already { path, size_bytes } => {
                let (group, file) = (wish.key.group.to_string(), wish.key.name.to_string());
                Ok(Answer::AlreadyThere { group, file, path, size_bytes })
            }
            Start::UnderWay(entry) if background => Ok(Answer::Started(entry.transfer())),
            Start::UnderWay(entry) => following::follow(&self.core, &entry, events),
        }
    }

    fn steer(&self, at: &FileAt, how: Steer) -> Result<Answer, Fault> {
        steer(&self.core, &self.downloads, &at.key()?, how).map(|message| Answer::Said { message })
    }

    fn rows(&self) -> Vec<Transfer> {
        self.downloads.rows(self.core.trackers.user().as_deref())
    }

    fn status(&self) -> NodeRow {
        let engine = self.core.peer.running();
        let link = self.core.trackers.view();
        NodeRow {
            pid: std::process::id(),
            listen: engine.as_ref().map(Engine::listen_addr),
            io: engine.as_ref().map(|engine| engine.io_name().to_owned()),
            zero_copy: engine.as_ref().map(|engine| view::zero_copy(engine.zero_copy())),
            hash: engine.as_ref().map(|engine| engine.hash_name().to_owned()),
            user: self.core.trackers.user(),
            tracker: link.tracker,
            waits_for: self.waits_for(),
            shares: self.share_rows(engine.as_ref()),
            downloads: self.rows(),
            troubles: self.core.records.troubles(),
        }
    }

    /// What is served, and what is not although it is to be.
    fn share_rows(&self, engine: Option<&Engine>) -> Vec<ShareRow> {
        let mut rows: Vec<ShareRow> =
            engine.into_iter().flat_map(Engine::shares).map(|share| view::share(&share)).collect();
        let own = self.core.registry.of(&self.core.trackers.user().unwrap_or_default());
        rows.extend(own.iter().filter_map(|known| {
            let why = match (&known.standing, known.shared.stage) {
                (_, Stage::Refused) => restore::refused_because(&known.shared),
                (Standing::Away { why, .. }, _) => why.clone(),
                (_, Stage::Unlisted) => "the trackers have not taken it yet".to_owned(),
                _ => return None,
            };
            Some(view::absent(&engine_key(&known.shared.key), why))
        }));
        rows
    }

    /// What the node lacks, in words.
    pub(super) fn waits_for(&self) -> Vec<String> {
        let login = self.core.trackers.user().is_none().then(|| "a login (`client login USER`)".to_owned());
        let trouble = self.core.trackers.view().trouble.map(|why| format!("a tracker ({why})"));
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

/// A refusal says who may: joining the group, which a stranger is told otherwise, would not help.
fn owners_alone(fault: Fault) -> Fault {
    match fault.exit {
        Exit::NotAllowed => fault.fix("ask the group's owner: `list_groups --json` shows who that is"),
        _ => fault,
    }
}
