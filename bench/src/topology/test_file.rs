//! The transferred file: its creation, its SHA-1, and its state in the page cache.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::fs::{Advice, StatVfsMountFlags, fadvise, fstatfs, statvfs};
use sha1::{Digest as _, Sha1};

use super::spawned::run_program;
use crate::limits::FILE_BUFFER_BYTES;

/// Type of a tmpfs: `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// State from which [`fill_random`] starts.
pub(crate) const RANDOM_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// A file with known content.
#[derive(Clone, Debug)]
pub(crate) struct TestFile {
    pub(crate) path: PathBuf,
    /// Its length.
    pub(crate) bytes: u64,
    /// SHA-1 of its content.
    pub(crate) sha1: [u8; 20],
}

impl TestFile {
    /// Creates a file of pseudorandom content, in which no two pieces are equal.
    pub(crate) fn create(path: PathBuf, bytes: u64) -> anyhow::Result<TestFile> {
        let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let (mut word, mut hash, mut left) = (RANDOM_SEED, Sha1::new(), bytes);
        let mut step = vec![0; FILE_BUFFER_BYTES];
        while left > 0 {
            fill_random(&mut word, &mut step);
            let count = usize::try_from(left).unwrap_or(FILE_BUFFER_BYTES).min(FILE_BUFFER_BYTES);
            hash.update(&step[..count]);
            file.write_all(&step[..count]).with_context(|| format!("cannot write {}", path.display()))?;
            left -= count as u64;
        }
        // Write-back must not run during the first round.
        file.sync_all()?;
        Ok(TestFile { path, bytes, sha1: hash.finalize().into() })
    }

    /// Reads the whole file, so that it is in the page cache.
    pub(crate) fn load_into_cache(&self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        let mut step = vec![0; FILE_BUFFER_BYTES];
        while file.read(&mut step)? > 0 {}
        Ok(())
    }

    /// Drops its pages from the page cache, unless a process has them mapped; gives the part that stayed, from 0 to 1.
    pub(crate) fn drop_from_cache(&self) -> anyhow::Result<f64> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(self.cached_bytes()? as f64 / self.bytes.max(1) as f64)
    }

    /// Bytes of it in the page cache, as the kernel reports them. Reading single bytes would trigger read-ahead.
    pub(crate) fn cached_bytes(&self) -> anyhow::Result<u64> {
        let mut command = Command::new("fincore");
        command.args(["--bytes", "--noheadings", "--output", "RES"]).arg(&self.path);
        let text = run_program("fincore", &mut command).context(
            "cannot read what is cached: install fincore (`apt install util-linux-extra util-linux`)",
        )?;
        text.trim().parse().with_context(|| format!("fincore printed {text:?} instead of a number"))
    }

    /// Fails unless the copy has the same SHA-1.
    pub(crate) fn check_copy(&self, copy: &Path) -> anyhow::Result<()> {
        let found = file_sha1(copy)?;
        if found != self.sha1 {
            bail!("{} differs from the file that was sent: its SHA-1 differs", copy.display());
        }
        Ok(())
    }

    /// SHA-1 as 40 hexadecimal digits.
    pub(crate) fn sha1_hex(&self) -> String {
        hex_digits(&self.sha1)
    }
}

pub(crate) fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fills a buffer with pseudorandom bytes, of which no two pages are equal. xorshift64: faster than the disk.
pub(crate) fn fill_random(state: &mut u64, buffer: &mut [u8]) {
    for place in buffer.chunks_mut(size_of::<u64>()) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        place.copy_from_slice(&state.to_le_bytes()[..place.len()]);
    }
}

/// SHA-1 of a file, read in one pass.
pub(crate) fn file_sha1(path: &Path) -> anyhow::Result<[u8; 20]> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut step, mut hash) = (vec![0; FILE_BUFFER_BYTES], Sha1::new());
    loop {
        match file.read(&mut step)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&step[..count]),
        }
    }
}

/// Makes a copy durable as Shoal does: syncs the file, then its folder.
pub(crate) fn sync_copy(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a copy lies in a folder")?;
    for each in [path, folder] {
        File::open(each)?.sync_all().with_context(|| format!("cannot sync {}", each.display()))?;
    }
    Ok(())
}

/// The type of a folder's filesystem and its free space, as text for a report.
pub(crate) fn describe_filesystem(folder: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("stat");
    let kind = run_program("stat", command.args(["--file-system", "--format=%T", "--"]).arg(folder))?;
    let free = humansize::format_size(free_bytes(folder)?, humansize::BINARY);
    Ok(format!("{} at {}, {free} free", kind.trim(), folder.display()))
}

/// Whether a folder lies on a tmpfs.
pub(crate) fn is_tmpfs(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|folder| is_in_memory(&folder))
}

/// Whether an open file lies on a tmpfs.
pub(crate) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC))
}

/// Free bytes of a folder's filesystem.
pub(crate) fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let found =
        statvfs(folder).with_context(|| format!("cannot read the filesystem of {}", folder.display()))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        bail!("{} is read-only: name another folder with --dir", folder.display());
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_file_has_its_length_and_a_changed_copy_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let bytes = FILE_BUFFER_BYTES as u64 + 4_097;
        let content = TestFile::create(place.path().join("c"), bytes).unwrap();
        assert_eq!(content.path.metadata().unwrap().len(), bytes);
        content.check_copy(&content.path).unwrap();
        let copy = place.path().join("copy");
        let mut changed = std::fs::read(&content.path).unwrap();
        changed[FILE_BUFFER_BYTES] ^= 1;
        std::fs::write(&copy, changed).unwrap();
        assert!(content.check_copy(&copy).unwrap_err().to_string().contains("SHA-1 differs"));
        content.load_into_cache().unwrap();
        match content.cached_bytes() {
            // The cache holds whole pages.
            Ok(cached) => assert!(cached >= bytes, "{cached}"),
            Err(missing) => println!("skipped: {missing:#}"),
        }
    }

    #[test]
    fn hexadecimal_has_two_digits_a_byte() {
        assert_eq!(hex_digits(&[0, 15, 255]), "000fff");
    }
}
