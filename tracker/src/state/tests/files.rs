//! Files: uploads whole and in parts, what counts as the same content, seeders, removal.

use std::ops::ControlFlow;

use engine::proto::manifest::EMPTY_DIGEST;
use engine::proto::units::{ChainState, PIECE_BYTES};

use super::*;
use crate::state::id::UploadId;
use crate::state::limits::{
    MANIFEST_ROW_PIECES, NODES_PER_USER_AND_FILE, ROW_MAX_BYTES, UNFINISHED_PIECES_PER_USER, UPLOAD_LIFE_S,
};
use crate::state::outcome::ManifestFault;
use crate::state::row_key::RowKey;
use crate::state::rows::{self, UploadRow};
use crate::state::tables::{Table, Tables};

const ROW: usize = MANIFEST_ROW_PIECES as usize;

/// Two members and their group.
fn scene() -> (Rig, Actor, Actor, GroupId) {
    let mut rig = Rig::default();
    let (alice, bob) = (rig.user("alice", 1), rig.user("bob", 2));
    let g = rig.group("g", &[&alice, &bob]);
    (rig, alice, bob, g)
}

fn put(file: &GroupFile, manifest: ManifestEnd) -> LogAction {
    LogAction::Upload { file: file.clone(), manifest, node: node(1) }
}

fn digests(count: usize) -> Vec<Digest> {
    (0..count).map(|index| Digest([u8::try_from(index % 251).unwrap(); 20])).collect()
}

fn states(count: usize) -> Vec<ChainState> {
    (0..count).map(|index| ChainState([u8::try_from(index % 241).unwrap(); 20])).collect()
}

/// The actions that list a file with these pieces in parts.
fn in_parts(
    file: &GroupFile,
    upload: &str,
    digests: &[Digest],
    chain: Option<&[ChainState]>,
) -> Vec<LogAction> {
    let upload = UploadId::new(upload).unwrap();
    let mut parts = ManifestPart::split(digests, chain);
    let last = parts.pop().unwrap();
    let mut firsts = (0u32..).map(|row| row * MANIFEST_ROW_PIECES);
    let mut actions: Vec<LogAction> = parts
        .into_iter()
        .zip(firsts.clone())
        .map(|(part, first)| LogAction::UploadPart { upload: upload.clone(), first, part })
        .collect();
    let first = firsts.nth(actions.len()).unwrap();
    let proof = FileProof::Whole(Digest([9; 20]));
    actions.push(put(file, ManifestEnd { upload: Some(upload), first, part: last, length: None, proof }));
    actions
}

#[test]
fn the_same_content_makes_another_seeder_and_other_content_is_refused() {
    let (mut rig, alice, bob, g) = scene();
    let f = file(&g, "f");
    assert_eq!(rig.act(&alice, upload(&f, 1, 1)), Ok(CommandOutcome::Uploaded { new_file: true }));
    assert_eq!(rig.act(&alice, upload(&f, 1, 1)), Ok(CommandOutcome::Uploaded { new_file: false }));
    assert_eq!(rig.act(&bob, upload(&f, 1, 2)), Ok(CommandOutcome::Uploaded { new_file: false }));
    assert_eq!(rig.act(&bob, upload(&f, 1, 3)), Ok(CommandOutcome::Uploaded { new_file: false }));
    assert_eq!(rig.holders(&f), [1, 2, 3], "two nodes of one user are two holders");
    assert_eq!(rig.act(&bob, upload(&f, 2, 2)), Err(CommandRefusal::OtherContent(f.clone())));
    assert_eq!(rig.queries().file(&f).unwrap().uploader, user("alice"));
    let carol = rig.user("carol", 4);
    assert_eq!(rig.act(&carol, upload(&f, 1, 4)), Err(CommandRefusal::NotMember(g)));
    assert_eq!(
        rig.act(&carol, upload(&file(&group("x"), "f"), 1, 4)),
        Err(CommandRefusal::NoSuchGroup(group("x")))
    );
}

#[test]
fn a_length_or_proof_that_one_uploader_left_out_does_not_make_another_file() {
    let (mut rig, alice, bob, g) = scene();
    let f = file(&g, "f");
    let piece = u64::from(PIECE_BYTES);
    let whole = manifest(1, 2);
    let pieces_only = ManifestEnd { proof: FileProof::PiecesOnly(Digest([5; 20])), ..whole.clone() };
    let sized = |length| ManifestEnd { length: Some(length), ..whole.clone() };
    rig.act(&alice, put(&f, sized(piece + 7))).unwrap();
    for same in [whole.clone(), pieces_only, sized(piece + 7)] {
        assert_eq!(rig.act(&bob, put(&f, same)), Ok(CommandOutcome::Uploaded { new_file: false }));
    }
    let other_proof = ManifestEnd { proof: FileProof::Whole(Digest([6; 20])), ..whole.clone() };
    let other_pieces = ManifestEnd { part: manifest(2, 2).part, ..whole.clone() };
    for other in [sized(piece + 8), other_proof, other_pieces, manifest(1, 3)] {
        assert_eq!(rig.act(&bob, put(&f, other)), Err(CommandRefusal::OtherContent(f.clone())));
    }
    let listed = rig.queries().file(&f).unwrap();
    assert_eq!((listed.length, listed.proof), (Some(piece + 7), whole.proof), "the first manifest is kept");
}

#[test]
fn files_are_known_by_group_and_name() {
    let (mut rig, alice, _, g) = scene();
    let h = rig.group("h", &[&alice]);
    for (key, content) in [(file(&g, "f"), 1), (file(&h, "f"), 2), (file(&g, "copy of f"), 1)] {
        assert_eq!(
            rig.act(&alice, upload(&key, content, 1)),
            Ok(CommandOutcome::Uploaded { new_file: true })
        );
    }
    rig.act(&alice, LogAction::RemoveFile { file: file(&g, "f") }).unwrap();
    assert_eq!(rig.holders(&file(&h, "f")), [1]);
    assert_eq!(rig.holders(&file(&g, "copy of f")), [1]);
    let names: Vec<String> =
        rig.queries().files(&g, None, 9).iter().map(|file| file.name.to_string()).collect();
    assert_eq!(names, ["copy of f"]);
}

#[test]
fn lists_come_in_pages_by_name() {
    let (mut rig, alice, _, g) = scene();
    for name in ["b", "a", "ä", "a b"] {
        rig.act(&alice, upload(&file(&g, name), 1, 1)).unwrap();
    }
    let page = |after: Option<&str>, count| -> Vec<String> {
        let views = rig.queries().files(&g, after.map(name).as_ref(), count);
        views.iter().map(|view| view.name.to_string()).collect()
    };
    assert_eq!(page(None, 3), ["a", "a b", "b"]);
    assert_eq!(page(Some("b"), 3), ["ä"]);
}

#[test]
fn stopping_withdraws_one_node_and_the_file_stays_listed() {
    let (mut rig, alice, bob, g) = scene();
    let f = file(&g, "f");
    rig.act(&alice, upload(&f, 1, 1)).unwrap();
    let stop = |port| LogAction::StopShare { file: f.clone(), node: node(port), content: None };
    let complete = LogAction::Complete { file: f.clone(), node: node(2), content: None };
    assert_eq!(rig.act(&bob, stop(2)), Err(CommandRefusal::NotShared(f.clone())));
    assert_eq!(rig.act(&bob, complete), Ok(CommandOutcome::Completed));
    assert_eq!(rig.holders(&f), [1, 2]);
    assert_eq!(
        rig.act(&bob, stop(1)),
        Err(CommandRefusal::NotShared(f.clone())),
        "a node cannot stop the share of another"
    );
    assert_eq!(rig.act(&alice, stop(1)), Ok(CommandOutcome::ShareStopped));
    assert_eq!(rig.act(&bob, stop(2)), Ok(CommandOutcome::ShareStopped));
    assert_eq!(rig.holders(&f), [0; 0]);
    assert_eq!(rig.queries().files(&g, None, 9).len(), 1);
    let missing = file(&g, "missing");
    let complete = LogAction::Complete { file: missing.clone(), node: node(2), content: None };
    assert_eq!(rig.act(&bob, complete), Err(CommandRefusal::NoSuchFile(missing)));
}

#[test]
fn a_completion_and_a_stop_count_for_their_content_alone() {
    let (mut rig, alice, bob, g) = scene();
    let f = file(&g, "f");
    rig.act(&alice, upload(&f, 1, 1)).unwrap();
    rig.act(&alice, LogAction::RemoveFile { file: f.clone() }).unwrap();
    rig.act(&alice, upload(&f, 2, 1)).unwrap();
    let content = |byte| Some(Digest([byte; 20]));
    let complete = |byte| LogAction::Complete { file: f.clone(), node: node(2), content: content(byte) };
    let stop = |byte| LogAction::StopShare { file: f.clone(), node: node(2), content: content(byte) };
    let replaced = Err(CommandRefusal::ContentReplaced(f.clone()));
    assert_eq!(rig.act(&bob, complete(1)), replaced);
    assert_eq!(rig.holders(&f), [1]);
    assert_eq!(rig.act(&bob, complete(2)), Ok(CommandOutcome::Completed));
    assert_eq!(rig.act(&bob, stop(1)), replaced);
    assert_eq!(rig.holders(&f), [1, 2]);
    assert_eq!(rig.act(&bob, stop(2)), Ok(CommandOutcome::ShareStopped));
    // Entries of earlier versions name no content.
    let json = serde_json::to_string(&stop(2)).unwrap();
    let earlier = json.replace(&format!(",\"content\":\"{}\"", "02".repeat(20)), "");
    assert_ne!(json, earlier);
    let stop = LogAction::StopShare { file: f, node: node(2), content: None };
    assert_eq!(serde_json::from_str::<LogAction>(&earlier).unwrap(), stop);
}

#[test]
fn uploader_and_owner_remove_files_and_free_their_names() {
    let (mut rig, alice, bob, g) = scene();
    let carol = rig.user("carol", 3);
    rig.act(&carol, LogAction::JoinGroup { group: g.clone() }).unwrap();
    let (f, h) = (file(&g, "f"), file(&g, "h"));
    let remove = |file: &GroupFile| LogAction::RemoveFile { file: file.clone() };
    rig.act(&bob, upload(&f, 1, 2)).unwrap();
    rig.act(&bob, upload(&h, 1, 2)).unwrap();
    rig.act(&carol, upload(&f, 1, 3)).unwrap();
    assert_eq!(rig.act(&carol, remove(&f)), Err(CommandRefusal::NotUploader(f.clone())));
    assert_eq!(rig.act(&bob, remove(&f)), Ok(CommandOutcome::FileRemoved));
    assert_eq!(rig.act(&alice, remove(&h)), Ok(CommandOutcome::FileRemoved), "the group's owner");
    assert_eq!(rig.act(&alice, remove(&h)), Err(CommandRefusal::NoSuchFile(h)));
    assert_eq!(
        rig.act(&carol, upload(&f, 2, 3)),
        Ok(CommandOutcome::Uploaded { new_file: true }),
        "the name is free"
    );
    assert_eq!(rig.holders(&f), [3]);
}

#[test]
fn a_manifest_reads_back_by_ranges_across_its_rows() {
    let (mut rig, alice, _, g) = scene();
    let f = file(&g, "big");
    let count = 2 * ROW + 3;
    let (digests, states) = (digests(count), states(count - 1));
    let actions = in_parts(&f, "u", &digests, Some(&states));
    assert_eq!(actions.len(), 3);
    let expected = [
        CommandOutcome::PartStored { next: MANIFEST_ROW_PIECES },
        CommandOutcome::PartStored { next: 2 * MANIFEST_ROW_PIECES },
        CommandOutcome::Uploaded { new_file: true },
    ];
    for (action, expected) in actions.into_iter().zip(expected) {
        assert!(rig.queries().file(&f).is_none(), "the file is listed only with its last part");
        let entry = LogCommand::by(alice.clone(), 0, None, action);
        assert!(serde_json::to_vec(&entry).unwrap().len() <= ROW_MAX_BYTES);
        assert_eq!(rig.machine.apply(&entry), Ok(expected));
    }
    for (first, wanted) in
        [(0, count), (0, 1), (ROW - 1, 2), (ROW, ROW), (2 * ROW, 3), (count - 1, 9), (count, 1)]
    {
        let read =
            rig.queries().pieces(&f, u32::try_from(first).unwrap(), u32::try_from(wanted).unwrap()).unwrap();
        let end = count.min(first + wanted);
        assert_eq!(read.digests, digests[first..end], "{first} {wanted}");
        let (from, to) = (first.min(count - 1), end.min(count - 1));
        assert_eq!(read.chain.as_deref(), Some(&states[from..to]), "{first} {wanted}");
    }
    assert_eq!(rig.queries().pieces(&f, u32::MAX, u32::MAX).unwrap().digests, []);
}

#[test]
fn parts_come_in_order_and_the_first_begins_anew() {
    let (mut rig, alice, bob, g) = scene();
    let f = file(&g, "big");
    let actions = in_parts(&f, "u", &digests(2 * ROW + 1), None);
    let expected = |expected| Err(ManifestFault::OutOfOrder { expected }.into());
    assert_eq!(rig.act(&alice, actions[1].clone()), expected(0));
    rig.act(&alice, actions[0].clone()).unwrap();
    assert_eq!(rig.act(&alice, actions[2].clone()), expected(MANIFEST_ROW_PIECES));
    assert_eq!(rig.act(&bob, actions[1].clone()), expected(0), "each user has their own upload ids");
    rig.act(&alice, actions[1].clone()).unwrap();
    rig.act(&alice, actions[0].clone()).unwrap();
    assert_eq!(rig.act(&alice, actions[2].clone()), expected(MANIFEST_ROW_PIECES));
    rig.act(&alice, actions[1].clone()).unwrap();
    assert_eq!(rig.act(&alice, actions[2].clone()), Ok(CommandOutcome::Uploaded { new_file: true }));

    for action in in_parts(&f, "other", &digests(2 * ROW + 1), None) {
        rig.act(&bob, action).unwrap();
    }
    assert_eq!(rig.queries().seeders(&f).len(), 2);
    let mut differing = digests(2 * ROW + 1);
    differing[5] = Digest([255; 20]);
    let answers = in_parts(&f, "other", &differing, None).into_iter().map(|action| rig.act(&bob, action));
    assert_eq!(
        answers.last(),
        Some(Err(CommandRefusal::OtherContent(f.clone()))),
        "a difference in the first part"
    );
    let again = digests(2 * ROW + 1);
    for action in in_parts(&f, "other", &again, None) {
        rig.act(&bob, action).unwrap();
    }
    rig.act(&alice, LogAction::RemoveFile { file: f }).unwrap();
    assert_eq!(rows_in(&rig, Table::Manifests), 0, "no row of a removed or doubled manifest is left");
    assert_eq!(rows_in(&rig, Table::Uploads), 0);
}

#[test]
fn an_upload_without_a_part_for_long_is_forgotten() {
    let (mut rig, alice, _, g) = scene();
    let actions = in_parts(&file(&g, "big"), "u", &digests(ROW + 1), None);
    rig.act(&alice, actions[0].clone()).unwrap();
    rig.at_s = UPLOAD_LIFE_S;
    rig.anonymous(LogAction::Expire).unwrap();
    assert_eq!(rows_in(&rig, Table::Uploads), 1);
    rig.at_s += 1;
    assert_eq!(rig.act(&alice, actions[1].clone()), Err(ManifestFault::OutOfOrder { expected: 0 }.into()));
    rig.anonymous(LogAction::Expire).unwrap();
    assert_eq!((rows_in(&rig, Table::Uploads), rows_in(&rig, Table::Manifests)), (0, 0));
}

#[test]
fn unfinished_uploads_have_a_bound_for_each_user_and_for_all() {
    let (mut rig, alice, bob, _) = scene();
    // As many pieces as a user may have, without their rows.
    let begun = |next: u64| UploadRow {
        manifest: 1_000_000,
        next: u32::try_from(next).unwrap(),
        has_chain: false,
        fold: [0; 32],
        part_s: rig.at_s,
    };
    let (most, row) = (UNFINISHED_PIECES_PER_USER, ROW as u64);
    let (full, room) = (begun(most), begun(most - row));
    let mut tables = rig.machine.tables().clone();
    let key = |user: &UserId, upload: &str| RowKey::upload(user, &UploadId::new(upload).unwrap());
    rows::write_row(&mut tables, &key(&alice.user, "begun"), &room);
    rig.machine = StateMachine::new(tables.clone());
    let part = || LogAction::UploadPart {
        upload: UploadId::new("new").unwrap(),
        first: 0,
        part: ManifestPart::new(&digests(ROW), None),
    };
    rig.act(&alice, part()).unwrap();
    rows::write_row(&mut tables, &key(&alice.user, "begun"), &full);
    rig.machine = StateMachine::new(tables.clone());
    assert_eq!(rig.act(&alice, part()), Err(CommandRefusal::TooManyParts));
    assert_eq!(rows_in(&rig, Table::Manifests), 0, "a refused part leaves nothing");
    rig.act(&bob, part()).unwrap();
    for other in ["carol", "dave", "erin"] {
        rows::write_row(&mut tables, &key(&user(other), "begun"), &full);
    }
    rig.machine = StateMachine::new(tables);
    assert_eq!(rig.act(&bob, part()), Err(CommandRefusal::TooManyParts), "all have no more room");
    rig.at_s += UPLOAD_LIFE_S + 1;
    rig.anonymous(LogAction::Expire).unwrap();
    rig.act(&alice, part()).unwrap();
}

#[test]
fn parts_that_make_no_manifest_are_refused() {
    let (mut rig, alice, _, g) = scene();
    let f = file(&g, "f");
    let with_chain = |pieces: usize, chain: usize| ManifestEnd {
        part: ManifestPart::new(&digests(pieces), Some(&states(chain))),
        ..manifest(1, 1)
    };
    let piece = u64::from(PIECE_BYTES);
    let cases = [
        (with_chain(3, 3), ManifestFault::Chain),
        (with_chain(3, 1), ManifestFault::Chain),
        (manifest(1, ROW + 1), ManifestFault::PartSize { pieces: ROW + 1 }),
        (
            ManifestEnd { length: Some(piece), ..manifest(1, 2) },
            ManifestFault::Length { length: piece, pieces: 2 },
        ),
        (
            ManifestEnd { length: Some(u64::MAX), ..manifest(1, 2) },
            ManifestFault::Length { length: u64::MAX, pieces: 2 },
        ),
        (manifest(1, 0), ManifestFault::Empty),
        (ManifestEnd { first: 1, ..manifest(1, 2) }, ManifestFault::OutOfOrder { expected: 0 }),
    ];
    for (manifest, fault) in cases {
        assert_eq!(rig.act(&alice, put(&f, manifest)), Err(CommandRefusal::BadManifest(fault)));
    }
    let short = LogAction::UploadPart {
        upload: UploadId::new("u").unwrap(),
        first: 0,
        part: ManifestPart::new(&digests(ROW - 1), None),
    };
    assert_eq!(rig.act(&alice, short), Err(ManifestFault::PartSize { pieces: ROW - 1 }.into()));

    let mut mixed = in_parts(&f, "u", &digests(ROW + 1), Some(&states(ROW)));
    rig.act(&alice, mixed.remove(0)).unwrap();
    let without = in_parts(&f, "u", &digests(ROW + 1), None).remove(1);
    assert_eq!(rig.act(&alice, without), Err(ManifestFault::Chain.into()));
}

#[test]
fn the_empty_file_and_the_one_piece_file_know_their_chain() {
    let (mut rig, alice, _, g) = scene();
    let empty = ManifestEnd { proof: FileProof::Whole(EMPTY_DIGEST), ..manifest(1, 0) };
    rig.act(&alice, put(&file(&g, "empty"), empty)).unwrap();
    rig.act(&alice, put(&file(&g, "one"), manifest(1, 1))).unwrap();
    rig.act(&alice, put(&file(&g, "two"), manifest(1, 2))).unwrap();
    let chain = |name| rig.queries().pieces(&file(&g, name), 0, 9).unwrap().chain;
    assert_eq!(chain("empty"), Some(vec![]));
    assert_eq!(chain("one"), Some(vec![]));
    assert_eq!(chain("two"), None);
    assert_eq!(rig.queries().file(&file(&g, "empty")).unwrap().length, Some(0));
}

fn rows_in(rig: &Rig, table: Table) -> usize {
    let mut count = 0;
    rig.machine.tables().scan(table, &[], &mut |_, _| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    });
    count
}

#[test]
fn the_nodes_of_one_user_that_share_a_file_are_bounded() {
    let mut rig = Rig::default();
    let (owner, alice) = (rig.user("owner", 1), rig.user("alice", 2));
    let group = rig.group("g", &[&owner, &alice]);
    let f = file(&group, "f");
    let key = |number: usize| NodeEndpoint {
        address: address(3),
        peer_key: Some(PeerKey([u8::try_from(number).unwrap(); 32])),
    };
    let complete = |number| LogAction::Complete { file: f.clone(), node: key(number), content: None };
    rig.act(&owner, upload(&f, 1, 1)).unwrap();
    for number in 0..NODES_PER_USER_AND_FILE {
        rig.act(&alice, complete(number)).unwrap();
    }
    let before = rig.machine.tables().clone();
    for refused in [
        complete(NODES_PER_USER_AND_FILE),
        LogAction::Upload { file: f.clone(), manifest: manifest(1, 2), node: key(NODES_PER_USER_AND_FILE) },
    ] {
        assert_eq!(rig.act(&alice, refused), Err(CommandRefusal::TooManyNodes(f.clone())));
    }
    assert_eq!(rig.machine.tables(), &before, "refused, so nothing has changed");
    rig.act(&alice, complete(0)).expect("a node that already shares the file");
    rig.act(&owner, LogAction::Complete { file: f.clone(), node: node(9), content: None })
        .expect("another user's nodes are not counted");
    // Offline nodes make room.
    rig.act(&alice, LogAction::Logout).unwrap();
    let again = rig.user("alice", 2);
    rig.act(&again, complete(NODES_PER_USER_AND_FILE)).unwrap();
    assert_eq!(rig.queries().seeders(&f).len(), 3);
    let shares = |rig: &Rig| {
        let mut shares = 0;
        rig.machine.tables().scan(Table::Shares, b"", &mut |_, _| {
            shares += 1;
            ControlFlow::Continue(())
        });
        shares
    };
    assert_eq!(shares(&rig), NODES_PER_USER_AND_FILE + 2);
    rig.act(&owner, LogAction::RemoveFile { file: f.clone() }).unwrap();
    assert_eq!(shares(&rig), 0);
}
