//! What each rival provides: its name, the versions of its programs, and a contender.

use std::process::Command;

use crate::contender::{ProgramContender, TransferTerms};
use crate::results::sink::RecordSink;
use crate::topology::spawned::read_first_line;

/// Another program that transfers files.
pub(super) struct Rival {
    /// Its name in reports.
    pub(super) name: &'static str,
    /// Reads the versions of all its programs; an error names the missing one and how to install it.
    pub(super) version: fn() -> anyhow::Result<String>,
    /// Why its servers keep the source mapped, if they do. Such a rival cannot take part in cold rounds.
    pub(super) keeps_source_mapped: Option<&'static str>,
    /// Starts its servers and prepares the commands of its receivers. The first argument is its kind in reports.
    pub(super) start: fn(&str, &TransferTerms) -> anyhow::Result<ProgramContender>,
}

/// A program without the user's settings and caches: its home and its temporary folder are the contender's folder.
pub(super) fn isolated_command(program: &str, terms: &TransferTerms) -> Command {
    let mut command = Command::new(program);
    for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
        command.env(name, &terms.folder);
    }
    command
}

/// Why a rival is not measured.
pub(crate) enum RivalAbsence {
    /// It is not installed, or cannot run on these terms.
    Missing(String),
    /// It did not start.
    Failed(String),
}

impl RivalAbsence {
    /// Writes the absence as a record. `of` is the workload and the kind.
    pub(crate) fn record(&self, sink: &mut RecordSink, of: [&str; 2]) -> anyhow::Result<()> {
        match self {
            RivalAbsence::Missing(why) => sink.record_skipped(of, why),
            RivalAbsence::Failed(why) => sink.record_failed(of, why),
        }
    }
}

/// The version that a program prints when it is called with these arguments.
pub(super) fn program_version(program: &str, args: &[&str]) -> anyhow::Result<String> {
    Ok(version_number(&read_first_line(program, args)?))
}

/// The version number in a line such as `curl 7.88.1 (x86_64-pc-linux-gnu) …`, or the whole line without one.
fn version_number(line: &str) -> String {
    let is_number = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let words = line.split(|c: char| c.is_whitespace() || c == '/' || c == ',');
    let mut words = words.map(|word| word.trim_start_matches('v'));
    words.find(is_number).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_are_found_where_programs_put_them() {
        assert_eq!(version_number("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1"), "7.88.1");
        assert_eq!(version_number("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(version_number("rsync  version 3.2.7  protocol version 31"), "3.2.7");
        assert_eq!(version_number("rqbit v9.1.0"), "9.1.0");
        assert_eq!(version_number("unknown"), "unknown");
    }
}
