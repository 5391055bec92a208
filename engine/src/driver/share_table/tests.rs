//! The table of shares, and what is noticed of their files.
//!
//! Files are examined on threads of the test's own filesystem.

use std::path::Path;

use super::super::share_file::{ShareFile, WholeFile};
use super::*;
use crate::proto::bitfield::Bitfield;
use crate::proto::geometry::Geometry;
use crate::proto::manifest::FileName;
use crate::proto::units::Digest;
use crate::storage::fingerprint::Fingerprint;

fn share(path: &Path) -> Arc<Share> {
    let key = FileKey { group: "g".into(), name: FileName::new("f").unwrap() };
    let fingerprint = Fingerprint::at(path).unwrap();
    let geometry = Geometry::new(fingerprint.length).unwrap();
    let held = Bitfield::full(geometry.pieces());
    let file = ShareFile::Whole(WholeFile::new(path.to_owned(), fingerprint));
    Arc::new(Share::new(key, Digest([1; 20]), geometry, (file, Arc::new(|| None)), held))
}

#[test]
fn files_are_looked_at_without_the_lock_of_the_table() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (shares, served) = (ShareTable::default(), share(file.path()));
    let is_free = || shares.by_key.try_write().is_ok();
    shares.insert(Arc::clone(&served));
    let asked = std::cell::Cell::new(0);
    let stays = |_: &Arc<Share>| {
        asked.set(asked.get() + 1);
        assert!(is_free());
        false
    };
    assert!(shares.insert_unless(share(file.path()), stays));
    assert!(served.is_closed());
    assert_eq!((asked.get(), shares.all().len()), (1, 1));
}

#[test]
fn a_share_that_came_meanwhile_is_asked_about_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (shares, late) = (ShareTable::default(), share(file.path()));
    shares.insert(share(file.path()));
    let stays = |found: &Arc<Share>| {
        let is_late = Arc::ptr_eq(found, &late);
        if !is_late {
            shares.insert(Arc::clone(&late));
        }
        is_late
    };
    assert!(!shares.insert_unless(share(file.path()), stays));
    assert!(Arc::ptr_eq(&shares.find(late.key()).unwrap(), &late) && !late.is_closed());
}

#[test]
fn a_whole_file_stays_and_a_truncated_one_does_not() {
    let threads = FilesystemThreads::new("test", 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(9).unwrap();
    let (shares, first) = (ShareTable::default(), share(file.path()));
    assert!(shares.insert_unless_whole(first, &threads));
    assert!(!shares.insert_unless_whole(share(file.path()), &threads));
    file.as_file().set_len(8).unwrap();
    assert!(shares.insert_unless_whole(share(file.path()), &threads));
}
