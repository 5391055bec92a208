//! The worked bytes of docs/formats.md equal what a tracker writes to its files, and are read back as what the
//! page says.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::ticket::PeerKey;
use engine::proto::units::{ChainState, Digest};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tracker::replica::{
    ClusterKey, KEY_FILE, LOG_FILE, LogDirectory, Replica, ReplicaOptions, ReplicaStore, WITNESS_FILE,
    Witness,
};
use tracker::state::command::{LogAction, LogCommand, ManifestEnd, ManifestPart, Policy};
use tracker::state::id::{Actor, GroupFile, GroupId, RequestId, SessionId, UploadId, UserId};
use tracker::state::node::NodeEndpoint;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Number of the table whose values are no JSON.
const MANIFESTS: u8 = 11;

/// Longest wait for an answer: a hang, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md")).unwrap()
}

/// Every text has to be on the page.
fn assert_on_page(wanted: &[String]) {
    let page = page();
    let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|text| !page.contains(text)).collect();
    assert!(missing.is_empty(), "the page lacks:\n{}", missing.join("\n"));
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// The text block below a title on the page.
fn worked_block(title: &str) -> String {
    let page = page();
    let (_, rest) = page.split_once(title).unwrap_or_else(|| panic!("the page lacks {title:?}"));
    let (_, rest) = rest.split_once("```text\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Commands that leave at least one row in each table.
fn commands() -> Vec<LogCommand> {
    let [alice, bob] = ["alice", "bob"].map(|name| UserId::new(name).unwrap());
    let sessions = [SessionId([0xA1; 16]), SessionId([0xB2; 16])];
    let node =
        NodeEndpoint { address: "10.0.0.7:9000".parse().unwrap(), peer_key: Some(PeerKey([0x55; 32])) };
    let keyless = NodeEndpoint { address: "10.0.0.8:9000".parse().unwrap(), peer_key: None };
    let group = GroupId::new("team").unwrap();
    let digest = Digest([0x11; 20]);
    let create = |user: &UserId| {
        let password_hash = "$argon2id$…".to_owned();
        LogCommand::anonymous(1_000, LogAction::CreateUser { user: user.clone(), password_hash })
    };
    let login = |user: &UserId, session, node| {
        let action = LogAction::Login { user: user.clone(), password_epoch: 0, session, node };
        LogCommand::anonymous(1_001, action)
    };
    let by = |user: &UserId, session, at_s, id: Option<&str>, action| {
        LogCommand::by(Actor { user: user.clone(), session }, at_s, id.map(RequestId::of), action)
    };
    let create_group = LogAction::CreateGroup { group: group.clone(), policy: Policy::Approval };
    let upload = LogAction::Upload {
        file: GroupFile { group: group.clone(), name: FileName::new("f").unwrap() },
        manifest: ManifestEnd {
            upload: None,
            first: 0,
            part: ManifestPart::new(&[digest, digest], Some(&[ChainState([0x22; 20])])),
            length: Some(600_000),
            proof: FileProof::Whole(Digest([0x33; 20])),
        },
        node,
    };
    let digests = vec![digest; tracker::state::command::MANIFEST_ROW_PIECES as usize];
    let part = LogAction::UploadPart {
        upload: UploadId::new("u-1").unwrap(),
        first: 0,
        part: ManifestPart::new(&digests, None),
    };
    vec![
        create(&alice),
        create(&bob),
        login(&alice, sessions[0], Some(node)),
        login(&bob, sessions[1], Some(keyless)),
        by(&alice, sessions[0], 1_002, Some("7"), create_group),
        by(&bob, sessions[1], 1_003, None, LogAction::JoinGroup { group }),
        by(&alice, sessions[0], 1_004, None, upload),
        by(&alice, sessions[0], 1_005, None, part),
        // Its entry brings the rows of the commands before to the disk.
        LogCommand::anonymous(1_006, LogAction::Expire),
    ]
}

/// Runs the commands on a new replica, which is closed again.
fn write_log(dir: &Path) {
    ReplicaStore::create(dir).unwrap();
    let options = ReplicaOptions::at("10.0.0.1:8000", "00112233445566778899aabbccddeeff");
    let replica = Replica::start(LogDirectory(dir.into()), options).unwrap();
    for command in commands() {
        let (reply, result) = mpsc::sync_channel(1);
        replica.propose(command, move |answer| reply.send(answer).unwrap()).unwrap();
        result.recv_timeout(PATIENCE).unwrap().unwrap().unwrap();
    }
}

#[test]
fn the_log_file_has_the_tables_of_the_page() {
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path());
    let database = Database::open(dir.path().join(LOG_FILE)).unwrap();
    let view = database.begin_read().unwrap();
    let (mut tables, mut wanted) = (Vec::new(), Vec::new());
    for row in view.open_table(ROWS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        let (key, value) = (key.value(), value.value());
        tables.push(key[0]);
        let text = match key[0] {
            MANIFESTS if value.len() > 100 => continue,
            MANIFESTS => hex(value),
            _ => String::from_utf8(value.to_vec()).unwrap(),
        };
        let mut row = hex(key);
        if !text.is_empty() {
            write!(row, "\n  {text}").unwrap();
        }
        wanted.push(row);
    }
    tables.dedup();
    assert_eq!(tables, (1..=17).collect::<Vec<u8>>(), "each table has a row on the page");
    let log = view.open_table(LOG).unwrap();
    let first_command = log
        .iter()
        .unwrap()
        .map(|row| String::from_utf8(row.unwrap().1.value().to_vec()).unwrap())
        .find(|entry| entry.contains("create_user"))
        .unwrap();
    wanted.push(first_command);
    let meta = view.open_table(META).unwrap();
    for key in ["cluster", "starts", "vote", "applied"] {
        let value = meta.get(key).unwrap().unwrap();
        wanted.push(format!("{key}\n  {}", std::str::from_utf8(value.value()).unwrap()));
    }
    assert_on_page(&wanted);
}

#[test]
fn the_cluster_key_of_the_page_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = worked_block("Worked `cluster.key`");
    std::fs::write(dir.path().join(KEY_FILE), &text).unwrap();
    let key = ClusterKey::read(dir.path()).unwrap().unwrap();
    assert_eq!(*key.root, std::array::from_fn(|at| u8::try_from(at).unwrap()));
    assert_eq!(key.cluster, "00112233445566778899aabbccddeeff");
    std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
    let created = ClusterKey::create(dir.path()).unwrap();
    let written = std::fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
    let root: String = created.root.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, format!("{}\n{root}\n{}\n", text.lines().next().unwrap(), created.cluster));
}

#[test]
fn the_witness_of_the_page_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(WITNESS_FILE);
    let text = worked_block("Worked `acknowledged`");
    let bytes: Vec<u8> = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(Witness::open(&path).acknowledged(), 1_000);
    std::fs::remove_file(&path).unwrap();
    write_log(dir.path());
    assert_eq!(std::fs::read(&path).unwrap().len(), 16);
    assert!(Witness::open(&path).acknowledged() > 0);
}
