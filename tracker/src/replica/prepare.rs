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
use super::fault::ReplicaFault;
use super::founding::{
    FoundingDecision, FoundingEvidence, FoundingRefusal, LogPresence, ProbeAnswer, decide_founding,
    needs_probes,
};
use super::limits::{PROBE_ANSWER_MAX_BYTES, PROBE_MS};
use super::store::{LOG_FILE, ReplicaStore, WITNESS_FILE};

/// What the operator gave.
#[derive(Clone, Debug)]
pub struct FoundingOptions<'a> {
    /// The data root, `--data`.
    pub root: &'a Path,
    /// The cluster file's lines.
    pub lines: &'a [SocketAddr],
    /// The line that this tracker serves.
    pub own_line: SocketAddr,
    /// `--found`.
    pub found_anyway: bool,
}

/// A log that can be opened.
#[derive(Debug)]
pub struct PreparedLog {
    /// The cluster's key.
    pub key: ClusterKey,
    /// The tracker's directory.
    pub dir: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file is at fault.
    #[error(transparent)]
    Fault(#[from] ReplicaFault),
    /// The rules of founding.
    #[error("{line} with {root}: {refusal}{beside}", root = .root.display())]
    Refused {
        /// The line that was to be served.
        line: SocketAddr,
        /// The data root.
        root: PathBuf,
        /// Which rule.
        refusal: FoundingRefusal,
        /// Directories found beside the key, in words.
        beside: String,
    },
}

/// Where the tracker of a line keeps its log.
#[must_use]
pub fn log_directory(root: &Path, line: SocketAddr) -> PathBuf {
    root.join(format!("{}_{}", line.ip(), line.port()))
}

/// Finds or founds the log of a tracker. While others do not answer it asks again, and says so once.
///
/// # Errors
/// [`PrepareError`] says what to do.
pub fn prepare_log(wish: &FoundingOptions<'_>) -> Result<PreparedLog, PrepareError> {
    let dir = log_directory(wish.root, wish.own_line);
    let key = ClusterKey::read(wish.root)?;
    let log = find_log(&dir)?;
    let alone = FoundingEvidence {
        is_first_line: wish.lines.first() == Some(&wish.own_line),
        has_key: key.is_some(),
        log,
        probes: &[],
        found_anyway: wish.found_anyway,
    };
    let mut others = if needs_probes(&alone) { probe_lines(wish) } else { Vec::new() };
    let mut said = false;
    loop {
        match decide_founding(&FoundingEvidence { probes: &others, ..alone.clone() }) {
            FoundingDecision::Resume => break,
            FoundingDecision::Found => return found_log(wish, &dir, key),
            FoundingDecision::Wait(silent) => {
                if !said {
                    tracing::warn!(
                        ?silent,
                        "these trackers of the cluster file do not answer; waiting, since they may hold its log. If \
                         they hold none, start with --found"
                    );
                    said = true;
                }
                others = probe_lines(wish);
            }
            FoundingDecision::Refuse(refusal) => {
                let beside = describe_other_logs(wish, &refusal);
                return Err(PrepareError::Refused {
                    line: wish.own_line,
                    root: wish.root.to_owned(),
                    refusal,
                    beside,
                });
            }
        }
    }
    let Some(key) = key else { unreachable!("a log is gone on with only beside its key") };
    Ok(PreparedLog { key, dir })
}

/// What of a log is in a directory.
fn find_log(dir: &Path) -> Result<LogPresence, ReplicaFault> {
    if !dir.join(LOG_FILE).exists() {
        return Ok(LogPresence::None);
    }
    // A log that was acknowledged something is whole, whatever it looks like: its opening says what is wrong with it.
    if dir.join(WITNESS_FILE).exists() {
        return Ok(LogPresence::Whole);
    }
    let log = ReplicaStore::open_overlaid(dir)?;
    Ok(if log.has_entries()? { LogPresence::Whole } else { LogPresence::Unfinished })
}

/// Begins a log: empty file, then key. An unfinished one goes first.
fn found_log(
    wish: &FoundingOptions<'_>,
    dir: &Path,
    key: Option<ClusterKey>,
) -> Result<PreparedLog, PrepareError> {
    fs::create_dir_all(dir).map_err(|error| ReplicaFault::io(dir, "make the directory", error))?;
    match fs::remove_file(dir.join(LOG_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ReplicaFault::io(dir, "remove an unfinished log", error).into());
        }
        _ => {}
    }
    ReplicaStore::create(dir)?;
    sync_parents(dir)?;
    let key = match key {
        Some(key) => key,
        None => ClusterKey::create(wish.root)?,
    };
    tracing::info!(cluster = %key.cluster, dir = %dir.display(), "a new cluster is founded");
    Ok(PreparedLog { key, dir: dir.to_owned() })
}

/// Makes the names of a directory and of all above it durable: any of them may have been made for it just now, or by an earlier start
/// that ended before this.
fn sync_parents(dir: &Path) -> Result<(), ReplicaFault> {
    let fault = |doing| move |error| ReplicaFault::io(dir, doing, error);
    let whole = dir.canonicalize().map_err(fault("find the directory"))?;
    for above in parents_on_filesystem(&whole).map_err(fault("look at the directories above"))? {
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
fn parents_on_filesystem(dir: &Path) -> io::Result<Vec<&Path>> {
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
fn describe_other_logs(wish: &FoundingOptions<'_>, refusal: &FoundingRefusal) -> String {
    if !matches!(refusal, FoundingRefusal::LogLost) {
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
    let own = log_directory(Path::new(""), wish.own_line);
    let (names, own) = (names.join(", "), own.display());
    format!(". Beside the key: {names}; if the address changed, rename that directory to `{own}`")
}

/// Asks every other line who is there.
fn probe_lines(wish: &FoundingOptions<'_>) -> Vec<(SocketAddr, ProbeAnswer)> {
    let others = wish.lines.iter().filter(|line| **line != wish.own_line && line.port() != 0);
    others
        .map(|line| {
            let answered = probe_line(*line);
            if answered == ProbeAnswer::OtherProgram {
                tracing::warn!(%line, "what listens there is no tracker; it is taken for nobody");
            }
            (*line, answered)
        })
        .collect()
}

fn probe_line(line: SocketAddr) -> ProbeAnswer {
    let patience = Duration::from_millis(PROBE_MS);
    let mut connection = match TcpStream::connect_timeout(&line, patience) {
        Ok(connection) => connection,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return ProbeAnswer::Refused,
        Err(_) => return ProbeAnswer::NoAnswer,
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
        Ok(answer) if is_tracker(&answer) => ProbeAnswer::Tracker,
        Ok(_) => ProbeAnswer::OtherProgram,
        // Something accepted and says nothing: it may be a tracker that is still opening its log.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            ProbeAnswer::NoAnswer
        }
        Err(_) => ProbeAnswer::OtherProgram,
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

    fn wish<'a>(root: &'a Path, lines: &'a [SocketAddr]) -> FoundingOptions<'a> {
        FoundingOptions { root, lines, own_line: lines[0], found_anyway: false }
    }

    #[test]
    fn a_founding_makes_key_and_log_and_starts_over_while_the_log_has_no_entry() {
        let root = tempfile::tempdir().unwrap();
        let lines = ["127.0.0.1:0".parse().unwrap()];
        let first = prepare_log(&wish(root.path(), &lines)).unwrap();
        assert_eq!(first.dir, root.path().join("127.0.0.1_0"));
        let again = prepare_log(&wish(root.path(), &lines)).unwrap();
        assert_eq!(again.key.cluster, first.key.cluster);
        fs::remove_file(first.dir.join(LOG_FILE)).unwrap();
        let lost = prepare_log(&wish(root.path(), &lines)).unwrap_err().to_string();
        assert!(lost.contains("--data") && lost.contains("No log"), "{lost}");
    }

    #[test]
    fn another_address_is_told_from_a_lost_disk_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let lines: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()];
        let first = prepare_log(&wish(root.path(), &lines[..1])).unwrap();
        fs::create_dir(root.path().join("notes")).unwrap();
        for _ in 0..2 {
            let refused = prepare_log(&wish(root.path(), &lines[1..])).unwrap_err().to_string();
            let advice =
                "Beside the key: 127.0.0.1_0; if the address changed, rename that directory to `127.0.0.2_0`";
            assert!(refused.contains(advice), "{refused}");
        }
        fs::rename(first.dir, root.path().join("127.0.0.2_0")).unwrap();
        let moved = prepare_log(&wish(root.path(), &lines[1..])).unwrap();
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
        assert_eq!(parents_on_filesystem(&deep).unwrap(), expected);
        sync_parents(&deep).unwrap();
    }

    #[test]
    fn whoever_answers_on_another_line_is_told_apart() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(probe_line(silent.local_addr().unwrap()), ProbeAnswer::NoAnswer);
        // A port that is taken, so that nobody else comes to listen there, and refuses.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        assert_eq!(probe_line(taken.local_addr().unwrap().as_socket().unwrap()), ProbeAnswer::Refused);
        for (answer, expected) in [
            ("{\"status\":\"success\",\"message\":\"\",\"epoch\":7}\n", ProbeAnswer::Tracker),
            ("SSH-2.0-example\n", ProbeAnswer::OtherProgram),
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
            let answered =
                (0..10).map(|_| probe_line(line)).find(|answered| *answered != ProbeAnswer::NoAnswer);
            assert_eq!(answered, Some(expected));
        }
    }
}
