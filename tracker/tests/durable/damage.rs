//! Damaged files: a flipped bit in each page, and files cut short. Each is read as it was, or refused with the file's name
//! and what to do. It is never read as something else.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tracker::replica::{LOG_FILE, LogDirectory, ReplicaStore, WITNESS_FILE, print_log};

use super::rig::{create_user, propose, start};

const PAGE_BYTES: usize = 4_096;

/// A log, its witness, and all of its content.
struct Sound {
    log: Vec<u8>,
    witness: Vec<u8>,
    lines: String,
}

/// A log after a clean end, or after kill -9: the files of a running tracker.
fn sound(killed: bool) -> Sound {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let replica = start(LogDirectory(dir.path().into())).unwrap();
    for number in 0..30 {
        propose(&replica, create_user(number)).unwrap().unwrap();
    }
    if !killed {
        drop(replica);
        return taken(dir.path());
    }
    let taken = taken(dir.path());
    drop(replica);
    taken
}

fn taken(dir: &Path) -> Sound {
    let (log, witness) = (fs::read(dir.join(LOG_FILE)).unwrap(), fs::read(dir.join(WITNESS_FILE)).unwrap());
    let lines = lines(&log, &witness).unwrap();
    assert!(lines.contains("user29"), "the log holds what was written");
    Sound { log, witness, lines }
}

/// The content of a log, or why it is refused.
fn lines(log: &[u8], witness: &[u8]) -> Result<String, String> {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let place = dir.path().join("tracker");
    fs::create_dir(&place).unwrap();
    fs::write(place.join(LOG_FILE), log).unwrap();
    fs::write(place.join(WITNESS_FILE), witness).unwrap();
    let mut lines = Vec::new();
    match print_log(&place, &mut lines) {
        Ok(()) => Ok(String::from_utf8(lines).unwrap()),
        Err(fault) => {
            assert_eq!(fs::read(place.join(LOG_FILE)).unwrap(), log, "a refused file is unchanged");
            Err(fault.to_string())
        }
    }
}

/// Whether a changed log was refused. Fails if it is read as something else.
fn refused(sound: &Sound, log: &[u8], how: &str) -> bool {
    match lines(log, &sound.witness) {
        Ok(lines) => {
            assert!(lines == sound.lines, "{how}: read as something else");
            false
        }
        Err(fault) => {
            assert!(fault.contains(LOG_FILE), "{how}: {fault}");
            assert!(fault.contains("backup") || fault.contains("copy"), "{how}: {fault}");
            true
        }
    }
}

#[test]
fn a_flipped_bit_is_never_read_as_something_else() {
    for killed in [false, true] {
        let sound = sound(killed);
        let mut refusals = 0;
        let pages = sound.log.len() / PAGE_BYTES;
        for page in 0..pages {
            for round in 0..4 {
                let at = page * PAGE_BYTES + (page * 977 + round * 1_031) % PAGE_BYTES;
                let mut log = sound.log.clone();
                log[at] ^= 1 << ((page + round) % 8);
                refusals += usize::from(refused(&sound, &log, &format!("byte {at}, killed {killed}")));
            }
        }
        assert!(refusals > 0, "no flip in {pages} pages was noticed: the test tests nothing");
    }
}

/// The header selects one of two commits, so a flipped bit there could undo the last change.
#[test]
fn a_flipped_bit_of_the_header_takes_nothing_back() {
    for killed in [false, true] {
        let sound = sound(killed);
        for bit in 0..320 * 8 {
            let mut log = sound.log.clone();
            log[bit / 8] ^= 1 << (bit % 8);
            refused(&sound, &log, &format!("bit {bit}, killed {killed}"));
        }
    }
}

#[test]
fn a_cut_file_is_never_read_as_something_else() {
    let sound = sound(true);
    let length = sound.log.len();
    let every_byte = length - 512..length;
    let every_page = (0..length).step_by(PAGE_BYTES).flat_map(|at| [at, at + 1, at + PAGE_BYTES - 1]);
    let mut refusals = 0;
    for cut in every_byte.chain(every_page) {
        refusals += usize::from(refused(&sound, &sound.log[..cut], &format!("cut at {cut}")));
    }
    assert!(refusals > 0);
}

#[test]
fn an_older_copy_is_refused_until_its_witness_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let replica = start(LogDirectory(dir.path().into())).unwrap();
    propose(&replica, create_user(0)).unwrap().unwrap();
    let older = fs::read(dir.path().join(LOG_FILE)).unwrap();
    propose(&replica, create_user(1)).unwrap().unwrap();
    drop(replica);
    fs::write(dir.path().join(LOG_FILE), older).unwrap();
    let fault = start(LogDirectory(dir.path().into())).unwrap_err().to_string();
    assert!(fault.contains("acknowledged"), "{fault}");
    fs::remove_file(dir.path().join(WITNESS_FILE)).unwrap();
    start(LogDirectory(dir.path().into())).unwrap();
}

#[test]
fn what_inspect_prints_has_no_secret() {
    let sound = sound(false);
    for kind in ["\"meta\"", "\"entry\"", "\"Users\""] {
        assert!(sound.lines.contains(kind), "{kind}");
    }
    assert!(!sound.lines.contains("secret-hash"));
}
