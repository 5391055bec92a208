//! From a data root to a log that can be opened: looks at what is there, asks the other lines, and founds where that is right.
//!
//! Crash order of a founding: an empty log, the directories in which it lies, then the key, then (when the replica starts) the first entry. Killed in between, the next start
//! finds a log without an entry and starts over.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster_key::ClusterKey;
use super::disk::sync_directory;
use super::fault::Fault;
use super::founding::{Answered, Decision, Evidence, Log, Refusal, asks_others, decide};
use super::limits::{PROBE_ANSWER_MAX_BYTES, PROBE_MS};
use super::store::{LOG_FILE, Store, WITNESS_FILE};

/// What the operator gave.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The data root, `--data`.
    pub root: &'a Path,
    /// The cluster file's lines.
    pub lines: &'a [SocketAddr],
    /// The line that this tracker serves.
    pub own: SocketAddr,
    /// `--found`.
    pub found_anyway: bool,
    /// `--rejoin`.
    pub rejoin: bool,
}

/// A log that can be opened.
#[derive(Debug)]
pub struct Ready {
    /// The cluster's key.
    pub key: ClusterKey,
    /// The tracker's directory.
    pub dir: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// A file is at fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The rules of founding.
    #[error("{line} with {root}: {refusal}{beside}", root = .root.display())]
    Refused {
        /// The line that was to be served.
        line: SocketAddr,
        /// The data root.
        root: PathBuf,
        /// Which rule.
        refusal: Refusal,
        /// Directories found beside the key, in words.
        beside: String,
    },
}

/// Where the tracker of a line keeps its log.
#[must_use]
pub fn directory(root: &Path, line: SocketAddr) -> PathBuf {
    root.join(format!("{}_{}", line.ip(), line.port()))
}

/// Finds or founds the log of a tracker. While others do not answer it asks again, and says so once.
///
/// # Errors
/// [`NotReady`] says what to do.
pub fn prepare(wish: &Wish<'_>) -> Result<Ready, NotReady> {
    let dir = directory(wish.root, wish.own);
    let key = ClusterKey::read(wish.root)?;
    let log = look(&dir)?;
    let alone = Evidence {
        is_first_line: wish.lines.first() == Some(&wish.own),
        has_key: key.is_some(),
        log,
        others: &[],
        found_anyway: wish.found_anyway,
        rejoin: wish.rejoin,
    };
    let mut others = if asks_others(&alone) { ask_all(wish) } else { Vec::new() };
    let mut said = false;
    loop {
        match decide(&Evidence { others: &others, ..alone.clone() }) {
            Decision::Resume => break,
            Decision::Found => return found(wish, &dir, key),
            Decision::Wait(silent) => {
                if !said {
                    tracing::warn!(
                        ?silent,
                        "these trackers of the cluster file do not answer; waiting, since they may hold its log. If \
                         they hold none, start with --found"
                    );
                    said = true;
                }
                others = ask_all(wish);
            }
            Decision::Refuse(refusal) => {
                let beside = beside(wish, &refusal);
                return Err(NotReady::Refused {
                    line: wish.own,
                    root: wish.root.to_owned(),
                    refusal,
                    beside,
                });
            }
        }
    }
    let Some(key) = key else { unreachable!("a log is gone on with only beside its key") };
    Ok(Ready { key, dir })
}

/// What of a log is in a directory.
fn look(dir: &Path) -> Result<Log, Fault> {
    if !dir.join(LOG_FILE).exists() {
        return Ok(Log::None);
    }
    // A log that was acknowledged something is whole, whatever it looks like: its opening says what is wrong with it.
    if dir.join(WITNESS_FILE).exists() {
        return Ok(Log::Whole);
    }
    let log = Store::open_to_look(dir)?;
    Ok(if log.has_entries()? { Log::Whole } else { Log::Unfinished })
}

/// Begins a log: empty file, then key. An unfinished one goes first.
fn found(wish: &Wish<'_>, dir: &Path, key: Option<ClusterKey>) -> Result<Ready, NotReady> {
    fs::create_dir_all(dir).map_err(|error| Fault::io(dir, "make the directory", error))?;
    match fs::remove_file(dir.join(LOG_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Fault::io(dir, "remove an unfinished log", error).into());
        }
        _ => {}
    }
    Store::create(dir)?;
    sync_above(dir)?;
    let key = match key {
        Some(key) => key,
        None => ClusterKey::create(wish.root)?,
    };
    tracing::info!(cluster = %key.cluster, dir = %dir.display(), "a new cluster is founded");
    Ok(Ready { key, dir: dir.to_owned() })
}

/// Makes the names of a directory and of all above it durable: any of them may have been made for it just now, or by an earlier start
/// that ended before this.
fn sync_above(dir: &Path) -> Result<(), Fault> {
    let fault = |doing| move |error| Fault::io(dir, doing, error);
    let whole = dir.canonicalize().map_err(fault("find the directory"))?;
    for above in above_on_its_filesystem(&whole).map_err(fault("look at the directories above"))? {
        match sync_directory(above) {
            // Who may not look into it has not made it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced.map_err(fault("sync the directories above"))?,
        }
    }
    Ok(())
}

/// The directories above this one, up to where its filesystem is mounted: that place was there before the filesystem was, and what
/// lies above it is no concern of this one's.
fn above_on_its_filesystem(dir: &Path) -> io::Result<Vec<&Path>> {
    let device = fs::metadata(dir)?.dev();
    let mut above = Vec::new();
    for next in dir.ancestors().skip(1) {
        match fs::metadata(next) {
            Ok(metadata) if metadata.dev() == device => above.push(next),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
        }
    }
    Ok(above)
}

/// The directories of logs in a data root, in words, where they help: another address is no lost disk.
fn beside(wish: &Wish<'_>, refusal: &Refusal) -> String {
    if !matches!(refusal, Refusal::LogLost) {
        return String::new();
    }
    let mut names: Vec<String> = fs::read_dir(wish.root)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join(LOG_FILE).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if names.is_empty() {
        return ". No log is beside the key".to_owned();
    }
    names.sort();
    let own = directory(Path::new(""), wish.own);
    let (names, own) = (names.join(", "), own.display());
    format!(". Beside the key: {names}; if the address changed, rename that directory to `{own}`")
}

/// Asks every other line who is there.
fn ask_all(wish: &Wish<'_>) -> Vec<(SocketAddr, Answered)> {
    let others = wish.lines.iter().filter(|line| **line != wish.own && line.port() != 0);
    others
        .map(|line| {
            let answered = ask(*line);
            if answered == Answered::Stranger {
                tracing::warn!(%line, "what listens there is no tracker; it is taken for nobody");
            }
            (*line, answered)
        })
        .collect()
}

fn ask(line: SocketAddr) -> Answered {
    let patience = Duration::from_millis(PROBE_MS);
    let mut connection = match TcpStream::connect_timeout(&line, patience) {
        Ok(connection) => connection,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Answered::Refused,
        Err(_) => return Answered::Nothing,
    };
    let mut question = || -> io::Result<Vec<u8>> {
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        connection.write_all(b"{\"command\":\"ping\"}\n")?;
        let mut answer = Vec::new();
        BufReader::new(&connection).take(PROBE_ANSWER_MAX_BYTES as u64).read_until(b'\n', &mut answer)?;
        Ok(answer)
    };
    match question() {
        Ok(answer) if is_tracker(&answer) => Answered::Tracker,
        Ok(_) => Answered::Stranger,
        // Something accepted and says nothing: it may be a tracker that is still opening its log.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Answered::Nothing
        }
        Err(_) => Answered::Stranger,
    }
}

/// Whether an answer has what every tracker's answer has.
fn is_tracker(answer: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(answer)
        .is_ok_and(|answer| answer["status"].is_string() && answer["epoch"].is_u64())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn wish<'a>(root: &'a Path, lines: &'a [SocketAddr]) -> Wish<'a> {
        Wish { root, lines, own: lines[0], found_anyway: false, rejoin: false }
    }

    #[test]
    fn a_founding_makes_key_and_log_and_starts_over_while_the_log_has_no_entry() {
        let root = tempfile::tempdir().unwrap();
        let lines = ["127.0.0.1:0".parse().unwrap()];
        let first = prepare(&wish(root.path(), &lines)).unwrap();
        assert_eq!(first.dir, root.path().join("127.0.0.1_0"));
        let again = prepare(&wish(root.path(), &lines)).unwrap();
        assert_eq!(again.key.cluster, first.key.cluster);
        fs::remove_file(first.dir.join(LOG_FILE)).unwrap();
        let lost = prepare(&wish(root.path(), &lines)).unwrap_err().to_string();
        assert!(lost.contains("--data") && lost.contains("No log"), "{lost}");
    }

    #[test]
    fn another_address_is_told_from_a_lost_disk_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let lines: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()];
        let first = prepare(&wish(root.path(), &lines[..1])).unwrap();
        fs::create_dir(root.path().join("notes")).unwrap();
        for _ in 0..2 {
            let refused = prepare(&wish(root.path(), &lines[1..])).unwrap_err().to_string();
            let advice =
                "Beside the key: 127.0.0.1_0; if the address changed, rename that directory to `127.0.0.2_0`";
            assert!(refused.contains(advice), "{refused}");
        }
        fs::rename(first.dir, root.path().join("127.0.0.2_0")).unwrap();
        let moved = prepare(&wish(root.path(), &lines[1..])).unwrap();
        assert_eq!(moved.key.cluster, first.key.cluster);
    }

    #[test]
    fn nothing_is_synced_above_where_the_filesystem_is_mounted() {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let (mounted, above) = (Path::new("/dev/shm"), Path::new("/dev"));
        if device(mounted).is_none() || device(mounted) == device(above) {
            eprintln!("skipped: /dev/shm is no filesystem of its own here");
            return;
        }
        let Ok(dir) = tempfile::tempdir_in(mounted) else {
            eprintln!("skipped: /dev/shm may not be written here");
            return;
        };
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let expected = [deep.parent().unwrap(), dir.path(), mounted];
        assert_eq!(above_on_its_filesystem(&deep).unwrap(), expected);
        sync_above(&deep).unwrap();
    }

    #[test]
    fn whoever_answers_on_another_line_is_told_apart() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(ask(silent.local_addr().unwrap()), Answered::Nothing);
        // A port that is taken, so that nobody else comes to listen there, and refuses.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        assert_eq!(ask(taken.local_addr().unwrap().as_socket().unwrap()), Answered::Refused);
        for (answer, expected) in [
            ("{\"status\":\"success\",\"message\":\"\",\"epoch\":7}\n", Answered::Tracker),
            ("SSH-2.0-example\n", Answered::Stranger),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let line = listener.local_addr().unwrap();
            // It ends with the process.
            std::thread::spawn(move || {
                for mut connection in listener.incoming().map_while(Result::ok) {
                    // Who asked may have waited long enough.
                    let _ = connection.write_all(answer.as_bytes());
                }
            });
            // An answer that a slow machine gives too late is none; then it is asked for again.
            let answered = (0..10).map(|_| ask(line)).find(|answered| *answered != Answered::Nothing);
            assert_eq!(answered, Some(expected));
        }
    }
}
