//! Other programs that hash a file: mktorrent, which hashes pieces as an upload does, and two that hash one stream.

use std::path::{Path, PathBuf};
use std::process::Command;

use engine::proto::units::PIECE_BYTES;

use super::rival::{RivalAbsence, program_version};
use crate::topology::spawned::run_program;

/// Hashes the file once.
pub(crate) type HashRun = Box<dyn Fn() -> anyhow::Result<()>>;

/// Workload and program name; then the kind and the run, or why the program is absent.
pub(crate) type HashRival = (&'static str, &'static str, Result<(String, HashRun), RivalAbsence>);

/// Lists every hashing program, with its run over `file`.
pub(crate) fn list_rivals(file: &Path) -> Vec<HashRival> {
    let rival = |workload, name, version: (&str, &[&str]), run: HashRun| {
        let version = program_version(version.0, version.1);
        let version = version.map_err(|why| RivalAbsence::Missing(format!("{why:#}")));
        (workload, name, version.map(|version| (format!("{name} ({version})"), run)))
    };
    vec![
        rival("digests", "mktorrent", ("mktorrent", &[]), hash_by_mktorrent(file.to_owned())),
        rival(
            "stream",
            "openssl sha1",
            ("openssl", &["version"]),
            hash_by_program("openssl", &["sha1"], file),
        ),
        rival("stream", "sha1sum", ("sha1sum", &["--version"]), hash_by_program("sha1sum", &[], file)),
    ]
}

fn hash_by_program(name: &'static str, words: &'static [&'static str], file: &Path) -> HashRun {
    let file = file.to_owned();
    Box::new(move || run_program(name, Command::new(name).args(words).arg(&file)).map(drop))
}

/// Runs mktorrent with Shoal's piece length and its default of one thread per core.
fn hash_by_mktorrent(file: PathBuf) -> HashRun {
    let torrent = file.with_extension("torrent");
    let exponent = PIECE_BYTES.trailing_zeros().to_string();
    Box::new(move || {
        // mktorrent does not overwrite a torrent.
        if torrent.exists() {
            std::fs::remove_file(&torrent)?;
        }
        let mut command = Command::new("mktorrent");
        command.args(["-l", &exponent, "-a", "http://127.0.0.1/announce", "-o"]).arg(&torrent).arg(&file);
        run_program("mktorrent", &mut command).map(drop)
    })
}
