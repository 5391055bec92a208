//! Destinations as users type them, and names at the filesystem's limits.

use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::super::error::StorageErrorKind;
use super::*;
use crate::proto::manifest::MAX_FILE_NAME_BYTES;

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn resolved(dest: &Path) -> PathBuf {
    Destination::resolve(dest, &name("from the group")).unwrap().path()
}

fn refused(dest: &Path) -> StorageErrorKind {
    Destination::resolve(dest, &name("n")).unwrap_err().kind
}

#[test]
fn a_directory_takes_the_shared_name_and_a_path_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    assert_eq!(resolved(root), root.join("from the group"));
    assert_eq!(resolved(&root.join("")), root.join("from the group"));
    assert_eq!(resolved(&root.join("own name")), root.join("own name"));
    let link = root.join("link");
    symlink(root, &link).unwrap();
    assert_eq!(resolved(&link), link.join("from the group"), "a directory may be reached by a link");
    assert_eq!(resolved(Path::new("bare name")), std::env::current_dir().unwrap().join("bare name"));
    assert_eq!(resolved(Path::new(".")), std::env::current_dir().unwrap().join("from the group"));
}

#[test]
fn missing_directories_are_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::write(root.join("file"), b"x").unwrap();
    for dest in ["no/", "no/name", "file/", "file/name", "no/.."] {
        let error = refused(&root.join(dest));
        assert!(matches!(error, StorageErrorKind::NotADirectory), "{dest}: {error}");
    }
    assert!(matches!(refused(Path::new("")), StorageErrorKind::NotADirectory));
    assert!(!root.join("no").exists());
}

#[test]
fn existing_entries_are_classified() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let there =
        |at: &str| Destination::resolve(&root.join(at), &name("n")).unwrap().existing_entry().unwrap();
    std::fs::write(root.join("file"), b"12345").unwrap();
    symlink(root.join("file"), root.join("link")).unwrap();
    symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    std::fs::create_dir_all(root.join("d/n")).unwrap();
    assert_eq!(there("absent"), DestinationEntry::Absent);
    assert_eq!(there("file"), DestinationEntry::File { length: 5 });
    assert_eq!(there("link"), DestinationEntry::Other("a symbolic link"));
    assert_eq!(there("dangling"), DestinationEntry::Other("a symbolic link"));
    assert_eq!(there("d/"), DestinationEntry::Other("a directory"));
}

#[test]
fn a_link_is_not_opened_as_the_existing_file() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::write(root.join("file"), b"12345").unwrap();
    symlink(root.join("file"), root.join("link")).unwrap();
    let open = |at: &str| Destination::resolve(&root.join(at), &name("n")).unwrap().open_existing();
    assert_eq!(open("file").unwrap().length(), 5);
    assert!(matches!(open("link").unwrap_err().kind, StorageErrorKind::NotAFile("a symbolic link")));
}

#[test]
fn a_name_too_long_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let long = "x".repeat(MAX_FILE_NAME_BYTES + 1);
    assert!(matches!(refused(&directory.path().join(long)), StorageErrorKind::NameTooLong));
}

proptest! {
    #[test]
    fn partial_names_fit_and_stay_utf8(text in "[a-zé漢🐟]{1,255}", group in "[a-z]{1,8}") {
        prop_assume!(text.len() <= MAX_FILE_NAME_BYTES);
        let partial = partial_name(text.as_ref(), &group, Digest([3; 20]));
        let shown = partial.to_str().expect("cut inside a character");
        prop_assert!(shown.len() <= MAX_FILE_NAME_BYTES);
        let stem = &shown[..shown.len() - ".01234567.part".len()];
        prop_assert!(text.starts_with(stem));
        prop_assert!(stem == text || stem.len() > PARTIAL_STEM_MAX_BYTES - 4, "{} bytes are left", stem.len());
    }
}

#[test]
fn partial_names_differ_by_group_and_content() {
    let of = |group: &str, content: u8| partial_name("disk.img".as_ref(), group, Digest([content; 20]));
    assert_eq!(of("g", 1), of("g", 1));
    assert_ne!(of("g", 1), of("h", 1));
    assert_ne!(of("g", 1), of("g", 2));
    // A name that is not UTF-8 is cut as well.
    let wild = OsString::from_vec(vec![0x80; 255]);
    assert_eq!(partial_name(&wild, "g", Digest([0; 20])).len(), PARTIAL_STEM_MAX_BYTES + 14);
}

#[test]
fn only_partial_files_of_the_same_name_count() {
    let long = "x".repeat(NAME_MAX_BYTES);
    let content = Digest([3; 20]);
    for name in ["f", "f.part", long.as_str()] {
        let name = OsStr::new(name);
        assert!(is_partial_name_of(&partial_name(name, "g", content), name));
        assert!(!is_partial_name_of(&sibling_name(name, "g", content, ".record"), name));
        assert!(!is_partial_name_of(&partial_name(OsStr::new("e"), "g", content), name));
    }
    for other in ["f.0123456.part", "f.0123456g.part", "ff.01234567.part", "f.01234567.part2", "f"] {
        assert!(!is_partial_name_of(OsStr::new(other), OsStr::new("f")), "{other}");
    }
}
