//! Renders a [`Request`] as one line of JSON, and a [`Command`] as the same object without the envelope.

use engine::proto::hex::HexDigits;
use engine::proto::manifest::{FileName, FileProof, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::Digest;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::hashes::{self, HashForm, HashList};
use super::request::{Command, DownloadView, GainedPieces, ListPage, PiecePage, Request};
use crate::state::command::Policy;
use crate::state::id::{GroupFile, GroupId, UserId};

impl Request {
    /// The request as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = self.command.to_object();
        if let Some(id) = &self.request_id {
            object.insert("request_id".into(), id.clone());
        }
        if let Some(session) = &self.session {
            object.insert("session".into(), session.as_str().into());
        }
        if let Some(sender) = self.sender {
            if let Some(ip) = sender.ip {
                object.insert("sender_ip".into(), ip.to_string().into());
            }
            object.insert("sender_port".into(), sender.port.to_string().into());
        }
        Value::Object(object).to_string().into_bytes()
    }
}

impl Command {
    /// The fields `command` and `command_args`, with the hash lists of an upload beside them.
    fn to_object(&self) -> Map<String, Value> {
        let (word, args) = render_command(self);
        let mut object = Map::new();
        object.insert("command".into(), word.into());
        object.insert("command_args".into(), args);
        match self {
            Command::UploadFile { manifest, .. } => hash_lists(manifest, &mut object),
            Command::UploadPart { part, .. } => part.write_hashes(&mut object),
            _ => {}
        }
        object
    }
}

/// The request's object without the envelope.
impl Serialize for Command {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_object().serialize(to)
    }
}

fn render_command(command: &Command) -> (&'static str, Value) {
    match command {
        Command::CreateUser { user, password } => {
            ("create_user", json!({"user_id": user, "passwd": password.reveal()}))
        }
        Command::Login { user, password, peer_key } => {
            let args = json!({"user_id": user, "passwd": password.reveal()});
            ("login", with_key(args, *peer_key))
        }
        Command::Logout => ("logout", json!({})),
        Command::CreateGroup { group, policy } => {
            let policy = match policy {
                Policy::Open => "open",
                Policy::Approval => "approval",
            };
            ("create_group", json!({"group_id": group, "policy": policy}))
        }
        Command::JoinGroup { group } => ("join_group", json!({"group_id": group})),
        Command::ListRequests { group, page } => {
            ("list_requests", with_page(json!({"group_id": group}), page, UserId::as_str))
        }
        Command::AcceptRequest { group, user } => {
            ("accept_request", json!({"group_id": group, "user_id": user}))
        }
        Command::RejectRequest { group, user } => {
            ("reject_request", json!({"group_id": group, "user_id": user}))
        }
        Command::RemoveMember { group, user } => {
            ("remove_member", json!({"group_id": group, "user_id": user}))
        }
        Command::LeaveGroup { group } => ("leave_group", json!({"group_id": group})),
        Command::ListGroups { page } => ("list_groups", with_page(json!({}), page, GroupId::as_str)),
        Command::UploadFile { group, manifest, peer_key } => {
            let mut args = json!({"group_id": group, "file_name": manifest.name().as_str()});
            if manifest.is_length_known() {
                args["file_size"] = manifest.geometry().length().into();
            }
            ("upload_file", with_key(args, *peer_key))
        }
        Command::UploadPart { group, part, peer_key } => {
            let mut args = json!({"group_id": group});
            part.write_args(&mut args);
            ("upload_file", with_key(args, *peer_key))
        }
        Command::ListFiles { group, page } => {
            ("list_files", with_page(json!({"group_id": group}), page, FileName::as_str))
        }
        Command::Ping => ("ping", json!({})),
        Command::GoOffline => ("go_offline", json!({})),
        Command::Status => ("status", json!({})),
        Command::Whoami => ("whoami", json!({})),
        Command::CheckAddress { peer_key } => ("check_address", with_key(json!({}), *peer_key)),
        Command::ChangePassword { old, new } => {
            ("change_password", json!({"passwd": old.reveal(), "new_passwd": new.reveal()}))
        }
        of_one_file => render_file_command(of_one_file),
    }
}

/// Renders the commands about one listed file.
fn render_file_command(command: &Command) -> (&'static str, Value) {
    match command {
        Command::DownloadFile { file, content, view, part, peer_key } => {
            let args = with_content(download_args(file, *view, *part), *content);
            ("download_file", with_key(args, *peer_key))
        }
        Command::StopShare { file, content } => ("stop_share", with_content(file_args(file), *content)),
        Command::RemoveFile { file } => ("remove_file", file_args(file)),
        Command::UpdatePieces { file, content, gained } => {
            let mut args = with_content(file_args(file), *content);
            match gained {
                GainedPieces::Complete => args["complete"] = true.into(),
                GainedPieces::Ranges(ranges) => {
                    args["ranges"] = ranges.iter().map(|run| json!([run.first().0, run.last().0])).collect();
                }
            }
            ("update_pieces", args)
        }
        Command::GetPeers { file, content, peer_key } => {
            ("get_peers", with_key(with_content(file_args(file), *content), *peer_key))
        }
        Command::ReportPeer { file, content, peer, reason } => {
            let mut args = with_content(file_args(file), *content);
            args["ip"] = peer.ip().to_string().into();
            args["port"] = peer.port().into();
            args["reason"] = reason.as_str().into();
            ("report_peer", args)
        }
        other => unreachable!("{other:?} is not about a listed file: render_command renders it"),
    }
}

fn file_args(file: &GroupFile) -> Value {
    json!({"group_id": file.group, "file_name": file.name.as_str()})
}

fn download_args(file: &GroupFile, view: DownloadView, part: PiecePage) -> Value {
    let mut args = file_args(file);
    if view == DownloadView::Compact {
        args["view"] = "compact".into();
    }
    if part.first.0 != 0 {
        args["first"] = part.first.0.into();
    }
    if let Some(count) = part.count {
        args["count"] = count.0.into();
    }
    args
}

fn with_content(mut args: Value, content: Option<Digest>) -> Value {
    if let Some(content) = content {
        args["fileSha"] = content.to_string().into();
    }
    args
}

fn with_page<N>(mut args: Value, page: &ListPage<N>, name: impl Fn(&N) -> &str) -> Value {
    if let Some(after) = &page.after {
        args["after"] = name(after).into();
    }
    if let Some(count) = page.count {
        args["count"] = count.into();
    }
    args
}

fn with_key(mut args: Value, peer_key: Option<PeerKey>) -> Value {
    if let Some(key) = peer_key {
        args["peer_key"] = HexDigits::of(&key.0).as_str().into();
    }
    args
}

/// Adds an upload's hashes beside `command_args`, as in the original protocol.
fn hash_lists(manifest: &Manifest, object: &mut Map<String, Value>) {
    let digests = manifest.digests().to_vec();
    let form = HashForm::for_len(digests.len());
    let proof = match manifest.proof() {
        FileProof::Whole(digest) => digest.to_string(),
        FileProof::PiecesOnly(_) => hashes::joined_hex(&digests),
    };
    object.insert("piecewise_sha".into(), json!(HashList { form, values: digests }));
    object.insert("fileSha".into(), proof.into());
    if let Some(chain) = manifest.chain() {
        object.insert("file_chain".into(), json!(HashList { form, values: chain.to_vec() }));
    }
}
