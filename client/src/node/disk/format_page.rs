//! The worked records of docs/formats.md are read as they stand there, and written as the same bytes.

use std::fs;

use super::records::RecordStore;
use super::state_dir::StateDir;

/// Name of the worked records: 16 hex digits, as for all.
const ID: &str = "0123456789abcdef";

/// The block of the page below a title, without its last line end.
fn worked_block(title: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(title).unwrap_or_else(|| panic!("the page lacks {title:?}"));
    let (_, rest) = rest.split_once("```text\n").unwrap();
    rest.split_once("\n```").unwrap().0.to_owned()
}

#[test]
fn share_record_and_manifest_are_those_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let shares = dir.path().join("shares");
    fs::create_dir(&shares).unwrap();
    let text = worked_block("Worked share record:");
    let record_path = shares.join(format!("{ID}.json"));
    fs::write(&record_path, &text).unwrap();
    let hex = worked_block("Worked: `disk.img`");
    let bytes = hex.lines().skip(1).flat_map(str::split_whitespace);
    let manifest: Vec<u8> = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    fs::write(shares.join(format!("{ID}.manifest")), &manifest).unwrap();
    let records = RecordStore::in_state_dir(dir.path());
    let (id, share) = records.read_shares().pop().expect("the worked record is a valid one");
    let read = records.manifest(&id, &share.file).expect("the record names this manifest");
    assert_eq!(read.to_bytes(), manifest);
    records.write_share(&id, &share).unwrap();
    assert_eq!(fs::read_to_string(record_path).unwrap(), written_next(&text));
}

/// A worked record as the next write makes it.
fn written_next(text: &str) -> String {
    let next = text.replace("\"write\":41,", "\"write\":42,");
    assert_ne!(next, text);
    next
}

#[test]
fn a_share_record_of_format_1_is_read_without_the_time_of_the_last_status_change() {
    let dir = tempfile::tempdir().unwrap();
    let shares = dir.path().join("shares");
    fs::create_dir(&shares).unwrap();
    let text = worked_block("Worked share record:");
    let old = text.replace("\"format\":3,\"write\":41", "\"format\":1").replace(":1700000100:250:", ":");
    assert!(old.len() < text.len());
    fs::write(shares.join(format!("{ID}.json")), old).unwrap();
    let records = RecordStore::in_state_dir(dir.path());
    let (_, share) = records.read_shares().pop().expect("records of format 1 are read");
    assert_eq!(share.file.fingerprint.to_string(), "600000:1700000000:500:7:64769");
    assert_eq!(records.problems(), [""; 0]);
}

#[test]
fn the_download_record_is_that_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let downloads = dir.path().join("downloads");
    fs::create_dir(&downloads).unwrap();
    let text = worked_block("Worked download record:");
    let path = downloads.join(format!("{ID}.json"));
    fs::write(&path, &text).unwrap();
    let records = RecordStore::in_state_dir(dir.path());
    let (id, download) = records.read_downloads().pop().expect("the worked record is a valid one");
    records.write_download(&id, &download).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), written_next(&text));
}

#[test]
fn session_time_key_and_port_are_those_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::lock(dir.path()).unwrap().unwrap();
    let path = dir.path().join("session.json");
    let text = worked_block("Worked `session.json`:");
    fs::write(&path, &text).unwrap();
    state.save_session(&state.session().expect("the worked session is a valid one")).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), text);
    let path = dir.path().join("tracker_time.json");
    let text = worked_block("Worked `tracker_time.json`:");
    fs::write(&path, &text).unwrap();
    state.save_told_time(&state.told_time().expect("the worked time is a valid one")).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), text);
    state.secret_key().unwrap();
    assert_eq!(fs::read(dir.path().join("node.key")).unwrap().len(), 32);
    state.save_port(4_321).unwrap();
    assert_eq!(fs::read(dir.path().join("port")).unwrap(), b"4321\n");
}
