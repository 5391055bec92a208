//! `cluster.key`: the cluster's id, and the secret from which the trackers' signing keys are derived.
//!
//! A text file of three lines: its kind, the secret in hex, the id in hex. Invariants: its mode is 0600; it gets its name
//! only when it is whole and synced, and never replaces another; the secret is stored nowhere else.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use engine::proto::hex::{HexDigits, parse_hex};
use zeroize::Zeroizing;

use super::disk::sync_directory;
use super::fault::ReplicaFault;

/// Name of the file in the data root.
pub const KEY_FILE: &str = "cluster.key";

const FIRST_LINE: &str = "shoal cluster key 1";

/// Bytes of the cluster's id; part of the file's format.
const ID_BYTES: usize = 16;

/// A cluster's secret and id.
pub struct ClusterKey {
    /// Root of all derived keys.
    pub root: Zeroizing<[u8; 32]>,
    /// Id of the cluster, in hex; not secret.
    pub cluster: String,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "ClusterKey({})", self.cluster)
    }
}

impl ClusterKey {
    /// Draws a new key and writes it into a data root.
    ///
    /// # Errors
    /// [`ReplicaFault`], also when the file exists.
    pub fn create(root_dir: &Path) -> Result<ClusterKey, ReplicaFault> {
        let path = root_dir.join(KEY_FILE);
        let mut root = Zeroizing::new([0; 32]);
        let mut id = [0; ID_BYTES];
        getrandom::fill(root.as_mut())
            .and_then(|()| getrandom::fill(&mut id))
            .map_err(|error| ReplicaFault::io(&path, "draw random bytes", io::Error::other(error)))?;
        let key = ClusterKey { root, cluster: HexDigits::of(&id).as_str().to_owned() };
        let digits = HexDigits::of(key.root.as_ref());
        let text = Zeroizing::new(format!("{FIRST_LINE}\n{}\n{}\n", digits.as_str(), key.cluster));
        let fresh = root_dir.join(format!("{KEY_FILE}.new"));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            // Unlike a rename, a link never replaces an existing key.
            fs::hard_link(&fresh, &path)?;
            fs::remove_file(&fresh)?;
            sync_directory(root_dir)
        };
        write().map_err(|error| ReplicaFault::io(&path, "write the key", error))?;
        Ok(key)
    }

    /// Reads the key of a data root; `None` when the file does not exist.
    ///
    /// # Errors
    /// [`ReplicaFault`] when the file cannot be read or is not a cluster key.
    pub fn read(root_dir: &Path) -> Result<Option<ClusterKey>, ReplicaFault> {
        let path = root_dir.join(KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReplicaFault::io(&path, "read the key", error)),
        };
        match fs::metadata(&path).map(|known| known.permissions().mode()) {
            Ok(mode) if mode & 0o077 != 0 => {
                tracing::warn!(path = %path.display(), "others can read the cluster's key: chmod 600 it");
            }
            _ => {}
        }
        parse_key(&text).map(Some).ok_or_else(|| ReplicaFault::Damaged {
            path,
            offset: None,
            what: "it is not a cluster key".to_owned(),
        })
    }
}

fn parse_key(text: &str) -> Option<ClusterKey> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let root = Zeroizing::new(parse_hex::<32>(lines.next()?)?);
    let id = parse_hex::<ID_BYTES>(lines.next()?)?;
    Some(ClusterKey { root, cluster: HexDigits::of(&id).as_str().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_by_its_owner_alone_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ClusterKey::read(dir.path()).unwrap().is_none());
        let key = ClusterKey::create(dir.path()).unwrap();
        let read = ClusterKey::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.root.as_ref(), &read.cluster), (key.root.as_ref(), &key.cluster));
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(ClusterKey::create(dir.path()).is_err());
        let again = ClusterKey::read(dir.path()).unwrap().unwrap();
        assert_eq!(again.cluster, key.cluster);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = ClusterKey::create(dir.path()).unwrap();
        let good = fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
        for bad in [&good[..60], &good.replace("key 1", "key 2"), &good.replace(&key.cluster, "xyz"), ""] {
            fs::write(dir.path().join(KEY_FILE), bad).unwrap();
            assert!(matches!(ClusterKey::read(dir.path()), Err(ReplicaFault::Damaged { .. })), "{bad:?}");
        }
    }
}
