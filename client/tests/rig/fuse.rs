//! A filesystem of this process, mounted by FUSE, that can stop to answer: for tests of dead mounts.
//!
//! It speaks the kernel's protocol (linux/fuse.h) as far as stat, open and read need it. Nothing is cached by the kernel but
//! the bytes of files, so each stat and open is a request.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

/// Longest request that the kernel sends here, in bytes.
const REQUEST_MAX: usize = 1 << 20;

/// Length of the head of a request.
const HEAD: usize = 40;

const ROOT: u64 = 1;

/// The code of a request to read bytes.
const READ: u32 = 15;

/// A mounted filesystem with some files.
pub(crate) struct FuseMount {
    path: PathBuf,
    /// Held while a request is read and answered.
    answering: Arc<Mutex<()>>,
    /// Requests to read bytes are not answered.
    are_reads_held: Arc<AtomicBool>,
}

impl FuseMount {
    /// Mounts files, each with its name, at a directory. `None`, with the reason on stderr, where that is not possible.
    pub(crate) fn start(path: &Path, files: Vec<(String, Vec<u8>)>) -> Option<FuseMount> {
        std::fs::create_dir_all(path).unwrap();
        // `mount` inherits the descriptor.
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::NONBLOCK, Mode::empty()).ok();
        let mounted = device.map(File::from).filter(|device| {
            let options =
                format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
            let mut command = Command::new("mount");
            command.args(["-i", "-t", "fuse", "-o", &options, "shoal-test"]).arg(path).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        });
        let Some(device) = mounted else {
            eprintln!(
                "skipped: a FUSE filesystem cannot be mounted here; that needs root, /dev/fuse and `mount`"
            );
            return None;
        };
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC).unwrap();
        let answering = Arc::<Mutex<()>>::default();
        let are_reads_held = Arc::<AtomicBool>::default();
        let (lock, held) = (Arc::clone(&answering), Arc::clone(&are_reads_held));
        // It ends when the last file is closed: with the nodes, which may be dropped later.
        std::thread::spawn(move || answer_requests(device, &files, &lock, &held));
        Some(FuseMount { path: path.to_owned(), answering, are_reads_held })
    }

    /// The filesystem answers nothing while the guard lives.
    pub(crate) fn hang(&self) -> MutexGuard<'_, ()> {
        self.answering.lock().unwrap()
    }

    /// From now on the filesystem does not answer requests to read bytes, or does so again.
    pub(crate) fn hold_reads(&self, are_held: bool) {
        self.are_reads_held.store(are_held, Ordering::SeqCst);
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn answer_requests(
    mut device: File,
    files: &[(String, Vec<u8>)],
    answering: &Mutex<()>,
    are_reads_held: &AtomicBool,
) {
    let mut request = vec![0; REQUEST_MAX];
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let guard = answering.lock().unwrap();
        if !are_reads_held.load(Ordering::SeqCst) {
            for request in held.drain(..) {
                let _ = answer(&request, files).map(|answer| device.write_all(&answer));
            }
        }
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                drop(guard);
                // Polls, so that no request is taken while the filesystem hangs.
                std::thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            // Unmounted.
            Err(_) => return,
        };
        if request[4..8] == READ.to_le_bytes() && are_reads_held.load(Ordering::SeqCst) {
            held.push(request[..length].to_vec());
        } else if let Some(answer) = answer(&request[..length], files) {
            // The caller may have been killed meanwhile.
            let _ = device.write_all(&answer);
        }
        drop(guard);
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The answer to a request; `None` for those that have none.
fn answer(request: &[u8], files: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    const ENOENT: i32 = 2;
    const ENOSYS: i32 = 38;
    let opcode = u32::from_le_bytes(request[4..8].try_into().unwrap());
    let (node, body) = (number(request, 16), &request[HEAD..]);
    let content = |node: u64| usize::try_from(node).ok()?.checked_sub(2).and_then(|at| files.get(at));
    let result: Result<Vec<u8>, i32> = match opcode {
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // LOOKUP
        1 => {
            let name = String::from_utf8_lossy(&body[..body.len() - 1]).into_owned();
            files.iter().position(|(known, _)| *known == name).ok_or(ENOENT).map(|at| {
                let node = at as u64 + 2;
                let mut entry = [node, 0, 0, 0, 0].map(u64::to_le_bytes).concat();
                entry.extend(attributes(node, files[at].1.len() as u64));
                entry
            })
        }
        // GETATTR
        3 => {
            let length = content(node).map_or(0, |(_, bytes)| bytes.len() as u64);
            Ok([vec![0; 16], attributes(node, length)].concat())
        }
        // OPEN, OPENDIR
        14 | 27 => Ok(vec![0; 16]),
        READ => {
            let (offset, size) = (number(body, 8), u32::from_le_bytes(body[16..20].try_into().unwrap()));
            let bytes = content(node).map_or(&[][..], |(_, bytes)| bytes);
            let start = bytes.len().min(usize::try_from(offset).unwrap());
            let end = bytes.len().min(start + size as usize);
            Ok(bytes[start..end].to_vec())
        }
        // STATFS
        17 => Ok(vec![0; 80]),
        // RELEASE, RELEASEDIR, ACCESS. Not FLUSH: a process that is killed would wait for its answer.
        18 | 29 | 34 => Ok(Vec::new()),
        // INIT: version 7.31, no options, 64 KiB written at once.
        26 => {
            let words: [u32; 16] = [7, 31, 0, 0, 0, 65_536, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            Ok(words.map(u32::to_le_bytes).concat())
        }
        _ => Err(ENOSYS),
    };
    let (error, body) = result.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
    let length = u32::try_from(16 + body.len()).unwrap();
    Some([&length.to_le_bytes()[..], &error.to_le_bytes(), &request[8..16], &body].concat())
}

/// A `fuse_attr` of the root or of a file of `length` bytes.
fn attributes(node: u64, length: u64) -> Vec<u8> {
    let (mode, links) = if node == ROOT { (0o040_755, 2) } else { (0o100_644, 1) };
    let long = [node, length, length.div_ceil(512), 1_000, 1_000, 1_000].map(u64::to_le_bytes).concat();
    let short: [u32; 10] = [0, 0, 0, mode, links, 0, 0, 0, 4_096, 0];
    [long, short.map(u32::to_le_bytes).concat()].concat()
}
