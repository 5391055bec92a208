//! The state directory: its lock, and what outlives the process.
//!
//! ```text
//!   DIR (0700)   node.lock     locked (flock) by the process that is the node
//!                node.sock     where front ends connect (0600)
//!                node.key      seed of the node's Ed25519 key (0600)
//!                session.json  the logged-in user, and the token (0600)
//!                trackers      the trackers of the last login, a line `HOST:PORT` for each
//!                port          port on which the last node listened for peers
//!                tracker_time.json   what a tracker told of its time
//!                history       lines typed at the prompt (0600)
//!                shares/, downloads/   records of shares and downloads (`records`)
//! ```
//!
//! Always true: a process with a [`StateDir`] holds the lock. The directory belongs to its user alone. Files
//! are replaced whole, so that a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use engine::proto::ticket::{SecretKey, TrackerKey};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::private::{self, LOCK};
pub(crate) use super::private::{DirectoryAccess, check_directory, unusable_fault};
use crate::exit::{ClientFault, ExitCause};
use crate::node::tracker_time::ToldTime;
use crate::printable::show_path;
use crate::quoting;

const SOCKET: &str = "node.sock";
const KEY: &str = "node.key";
const SESSION: &str = "session.json";
const TRACKERS: &str = "trackers";
const PORT: &str = "port";
const TRACKER_TIME: &str = "tracker_time.json";
const HISTORY: &str = "history";

/// Longest path of a Unix socket, in bytes: `sun_path` has 108, with the final zero. A limit of the system,
/// so not in `limits`.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The login of a user, with which another process continues.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    /// The user.
    pub(crate) user: String,
    /// The token of the tracker.
    pub(crate) token: String,
    /// The public key under which the trackers sign tickets.
    pub(crate) tracker_key: [u8; 32],
    /// Id of the trackers' cluster, once a tracker has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// Number of the cluster's last change that this node has seen; saved now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
}

impl SavedSession {
    /// The public key under which the trackers sign tickets.
    pub(crate) fn tracker_key(&self) -> TrackerKey {
        TrackerKey(self.tracker_key)
    }
}

impl std::fmt::Debug for SavedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedSession").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The locked state directory of this node.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if it is missing, closes it to other users, and locks it. `None` if another
    /// process has the lock.
    ///
    /// # Errors
    /// It cannot be made, opened or locked, or belongs to another user.
    pub(crate) fn lock(path: &Path) -> Result<Option<StateDir>, ClientFault> {
        private::prepare_directory(path)?;
        let advice =
            |fault: ClientFault| fault.default_fix("name a directory that can be written: `--state DIR`");
        let lock_path = path.join(LOCK);
        let lock = private::open_lock_file(&lock_path)
            .map_err(|error| advice(local_fault(ClientFault::io("open the lock", &lock_path, &error))))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(StateDir { path: path.to_owned(), _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(advice(local_fault(ClientFault::io("lock", &lock_path, &error.into())))),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Listens for front ends. Removes the socket of an earlier node: holding the lock proves that it has
    /// ended.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn listen(&self) -> Result<UnixListener, ClientFault> {
        let path = self.path.join(SOCKET);
        let fault = |error: &io::Error| {
            local_fault(ClientFault::io("listen on", &path, error)).default_fix("use another `--state DIR`")
        };
        self.remove_socket();
        let listener =
            with_socket_path(&self.path, |path| UnixListener::bind(path)).map_err(|error| fault(&error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| fault(&error))?;
        Ok(listener)
    }

    /// Removes the socket, so that no front end connects to a node that is ending.
    pub(crate) fn remove_socket(&self) {
        // The next node removes it, or reports why it cannot.
        let _ = fs::remove_file(self.path.join(SOCKET));
    }

    /// The node's key. Made at first use.
    ///
    /// # Errors
    /// It can be neither read nor written, or is damaged.
    pub(crate) fn secret_key(&self) -> Result<SecretKey, ClientFault> {
        let path = self.path.join(KEY);
        match private::read_file(&path) {
            Ok(seed) => {
                let seed: [u8; 32] = seed.try_into().map_err(|_| {
                    ClientFault::new(
                        ExitCause::LocalIo,
                        format!("{} is not a key: a key file has 32 bytes", show_path(&path)),
                    )
                    .fix(format!("remove it: `rm {}`; a new one is made", quoting::quote_path(&path)))
                })?;
                Ok(SecretKey::from_seed(&seed))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|error| ClientFault::no_random(&error))?;
                self.write_file(KEY, &seed)?;
                Ok(SecretKey::from_seed(&seed))
            }
            Err(error) => Err(local_fault(ClientFault::io("read the node's key", &path, &error))),
        }
    }

    /// The session of the user who is logged in. A file that cannot be parsed counts as none.
    pub(crate) fn session(&self) -> Option<SavedSession> {
        serde_json::from_slice(&private::read_file(&self.path.join(SESSION)).ok()?).ok()
    }

    /// Saves the session.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save_session(&self, session: &SavedSession) -> Result<(), ClientFault> {
        let bytes = serde_json::to_vec(session)
            .map_err(|error| ClientFault::new(ExitCause::Other, error.to_string()))?;
        self.write_file(SESSION, &bytes)
    }

    /// Removes the session.
    pub(crate) fn forget_session(&self) {
        // If the file stays, trackers refuse its token after a logout.
        let _ = fs::remove_file(self.path.join(SESSION));
    }

    /// Saves the trackers of a login. A logout keeps them.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn save_trackers(&self, text: &str) -> Result<(), ClientFault> {
        self.write_file(TRACKERS, text.as_bytes())
    }

    /// The port on which the last node listened.
    pub(crate) fn port(&self) -> Option<u16> {
        String::from_utf8(private::read_file(&self.path.join(PORT)).ok()?).ok()?.trim().parse().ok()
    }

    /// Saves the port.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save_port(&self, port: u16) -> Result<(), ClientFault> {
        self.write_file(PORT, format!("{port}\n").as_bytes())
    }

    /// The time that a tracker told last, as far as it was saved. A file that cannot be parsed counts as none.
    pub(crate) fn told_time(&self) -> Option<ToldTime> {
        serde_json::from_slice(&private::read_file(&self.path.join(TRACKER_TIME)).ok()?).ok()
    }

    /// Saves the time that a tracker told.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save_told_time(&self, told: &ToldTime) -> Result<(), ClientFault> {
        let bytes = serde_json::to_vec(told)
            .map_err(|error| ClientFault::new(ExitCause::Other, error.to_string()))?;
        self.write_file(TRACKER_TIME, &bytes)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ClientFault> {
        private::replace_file(&self.path, name, bytes).map_err(|error| {
            local_fault(ClientFault::io("write", &self.path.join(name), &error))
                .default_fix("make room there, or name another `--state DIR`")
        })
    }
}

/// Connects to the node of a state directory.
///
/// # Errors
/// No node listens, or there is no such directory.
pub(crate) fn connect_node(directory: &Path) -> io::Result<UnixStream> {
    with_socket_path(directory, |path| UnixStream::connect(path))
}

/// The trackers of the last login.
pub(crate) fn remembered_trackers(directory: &Path) -> Option<String> {
    String::from_utf8(private::read_file(&directory.join(TRACKERS)).ok()?).ok()
}

/// The history file of the prompt.
pub(crate) fn history_path(directory: &Path) -> PathBuf {
    directory.join(HISTORY)
}

/// Calls `open` with the path of the socket, or with a short path by the descriptor of its directory if that
/// is too long.
fn with_socket_path<T>(directory: &Path, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
        return open(&path);
    }
    let directory = File::open(directory)?;
    open(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())))
}

/// Errors in the state directory are errors of the machine: a missing file there is not a missing file of the
/// user.
fn local_fault(fault: ClientFault) -> ClientFault {
    let exit = if fault.exit == ExitCause::DiskFull { ExitCause::DiskFull } else { ExitCause::LocalIo };
    ClientFault { exit, ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_process_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::lock(&path).unwrap();
        assert!(first.is_some());
        assert!(StateDir::lock(&path).unwrap().is_none());
        drop(first);
        assert!(StateDir::lock(&path).unwrap().is_some());
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap().unwrap();
        let first = state.secret_key().unwrap().peer_key();
        assert_eq!(state.secret_key().unwrap().peer_key(), first);
        assert_eq!(mode(&dir.path().join(KEY)), 0o600);
        fs::write(dir.path().join(KEY), "short").unwrap();
        assert_eq!(state.secret_key().unwrap_err().exit, ExitCause::LocalIo);
    }

    #[test]
    fn a_session_is_kept_privately_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap().unwrap();
        assert_eq!(state.session(), None);
        let session = SavedSession {
            user: "u".into(),
            token: "t".into(),
            tracker_key: [9; 32],
            cluster: None,
            revision: None,
        };
        state.save_session(&session).unwrap();
        assert_eq!(state.session(), Some(session));
        assert_eq!(mode(&dir.path().join(SESSION)), 0o600);
        state.forget_session();
        assert_eq!(state.session(), None);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path()).unwrap().unwrap();
        for name in [KEY, SESSION, PORT] {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, dir.path().join(name), rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }
        assert_eq!(state.secret_key().unwrap_err().exit, ExitCause::LocalIo);
        assert_eq!((state.session(), state.port()), (None, None));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_long_path_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long".repeat(30));
        let state = StateDir::lock(&path).unwrap().unwrap();
        drop(state.listen().unwrap());
        assert!(connect_node(&path).is_err(), "a stale socket refuses connections");
        let _listener = state.listen().unwrap();
        assert!(connect_node(&path).is_ok());
        assert_eq!(mode(&path.join(SOCKET)), 0o600);
    }
}
