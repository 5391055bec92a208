//! From the text of one JSON object to a [`Request`]: every check of a field's own value is made here, and nowhere else.

use std::net::SocketAddr;

use engine::proto::hex;
use engine::proto::manifest::{FileName, FileProof, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::{ChainState, Digest, PieceCount, PieceIndex, PieceRange};
use serde_json::Value;

use super::address::{self, Sender};
use super::failure::{Failure, FailureCode};
use super::fields::Fields;
use super::limits::{PASSWORD_MAX_BYTES, REASON_MAX_BYTES, REQUEST_ID_MAX_BYTES, SESSION_MAX_BYTES};
use super::loose::Scalar;
use super::parts::UploadPart;
use super::request::{BadRequest, Command, Gained, Part, Password, Request, View};
use crate::state::command::Policy;
use crate::state::id::{FileKey, GroupId, UserId};

impl Request {
    /// Reads the text of one JSON object. Its depth has been limited by the [codec](super::codec).
    ///
    /// # Errors
    /// [`BadRequest`]: with code `syntax` for text that is no JSON, else naming the field.
    pub fn parse(text: &[u8]) -> Result<Request, BadRequest> {
        let mut fields = Fields::read(text).map_err(|error| BadRequest {
            request_id: None,
            failure: Failure::new(FailureCode::Syntax, format!("the request is no JSON: {error}")),
        })?;
        let request_id = request_id(&fields).map_err(|failure| BadRequest { request_id: None, failure })?;
        match envelope_and_command(&mut fields) {
            Ok((session, sender, command)) => Ok(Request { command, request_id, session, sender }),
            Err(failure) => Err(BadRequest { request_id, failure }),
        }
    }
}

fn request_id(fields: &Fields) -> Result<Option<Value>, Failure> {
    match fields.scalar("request_id") {
        None => Ok(None),
        Some(Scalar::Text(text)) if text.len() <= REQUEST_ID_MAX_BYTES => {
            Ok(Some(Value::from(text.as_str())))
        }
        Some(Scalar::Number(number)) => Ok(Some(Value::from(*number))),
        Some(Scalar::Negative(number)) => Ok(Some(Value::from(*number))),
        Some(_) => {
            let rule = format!("must be a whole number or a string of at most {REQUEST_ID_MAX_BYTES} bytes");
            Err(Failure::field("request_id", rule))
        }
    }
}

type Envelope = (Option<String>, Option<Sender>, Command);

fn envelope_and_command(fields: &mut Fields) -> Result<Envelope, Failure> {
    fields.check_args()?;
    let session = fields.optional_text("session")?.map(str::to_owned);
    if session.as_ref().is_some_and(|token| token.len() > SESSION_MAX_BYTES) {
        return Err(Failure::field("session", "is longer than any token of these trackers"));
    }
    let sender = sender(fields)?;
    Ok((session, sender, command(fields)?))
}

/// Empty strings count as missing, since the original client sends them before it listens.
fn sender(fields: &Fields) -> Result<Option<Sender>, Failure> {
    let ip = match fields.optional_text("sender_ip")? {
        None | Some("") => None,
        Some(text) => Some(address::parse_ip(text).map_err(|bad| Failure::field("sender_ip", bad))?),
    };
    if matches!(fields.scalar("sender_port"), Some(Scalar::Text(text)) if text.is_empty()) {
        return Ok(None);
    }
    Ok(port(fields, "sender_port")?.map(|port| Sender { ip, port }))
}

fn port(fields: &Fields, name: &'static str) -> Result<Option<u16>, Failure> {
    let number = fields.optional_number(name)?;
    let checked = |number: u64| u16::try_from(number).ok().filter(|port| *port != 0);
    number
        .map(|number| checked(number).ok_or_else(|| Failure::field(name, address::BadAddress::Port)))
        .transpose()
}

fn command(fields: &mut Fields) -> Result<Command, Failure> {
    let word = fields.text("command")?.to_owned();
    Ok(match word.as_str() {
        "create_user" => Command::CreateUser { user: user(fields)?, password: password(fields, "passwd")? },
        "login" => Command::Login {
            user: user(fields)?,
            password: password(fields, "passwd")?,
            peer_key: peer_key(fields)?,
        },
        "logout" => Command::Logout,
        "create_group" => Command::CreateGroup { group: group(fields)?, policy: policy(fields)? },
        "join_group" => Command::JoinGroup { group: group(fields)? },
        "list_requests" => Command::ListRequests { group: group(fields)? },
        "accept_request" => Command::AcceptRequest { group: group(fields)?, user: user(fields)? },
        "reject_request" => Command::RejectRequest { group: group(fields)?, user: user(fields)? },
        "remove_member" => Command::RemoveMember { group: group(fields)?, user: user(fields)? },
        "leave_group" => Command::LeaveGroup { group: group(fields)? },
        "list_groups" => Command::ListGroups,
        "upload_file" => upload(fields)?,
        "download_file" => download(fields)?,
        "list_files" => Command::ListFiles {
            group: group(fields)?,
            after: fields.optional_text("after")?.map(|name| file_name("after", name)).transpose()?,
            count: fields.optional_u32("count")?,
        },
        "stop_share" => Command::StopShare { file: file(fields)? },
        "remove_file" => Command::RemoveFile { file: file(fields)? },
        "update_pieces" => Command::UpdatePieces { file: file(fields)?, gained: gained(fields)? },
        "download_confirm" => Command::UpdatePieces { file: file(fields)?, gained: Gained::Complete },
        "get_peers" => Command::GetPeers { file: file(fields)?, peer_key: peer_key(fields)? },
        "report_peer" => report(fields)?,
        "ping" => Command::Ping,
        "status" => Command::Status,
        "whoami" => Command::Whoami,
        "change_password" => {
            Command::ChangePassword { old: password(fields, "passwd")?, new: password(fields, "new_passwd")? }
        }
        unknown => {
            let unknown: String = unknown.chars().take(64).collect();
            return Err(Failure::new(
                FailureCode::UnknownCommand,
                format!("there is no command {unknown:?}"),
            ));
        }
    })
}

fn user(fields: &Fields) -> Result<UserId, Failure> {
    UserId::new(fields.text("user_id")?).map_err(|bad| Failure::field("user_id", bad))
}

fn group(fields: &Fields) -> Result<GroupId, Failure> {
    GroupId::new(fields.text("group_id")?).map_err(|bad| Failure::field("group_id", bad))
}

fn password(fields: &Fields, name: &'static str) -> Result<Password, Failure> {
    Password::new(fields.text(name)?)
        .ok_or_else(|| Failure::field(name, format!("a password has 1 to {PASSWORD_MAX_BYTES} bytes")))
}

fn policy(fields: &Fields) -> Result<Policy, Failure> {
    match fields.optional_text("policy")? {
        None | Some("open") => Ok(Policy::Open),
        Some("approval") => Ok(Policy::Approval),
        Some(_) => Err(Failure::field("policy", "must be \"open\" or \"approval\"")),
    }
}

fn peer_key(fields: &Fields) -> Result<Option<PeerKey>, Failure> {
    let Some(text) = fields.optional_text("peer_key")? else { return Ok(None) };
    let key = hex::read(text).ok_or_else(|| Failure::field("peer_key", "must be 64 hex digits"))?;
    Ok(Some(PeerKey(key)))
}

fn file_name(field: &str, name: &str) -> Result<FileName, Failure> {
    FileName::new(name).map_err(|bad| Failure::field(field, bad))
}

fn file(fields: &Fields) -> Result<FileKey, Failure> {
    Ok(FileKey { group: group(fields)?, name: file_name("file_name", fields.text("file_name")?)? })
}

/// The name under which a file is uploaded: given, or the last part of a path.
fn upload_name(fields: &Fields) -> Result<FileName, Failure> {
    if let Some(name) = fields.optional_text("file_name")? {
        return file_name("file_name", name);
    }
    let Some(path) = fields.optional_text("file_path")? else {
        return Err(Failure::field("file_name", "is missing"));
    };
    file_name("file_path", path.rsplit('/').next().unwrap_or_default())
}

fn upload(fields: &mut Fields) -> Result<Command, Failure> {
    let (group, name) = (group(fields)?, upload_name(fields)?);
    if UploadPart::is_meant(fields)? {
        let part = Box::new(UploadPart::read(fields, name)?);
        return Ok(Command::UploadPart { group, part, peer_key: peer_key(fields)? });
    }
    let length = fields.optional_number("file_size")?;
    let digests: Vec<Digest> =
        fields.hashes("piecewise_sha")?.ok_or_else(|| Failure::field("piecewise_sha", "is missing"))?;
    let chain: Option<Vec<ChainState>> = fields.hashes("file_chain")?;
    let proof = file_proof(fields.text("fileSha")?, &digests)?;
    let manifest = Manifest::new(name, length, digests, proof, chain)
        .map_err(|bad| Failure::field("piecewise_sha", bad))?;
    Ok(Command::UploadFile { group, manifest: Box::new(manifest), peer_key: peer_key(fields)? })
}

/// Forty digits are the SHA-1 of the whole; forty for each piece are the pieces' own, joined, as the original client
/// sends them.
fn file_proof(text: &str, digests: &[Digest]) -> Result<FileProof, Failure> {
    let refuse = |problem: &str| Err(Failure::field("fileSha", problem));
    if digests.is_empty() && text.is_empty() {
        return Ok(FileProof::Whole(engine::proto::manifest::EMPTY_DIGEST));
    }
    if let Ok(whole) = text.parse::<Digest>() {
        return match digests {
            [only] if *only != whole => refuse("a file of one piece has the SHA-1 of that piece"),
            _ => Ok(FileProof::Whole(whole)),
        };
    }
    let joined = text.len() == 40 * digests.len()
        && text.is_ascii()
        && digests.iter().enumerate().all(|(index, digest)| {
            text[40 * index..40 * (index + 1)].parse::<Digest>().is_ok_and(|part| part == *digest)
        });
    if joined {
        Ok(FileProof::of_pieces(digests))
    } else {
        refuse("must be the 40 hex digits of the file's SHA-1, or the hashes of piecewise_sha joined")
    }
}

fn download(fields: &Fields) -> Result<Command, Failure> {
    let view = match fields.optional_text("view")? {
        None | Some("classic") => View::Classic,
        Some("compact") => View::Compact,
        Some(_) => return Err(Failure::field("view", "must be \"compact\", or left out")),
    };
    let part = Part {
        first: PieceIndex(fields.optional_u32("first")?.unwrap_or(0)),
        count: fields.optional_u32("count")?.map(PieceCount),
    };
    if part.count == Some(PieceCount(0)) {
        return Err(Failure::field("count", "must be 1 or more, or left out"));
    }
    Ok(Command::DownloadFile { file: file(fields)?, view, part, peer_key: peer_key(fields)? })
}

fn gained(fields: &mut Fields) -> Result<Gained, Failure> {
    if fields.flag("complete")? {
        return Ok(Gained::Complete);
    }
    let Some(pairs) = fields.ranges()? else { return Ok(Gained::Complete) };
    let range = |(first, last): (u64, u64)| {
        let (first, last) = (u32::try_from(first).ok()?, u32::try_from(last).ok()?);
        PieceRange::new(PieceIndex(first), PieceIndex(last))
    };
    let ranges: Option<Vec<PieceRange>> = pairs.into_iter().map(range).collect();
    ranges
        .map(Gained::Ranges)
        .ok_or_else(|| Failure::field("ranges", "a range runs from its first piece to its last"))
}

fn report(fields: &Fields) -> Result<Command, Failure> {
    let ip = address::parse_ip(fields.text("ip")?).map_err(|bad| Failure::field("ip", bad))?;
    let port = port(fields, "port")?.ok_or_else(|| Failure::field("port", "is missing"))?;
    let reason = fields.optional_text("reason")?.unwrap_or_default();
    if reason.len() > REASON_MAX_BYTES {
        return Err(Failure::field("reason", format!("has more than {REASON_MAX_BYTES} bytes")));
    }
    Ok(Command::ReportPeer {
        file: file(fields)?,
        peer: SocketAddr::new(ip, port),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
