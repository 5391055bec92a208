//! Parses the text of one JSON object into a [`Request`]. Every check of a field's own value is made here.

use std::net::SocketAddr;

use engine::proto::hex;
use engine::proto::manifest::{FileName, FileProof, Manifest};
use engine::proto::ticket::PeerKey;
use engine::proto::units::{ChainState, Digest, PieceCount, PieceIndex, PieceRange};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::address::{self, ClaimedAddress};
use super::any_json::JsonScalar;
use super::failure::{FailureCode, RequestFailure};
use super::fields::RequestFields;
use super::limits::{PASSWORD_MAX_BYTES, REASON_MAX_BYTES, REQUEST_ID_MAX_BYTES, SESSION_MAX_BYTES};
use super::request::{
    BadRequest, Command, DownloadView, GainedPieces, ListPage, Password, PiecePage, Request,
};
use super::upload_part::UploadPart;
use crate::state::command::Policy;
use crate::state::id::{GroupFile, GroupId, UserId};

impl Request {
    /// Parses one JSON object whose depth the [codec](super::codec) has limited.
    ///
    /// # Errors
    /// [`BadRequest`]: with code `syntax` for text that is not JSON, else it names the field.
    pub fn parse(text: &[u8]) -> Result<Request, BadRequest> {
        let mut fields = RequestFields::read(text).map_err(|error| BadRequest {
            request_id: None,
            failure: RequestFailure::new(FailureCode::Syntax, format!("the request is not JSON: {error}")),
        })?;
        let request_id =
            read_request_id(&fields).map_err(|failure| BadRequest { request_id: None, failure })?;
        match read_envelope(&mut fields) {
            Ok((session, sender, command)) => Ok(Request { command, request_id, session, sender }),
            Err(failure) => Err(BadRequest { request_id, failure }),
        }
    }
}

/// Reads what [`Serialize`](serde::Serialize) writes. Checks and error texts are those of a request.
impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Command, D::Error> {
        let mut fields = RequestFields::deserialize(from)?;
        fields.check_args().and_then(|()| read_command(&mut fields)).map_err(D::Error::custom)
    }
}

fn read_request_id(fields: &RequestFields) -> Result<Option<Value>, RequestFailure> {
    match fields.scalar("request_id") {
        None => Ok(None),
        Some(JsonScalar::Text(text)) if text.len() <= REQUEST_ID_MAX_BYTES => {
            Ok(Some(Value::from(text.as_str())))
        }
        Some(JsonScalar::Number(number)) => Ok(Some(Value::from(*number))),
        Some(JsonScalar::Negative(number)) => Ok(Some(Value::from(*number))),
        Some(_) => {
            let rule = format!("must be a whole number or a string of at most {REQUEST_ID_MAX_BYTES} bytes");
            Err(RequestFailure::field("request_id", rule))
        }
    }
}

type Envelope = (Option<String>, Option<ClaimedAddress>, Command);

fn read_envelope(fields: &mut RequestFields) -> Result<Envelope, RequestFailure> {
    fields.check_args()?;
    let session = fields.optional_text("session")?.map(str::to_owned);
    if session.as_ref().is_some_and(|token| token.len() > SESSION_MAX_BYTES) {
        return Err(RequestFailure::field("session", "is longer than any token of these trackers"));
    }
    let sender = read_sender(fields)?;
    Ok((session, sender, read_command(fields)?))
}

/// An empty string counts as missing: the original client sends it before it listens.
fn read_sender(fields: &RequestFields) -> Result<Option<ClaimedAddress>, RequestFailure> {
    let ip = match fields.optional_text("sender_ip")? {
        None | Some("") => None,
        Some(text) => Some(address::parse_ip(text).map_err(|bad| RequestFailure::field("sender_ip", bad))?),
    };
    if matches!(fields.scalar("sender_port"), Some(JsonScalar::Text(text)) if text.is_empty()) {
        return Ok(None);
    }
    Ok(read_port(fields, "sender_port")?.map(|port| ClaimedAddress { ip, port }))
}

fn read_port(fields: &RequestFields, name: &'static str) -> Result<Option<u16>, RequestFailure> {
    let number = fields.optional_number(name)?;
    let checked = |number: u64| u16::try_from(number).ok().filter(|port| *port != 0);
    number
        .map(|number| checked(number).ok_or_else(|| RequestFailure::field(name, address::BadAddress::Port)))
        .transpose()
}

fn read_command(fields: &mut RequestFields) -> Result<Command, RequestFailure> {
    let word = fields.text("command")?.to_owned();
    Ok(match word.as_str() {
        "create_user" => {
            Command::CreateUser { user: read_user(fields)?, password: read_password(fields, "passwd")? }
        }
        "login" => Command::Login {
            user: read_user(fields)?,
            password: read_password(fields, "passwd")?,
            peer_key: read_peer_key(fields)?,
        },
        "logout" => Command::Logout,
        "create_group" => Command::CreateGroup { group: read_group(fields)?, policy: read_policy(fields)? },
        "join_group" => Command::JoinGroup { group: read_group(fields)? },
        "list_requests" => Command::ListRequests {
            group: read_group(fields)?,
            page: read_page(fields, |name| {
                UserId::new(name).map_err(|bad| RequestFailure::field("after", bad))
            })?,
        },
        "accept_request" => Command::AcceptRequest { group: read_group(fields)?, user: read_user(fields)? },
        "reject_request" => Command::RejectRequest { group: read_group(fields)?, user: read_user(fields)? },
        "remove_member" => Command::RemoveMember { group: read_group(fields)?, user: read_user(fields)? },
        "leave_group" => Command::LeaveGroup { group: read_group(fields)? },
        "list_groups" => Command::ListGroups {
            page: read_page(fields, |name| {
                GroupId::new(name).map_err(|bad| RequestFailure::field("after", bad))
            })?,
        },
        "upload_file" => read_upload(fields)?,
        "download_file" => read_download(fields)?,
        "list_files" => Command::ListFiles {
            group: read_group(fields)?,
            page: read_page(fields, |name| check_file_name("after", name))?,
        },
        "stop_share" => Command::StopShare { file: read_file(fields)?, content: read_content(fields)? },
        "remove_file" => Command::RemoveFile { file: read_file(fields)? },
        "update_pieces" => Command::UpdatePieces {
            file: read_file(fields)?,
            content: read_content(fields)?,
            gained: read_gained(fields)?,
        },
        "download_confirm" => Command::UpdatePieces {
            file: read_file(fields)?,
            content: read_content(fields)?,
            gained: GainedPieces::Complete,
        },
        "get_peers" => Command::GetPeers {
            file: read_file(fields)?,
            content: read_content(fields)?,
            peer_key: read_peer_key(fields)?,
        },
        "report_peer" => read_report(fields)?,
        "ping" => Command::Ping,
        "go_offline" => Command::GoOffline,
        "status" => Command::Status,
        "whoami" => Command::Whoami,
        "check_address" => Command::CheckAddress { peer_key: read_peer_key(fields)? },
        "change_password" => Command::ChangePassword {
            old: read_password(fields, "passwd")?,
            new: read_password(fields, "new_passwd")?,
        },
        unknown => {
            let unknown: String = unknown.chars().take(64).collect();
            return Err(RequestFailure::new(
                FailureCode::UnknownCommand,
                format!("there is no command {unknown:?}"),
            ));
        }
    })
}

fn read_page<N>(
    fields: &RequestFields,
    read_name: impl FnOnce(&str) -> Result<N, RequestFailure>,
) -> Result<ListPage<N>, RequestFailure> {
    let after = fields.optional_text("after")?.map(read_name).transpose()?;
    Ok(ListPage { after, count: fields.optional_u32("count")? })
}

fn read_user(fields: &RequestFields) -> Result<UserId, RequestFailure> {
    UserId::new(fields.text("user_id")?).map_err(|bad| RequestFailure::field("user_id", bad))
}

fn read_group(fields: &RequestFields) -> Result<GroupId, RequestFailure> {
    GroupId::new(fields.text("group_id")?).map_err(|bad| RequestFailure::field("group_id", bad))
}

fn read_password(fields: &RequestFields, name: &'static str) -> Result<Password, RequestFailure> {
    Password::new(fields.text(name)?)
        .ok_or_else(|| RequestFailure::field(name, format!("a password has 1 to {PASSWORD_MAX_BYTES} bytes")))
}

fn read_policy(fields: &RequestFields) -> Result<Policy, RequestFailure> {
    match fields.optional_text("policy")? {
        None | Some("open") => Ok(Policy::Open),
        Some("approval") => Ok(Policy::Approval),
        Some(_) => Err(RequestFailure::field("policy", "must be \"open\" or \"approval\"")),
    }
}

fn read_peer_key(fields: &RequestFields) -> Result<Option<PeerKey>, RequestFailure> {
    let Some(text) = fields.optional_text("peer_key")? else { return Ok(None) };
    let key =
        hex::parse_hex(text).ok_or_else(|| RequestFailure::field("peer_key", "must be 64 hex digits"))?;
    Ok(Some(PeerKey(key)))
}

fn check_file_name(field: &str, name: &str) -> Result<FileName, RequestFailure> {
    FileName::new(name).map_err(|bad| RequestFailure::field(field, bad))
}

fn read_file(fields: &RequestFields) -> Result<GroupFile, RequestFailure> {
    Ok(GroupFile {
        group: read_group(fields)?,
        name: check_file_name("file_name", fields.text("file_name")?)?,
    })
}

/// The content that a request about a listed file means: `fileSha` as `list_files` shows it, or the joined hashes of the pieces,
/// as an upload without the SHA-1 of the whole gives them.
fn read_content(fields: &RequestFields) -> Result<Option<Digest>, RequestFailure> {
    const RULE: &str = "must be the 40 hex digits of the file's SHA-1, or the joined hashes of its pieces";
    let Some(text) = fields.optional_text("fileSha")?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (parts, rest) = text.as_bytes().as_chunks::<40>();
    let digest = |part: &[u8; 40]| std::str::from_utf8(part).ok()?.parse::<Digest>().ok();
    let digests: Option<Vec<Digest>> = parts.iter().map(digest).collect();
    match digests {
        Some(digests) if rest.is_empty() => Ok(Some(match digests[..] {
            [whole] => whole,
            _ => FileProof::of_pieces(&digests).id(),
        })),
        _ => Err(RequestFailure::field("fileSha", RULE)),
    }
}

/// Name of an uploaded file: given, or the last part of a path.
fn read_upload_name(fields: &RequestFields) -> Result<FileName, RequestFailure> {
    if let Some(name) = fields.optional_text("file_name")? {
        return check_file_name("file_name", name);
    }
    let Some(path) = fields.optional_text("file_path")? else {
        return Err(RequestFailure::field("file_name", "is missing"));
    };
    check_file_name("file_path", path.rsplit('/').next().unwrap_or_default())
}

fn read_upload(fields: &mut RequestFields) -> Result<Command, RequestFailure> {
    let (group, name) = (read_group(fields)?, read_upload_name(fields)?);
    if UploadPart::is_part(fields)? {
        let part = Box::new(UploadPart::read(fields, name)?);
        return Ok(Command::UploadPart { group, part, peer_key: read_peer_key(fields)? });
    }
    let length = fields.optional_number("file_size")?;
    let digests: Vec<Digest> = fields
        .hashes("piecewise_sha")?
        .ok_or_else(|| RequestFailure::field("piecewise_sha", "is missing"))?;
    let chain: Option<Vec<ChainState>> = fields.hashes("file_chain")?;
    let proof = read_file_proof(fields.text("fileSha")?, &digests)?;
    let manifest = Manifest::new(name, length, digests, proof, chain)
        .map_err(|bad| RequestFailure::field("piecewise_sha", bad))?;
    Ok(Command::UploadFile { group, manifest: Box::new(manifest), peer_key: read_peer_key(fields)? })
}

/// 40 hex digits are the SHA-1 of the file. The pieces' hashes joined, as the original client sends them, prove the pieces
/// only.
fn read_file_proof(text: &str, digests: &[Digest]) -> Result<FileProof, RequestFailure> {
    let refuse = |problem: &str| Err(RequestFailure::field("fileSha", problem));
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

fn read_download(fields: &RequestFields) -> Result<Command, RequestFailure> {
    let view = match fields.optional_text("view")? {
        None | Some("classic") => DownloadView::Classic,
        Some("compact") => DownloadView::Compact,
        Some(_) => return Err(RequestFailure::field("view", "must be \"compact\", or left out")),
    };
    let part = PiecePage {
        first: PieceIndex(fields.optional_u32("first")?.unwrap_or(0)),
        count: fields.optional_u32("count")?.map(PieceCount),
    };
    if part.count == Some(PieceCount(0)) {
        return Err(RequestFailure::field("count", "must be 1 or more, or left out"));
    }
    Ok(Command::DownloadFile {
        file: read_file(fields)?,
        content: read_content(fields)?,
        view,
        part,
        peer_key: read_peer_key(fields)?,
    })
}

fn read_gained(fields: &mut RequestFields) -> Result<GainedPieces, RequestFailure> {
    if fields.flag("complete")? {
        return Ok(GainedPieces::Complete);
    }
    let Some(pairs) = fields.ranges()? else { return Ok(GainedPieces::Complete) };
    let range = |(first, last): (u64, u64)| {
        let (first, last) = (u32::try_from(first).ok()?, u32::try_from(last).ok()?);
        PieceRange::new(PieceIndex(first), PieceIndex(last))
    };
    let ranges: Option<Vec<PieceRange>> = pairs.into_iter().map(range).collect();
    ranges
        .map(GainedPieces::Ranges)
        .ok_or_else(|| RequestFailure::field("ranges", "a range runs from its first piece to its last"))
}

fn read_report(fields: &RequestFields) -> Result<Command, RequestFailure> {
    let ip = address::parse_ip(fields.text("ip")?).map_err(|bad| RequestFailure::field("ip", bad))?;
    let port = read_port(fields, "port")?.ok_or_else(|| RequestFailure::field("port", "is missing"))?;
    let reason = fields.optional_text("reason")?.unwrap_or_default();
    if reason.len() > REASON_MAX_BYTES {
        return Err(RequestFailure::field("reason", format!("has more than {REASON_MAX_BYTES} bytes")));
    }
    Ok(Command::ReportPeer {
        file: read_file(fields)?,
        content: read_content(fields)?,
        peer: SocketAddr::new(ip, port),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
