//! What an action wishes for: a digest by which a retry is told from another request under the same id.
//!
//! Invariant: what a server adds on its own, anew with each try (a node's address and key, the random name of an upload's
//! parts, a password's salted hash), is left out, so a retry has the digest of its first try; all else is in it.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::command::{LogAction, ManifestEnd};

/// The SHA-256 over the JSON form of what the action wishes for.
pub(super) fn digest_request(action: &LogAction) -> [u8; 32] {
    match action {
        LogAction::CreateUser { user, .. } => digest_json(&("create_user", user)),
        LogAction::Login { user, .. } => digest_json(&("login", user)),
        LogAction::ChangePassword { .. } => digest_json(&("change_password",)),
        LogAction::Resume { .. } => digest_json(&("resume",)),
        LogAction::UploadPart { first, part, .. } => digest_json(&("upload_part", first, part)),
        LogAction::Upload { file, manifest, .. } => {
            digest_json(&("upload", file, ManifestEnd { upload: None, ..manifest.clone() }))
        }
        LogAction::Complete { file, .. } => digest_json(&("complete", file)),
        LogAction::StopShare { file, .. } => digest_json(&("stop_share", file)),
        LogAction::Logout
        | LogAction::CreateGroup { .. }
        | LogAction::JoinGroup { .. }
        | LogAction::AcceptRequest { .. }
        | LogAction::RejectRequest { .. }
        | LogAction::RemoveMember { .. }
        | LogAction::LeaveGroup { .. }
        | LogAction::RemoveFile { .. }
        | LogAction::Expire => digest_json(action),
    }
}

fn digest_json(wish: &impl Serialize) -> [u8; 32] {
    let mut hashing = HashingWriter(Sha256::new());
    serde_json::to_writer(&mut hashing, wish)
        .expect("actions have string keys alone, and hashing takes every byte");
    hashing.0.finalize().into()
}

/// Hashes what is written to it.
struct HashingWriter(Sha256);

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
