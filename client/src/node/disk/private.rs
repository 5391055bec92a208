//! Files of the state directory that belong to its user alone.
//!
//! Always true: a link or a pipe in the place of a file is refused, never followed or waited for. A secret is
//! written only to a file that was created for it with mode 0600. Files are replaced whole.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::printable::show_path;
use crate::quoting;

/// Locked by the process that is the node. A directory that has this file is a state directory.
pub(super) const LOCK: &str = "node.lock";

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Who may use a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryAccess {
    /// Its owner alone.
    Private,
    /// Other users too; it can be closed to them.
    Open,
}

/// Checks whether a directory can hold the state, and changes nothing.
///
/// # Errors
/// It belongs to another user, is shared by all users, or is open to others and holds other files.
pub(crate) fn check_directory(path: &Path, found: &Metadata) -> Result<DirectoryAccess, ClientFault> {
    let refuse = |why: &str, fix: &str| {
        let message = format!("the state directory {} {why}", show_path(path));
        Err(ClientFault::new(ExitCause::LocalIo, message).fix(fix))
    };
    let own = "name a directory of your own: `--state DIR`";
    if found.uid() != geteuid().as_raw() {
        return refuse("belongs to another user, who could read the login kept there", own);
    }
    if found.mode() & STICKY != 0 {
        return refuse("is one that all users share", own);
    }
    if found.mode() & OTHERS == 0 {
        return Ok(DirectoryAccess::Private);
    }
    // Other users may need it open, unless it is empty or a state directory already.
    let mut entries = fs::read_dir(path).map_err(|error| unusable_fault(path, &error))?;
    if path.join(LOCK).exists() || entries.next().is_none() {
        return Ok(DirectoryAccess::Open);
    }
    let fix = format!("name an empty one with `--state DIR`, or `chmod 700 {}`", quoting::quote_path(path));
    refuse("is open to other users and is none of Shoal's yet", &fix)
}

/// Makes a directory if it is missing, and closes it to other users.
///
/// # Errors
/// It cannot be made; those of [`check_directory`].
pub(super) fn prepare_directory(path: &Path) -> Result<(), ClientFault> {
    let fault = |error: io::Error| unusable_fault(path, &error);
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(fault)?;
    let directory = File::open(path).map_err(fault)?;
    let found = directory.metadata().map_err(fault)?;
    if check_directory(path, &found)? == DirectoryAccess::Open {
        tracing::warn!("{} was open to other users and is now closed to them (0700)", show_path(path));
        let closed = directory.set_permissions(Permissions::from_mode(DIRECTORY_MODE));
        closed.map_err(fault)?;
    }
    Ok(())
}

/// Why a path cannot be a state directory.
pub(crate) fn unusable_fault(path: &Path, error: &io::Error) -> ClientFault {
    use io::ErrorKind::{AlreadyExists, NotADirectory, PermissionDenied};
    let shown = show_path(path);
    let fix = "name a directory of your own: `--state DIR`";
    let message = match error.kind() {
        AlreadyExists | NotADirectory if path.exists() => format!("{shown} is a file, not a directory"),
        NotADirectory => format!("there can be no directory {shown}: a part of this path is a file"),
        PermissionDenied => format!("the state directory {shown} is not open to this user"),
        _ => {
            let fault = ClientFault::io("use the state directory", path, error);
            let exit =
                if fault.exit == ExitCause::DiskFull { ExitCause::DiskFull } else { ExitCause::LocalIo };
            return ClientFault { exit, ..fault }.default_fix(fix);
        }
    };
    ClientFault::new(ExitCause::LocalIo, message).fix(fix)
}

/// Opens a lock file; makes it if it is missing.
///
/// # Errors
/// Those of the system; `InvalidInput` if it is not a regular file.
pub(super) fn open_lock_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .custom_flags(open_flags())
        .open(path)?;
    require_regular(file)
}

/// Reads a short file.
///
/// # Errors
/// Those of the system; `InvalidInput` if it is not a regular file or too long.
pub(super) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(path, limits::STATE_FILE_MAX_BYTES)
}

/// As [`read_file`], with a limit in bytes.
///
/// # Errors
/// As [`read_file`].
pub(super) fn read_limited(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let file = require_regular(OpenOptions::new().read(true).custom_flags(open_flags()).open(path)?)?;
    let mut bytes = Vec::new();
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is too long to be ours"));
    }
    Ok(bytes)
}

/// Replaces a file: writes a temporary file, syncs it, renames it, syncs the directory.
///
/// # Errors
/// Those of the system. The old file is kept.
pub(super) fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_file_with(directory, name, |file| file.write_all(bytes))
}

/// As [`replace_file`], with what `write` writes.
///
/// # Errors
/// As [`replace_file`], and those of `write`.
pub(super) fn replace_file_with(
    directory: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // None, or one that a crash left.
        _ => {}
    }
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(FILE_MODE)
        .custom_flags(open_flags())
        .open(&temporary)?;
    let written = fill_file(file, write).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        // On a full disk half a file only takes room. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_directory(directory))
}

fn fill_file(mut file: File, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // The umask may have removed bits of the mode.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    write(&mut file)?;
    file.sync_all()
}

/// Syncs a directory.
///
/// # Errors
/// Those of the system.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Syncs the parent of a new directory.
///
/// # Errors
/// Those of the system.
pub(super) fn sync_parent(directory: &Path) -> io::Result<()> {
    directory.parent().map_or(Ok(()), sync_directory)
}

/// Open flags: do not follow a link, do not wait for the other end of a pipe.
fn open_flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn require_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pipe(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    #[test]
    fn a_secret_never_lands_in_a_file_that_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, temporary) = (dir.path().join("kept"), dir.path().join("s.new"));
        fs::write(&temporary, "old").unwrap();
        fs::set_permissions(&temporary, Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&temporary, &kept).unwrap();
        replace_file(dir.path(), "s", b"secret").unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"old", "a process that had it open reads no secret");
        let made = fs::metadata(dir.path().join("s")).unwrap();
        assert_eq!(made.mode() & 0o777, FILE_MODE);

        symlink(&kept, &temporary).unwrap();
        replace_file(dir.path(), "s", b"other").unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"old");
        assert_eq!(read_file(&dir.path().join("s")).unwrap(), b"other");
    }

    #[test]
    fn pipes_links_directories_and_long_files_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        pipe(&at("pipe"));
        fs::write(at("file"), "x").unwrap();
        symlink(at("file"), at("link")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        for name in ["pipe", "link", "directory"] {
            read_file(&at(name)).unwrap_err();
            open_lock_file(&at(name)).unwrap_err();
        }
        File::create(at("long")).unwrap().set_len(limits::STATE_FILE_MAX_BYTES + 1).unwrap();
        read_file(&at("long")).unwrap_err();
        assert_eq!(read_file(&at("file")).unwrap(), b"x");
    }

    #[test]
    fn an_own_directory_is_closed_and_another_users_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        prepare_directory(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, DIRECTORY_MODE);

        mode(0o1777);
        assert_eq!(prepare_directory(dir.path()).unwrap_err().exit, ExitCause::LocalIo);
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o1777, 0o1777, "its mode is not changed");

        mode(0o750);
        fs::write(dir.path().join("letter"), "").unwrap();
        let refused = prepare_directory(dir.path()).unwrap_err();
        assert!(refused.message.contains("none of Shoal's") && refused.fix.is_some(), "{refused}");
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o750, "its mode is not changed");
        fs::write(dir.path().join(LOCK), "").unwrap();
        prepare_directory(dir.path()).unwrap();
        assert_eq!(
            fs::metadata(dir.path()).unwrap().mode() & 0o777,
            DIRECTORY_MODE,
            "a state directory is closed"
        );

        // Only root can give a directory away; other users try root's.
        let anothers = if geteuid().is_root() {
            mode(0o700);
            std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        let refused = prepare_directory(anothers).unwrap_err();
        assert_eq!(refused.exit, ExitCause::LocalIo);
        assert!(refused.message.contains("another user") && refused.fix.is_some(), "{refused}");
    }
}
