//! The messages between front end and node.
//!
//! A node begins each connection with [`NodeMessage::Hello`]. Then the front end sends one [`NodeRequest`] at a time; the node
//! answers with any number of [`NodeEvent`]s and one [`NodeMessage::Done`] or [`NodeMessage::Failed`].

use std::net::SocketAddr;
use std::path::PathBuf;

use engine::proto::manifest::FileName;
use serde::{Deserialize, Serialize};
use tracker::api::{GroupFile, GroupId};
use zeroize::Zeroize;

use super::rows::{FileListRow, GroupListRow, NodeStatus, PeerRow, TransferRow};
use crate::exit::{ClientFault, ExitCause};

/// A password: not shown by `Debug`, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretText(pub(crate) String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A file of a group, as typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    /// The group.
    pub(crate) group: String,
    /// The file's name there.
    pub(crate) file: String,
}

impl FileRef {
    /// The key, when the name can be a file's name.
    ///
    /// # Errors
    /// A usage fault for a name that no group or file may have.
    pub(crate) fn key(&self) -> Result<GroupFile, ClientFault> {
        let group = GroupId::new(&self.group).map_err(|bad| {
            ClientFault::new(ExitCause::Usage, format!("`{}` is no group: {bad}", self.group))
                .fix("`list_groups` shows the groups that there are")
        })?;
        Ok(GroupFile { group, name: FileName::new(&self.file)? })
    }
}

/// A request of a front end. Paths are absolute, since the node may run in another directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum NodeRequest {
    /// Make a user.
    CreateUser {
        user: String,
        password: SecretText,
    },
    /// Log in, for this node.
    Login {
        user: String,
        password: SecretText,
    },
    /// Change the password of who is logged in.
    ChangePassword {
        old: SecretText,
        new: SecretText,
    },
    /// Log out, and take this node's shares down.
    Logout,
    /// Make a group; `approval`: its owner admits each member.
    CreateGroup {
        group: String,
        approval: bool,
    },
    /// Join, or ask to.
    JoinGroup {
        group: String,
    },
    /// Leave.
    LeaveGroup {
        group: String,
    },
    ListGroups,
    ListRequests {
        group: String,
    },
    /// Admit somebody.
    AcceptRequest {
        group: String,
        user: String,
    },
    /// Decline a request to join.
    RejectRequest {
        group: String,
        user: String,
    },
    /// Remove a member.
    RemoveMember {
        group: String,
        user: String,
    },
    /// Take a file off the list.
    RemoveFile(FileRef),
    /// Hash a file, tell the trackers, and serve it.
    Upload {
        group: String,
        path: PathBuf,
    },
    /// Fetch a file. `background`: answer as soon as it is under way.
    Download {
        at: FileRef,
        destination: PathBuf,
        overwrite: bool,
        background: bool,
    },
    ListFiles {
        group: String,
    },
    /// Serve a file no longer.
    StopShare(FileRef),
    ShowDownloads,
    /// Pause a download.
    Pause(FileRef),
    /// Go on with it.
    Resume(FileRef),
    /// Give it up.
    Cancel(FileRef),
    /// Who has a file.
    GetPeers(FileRef),
    Whoami,
    Status,
    /// Tell notices from now on, without an end.
    Watch,
    /// End the node.
    Stop,
}

/// A message of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeMessage {
    /// First line: protocol version and process id.
    Hello { protocol: u32, pid: u32 },
    /// Progress or a notice.
    Event(NodeEvent),
    /// Success; the last message of a request.
    Done(NodeAnswer),
    /// Failure; the last message of a request.
    Failed(ClientFault),
}

/// Progress of a request, or a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "an event is made, written and dropped; few are kept at a time")]
pub(crate) enum NodeEvent {
    Hashing {
        file: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// A long file is being listed at the trackers, in parts.
    Listing {
        file: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// A file at the destination is being compared with the wanted one.
    Comparing {
        file: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// State of a download.
    Transfer(TransferRow),
    /// A message for the user.
    Notice {
        text: String,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum NodeAnswer {
    /// Success, described by the tracker or the node.
    Said {
        message: String,
    },
    /// `pending`: the owner must accept first.
    Joined {
        group: String,
        pending: bool,
        message: String,
    },
    Groups {
        groups: Vec<GroupListRow>,
    },
    Requests {
        group: String,
        users: Vec<String>,
    },
    Files {
        group: String,
        files: Vec<FileListRow>,
    },
    /// `only_here`: this node has the file and no other does.
    Peers {
        group: String,
        file: String,
        peers: Vec<PeerRow>,
        only_here: bool,
    },
    Whoami {
        user: String,
        address: Option<SocketAddr>,
    },
    /// The file is listed and served.
    Uploaded {
        group: String,
        file: String,
        size_bytes: u64,
        pieces: u32,
        sha1: String,
        hashing_ms: u64,
    },
    /// The download continues in the background.
    Started(TransferRow),
    /// The download is complete and synced to disk.
    Downloaded(TransferRow),
    /// The destination has the right file already.
    AlreadyThere {
        group: String,
        file: String,
        path: PathBuf,
        size_bytes: u64,
    },
    Downloads {
        downloads: Vec<TransferRow>,
    },
    Node(NodeStatus),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_flat_object_each() {
        let at = FileRef { group: "g".into(), file: "f".into() };
        let lines = [
            (
                serde_json::to_string(&NodeRequest::Pause(at)).unwrap(),
                r#"{"ask":"pause","group":"g","file":"f"}"#,
            ),
            (serde_json::to_string(&NodeRequest::Status).unwrap(), r#"{"ask":"status"}"#),
            (
                serde_json::to_string(&NodeMessage::Done(NodeAnswer::Said { message: "ok".into() })).unwrap(),
                r#"{"done":{"result":"said","message":"ok"}}"#,
            ),
            (
                serde_json::to_string(&NodeMessage::Failed(ClientFault::new(ExitCause::NotFound, "no")))
                    .unwrap(),
                r#"{"failed":{"exit":"not_found","message":"no"}}"#,
            ),
        ];
        for (line, wanted) in lines {
            assert_eq!(line, wanted);
        }
    }

    #[test]
    fn passwords_travel_and_are_not_shown() {
        let ask = NodeRequest::Login { user: "u".into(), password: SecretText("hunter2".into()) };
        assert!(!format!("{ask:?}").contains("hunter2"));
        let line = serde_json::to_string(&ask).unwrap();
        assert_eq!(serde_json::from_str::<NodeRequest>(&line).unwrap(), ask);
    }

    #[test]
    fn names_that_no_file_may_have_are_refused_before_anything_is_asked() {
        for file in ["..", "a/b", "", "x\u{202E}y"] {
            let at = FileRef { group: "g".into(), file: file.into() };
            assert_eq!(at.key().unwrap_err().exit, ExitCause::Usage, "{file:?}");
        }
    }
}
