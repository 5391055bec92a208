//! The file that is moved: made once, its SHA-1 known, in the page cache or out of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::fs::{Advice, StatVfsMountFlags, fadvise, fstatfs, statvfs};
use sha1::{Digest as _, Sha1};

use super::limits::STEP_BYTES;
use super::spawned::run_program;

/// Kind of a memory filesystem: `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The file that is moved.
#[derive(Clone, Debug)]
pub(crate) struct TestFile {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// How long it is.
    pub(crate) bytes: u64,
    /// SHA-1 of all of it.
    pub(crate) sha1: [u8; 20],
}

impl TestFile {
    /// Makes a file in which no piece is like another.
    pub(crate) fn create(path: PathBuf, bytes: u64) -> anyhow::Result<TestFile> {
        let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let (mut word, mut hash, mut left) = (0x9E37_79B9_7F4A_7C15_u64, Sha1::new(), bytes);
        let mut step = vec![0; STEP_BYTES];
        while left > 0 {
            // xorshift64: no two words alike for long enough, and faster than the disk.
            for place in step.chunks_exact_mut(size_of::<u64>()) {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                place.copy_from_slice(&word.to_le_bytes());
            }
            let count = usize::try_from(left).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            hash.update(&step[..count]);
            file.write_all(&step[..count]).with_context(|| format!("cannot write {}", path.display()))?;
            left -= count as u64;
        }
        // Its own write-back must not run into the first round.
        file.sync_all()?;
        Ok(TestFile { path, bytes, sha1: hash.finalize().into() })
    }

    /// Reads all of it, so that it is in the page cache.
    pub(crate) fn load_into_cache(&self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        let mut step = vec![0; STEP_BYTES];
        while file.read(&mut step)? > 0 {}
        Ok(())
    }

    /// Gives its pages back, as far as nobody has them mapped; the part that stayed, from 0 to 1.
    pub(crate) fn drop_from_cache(&self) -> anyhow::Result<f64> {
        let file = File::open(&self.path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(self.cached_bytes()? as f64 / self.bytes.max(1) as f64)
    }

    /// Bytes of it that are in the page cache, by the kernel's own list. To read a byte here and there would not do: the kernel
    /// reads ahead of whoever reads, also of those who do not wait.
    pub(crate) fn cached_bytes(&self) -> anyhow::Result<u64> {
        let mut command = Command::new("fincore");
        command.args(["--bytes", "--noheadings", "--output", "RES"]).arg(&self.path);
        let text = run_program("fincore", &mut command).context(
            "what is cached cannot be told: install fincore (`apt install util-linux-extra util-linux`)",
        )?;
        text.trim().parse().with_context(|| format!("fincore said {text:?} in place of a number"))
    }

    /// Whether a copy is the same.
    pub(crate) fn check_copy(&self, copy: &Path) -> anyhow::Result<()> {
        let found = file_sha1(copy)?;
        if found != self.sha1 {
            bail!("{} is not the file that was sent: its SHA-1 differs", copy.display());
        }
        Ok(())
    }

    /// SHA-1 as 40 digits.
    pub(crate) fn sha1_hex(&self) -> String {
        hex_digits(&self.sha1)
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-1 of a file, in one pass.
pub(crate) fn file_sha1(path: &Path) -> anyhow::Result<[u8; 20]> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut step, mut hash) = (vec![0; STEP_BYTES], Sha1::new());
    loop {
        match file.read(&mut step)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&step[..count]),
        }
    }
}

/// Makes a copy durable as Shoal makes its own: the file, then the folder that has its name.
pub(crate) fn sync_copy(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("a copy lies in a folder")?;
    for each in [path, folder] {
        File::open(each)?.sync_all().with_context(|| format!("cannot sync {}", each.display()))?;
    }
    Ok(())
}

/// The kind of filesystem that a folder lies on, and how much room it has; as readers of a report want it.
pub(crate) fn describe_filesystem(folder: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("stat");
    let kind = run_program("stat", command.args(["--file-system", "--format=%T", "--"]).arg(folder))?;
    let free = humansize::format_size(free_bytes(folder)?, humansize::BINARY);
    Ok(format!("{} at {}, {free} free", kind.trim(), folder.display()))
}

/// Whether a folder lies in memory.
pub(crate) fn is_tmpfs(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|folder| is_in_memory(&folder))
}

/// Whether an open file does.
pub(crate) fn is_in_memory(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC))
}

/// Bytes that a folder's filesystem has left.
pub(crate) fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let found = statvfs(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        bail!("{} is read-only: name another place by --dir", folder.display());
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_says_and_a_changed_copy_is_not() {
        let place = tempfile::tempdir().unwrap();
        let bytes = STEP_BYTES as u64 + 4_097;
        let content = TestFile::create(place.path().join("c"), bytes).unwrap();
        assert_eq!(content.path.metadata().unwrap().len(), bytes);
        content.check_copy(&content.path).unwrap();
        let copy = place.path().join("copy");
        let mut changed = std::fs::read(&content.path).unwrap();
        changed[STEP_BYTES] ^= 1;
        std::fs::write(&copy, changed).unwrap();
        assert!(content.check_copy(&copy).unwrap_err().to_string().contains("SHA-1 differs"));
        content.load_into_cache().unwrap();
        match content.cached_bytes() {
            // Whole pages.
            Ok(cached) => assert!(cached >= bytes, "{cached}"),
            Err(missing) => println!("skipped: {missing:#}"),
        }
    }

    #[test]
    fn hexadecimal_has_two_digits_a_byte() {
        assert_eq!(hex_digits(&[0, 15, 255]), "000fff");
    }
}
