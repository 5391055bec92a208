//! What an action wishes for: a digest by which a retry is told from another request under the same id.
//!
//! Invariant: what a server adds on its own, anew with each try (a node's address and key, the random name of an upload's
//! parts, a password's salted hash), is left out, so a retry has the digest of its first try; all else is in it.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::command::{Action, ManifestEnd};

/// The SHA-256 over the JSON form of what the action wishes for.
pub(super) fn digest(action: &Action) -> [u8; 32] {
    match action {
        Action::CreateUser { user, .. } => of(&("create_user", user)),
        Action::Login { user, .. } => of(&("login", user)),
        Action::ChangePassword { .. } => of(&("change_password",)),
        Action::Resume { .. } => of(&("resume",)),
        Action::UploadPart { first, part, .. } => of(&("upload_part", first, part)),
        Action::Upload { file, manifest, .. } => {
            of(&("upload", file, ManifestEnd { upload: None, ..manifest.clone() }))
        }
        Action::Complete { file, .. } => of(&("complete", file)),
        Action::StopShare { file, .. } => of(&("stop_share", file)),
        Action::Logout
        | Action::CreateGroup { .. }
        | Action::JoinGroup { .. }
        | Action::AcceptRequest { .. }
        | Action::RejectRequest { .. }
        | Action::RemoveMember { .. }
        | Action::LeaveGroup { .. }
        | Action::RemoveFile { .. }
        | Action::Expire => of(action),
    }
}

fn of(wish: &impl Serialize) -> [u8; 32] {
    let mut hashing = Hashing(Sha256::new());
    serde_json::to_writer(&mut hashing, wish)
        .expect("actions have string keys alone, and hashing takes every byte");
    hashing.0.finalize().into()
}

/// Hashes what is written to it.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
