//! Other programs that hash a file: mktorrent, which makes digests of pieces as an upload does, and two of one stream.

use std::path::{Path, PathBuf};
use std::process::Command;

use engine::proto::units::PIECE_BYTES;

use super::rival::{RivalAbsence, version_number};
use crate::topology::spawned::{first_line, run_program};

/// Hashes once.
pub(crate) type HashRun = Box<dyn Fn() -> anyhow::Result<()>>;

/// What it does, the program's name; with its version and how to run it, or why it takes no part.
pub(crate) type HashRival = (&'static str, &'static str, Result<(String, HashRun), RivalAbsence>);

/// All of them.
pub(crate) fn list_rivals(file: &Path) -> Vec<HashRival> {
    let of = |workload, name, told: (&str, &[&str]), run: HashRun| {
        let version = first_line(told.0, told.1).map_err(|why| RivalAbsence::Missing(format!("{why:#}")));
        (workload, name, version.map(|line| (format!("{name} ({})", version_number(&line)), run)))
    };
    vec![
        of("digests", "mktorrent", ("mktorrent", &[]), hash_by_mktorrent(file.to_owned())),
        of("stream", "openssl sha1", ("openssl", &["version"]), hash_by_program("openssl", &["sha1"], file)),
        of("stream", "sha1sum", ("sha1sum", &["--version"]), hash_by_program("sha1sum", &[], file)),
    ]
}

fn hash_by_program(name: &'static str, words: &'static [&'static str], file: &Path) -> HashRun {
    let file = file.to_owned();
    Box::new(move || run_program(name, Command::new(name).args(words).arg(&file)).map(drop))
}

/// Pieces as long as ours, and as many threads as it likes, which is one a core.
fn hash_by_mktorrent(file: PathBuf) -> HashRun {
    let torrent = file.with_extension("torrent");
    let exponent = PIECE_BYTES.trailing_zeros().to_string();
    Box::new(move || {
        // It makes none where there is one.
        if torrent.exists() {
            std::fs::remove_file(&torrent)?;
        }
        let mut command = Command::new("mktorrent");
        command.args(["-l", &exponent, "-a", "http://127.0.0.1/announce", "-o"]).arg(&torrent).arg(&file);
        run_program("mktorrent", &mut command).map(drop)
    })
}
