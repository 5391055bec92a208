//! The manifest of a 1 TiB file passes through log and tables in parts, within bounded memory. The test has a process of its
//! own, since it measures that process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::sync::mpsc;
use std::time::Duration;

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::units::{ChainState, Digest};
use tracker::replica::{LogDirectory, Replica, ReplicaOptions, ReplicaStore};
use tracker::state::command::{LogAction, LogCommand, ManifestEnd, ManifestPart, Policy};
use tracker::state::id::{Actor, GroupFile, GroupId, SessionId, UploadId, UserId};
use tracker::state::limits::MANIFEST_ROW_PIECES;
use tracker::state::node::NodeEndpoint;
use tracker::state::outcome::CommandOutcome;
use tracker::state::queries::StateQueries;

/// 1 TiB in pieces of 512 KiB.
const PIECES: u32 = 2_097_152;

/// Most growth of the process, in KiB: the database's cache, an entry in each of its forms, and the allocator's slack. The
/// digests and the chain are 80 MiB, and the log that carried them over 100.
const GROWTH_MAX_KIB: u64 = 112 * 1024;

fn value(piece: u32, salt: u8) -> [u8; 20] {
    let mut bytes = [salt; 20];
    bytes[..4].copy_from_slice(&piece.to_be_bytes());
    bytes
}

/// Digests and chain of one row; the file's last piece has no state.
fn part(first: u32) -> ManifestPart {
    let pieces = first..first + MANIFEST_ROW_PIECES;
    let digests: Vec<Digest> = pieces.clone().map(|piece| Digest(value(piece, 1))).collect();
    let states = pieces.filter(|piece| piece + 1 < PIECES);
    let chain: Vec<ChainState> = states.map(|piece| ChainState(value(piece, 2))).collect();
    ManifestPart::new(&digests, Some(&chain))
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn propose(replica: &Replica, command: LogCommand) -> CommandOutcome {
    let (reply, answer) = mpsc::sync_channel(1);
    replica.propose(command, move |outcome| reply.send(outcome).unwrap()).unwrap();
    answer.recv_timeout(Duration::from_secs(600)).unwrap().unwrap().unwrap()
}

#[test]
fn the_manifest_of_one_tib_passes_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    ReplicaStore::create(dir.path()).unwrap();
    let options = ReplicaOptions::at("127.0.0.1:1", "test");
    let replica = Replica::start(LogDirectory(dir.path().into()), options.clone()).unwrap();
    let user = UserId::new("alice").unwrap();
    let actor = Actor { user: user.clone(), session: SessionId([7; 16]) };
    let group = GroupId::new("g").unwrap();
    let anonymous = |action| LogCommand::anonymous(1_000, action);
    let by = |action| LogCommand::by(actor.clone(), 1_000, None, action);
    propose(&replica, anonymous(LogAction::CreateUser { user: user.clone(), password_hash: "h".into() }));
    let login = LogAction::Login { user, password_epoch: 0, session: actor.session, node: None };
    propose(&replica, anonymous(login));
    propose(&replica, by(LogAction::CreateGroup { group: group.clone(), policy: Policy::Open }));

    let before = peak_kib();
    let upload = UploadId::new("big").unwrap();
    let last = PIECES - MANIFEST_ROW_PIECES;
    for first in (0..last).step_by(MANIFEST_ROW_PIECES as usize) {
        let action = LogAction::UploadPart { upload: upload.clone(), first, part: part(first) };
        let next = first + MANIFEST_ROW_PIECES;
        assert_eq!(propose(&replica, by(action)), CommandOutcome::PartStored { next });
    }
    let file = GroupFile { group, name: FileName::new("image").unwrap() };
    let manifest = ManifestEnd {
        upload: Some(upload),
        first: last,
        part: part(last),
        length: Some(1 << 40),
        proof: FileProof::Whole(Digest([9; 20])),
    };
    let node = NodeEndpoint { address: "127.0.0.1:5000".parse().unwrap(), peer_key: None };
    let listed = propose(&replica, by(LogAction::Upload { file: file.clone(), manifest, node }));
    assert_eq!(listed, CommandOutcome::Uploaded { new_file: true });
    let grown = peak_kib() - before;
    assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");
    drop(replica);

    let replica = Replica::start(LogDirectory(dir.path().into()), options).unwrap();
    let view = replica.view().unwrap();
    let pieces = StateQueries::new(&view).pieces(&file, PIECES - 3, 10).unwrap();
    let expected: Vec<Digest> = (PIECES - 3..PIECES).map(|piece| Digest(value(piece, 1))).collect();
    assert_eq!(pieces.digests, expected);
    assert_eq!(pieces.chain.unwrap().len(), 2);
}
