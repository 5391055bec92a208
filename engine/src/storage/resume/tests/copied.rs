//! Records and partial files that were copied, which is never done at one moment.

use super::*;

/// A record that claims pieces 1 and 2, and notes piece 3.
fn scene(
    directory: &std::path::Path,
    manifest: &Manifest,
    between: impl FnOnce(&Target),
) -> (PathBuf, PathBuf) {
    let (target, ledger, _) = open(directory, manifest);
    write(&target, &ledger, 1);
    ledger.write_record(|| target.sync(), claim).unwrap();
    between(&target);
    write(&target, &ledger, 2);
    ledger.write_record(|| target.sync(), claim).unwrap();
    write(&target, &ledger, 3);
    (target.partial_path(), ledger.path.clone())
}

#[test]
fn a_copy_of_the_partial_file_has_no_record() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = manifest(5);
    let place = |path: &std::path::Path| there.path().join(path.file_name().unwrap());
    // A copy of the directory that takes the record last, while the download goes on.
    let copy = |target: &Target| {
        std::fs::copy(target.partial_path(), place(&target.partial_path())).unwrap();
    };
    let (_, record) = scene(here.path(), &manifest, copy);
    std::fs::copy(&record, place(&record)).unwrap();
    let (_, _, left) = open(there.path(), &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![], vec![0, 1, 2, 3, 4]), "all of it is hashed");
    assert!(!left.is_complete);
    let (_, _, left) = open(here.path(), &manifest);
    assert_eq!(
        (held(&left), to_check(&left)),
        (vec![1, 2, 3], vec![]),
        "the download itself has lost nothing"
    );
}

#[test]
fn files_that_were_put_back_in_place_are_hashed() {
    let (directory, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = manifest(5);
    let kept = aside.path().join("part");
    let keep = |target: &Target| {
        std::fs::copy(target.partial_path(), &kept).unwrap();
    };
    let (part, record) = scene(directory.path(), &manifest, keep);
    let claims = std::fs::read(&record).unwrap();
    // It went on, and so the record is another file by now.
    drop(open(directory.path(), &manifest));
    // What was there is written over, so that the partial file is the same as ever.
    std::fs::write(&part, std::fs::read(&kept).unwrap()).unwrap();
    std::fs::write(&record, claims).unwrap();
    let (_, _, left) = open(directory.path(), &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![], vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_directory_that_was_moved_keeps_what_it_has() {
    let all = tempfile::tempdir().unwrap();
    let (before, after) = (all.path().join("before"), all.path().join("after"));
    std::fs::create_dir(&before).unwrap();
    let manifest = manifest(5);
    scene(&before, &manifest, |_| {});
    std::fs::rename(&before, &after).unwrap();
    let (_, _, left) = open(&after, &manifest);
    assert_eq!((held(&left), to_check(&left)), (vec![1, 2, 3], vec![]));
}
