//! Exit codes, and the error type of the client.
//!
//! Every failure that a user can see is a [`ClientFault`]. Errors of the engine are converted here, refusals of trackers in
//! `node::trackers::refusal`, and nowhere else.

use std::fmt;

use crate::printable::{escape_line, show_path};
use engine::error::StartError;
use engine::proto::manifest::BadFileName;
use engine::stats::{DownloadFailure, WaitReason, WithdrawalCause};
use engine::storage::error::{StorageError, StorageErrorKind};
use serde::{Deserialize, Serialize};
use tracker::api::failure::FailureCode;

/// Why the process ends. The numbers are the exit codes, a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub(crate) enum ExitCause {
    /// Success.
    Done = 0,
    /// A failure that no other code names.
    Other = 1,
    /// Wrong arguments, names or options.
    Usage = 2,
    NotLoggedIn = 3,
    /// Logged in, but not permitted.
    NotAllowed = 4,
    NotFound = 5,
    /// The name or the destination exists already.
    Exists = 6,
    NoTracker = 7,
    /// No reachable peer has the missing pieces.
    NoPeer = 8,
    DiskFull = 9,
    /// Local I/O error.
    LocalIo = 10,
    /// Received data does not match its digests, and no peer has better data.
    Corrupt = 11,
    /// No progress within `--wait`.
    NoProgress = 12,
    /// Incompatible protocol or version.
    Protocol = 13,
    /// A shared file changed since it was hashed.
    SourceChanged = 14,
    /// Ended by Ctrl-C; the work can be resumed.
    Interrupted = 130,
}

impl ExitCause {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// A failure as the user sees it: what happened, what to do next, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientFault {
    pub(crate) exit: ExitCause,
    /// What happened, and to what.
    pub(crate) message: String,
    /// What to type or do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
    /// The tracker's code when it refused this request. Never sent to a front end; set by `node::trackers::refusal`.
    #[serde(skip)]
    pub(crate) refusal_code: Option<FailureCode>,
}

impl ClientFault {
    pub(crate) fn new(exit: ExitCause, message: impl Into<String>) -> ClientFault {
        ClientFault { exit, message: message.into(), fix: None, refusal_code: None }
    }

    /// Adds what to do next.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> ClientFault {
        self.fix = Some(fix.into());
        self
    }

    pub(crate) fn no_thread(error: &std::io::Error) -> ClientFault {
        ClientFault::new(ExitCause::Other, format!("cannot start a thread: {error}"))
            .fix("raise the process limit (`ulimit -u`), or end some processes")
    }

    /// A connection of this process could not be duplicated.
    pub(crate) fn no_descriptor(error: std::io::Error) -> ClientFault {
        let kind = StorageErrorKind::from(error);
        ClientFault::new(ExitCause::LocalIo, format!("cannot watch for Ctrl-C: {kind}")).fix(kind.advice())
    }

    pub(crate) fn no_random(error: &getrandom::Error) -> ClientFault {
        ClientFault::new(ExitCause::LocalIo, format!("cannot get random bytes: {error}"))
            .fix("check that /dev/urandom exists, then try again")
    }

    /// The node is shutting down before the request was finished.
    pub(crate) fn ending() -> ClientFault {
        ClientFault::new(ExitCause::Interrupted, "the node is shutting down").fix("give the command again")
    }

    /// A failed operation on a local file: "cannot `what` `path`".
    pub(crate) fn io(what: &str, path: &std::path::Path, source: &std::io::Error) -> ClientFault {
        use std::io::ErrorKind;
        let exit = match source.kind() {
            ErrorKind::NotFound => ExitCause::NotFound,
            ErrorKind::AlreadyExists => ExitCause::Exists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ExitCause::DiskFull,
            _ => ExitCause::LocalIo,
        };
        let shown = show_path(path);
        match system_limit(source) {
            // Where to make room is known better by callers.
            Some(kind) if exit == ExitCause::DiskFull => {
                ClientFault::new(exit, format!("cannot {what} {shown}: {kind}"))
            }
            Some(kind) => ClientFault::new(exit, format!("cannot {what} {shown}: {kind}")).fix(kind.advice()),
            None => ClientFault::new(exit, format!("cannot {what} {shown}: {source}")),
        }
    }

    /// Adds what to do next, unless it is known better already.
    pub(crate) fn default_fix(self, fix: impl Into<String>) -> ClientFault {
        if self.fix.is_some() { self } else { self.fix(fix) }
    }
}

/// The limit or fault of the system behind an error, for which the path is not to blame.
fn system_limit(error: &std::io::Error) -> Option<StorageErrorKind> {
    let kind = StorageErrorKind::from(std::io::Error::from_raw_os_error(error.raw_os_error()?));
    (kind.is_in_system() && !matches!(kind, StorageErrorKind::Io(_))).then_some(kind)
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientFault {}

impl From<StartError> for ClientFault {
    fn from(error: StartError) -> ClientFault {
        if let StartError::Listen { source, .. } | StartError::System(source) = &error
            && let Some(kind) = system_limit(source)
        {
            return ClientFault::new(ExitCause::LocalIo, error.to_string()).fix(kind.advice());
        }
        let fix = match &error {
            StartError::Listen { .. } => "choose an address of this machine with `--listen IP[:PORT]`",
            StartError::Uring { .. } => "`--io auto` or `--io epoll`",
            StartError::Hash(_) => "`--hash auto`",
            StartError::System(_) => "raise the limits of processes and memory (`ulimit -a`), then try again",
        };
        ClientFault::new(ExitCause::LocalIo, error.to_string()).fix(fix)
    }
}

impl From<BadFileName> for ClientFault {
    fn from(error: BadFileName) -> ClientFault {
        ClientFault::new(ExitCause::Usage, error.to_string())
            .fix("give the file's name alone, as `list_files` shows it")
    }
}

impl From<StorageError> for ClientFault {
    fn from(error: StorageError) -> ClientFault {
        let exit = match &error.kind {
            StorageErrorKind::Missing | StorageErrorKind::NotADirectory => ExitCause::NotFound,
            StorageErrorKind::NotAFile(_) | StorageErrorKind::NameTooLong | StorageErrorKind::TooLong(_) => {
                ExitCause::Usage
            }
            StorageErrorKind::NoSpace { .. } | StorageErrorKind::QuotaFull { .. } => ExitCause::DiskFull,
            StorageErrorKind::Exists | StorageErrorKind::Claimed(_) => ExitCause::Exists,
            StorageErrorKind::Changed(_) => ExitCause::SourceChanged,
            StorageErrorKind::NotPermitted
            | StorageErrorKind::ReadOnly
            | StorageErrorKind::Locked
            | StorageErrorKind::Replaced
            | StorageErrorKind::Moved(_)
            | StorageErrorKind::DirectoryLost
            | StorageErrorKind::ChangedOutside
            | StorageErrorKind::WrongOwner
            | StorageErrorKind::FlushFailed
            | StorageErrorKind::NoAnswer
            | StorageErrorKind::TooLongToWrite(_)
            | StorageErrorKind::TooManyFiles(_)
            | StorageErrorKind::TooManyFilesInSystem
            | StorageErrorKind::NoMemory
            | StorageErrorKind::NoThreads
            | StorageErrorKind::NodeBusy(_)
            | StorageErrorKind::Stale
            | StorageErrorKind::Disconnected(_)
            | StorageErrorKind::DiskFailed(_)
            | StorageErrorKind::Io(_) => ExitCause::LocalIo,
        };
        ClientFault::new(exit, escape_line(&error.description())).fix(error.kind.advice())
    }
}

impl From<&WaitReason> for ClientFault {
    fn from(wait: &WaitReason) -> ClientFault {
        let (exit, fix) = match wait {
            WaitReason::NoPeers { troubles, .. } if !troubles.is_empty() => (
                ExitCause::NoPeer,
                "on the machine of such a peer `client doctor` says whether others reach it; `get_peers` shows each peer",
            ),
            WaitReason::NoPeers { .. } => {
                (ExitCause::NoPeer, "try again when a seeder is online (`list_files` shows how many)")
            }
            WaitReason::SourceChanged { .. } => (
                ExitCause::NoPeer,
                "try again when another seeder is online, or its file is as it was uploaded",
            ),
            WaitReason::BadPieces { .. } => (ExitCause::Corrupt, "try again when another seeder is online"),
            WaitReason::DiskFull { .. } | WaitReason::QuotaFull { .. } => {
                (ExitCause::DiskFull, "free space there, then give the same command to resume")
            }
            WaitReason::Io(_) => (ExitCause::LocalIo, "fix that, then give the same command to resume"),
            WaitReason::Ticket => {
                (ExitCause::NoTracker, "check the trackers with `client doctor`; the same command resumes")
            }
        };
        ClientFault::new(exit, escape_line(&wait.to_string())).fix(fix)
    }
}

impl From<&DownloadFailure> for ClientFault {
    fn from(failure: &DownloadFailure) -> ClientFault {
        let (exit, fix) = match failure {
            DownloadFailure::FalseManifest { .. } => {
                (ExitCause::Corrupt, "ask the uploader to remove the file and upload it again")
            }
            DownloadFailure::Exists { .. } => {
                (ExitCause::Exists, "choose another destination, or add `--overwrite`")
            }
            DownloadFailure::FileLost { advice, .. } => (ExitCause::LocalIo, *advice),
            DownloadFailure::Io(_) => (ExitCause::LocalIo, "fix that, then give the same command to resume"),
            DownloadFailure::Withdrawn { cause: WithdrawalCause::Removed, .. } => (
                ExitCause::NotFound,
                "`list_files GROUP` shows what there is; what was fetched stays beside the destination",
            ),
            DownloadFailure::Withdrawn { cause: WithdrawalCause::Replaced, .. } => (
                ExitCause::NotFound,
                "give the same command again to fetch what it is now; what was fetched of the other content stays beside \
                 the destination",
            ),
            DownloadFailure::Withdrawn { cause: WithdrawalCause::NotMember, .. } => {
                (ExitCause::NotAllowed, "`join_group GROUP`, then give the same command to resume")
            }
        };
        ClientFault::new(exit, escape_line(&failure.to_string())).fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_stable() {
        let numbers = [
            (ExitCause::Done, 0),
            (ExitCause::Other, 1),
            (ExitCause::Usage, 2),
            (ExitCause::NotLoggedIn, 3),
            (ExitCause::NotAllowed, 4),
            (ExitCause::NotFound, 5),
            (ExitCause::Exists, 6),
            (ExitCause::NoTracker, 7),
            (ExitCause::NoPeer, 8),
            (ExitCause::DiskFull, 9),
            (ExitCause::LocalIo, 10),
            (ExitCause::Corrupt, 11),
            (ExitCause::NoProgress, 12),
            (ExitCause::Protocol, 13),
            (ExitCause::SourceChanged, 14),
            (ExitCause::Interrupted, 130),
        ];
        for (exit, number) in numbers {
            assert_eq!(exit.code(), number, "{exit:?}");
        }
    }

    #[test]
    fn every_wait_and_failure_has_its_code_and_a_fix() {
        let troubles = engine::proto::PeerTroubles::default;
        let waits = [
            (WaitReason::NoPeers { missing: 1, first_missing: 0, troubles: troubles() }, ExitCause::NoPeer),
            (WaitReason::SourceChanged { missing: 1, troubles: troubles() }, ExitCause::NoPeer),
            (WaitReason::BadPieces { missing: 1, troubles: troubles() }, ExitCause::Corrupt),
            (WaitReason::DiskFull { needed: 2, free: 1, directory: "/d".into() }, ExitCause::DiskFull),
            (WaitReason::QuotaFull { needed: 2, directory: "/d".into() }, ExitCause::DiskFull),
            (WaitReason::Io("x".into()), ExitCause::LocalIo),
            (WaitReason::Ticket, ExitCause::NoTracker),
        ];
        for (wait, exit) in waits {
            let fault = ClientFault::from(&wait);
            assert_eq!(fault.exit, exit);
            assert!(fault.fix.is_some());
        }
        let withdrawn = |cause| DownloadFailure::Withdrawn { cause, message: "x".into() };
        let failures = [
            (DownloadFailure::FalseManifest { found: "a".into(), stated: "b".into() }, ExitCause::Corrupt),
            (DownloadFailure::Exists { path: "/f".into(), part: "/p".into() }, ExitCause::Exists),
            (DownloadFailure::FileLost { message: "m".into(), advice: "a" }, ExitCause::LocalIo),
            (DownloadFailure::Io("x".into()), ExitCause::LocalIo),
            (withdrawn(WithdrawalCause::Removed), ExitCause::NotFound),
            (withdrawn(WithdrawalCause::Replaced), ExitCause::NotFound),
            (withdrawn(WithdrawalCause::NotMember), ExitCause::NotAllowed),
        ];
        for (failure, exit) in failures {
            let fault = ClientFault::from(&failure);
            assert_eq!(fault.exit, exit);
            assert!(fault.fix.is_some());
        }
    }

    #[test]
    fn advice_comes_from_the_error_kind_and_not_from_the_path() {
        let (path, kind) = ("/a; rm -r b".into(), StorageErrorKind::ReadOnly);
        let error = StorageError { operation: engine::storage::error::StorageOperation::Write, path, kind };
        let fault = ClientFault::from(error);
        assert_eq!(fault.message, "cannot write to /a; rm -r b: the filesystem is read-only");
        assert_eq!(fault.fix.as_deref(), Some("choose another destination"));
    }

    #[test]
    fn a_missing_file_is_not_found_and_a_full_disk_is_full() {
        let path = std::path::Path::new("/x");
        let of = |kind| ClientFault::io("read", path, &std::io::Error::from(kind)).exit;
        assert_eq!(of(std::io::ErrorKind::NotFound), ExitCause::NotFound);
        assert_eq!(of(std::io::ErrorKind::StorageFull), ExitCause::DiskFull);
        assert_eq!(of(std::io::ErrorKind::PermissionDenied), ExitCause::LocalIo);
    }

    #[test]
    fn a_limit_of_the_system_is_named_with_its_own_advice() {
        let of = |code| {
            let error = std::io::Error::from_raw_os_error(code);
            ClientFault::io("write the record", std::path::Path::new("/x"), &error).default_fix("make room")
        };
        let files = of(rustix::io::Errno::MFILE.raw_os_error());
        assert!(files.message.contains("`ulimit -n`"), "{files}");
        assert!(files.fix.is_some_and(|fix| fix.contains("ulimit -n 65536")));
        for errno in [rustix::io::Errno::ACCESS, rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            assert_eq!(of(errno.raw_os_error()).fix.as_deref(), Some("make room"), "{errno}");
        }
    }
}
