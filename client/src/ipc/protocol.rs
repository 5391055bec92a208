//! The messages between front end and node.
//!
//! A node begins each connection with [`NodeMessage::Hello`]. Then the front end sends one [`NodeRequest`] at a time; the node
//! answers with any number of [`NodeEvent`]s and one [`NodeMessage::Done`] or [`NodeMessage::Failed`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracker::api::GroupFile;
use tracker::api::request::Command;

use super::rows::{FileListRow, GroupListRow, NodeStatus, PeerRow, ReachabilityRow, TransferRow};
use crate::exit::ClientFault;

/// A request of a front end. Paths are absolute, since the node may run in another directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum NodeRequest {
    /// Send a command to the trackers in this node's session, and do the node's part of it.
    Control {
        command: Command,
    },
    /// Hash a local file, list it as `file`, and serve it.
    Upload {
        file: GroupFile,
        #[serde(with = "super::path_form")]
        path: PathBuf,
    },
    /// Download a file. `background`: answer as soon as the download has started.
    Download {
        file: GroupFile,
        destination: PathBuf,
        overwrite: bool,
        background: bool,
    },
    ShowDownloads,
    Pause(GroupFile),
    Resume(GroupFile),
    Cancel(GroupFile),
    Status,
    /// Have the tracker call this node back.
    CheckAddress,
    /// Send notices from now on. This request has no answer.
    Watch,
    /// Stop the node.
    Stop,
}

impl From<Command> for NodeRequest {
    fn from(command: Command) -> NodeRequest {
        NodeRequest::Control { command }
    }
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
    Reachability(ReachabilityRow),
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::FileName;
    use tracker::api::request::Password;
    use tracker::api::{GroupId, UserId};

    use super::*;
    use crate::exit::ExitCause;

    #[test]
    fn each_message_is_one_flat_object() {
        let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        let lines = [
            (
                serde_json::to_string(&NodeRequest::Pause(file)).unwrap(),
                r#"{"ask":"pause","group":"g","name":"f"}"#,
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
    fn a_path_that_is_not_utf_8_reads_back() {
        use std::os::unix::ffi::OsStrExt;
        let file = GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() };
        for (bytes, form) in [(&b"/caf\xe9"[..], r#"{"bytes":"2f636166e9"}"#), (b"/a b", r#""/a b""#)] {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
            let request = NodeRequest::Upload { file: file.clone(), path };
            let line = serde_json::to_string(&request).unwrap();
            assert!(line.contains(form), "{line}");
            assert_eq!(serde_json::from_str::<NodeRequest>(&line).unwrap(), request);
        }
        for wrong in ["7", r#"{"bytes":"2"}"#, r#"{"bytes":"zz"}"#, r#"{"bytes":"+1"}"#, r#"{"bytes":"é1"}"#]
        {
            let line = format!(r#"{{"ask":"upload","file":{{"group":"g","name":"f"}},"path":{wrong}}}"#);
            assert!(serde_json::from_str::<NodeRequest>(&line).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_control_command_reads_back_and_hides_its_password() {
        let (user, password) = (UserId::new("u").unwrap(), Password::new("hunter2").unwrap());
        let request = NodeRequest::from(Command::Login { user, password, peer_key: None });
        assert!(!format!("{request:?}").contains("hunter2"));
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<NodeRequest>(&line).unwrap(), request);
    }
}
