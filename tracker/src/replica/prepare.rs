//! From a data root to a log that can be opened: reads the directory, probes the other lines, and founds a cluster if the
//! rules of [`founding`](super::founding) allow it.
//!
//! Crash order of a founding: an empty log, its directories, the key, then (when the replica starts) the first entry. If it
//! is killed in between, the next start finds a log without an entry and starts over.

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

/// What the operator gave on the command line.
#[derive(Clone, Debug)]
pub struct FoundingOptions<'a> {
    /// The data root, `--data`.
    pub root: &'a Path,
    /// The lines of the cluster file.
    pub lines: &'a [SocketAddr],
    /// The line that this tracker serves.
    pub own_line: SocketAddr,
    /// `--found`.
    pub found_anyway: bool,
}

/// A log that can be opened.
#[derive(Debug)]
pub struct PreparedLog {
    /// Key of the cluster.
    pub key: ClusterKey,
    /// Directory of the tracker.
    pub dir: PathBuf,
}

/// Why there is no log to open.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages show the fields")]
pub enum PrepareError {
    /// A file is faulty.
    #[error(transparent)]
    Fault(#[from] ReplicaFault),
    /// The rules of founding forbid it.
    #[error("{line} with {root}: {refusal}{other_logs}", root = .root.display())]
    Refused { line: SocketAddr, root: PathBuf, refusal: FoundingRefusal, other_logs: String },
}

/// Directory of the tracker that serves a line.
#[must_use]
pub fn log_directory(root: &Path, line: SocketAddr) -> PathBuf {
    root.join(format!("{}_{}", line.ip(), line.port()))
}

/// Finds or founds the log of a tracker. While other lines do not answer it probes them again, and logs that once.
///
/// # Errors
/// [`PrepareError`] says what to do.
pub fn prepare_log(options: &FoundingOptions<'_>) -> Result<PreparedLog, PrepareError> {
    let dir = log_directory(options.root, options.own_line);
    let key = ClusterKey::read(options.root)?;
    let log = find_log(&dir)?;
    let alone = FoundingEvidence {
        is_first_line: options.lines.first() == Some(&options.own_line),
        has_key: key.is_some(),
        log,
        probes: &[],
        found_anyway: options.found_anyway,
    };
    let mut others = if needs_probes(&alone) { probe_lines(options) } else { Vec::new() };
    let mut is_reported = false;
    loop {
        match decide_founding(&FoundingEvidence { probes: &others, ..alone.clone() }) {
            FoundingDecision::Resume => break,
            FoundingDecision::Found => return found_log(options, &dir, key),
            FoundingDecision::Wait(silent) => {
                if !is_reported {
                    tracing::warn!(
                        ?silent,
                        "these trackers of the cluster file do not answer; waiting, since they may hold its log. If \
                         they hold none, start with --found"
                    );
                    is_reported = true;
                }
                others = probe_lines(options);
            }
            FoundingDecision::Refuse(refusal) => {
                let other_logs = describe_other_logs(options, &refusal);
                return Err(PrepareError::Refused {
                    line: options.own_line,
                    root: options.root.to_owned(),
                    refusal,
                    other_logs,
                });
            }
        }
    }
    let Some(key) = key else { unreachable!("Resume is decided only with a key") };
    Ok(PreparedLog { key, dir })
}

/// The log in a tracker's directory.
fn find_log(dir: &Path) -> Result<LogPresence, ReplicaFault> {
    if !dir.join(LOG_FILE).exists() {
        return Ok(LogPresence::None);
    }
    // With a witness the log had entries, even if it seems to have none now: opening it reports the damage.
    if dir.join(WITNESS_FILE).exists() {
        return Ok(LogPresence::Whole);
    }
    let log = ReplicaStore::open_overlaid(dir)?;
    Ok(if log.has_entries()? { LogPresence::Whole } else { LogPresence::Unfinished })
}

/// Begins a log: first the empty file, then the key. Removes an unfinished log.
fn found_log(
    options: &FoundingOptions<'_>,
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
        None => ClusterKey::create(options.root)?,
    };
    let place = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    tracing::warn!(
        cluster = %key.cluster,
        "a new cluster begins in {}, without users, groups and files. If this tracker had some, stop it, and start it \
         with the --data directory that has them: is its filesystem mounted?",
        place.display()
    );
    Ok(PreparedLog { key, dir: dir.to_owned() })
}

/// Makes the names of a directory and of its parents durable. Any of them may be new, from this start or an earlier one.
fn sync_parents(dir: &Path) -> Result<(), ReplicaFault> {
    let fault = |doing| move |error| ReplicaFault::io(dir, doing, error);
    let whole = dir.canonicalize().map_err(fault("find the directory"))?;
    for above in parents_on_filesystem(&whole).map_err(fault("look at the directories above"))? {
        match sync_directory(above) {
            // A parent that this user may not read was not created by it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced.map_err(fault("sync the directories above"))?,
        }
    }
    Ok(())
}

/// The parents of a directory on its own filesystem. The mount point and what lies above it existed before.
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

/// The logs in a data root as a sentence, for a lost log: a changed address looks like a lost disk.
fn describe_other_logs(options: &FoundingOptions<'_>, refusal: &FoundingRefusal) -> String {
    if !matches!(refusal, FoundingRefusal::LogLost) {
        return String::new();
    }
    let mut names: Vec<String> = fs::read_dir(options.root)
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
    let own = log_directory(Path::new(""), options.own_line);
    let (names, own) = (names.join(", "), own.display());
    format!(". Beside the key: {names}; if the address changed, rename that directory to `{own}`")
}

/// Probes every other line.
fn probe_lines(options: &FoundingOptions<'_>) -> Vec<(SocketAddr, ProbeAnswer)> {
    let others = options.lines.iter().filter(|line| **line != options.own_line && line.port() != 0);
    others
        .map(|line| {
            let answered = probe_line(*line);
            if answered == ProbeAnswer::OtherProgram {
                tracing::warn!(%line, "the program that listens there is not a tracker; the line counts as free");
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
        // A program accepted and sends nothing: it may be a tracker that is still opening its log.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            ProbeAnswer::NoAnswer
        }
        Err(_) => ProbeAnswer::OtherProgram,
    }
}

/// Whether an answer has the fields of every tracker's answer.
fn is_tracker(answer: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(answer)
        .is_ok_and(|answer| answer["status"].is_string() && answer["epoch"].is_u64())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn options<'a>(root: &'a Path, lines: &'a [SocketAddr]) -> FoundingOptions<'a> {
        FoundingOptions { root, lines, own_line: lines[0], found_anyway: false }
    }

    #[test]
    fn a_founding_makes_key_and_log_and_starts_over_while_the_log_has_no_entry() {
        let root = tempfile::tempdir().unwrap();
        let lines = ["127.0.0.1:0".parse().unwrap()];
        let first = prepare_log(&options(root.path(), &lines)).unwrap();
        assert_eq!(first.dir, root.path().join("127.0.0.1_0"));
        let again = prepare_log(&options(root.path(), &lines)).unwrap();
        assert_eq!(again.key.cluster, first.key.cluster);
        fs::remove_file(first.dir.join(LOG_FILE)).unwrap();
        let lost = prepare_log(&options(root.path(), &lines)).unwrap_err().to_string();
        assert!(lost.contains("--data") && lost.contains("No log"), "{lost}");
    }

    #[test]
    fn another_address_is_told_from_a_lost_disk_and_leaves_no_files() {
        let root = tempfile::tempdir().unwrap();
        let lines: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "127.0.0.2:0".parse().unwrap()];
        let first = prepare_log(&options(root.path(), &lines[..1])).unwrap();
        fs::create_dir(root.path().join("notes")).unwrap();
        for _ in 0..2 {
            let refused = prepare_log(&options(root.path(), &lines[1..])).unwrap_err().to_string();
            let advice =
                "Beside the key: 127.0.0.1_0; if the address changed, rename that directory to `127.0.0.2_0`";
            assert!(refused.contains(advice), "{refused}");
        }
        fs::rename(first.dir, root.path().join("127.0.0.2_0")).unwrap();
        let moved = prepare_log(&options(root.path(), &lines[1..])).unwrap();
        assert_eq!(moved.key.cluster, first.key.cluster);
    }

    #[test]
    fn nothing_is_synced_above_where_the_filesystem_is_mounted() {
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let (mounted, above) = (Path::new("/dev/shm"), Path::new("/dev"));
        if device(mounted).is_none() || device(mounted) == device(above) {
            eprintln!("skipped: /dev/shm is not a filesystem of its own here");
            return;
        }
        let Ok(dir) = tempfile::tempdir_in(mounted) else {
            eprintln!("skipped: /dev/shm is not writable here");
            return;
        };
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let expected = [deep.parent().unwrap(), dir.path(), mounted];
        assert_eq!(parents_on_filesystem(&deep).unwrap(), expected);
        sync_parents(&deep).unwrap();
    }

    #[test]
    fn trackers_other_programs_and_silence_on_a_line_are_told_apart() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(probe_line(silent.local_addr().unwrap()), ProbeAnswer::NoAnswer);
        // A bound port without a listener refuses connections, and no other program can listen there.
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        assert_eq!(probe_line(taken.local_addr().unwrap().as_socket().unwrap()), ProbeAnswer::Refused);
        for (answer, expected) in [
            ("{\"status\":\"success\",\"message\":\"\",\"epoch\":7}\n", ProbeAnswer::Tracker),
            ("SSH-2.0-example\n", ProbeAnswer::OtherProgram),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let line = listener.local_addr().unwrap();
            // The thread ends with the process.
            std::thread::spawn(move || {
                for mut connection in listener.incoming().map_while(Result::ok) {
                    // The probe may have given up.
                    let _ = connection.write_all(answer.as_bytes());
                }
            });
            // On a slow machine the answer may come too late; then probe again.
            let answered =
                (0..10).map(|_| probe_line(line)).find(|answered| *answered != ProbeAnswer::NoAnswer);
            assert_eq!(answered, Some(expected));
        }
    }
}
