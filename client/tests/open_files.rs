//! Nodes that run for long: what they keep open, files that change while they are shared, filesystems that stop to answer.
#![allow(clippy::unwrap_used, reason = "a file of the test's own that cannot be read is a failed test")]

#[path = "rig/fuse.rs"]
mod fuse;
mod rig;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fuse::FuseMount;
use rig::{PIECE, RunningNode, TestRig, UserHome, pieces, until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Alice, who owns the group `g`, and Bob, a member.
fn alice_and_bob(rig: &TestRig) -> ((UserHome, RunningNode), (UserHome, RunningNode)) {
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    alice.0.run(["create_group", "g"]).expect(0);
    bob.0.run(["join_group", "g"]).expect(0);
    (alice, bob)
}

/// The reason why a share is not served: empty if it is served, `None` if there is no such share.
fn share(home: &UserHome, file: &str) -> Option<String> {
    let status = home.status();
    let row = status["shares"].as_array().unwrap().iter().find(|row| row["file"] == file)?;
    Some(row["changed"].as_str().unwrap_or_default().to_owned())
}

/// Number of holders of a file, as the tracker tells another member.
fn holders(asker: &UserHome, file: &str) -> usize {
    asker.run(["get_peers", "g", file]).expect(0).out.lines().count()
}

/// What the descriptors and mappings of a process lead to.
fn open_files(node: &RunningNode) -> Vec<String> {
    let process = PathBuf::from(format!("/proc/{}", node.pid()));
    let of = |target: PathBuf| target.to_string_lossy().into_owned();
    let descriptors = fs::read_dir(process.join("fd")).unwrap();
    let mut found: Vec<String> =
        descriptors.filter_map(|entry| entry.ok()?.path().read_link().ok()).map(of).collect();
    found.extend(fs::read_to_string(process.join("maps")).unwrap().lines().map(str::to_owned));
    found
}

fn descriptors(node: &RunningNode) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

#[test]
fn many_shares_and_finished_downloads_need_few_descriptors() {
    const FILES: usize = 150;
    /// Rings, sockets and connections of a node, and what one transfer has open.
    const DESCRIPTORS_WANTED: usize = 100;
    let rig = TestRig::new();
    let ((alice, alices), (bob, bobs)) = alice_and_bob(&rig);
    for node in [&alices, &bobs] {
        let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap());
        let limit = Rlimit { current: Some(256), maximum: Some(256) };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }
    fs::create_dir(rig.path("to")).unwrap();
    let lines = |line: &dyn Fn(usize) -> String| (0..FILES).map(|at| line(at) + "\n").collect::<String>();
    for at in 0..FILES {
        rig.file(&format!("from-a-{at}"), format!("file {at} of a").repeat(100).as_bytes());
        rig.file(&format!("from-b-{at}"), format!("file {at} of b").repeat(100).as_bytes());
    }
    alice.prompt(&lines(&|at| format!("upload_file g from-a-{at}"))).expect(0);
    bob.prompt(&lines(&|at| format!("upload_file g from-b-{at}"))).expect(0);
    bob.prompt(&lines(&|at| format!("download_file g from-a-{at} to"))).expect(0);
    let served = || bob.status()["shares"].as_array().unwrap().len();
    until("all are complete", || bob.downloads().matches("[C]").count() == FILES);
    for at in 0..FILES {
        let (one, other) = (rig.path(format!("from-a-{at}")), rig.path(format!("to/from-a-{at}")));
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "file {at}");
    }
    assert_eq!(served(), 2 * FILES);
    until("the files are closed", || descriptors(&alices).max(descriptors(&bobs)) < DESCRIPTORS_WANTED);
    // The disk space of removed files is free while the node runs.
    for at in 0..FILES {
        fs::remove_file(rig.path(format!("to/from-a-{at}"))).unwrap();
    }
    // Some of the removals are noticed before: those shares are withdrawn already.
    bob.prompt(&lines(&|at| format!("stop_share g from-a-{at}")));
    until("nothing of the removed files is kept", || {
        !open_files(&bobs).iter().any(|place| place.contains("/to/from-a-") && place.contains("(deleted)"))
    });
}

/// Writes a byte in place and sets the modification time back.
fn edit_unseen(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0x5A], 7).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_fetched_file_that_is_edited_is_withdrawn_and_one_with_another_mode_is_shared_on() {
    let rig = TestRig::new();
    let ((alice, _alices), (bob, _bobs)) = alice_and_bob(&rig);
    for name in ["edited", "kept"] {
        rig.file(name, &pieces(3, 1));
        alice.run(["upload_file", "g", name]).expect(0);
        bob.run(["download_file", "g", name, &format!("{name}-copy")]).expect(0);
        assert_eq!(holders(&bob, name), 1);
        alice.run(["stop_share", "g", name]).expect(0);
        assert_eq!(holders(&alice, name), 1);
    }
    let kept = rig.path("kept-copy");
    edit_unseen(&rig.path("edited-copy"));
    fs::set_permissions(&kept, Permissions::from_mode(0o600)).unwrap();
    until("the edited file is withdrawn", || holders(&alice, "edited") == 0);
    assert_ne!(share(&bob, "edited").as_deref(), Some(""));
    let now = kept.metadata().unwrap();
    let status_changed = format!(":{}:{}:", now.ctime(), now.ctime_nsec());
    until("the record has the new fingerprint", || {
        let records = fs::read_dir(bob.state().join("shares")).unwrap();
        records
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .any(|record| record.contains("kept-copy") && record.contains(&status_changed))
    });
    assert_eq!(share(&bob, "kept").as_deref(), Some(""));
    alice.run(["download_file", "g", "kept", "third"]).expect(0);
    assert!(fs::read(kept).unwrap() == fs::read(rig.path("third")).unwrap());
}

#[test]
fn a_filesystem_that_does_not_answer_holds_up_only_its_own_shares() {
    let rig = TestRig::new();
    let ((alice, alices), (bob, _bobs)) = alice_and_bob(&rig);
    let far = vec![("far".to_owned(), pieces(8, 1)), ("farther".to_owned(), pieces(2, 2))];
    let Some(mount) = FuseMount::start(&rig.path("mount"), far) else { return };
    rig.file("near", &pieces(4, 3));
    for file in ["mount/far", "mount/farther", "near"] {
        alice.run(["upload_file", "g", file]).expect(0);
    }
    bob.run(["download_file", "g", "far", "before"]).expect(0);
    let hangs = mount.hang();
    until("the share is named", || share(&alice, "far").is_some_and(|why| why.contains("not answered")));
    assert_eq!(share(&alice, "near").as_deref(), Some(""));
    bob.run(["download_file", "g", "near", "copy"]).expect(0);
    assert!(fs::read(rig.path("near")).unwrap() == fs::read(rig.path("copy")).unwrap());
    assert_eq!(fs::metadata(rig.path("copy")).unwrap().len(), 4 * PIECE as u64);
    // A peer that wants the other file waits, and holds nothing up.
    let waiting = bob.spawn(&["download_file", "g", "farther", "later"]);
    alice.run(["stop_share", "g", "far"]).expect(0);
    alice.run(["show_downloads"]).expect(0);

    alices.kill();
    let _alices = alice.serve(&[]);
    until("the near file is served after a restart", || share(&alice, "near").as_deref() == Some(""));
    until("the far one is named", || share(&alice, "farther").is_some_and(|why| why.contains("answer")));
    bob.run(["get_peers", "g", "near"]).expect(0);
    drop(hangs);
    until("the far file is served again", || share(&alice, "farther").as_deref() == Some(""));
    waiting.ended().expect(0);
    assert_eq!(fs::metadata(rig.path("later")).unwrap().len(), 2 * PIECE as u64);
    drop(mount);
}

/// Drops a file from the page cache, so that it has to be read.
fn evict(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn reads_that_never_end_hold_up_only_their_own_files() {
    let rig = TestRig::new();
    let ((alice, _alices), (bob, mut bobs)) = alice_and_bob(&rig);
    let names = ["far-1", "far-2", "far-3"];
    let far = names.iter().zip(1..).map(|(name, seed)| ((*name).to_owned(), pieces(2, seed)));
    let Some(mount) = FuseMount::start(&rig.path("mount"), far.collect()) else { return };
    rig.file("near", &pieces(4, 4));
    rig.file("nearer", &pieces(2, 5));
    for name in names.map(|name| format!("mount/{name}")).into_iter().chain(["near".into(), "nearer".into()])
    {
        alice.run(["upload_file", "g", &name]).expect(0);
    }
    // More reads hang than there are threads for one filesystem.
    mount.hold_reads(true);
    fs::create_dir(rig.path("into")).unwrap();
    bob.prompt(&names.map(|name| format!("download_file g {name} into/\n")).concat()).expect(0);
    let has_peers = |row: &serde_json::Value| row["peers"].as_u64() > Some(0);
    until("pieces of the far files are asked for", || {
        bob.status()["downloads"].as_array().unwrap().iter().filter(|row| has_peers(row)).count()
            == names.len()
    });
    evict(&rig.path("near"));
    bob.run(["download_file", "g", "near", "copy"]).expect(0);
    assert!(fs::read(rig.path("near")).unwrap() == fs::read(rig.path("copy")).unwrap());

    // The same at destinations: the far file is compared for ever, and another download that has to be compared is not.
    alice.run(["stop_share", "g", "nearer"]).expect(0);
    fs::create_dir(rig.path("there")).unwrap();
    bob.prompt("download_file g nearer there/\n").expect(0);
    bob.run(["quit"]).expect(0);
    bobs.wait();
    fs::rename(rig.path("into"), rig.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(rig.path("mount"), rig.path("into")).unwrap();
    fs::copy(rig.path("nearer"), rig.path("there/nearer")).unwrap();
    let _bobs = bob.serve(&[]);
    until("the near file is compared", || share(&bob, "nearer").as_deref() == Some(""));
    assert_eq!(share(&bob, "far-1"), None);
    mount.hold_reads(false);
    until("the far file is compared", || share(&bob, "far-1").as_deref() == Some(""));
    drop(mount);
}
