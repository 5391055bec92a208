//! Targets on filesystems of their own: full ones, and those that are read-only.
//! Each test runs another test of this binary in a mount namespace.

use std::process::Command;

use super::*;

/// Runs this binary's test `child` in its own mount namespace, where `TEST_DIRECTORY` is a filesystem of 4
/// MiB.
fn in_small_filesystem(child: &str) {
    let mount = "mount -t tmpfs -o size=4m tmpfs \"$TEST_DIRECTORY\"";
    in_filesystem(child, mount, &["--user", "--map-root-user", "--mount"]);
}

/// As [`in_small_filesystem`], on one that can reserve space: 16 MiB of ext4 on a loop device, which needs root.
fn in_reserving_filesystem(child: &str) {
    let mount = "truncate -s 16M \"$TEST_DIRECTORY.img\" && mkfs.ext4 -q -m 0 \"$TEST_DIRECTORY.img\" && mount -o \
                 loop \"$TEST_DIRECTORY.img\" \"$TEST_DIRECTORY\"";
    in_filesystem(child, mount, &["--mount"]);
}

fn in_filesystem(child: &str, mount: &str, namespaces: &[&str]) {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("mounted");
    std::fs::create_dir(&directory).unwrap();
    let script = format!("{{ {mount}; }} || exit 99; exec \"$@\"");
    let name = format!("{}::{child}", module_path!().split_once("::").unwrap().1);
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env("TEST_DIRECTORY", &directory)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no `unshare` command here");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || errors.contains("unshare: ") {
        eprintln!("skipped: mount namespaces are forbidden here: {errors}");
        return;
    }
    assert!(output.status.success(), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child did not run");
}

fn small_filesystem() -> PathBuf {
    PathBuf::from(std::env::var_os("TEST_DIRECTORY").expect("set by in_small_filesystem"))
}

#[test]
fn a_full_disk_is_reported_and_left_unchanged() {
    in_small_filesystem("child_on_a_full_disk");
}

#[test]
#[ignore = "needs a small filesystem: run by a_full_disk_is_reported_and_left_unchanged"]
fn child_on_a_full_disk() {
    let directory = small_filesystem();
    let length = 8 * MEBIBYTE;
    let everything = 0..length;
    let whole = TargetLayout { length, reserved_ranges: std::slice::from_ref(&everything) };
    let error = open_named(&directory, "file", whole).unwrap_err();
    assert_eq!(error.operation, StorageOperation::Reserve);
    let StorageErrorKind::NoSpace { needed, free } = error.kind else { panic!("{error}") };
    assert!(needed > 4 * MEBIBYTE && needed <= length, "{needed} needed");
    assert!(free <= 4 * MEBIBYTE, "{free} free");
    assert!(names(&directory).is_empty(), "a file was left behind");

    // Unreserved space runs out at a write; existing bytes stay.
    let target = open(&directory, length).unwrap();
    target.write_piece(0, &vec![1; 3 << 20]).unwrap();
    let error = target.write_piece(3 * MEBIBYTE, &vec![1; 3 << 20]).unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::NoSpace { .. }), "{error}");
    drop(target);
    assert!(!open(&directory, length).unwrap().is_new());

    // An existing partial file stays when no more space can be reserved.
    assert!(matches!(
        open_named(&directory, "file", whole).unwrap_err().kind,
        StorageErrorKind::NoSpace { .. }
    ));
    assert!(!open(&directory, length).unwrap().is_new());
}

#[test]
fn a_reservation_that_does_not_fit_takes_nothing_and_counts_its_own_as_held() {
    in_reserving_filesystem("child_without_room_for_a_reservation");
}

#[test]
#[ignore = "needs a small filesystem: run by a_reservation_that_does_not_fit_takes_nothing_and_counts_its_own_as_held"]
fn child_without_room_for_a_reservation() {
    let directory = small_filesystem();
    let free = || {
        let stat = rustix::fs::statvfs(&directory).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let whole = 0..free() + MEBIBYTE;
    let layout = TargetLayout { length: whole.end, reserved_ranges: std::slice::from_ref(&whole) };
    let before = free();
    let refusal = || match open_named(&directory, "file", layout).unwrap_err().kind {
        StorageErrorKind::NoSpace { needed, free } => (needed, free),
        other => panic!("{other}"),
    };
    let (needed, said_free) = refusal();
    assert!(needed > before && said_free > before - MEBIBYTE, "{needed} needed and {said_free} free");

    // An attempt that has reserved most of it needs the rest alone, and is left as it is.
    let most = 0..before * 6 / 10;
    let part = TargetLayout { length: whole.end, reserved_ranges: std::slice::from_ref(&most) };
    drop(open_named(&directory, "file", part).unwrap());
    let left = free();
    let (needed, said_free) = refusal();
    assert!(needed <= whole.end - most.end && needed > said_free, "{needed} needed and {said_free} free");
    assert!(free() + MEBIBYTE > left, "the refused reservation took {} bytes", left - free());
}

#[test]
fn a_read_only_filesystem_is_reported() {
    in_small_filesystem("child_on_a_read_only_filesystem");
}

#[test]
#[ignore = "needs a small filesystem: run by a_read_only_filesystem_is_reported"]
fn child_on_a_read_only_filesystem() {
    let directory = small_filesystem();
    let remount = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&directory).status().unwrap();
    assert!(remount.success());
    let error = open(&directory, 1).unwrap_err();
    assert!(matches!(error.kind, StorageErrorKind::ReadOnly), "{error}");
}
