//! The state directory: who may be the node, and what outlives it.
//!
//! ```text
//!   DIR (0700)   node.lock     held (flock) by the process that is the node
//!                node.sock     where front ends connect (0600)
//!                node.key      seed of the node's Ed25519 key (0600)
//!                session.json  who is logged in, and the token (0600)
//!                port          where peers connected last time
//!                history       lines typed at the prompt (0600)
//!                shares/, downloads/   what comes back after a restart (`records`)
//! ```
//!
//! Invariants: whoever holds a [`StateDir`] holds the lock, and the directory is theirs alone; files are replaced whole,
//! so a crash leaves the old or the new one.

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
use crate::quoting;

const SOCKET: &str = "node.sock";
const KEY: &str = "node.key";
const SESSION: &str = "session.json";
const PORT: &str = "port";
const HISTORY: &str = "history";

/// Longest path that fits a Unix socket's address (`sun_path`, 108 bytes with the final zero).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// Who is logged in here, and what is needed to go on with it in another process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    /// The user.
    pub(crate) user: String,
    /// The trackers' token.
    pub(crate) token: String,
    /// The trackers' public key, under which tickets are signed.
    pub(crate) tracker_key: [u8; 32],
}

impl SavedSession {
    /// The trackers' public key.
    pub(crate) fn tracker_key(&self) -> TrackerKey {
        TrackerKey(self.tracker_key)
    }
}

impl std::fmt::Debug for SavedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedSession").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The state directory of the node that this process is.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, closes it to others, and takes the lock; `None` when another process has it.
    ///
    /// # Errors
    /// A fault that names what cannot be made or opened, or whose directory it is.
    pub(crate) fn lock(path: &Path) -> Result<Option<StateDir>, ClientFault> {
        private::prepare_directory(path)?;
        let advice = |fault: ClientFault| fault.fix("name a directory that can be written: `--state DIR`");
        let lock_path = path.join(LOCK);
        let lock = private::open_lock_file(&lock_path)
            .map_err(|error| advice(local_fault(ClientFault::io("open the lock", &lock_path, &error))))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(StateDir { path: path.to_owned(), _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(advice(local_fault(ClientFault::io("lock", &lock_path, &error.into())))),
        }
    }

    /// Where it is. Nobody else may write there.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Listens for front ends. A socket left behind by a dead node is removed: the lock proves that it is dead.
    ///
    /// # Errors
    /// A fault when the socket cannot be made.
    pub(crate) fn listen(&self) -> Result<UnixListener, ClientFault> {
        let path = self.path.join(SOCKET);
        let fault = |error: &io::Error| {
            local_fault(ClientFault::io("listen on", &path, error)).fix("use another `--state DIR`")
        };
        self.remove_socket();
        let listener =
            with_socket_path(&self.path, |path| UnixListener::bind(path)).map_err(|error| fault(&error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| fault(&error))?;
        Ok(listener)
    }

    /// Takes the socket away, so that nobody connects to a node that is ending.
    pub(crate) fn remove_socket(&self) {
        // Best effort: what cannot be removed is removed by the next node, or is why that one cannot listen.
        let _ = fs::remove_file(self.path.join(SOCKET));
    }

    /// This node's key; made at first use.
    ///
    /// # Errors
    /// A fault when it can be neither read nor written, or is no key.
    pub(crate) fn secret_key(&self) -> Result<SecretKey, ClientFault> {
        let path = self.path.join(KEY);
        match private::read_file(&path) {
            Ok(seed) => {
                let seed: [u8; 32] = seed.try_into().map_err(|_| {
                    ClientFault::new(
                        ExitCause::LocalIo,
                        format!("{} is no key: 32 bytes are wanted", path.display()),
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

    /// Who was logged in last and did not log out. A file that cannot be understood counts as nobody.
    pub(crate) fn session(&self) -> Option<SavedSession> {
        serde_json::from_slice(&private::read_file(&self.path.join(SESSION)).ok()?).ok()
    }

    /// Keeps a session.
    ///
    /// # Errors
    /// A fault when it cannot be written.
    pub(crate) fn save_session(&self, session: &SavedSession) -> Result<(), ClientFault> {
        let bytes = serde_json::to_vec(session)
            .map_err(|error| ClientFault::new(ExitCause::Other, error.to_string()))?;
        self.write_file(SESSION, &bytes)
    }

    /// Forgets the session.
    pub(crate) fn forget_session(&self) {
        // A session that stays behind is refused by the trackers after a logout.
        let _ = fs::remove_file(self.path.join(SESSION));
    }

    /// The port that peers used last time.
    pub(crate) fn port(&self) -> Option<u16> {
        String::from_utf8(private::read_file(&self.path.join(PORT)).ok()?).ok()?.trim().parse().ok()
    }

    /// Keeps the port for the next time.
    ///
    /// # Errors
    /// A fault when it cannot be written.
    pub(crate) fn save_port(&self, port: u16) -> Result<(), ClientFault> {
        self.write_file(PORT, format!("{port}\n").as_bytes())
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), ClientFault> {
        private::replace_file(&self.path, name, bytes).map_err(|error| {
            local_fault(ClientFault::io("write", &self.path.join(name), &error))
                .fix("make room there, or name another `--state DIR`")
        })
    }
}

/// Connects to the node of a state directory.
///
/// # Errors
/// What the system says: nobody listens, or there is no such directory.
pub(crate) fn connect_node(directory: &Path) -> io::Result<UnixStream> {
    with_socket_path(directory, |path| UnixStream::connect(path))
}

/// Where the prompt keeps its history.
pub(crate) fn history_path(directory: &Path) -> PathBuf {
    directory.join(HISTORY)
}

/// The socket's path may be longer than a socket's address; then the directory's descriptor stands for it.
fn with_socket_path<T>(directory: &Path, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
        return open(&path);
    }
    let directory = File::open(directory)?;
    open(&PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())))
}

/// A failure in the state directory is the machine's, never a missing thing of the user's.
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
        let session = SavedSession { user: "u".into(), token: "t".into(), tracker_key: [9; 32] };
        state.save_session(&session).unwrap();
        assert_eq!(state.session(), Some(session));
        assert_eq!(mode(&dir.path().join(SESSION)), 0o600);
        state.forget_session();
        assert_eq!(state.session(), None);
    }

    #[test]
    fn a_pipe_in_a_files_place_holds_up_nobody() {
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
        assert!(connect_node(&path).is_err(), "nobody listens on a stale socket");
        let _listener = state.listen().unwrap();
        assert!(connect_node(&path).is_ok());
        assert_eq!(mode(&path.join(SOCKET)), 0o600);
    }
}
