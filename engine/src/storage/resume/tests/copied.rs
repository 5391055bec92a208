//! Records and partial files that were copied, which never happens at one moment.

use super::*;

/// Writes a record that claims pieces 1 and 2 and notes piece 3, which is not written; paths of partial file and record.
fn scene(
    directory: &std::path::Path,
    manifest: &Manifest,
    between: impl FnOnce(&Target),
) -> (PathBuf, PathBuf) {
    let (target, journal, _) = open(directory, manifest);
    write(&target, &journal, 1);
    record(&target, &journal);
    between(&target);
    write(&target, &journal, 2);
    record(&target, &journal);
    journal.note_begun(PieceIndex(3)).unwrap();
    (target.partial_path(), journal.path.clone())
}

#[test]
fn a_copied_record_does_not_count() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = manifest(5);
    let place = |path: &std::path::Path| there.path().join(path.file_name().unwrap());
    // A copy of the directory that takes the record last, while the download continues.
    let copy = |target: &Target| {
        std::fs::copy(target.partial_path(), place(&target.partial_path())).unwrap();
    };
    let (_, record) = scene(here.path(), &manifest, copy);
    std::fs::copy(&record, place(&record)).unwrap();
    let (_, _, progress) = open(there.path(), &manifest);
    assert_eq!(
        (held(&progress), to_check(&progress)),
        (vec![], vec![0, 1, 2, 3, 4]),
        "every piece is hashed"
    );
    assert!(!progress.is_complete);
    let (_, _, progress) = open(here.path(), &manifest);
    assert_eq!(
        (held(&progress), to_check(&progress)),
        (vec![1, 2], vec![3]),
        "the original download keeps its pieces"
    );
}

#[test]
fn a_restored_backup_is_hashed() {
    let (directory, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = manifest(5);
    let saved = aside.path().join("part");
    let keep = |target: &Target| {
        std::fs::copy(target.partial_path(), &saved).unwrap();
    };
    let (part, record) = scene(directory.path(), &manifest, keep);
    let claims = std::fs::read(&record).unwrap();
    // The download continues, so its record is another file by now.
    drop(open(directory.path(), &manifest));
    // Overwrite the content only, so that the partial file keeps its inode.
    std::fs::write(&part, std::fs::read(&saved).unwrap()).unwrap();
    std::fs::write(&record, claims).unwrap();
    let (_, _, progress) = open(directory.path(), &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![], vec![0, 1, 2, 3, 4]));
}

#[test]
fn a_moved_directory_keeps_its_record() {
    let all = tempfile::tempdir().unwrap();
    let (before, after) = (all.path().join("before"), all.path().join("after"));
    std::fs::create_dir(&before).unwrap();
    let manifest = manifest(5);
    scene(&before, &manifest, |_| {});
    std::fs::rename(&before, &after).unwrap();
    let (_, _, progress) = open(&after, &manifest);
    assert_eq!((held(&progress), to_check(&progress)), (vec![1, 2], vec![3]));
}
