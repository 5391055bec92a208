//! The guard under real signals. A test that must end the process runs in a child: this test binary, running
//! one test.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::super::mapping::Mapping;
use super::*;

const CHILD_EXIT: c_int = 42;

fn file_of(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

fn read(mapping: &Mapping, at: usize) -> u8 {
    // SAFETY: inside the mapping, read as a number; a lost page is up to the guard, which is tested here.
    unsafe { mapping.address(at).read_volatile() }
}

#[test]
fn truncating_a_mapped_file_sets_only_its_flag() {
    let page = u64::try_from(rustix::param::page_size()).unwrap();
    let file = file_of(8 * page);
    let other = Mapping::new(&file_of(8 * page), 8 * page).unwrap();
    let mapping = Mapping::new(&file, 8 * page).unwrap();
    assert_eq!(read(&mapping, 0), 0);
    assert!(!mapping.has_faulted());
    file.set_len(page).unwrap();
    assert_eq!(read(&mapping, 0), 0);
    assert!(!mapping.has_faulted(), "the first page is still there");
    assert_eq!(read(&mapping, usize::try_from(5 * page).unwrap()), 0);
    assert!(mapping.has_faulted());
    assert!(!other.has_faulted(), "the flag is on the wrong mapping");
}

#[test]
fn a_reused_slot_has_its_flag_cleared() {
    // Many attempts, since other tests use and free slots meanwhile.
    for _ in 0..100 {
        let file = file_of(1);
        let mapping = Mapping::new(&file, 1).unwrap();
        assert!(!mapping.has_faulted());
        file.set_len(0).unwrap();
        assert_eq!(read(&mapping, 0), 0);
        assert!(mapping.has_faulted());
    }
    assert!(SLOTS_USED.load(SeqCst) < 100, "slots are not reused");
}

#[test]
fn flags_stay_right_under_concurrent_mappings() {
    let bystander = Mapping::new(&file_of(1), 1).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..200 {
                    let file = file_of(1);
                    let mapping = Mapping::new(&file, 1).unwrap();
                    let lost = round % 2 == 0;
                    if lost {
                        file.set_len(0).unwrap();
                    }
                    read(&mapping, 0);
                    assert_eq!(mapping.has_faulted(), lost);
                }
            });
        }
    });
    assert!(!bystander.has_faulted());
}

#[test]
fn errno_survives_the_handler() {
    let file = file_of(1);
    let mapping = Mapping::new(&file, 1).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: gives the address of this thread's `errno`.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: valid for as long as this thread, and used by it alone.
    unsafe { errno.write(libc::EXDEV) };
    read(&mapping, 0);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EXDEV));
}

/// Runs one ignored test of this binary in its own process.
fn run_child(test: &str) -> ExitStatus {
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let binary = std::env::current_exe().unwrap();
    let output = Command::new(binary).args(["--exact", &name, "--ignored", "--nocapture"]).output().unwrap();
    output.status
}

/// A fault outside the guard's table, in a process with the guard installed.
fn fault_elsewhere() {
    let file = file_of(1);
    let unguarded = memmap2::MmapOptions::new().len(1).map_raw_read_only(&file).unwrap();
    let _guarded = Mapping::new(&file, 1).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: the signal is intended.
    unsafe { unguarded.as_ptr().read_volatile() };
}

extern "C" fn plain_handler(_: c_int) {
    // SAFETY: ends the process at once, running nothing; async-signal-safe.
    unsafe { libc::_exit(CHILD_EXIT) };
}

extern "C" fn full_handler(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    let code = if fault_address(info).is_some() { CHILD_EXIT + 1 } else { CHILD_EXIT };
    // SAFETY: as in `plain_handler`.
    unsafe { libc::_exit(code) };
}

fn handle_before(handler: usize, flags: c_int) {
    let mut action = default_action();
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: each caller gives a handler that fits its flags.
    check_result(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) }).unwrap();
}

#[test]
#[ignore = "ends its process: run by unrelated_faults_go_to_the_previous_handler"]
fn child_with_default_action() {
    handle_before(libc::SIG_DFL, 0);
    fault_elsewhere();
}

#[test]
#[ignore = "ends its process: run by unrelated_faults_go_to_the_previous_handler"]
fn child_with_ignored_signal() {
    handle_before(libc::SIG_IGN, 0);
    // A signal sent by a process is ignored as before; a fault cannot be.
    let _guarded = Mapping::new(&file_of(1), 1).unwrap();
    // SAFETY: no memory is involved.
    unsafe { libc::raise(libc::SIGBUS) };
    fault_elsewhere();
}

#[test]
#[ignore = "ends its process: run by unrelated_faults_go_to_the_previous_handler"]
fn child_with_plain_handler() {
    handle_before(plain_handler as *const () as usize, 0);
    fault_elsewhere();
}

#[test]
#[ignore = "ends its process: run by unrelated_faults_go_to_the_previous_handler"]
fn child_with_full_handler() {
    handle_before(full_handler as *const () as usize, libc::SA_SIGINFO);
    fault_elsewhere();
}

#[test]
fn unrelated_faults_go_to_the_previous_handler() {
    assert_eq!(run_child("child_with_default_action").signal(), Some(libc::SIGBUS));
    assert_eq!(run_child("child_with_ignored_signal").signal(), Some(libc::SIGBUS));
    assert_eq!(run_child("child_with_plain_handler").code(), Some(CHILD_EXIT));
    assert_eq!(run_child("child_with_full_handler").code(), Some(CHILD_EXIT + 1));
}
