//! How the client ends: exit codes, and the faults that lead to them.
//!
//! Invariant: every failure that a user can see is a [`Fault`], which says what happened, to what, and what to type
//! next; typed causes of the engine become faults here and nowhere else (the tracker's in `node::refusal`).

use std::fmt;

use engine::error::StartError;
use engine::proto::manifest::BadFileName;
use engine::stats::{Failure, Wait};
use engine::storage::error::{StorageError, StorageErrorKind};
use serde::{Deserialize, Serialize};
use tracker::api::failure::FailureCode;

/// What a process ends with. The numbers are a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub(crate) enum Exit {
    /// All is well.
    Done = 0,
    /// Something that no other number names.
    Other = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// Not logged in, or a wrong password.
    NotLoggedIn = 3,
    /// Logged in, but not allowed.
    NotAllowed = 4,
    /// No such user, group or file.
    NotFound = 5,
    /// The name is taken.
    Exists = 6,
    /// No tracker can be reached.
    NoTracker = 7,
    /// No peer has what is missing.
    NoPeer = 8,
    /// The filesystem is full.
    DiskFull = 9,
    /// A local file or socket failed.
    LocalIo = 10,
    /// Bytes are not what they should be, and nobody has better ones.
    Corrupt = 11,
    /// Nothing moved for too long.
    NoProgress = 12,
    /// The other side speaks another protocol or version.
    Protocol = 13,
    /// A source file is not what was hashed.
    SourceChanged = 14,
    /// Ctrl-C; the work can be resumed.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// A failure for people: what happened, to what, and what to type next; and the exit code that it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What happened, to what.
    pub(crate) message: String,
    /// What to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
    /// The word with which a tracker refused the very request: `node::refusal` alone says so, to this process alone, and
    /// `node::outlook` says what it means.
    #[serde(skip)]
    pub(crate) refused: Option<FailureCode>,
}

impl Fault {
    /// A failure without advice yet.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Fault {
        Fault { exit, message: message.into(), fix: None, refused: None }
    }

    /// The same with what to type next.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Fault {
        self.fix = Some(fix.into());
        self
    }

    /// A thread that the system does not give.
    pub(crate) fn no_thread(error: &std::io::Error) -> Fault {
        Fault::new(Exit::Other, format!("the system gives no thread: {error}"))
            .fix("raise the limit of processes (`ulimit -u`), or end some")
    }

    /// Random bytes that the system does not give.
    pub(crate) fn no_random(error: &getrandom::Error) -> Fault {
        Fault::new(Exit::LocalIo, format!("the system gives no random bytes: {error}"))
            .fix("see that /dev/urandom is there, then try again")
    }

    /// The node ends before it has done what it was asked.
    pub(crate) fn ending() -> Fault {
        Fault::new(Exit::Interrupted, "the node is ending").fix("give the command again")
    }

    /// A failure of a local file: `what` could not be done to `path`.
    pub(crate) fn io(what: &str, path: &std::path::Path, source: &std::io::Error) -> Fault {
        use std::io::ErrorKind;
        let exit = match source.kind() {
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::AlreadyExists => Exit::Exists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Exit::DiskFull,
            _ => Exit::LocalIo,
        };
        Fault::new(exit, format!("cannot {what} {}: {source}", path.display()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<StartError> for Fault {
    fn from(error: StartError) -> Fault {
        let fix = match &error {
            StartError::Listen { .. } => "choose an address of this machine with `--listen IP[:PORT]`",
            StartError::Uring { .. } => "`--io auto` or `--io epoll`",
            StartError::Hash(_) => "`--hash auto`",
            StartError::System(_) => "raise the limits of processes and memory (`ulimit -a`), then try again",
        };
        Fault::new(Exit::LocalIo, error.to_string()).fix(fix)
    }
}

impl From<BadFileName> for Fault {
    fn from(error: BadFileName) -> Fault {
        Fault::new(Exit::Usage, error.to_string()).fix("give the file's name alone, as `list_files` shows it")
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Fault {
        let exit = match &error.kind {
            StorageErrorKind::Missing | StorageErrorKind::NotADirectory => Exit::NotFound,
            StorageErrorKind::NotAFile(_) | StorageErrorKind::NameTooLong | StorageErrorKind::TooLong(_) => {
                Exit::Usage
            }
            StorageErrorKind::NoSpace { .. } => Exit::DiskFull,
            StorageErrorKind::Exists => Exit::Exists,
            StorageErrorKind::Changed(_) => Exit::SourceChanged,
            StorageErrorKind::NotPermitted
            | StorageErrorKind::ReadOnly
            | StorageErrorKind::Locked
            | StorageErrorKind::Replaced
            | StorageErrorKind::NotOurs
            | StorageErrorKind::Unflushed
            | StorageErrorKind::Io(_) => Exit::LocalIo,
        };
        Fault::new(exit, error.what()).fix(error.kind.advice())
    }
}

impl From<&Wait> for Fault {
    fn from(wait: &Wait) -> Fault {
        let (exit, fix) = match wait {
            Wait::NoPeers { .. } => {
                (Exit::NoPeer, "try again when a seeder is online (`list_files` shows how many)")
            }
            Wait::SourceChanged { .. } => {
                (Exit::NoPeer, "try again when another seeder is online, or its file is as it was uploaded")
            }
            Wait::BadPieces { .. } => (Exit::Corrupt, "try again when another seeder is online"),
            Wait::DiskFull { .. } => {
                (Exit::DiskFull, "make room there, then give the same command: it goes on")
            }
            Wait::Io(_) => (Exit::LocalIo, "mend that, then give the same command: it goes on"),
            Wait::Ticket => {
                (Exit::NoTracker, "see `client doctor` for the trackers; the same command goes on")
            }
        };
        Fault::new(exit, wait.to_string()).fix(fix)
    }
}

impl From<&Failure> for Fault {
    fn from(failure: &Failure) -> Fault {
        let (exit, fix) = match failure {
            Failure::FalseManifest { .. } => {
                (Exit::Corrupt, "ask the uploader to remove the file and upload it again")
            }
            Failure::Exists { .. } => (Exit::Exists, "choose another destination, or add `--overwrite`"),
            Failure::Io(_) => (Exit::LocalIo, "mend that, then give the same command: it goes on"),
        };
        Fault::new(exit, failure.to_string()).fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let numbers = [
            (Exit::Done, 0),
            (Exit::Other, 1),
            (Exit::Usage, 2),
            (Exit::NotLoggedIn, 3),
            (Exit::NotAllowed, 4),
            (Exit::NotFound, 5),
            (Exit::Exists, 6),
            (Exit::NoTracker, 7),
            (Exit::NoPeer, 8),
            (Exit::DiskFull, 9),
            (Exit::LocalIo, 10),
            (Exit::Corrupt, 11),
            (Exit::NoProgress, 12),
            (Exit::Protocol, 13),
            (Exit::SourceChanged, 14),
            (Exit::Interrupted, 130),
        ];
        for (exit, number) in numbers {
            assert_eq!(exit.code(), number, "{exit:?}");
        }
    }

    #[test]
    fn every_wait_and_failure_has_its_code_and_a_fix() {
        let waits = [
            (Wait::NoPeers { missing: 1, first_missing: 0 }, Exit::NoPeer),
            (Wait::SourceChanged { missing: 1 }, Exit::NoPeer),
            (Wait::BadPieces { missing: 1 }, Exit::Corrupt),
            (Wait::DiskFull { needed: 2, free: 1, directory: "/d".into() }, Exit::DiskFull),
            (Wait::Io("x".into()), Exit::LocalIo),
            (Wait::Ticket, Exit::NoTracker),
        ];
        for (wait, exit) in waits {
            let fault = Fault::from(&wait);
            assert_eq!(fault.exit, exit);
            assert!(fault.fix.is_some());
        }
        let failures = [
            (Failure::FalseManifest { found: "a".into(), stated: "b".into() }, Exit::Corrupt),
            (Failure::Exists { path: "/f".into(), part: "/p".into() }, Exit::Exists),
            (Failure::Io("x".into()), Exit::LocalIo),
        ];
        for (failure, exit) in failures {
            let fault = Fault::from(&failure);
            assert_eq!(fault.exit, exit);
            assert!(fault.fix.is_some());
        }
    }

    #[test]
    fn what_storage_advises_is_the_fix_whatever_the_path_says() {
        let (path, kind) = ("/a; rm -r b".into(), StorageErrorKind::ReadOnly);
        let error = StorageError { operation: engine::storage::error::Operation::Write, path, kind };
        let fault = Fault::from(error);
        assert_eq!(fault.message, "cannot write to /a; rm -r b: the filesystem is read-only");
        assert_eq!(fault.fix.as_deref(), Some("choose another destination"));
    }

    #[test]
    fn a_missing_file_is_not_found_and_a_full_disk_is_full() {
        let path = std::path::Path::new("/x");
        let of = |kind| Fault::io("read", path, &std::io::Error::from(kind)).exit;
        assert_eq!(of(std::io::ErrorKind::NotFound), Exit::NotFound);
        assert_eq!(of(std::io::ErrorKind::StorageFull), Exit::DiskFull);
        assert_eq!(of(std::io::ErrorKind::PermissionDenied), Exit::LocalIo);
    }
}
