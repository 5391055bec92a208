//! What every rival is: a name, the versions of its programs, and a contender.

use std::process::Command;

use crate::contender::{Contender, TransferTerms};
use crate::results::sink::RecordSink;

/// Another program.
pub(super) trait Rival {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The versions of all programs that it takes.
    ///
    /// # Errors
    /// One is not installed, and how it can be.
    fn version(&self) -> anyhow::Result<String>;

    /// Why its servers have the file mapped all the time, if they do.
    fn keeps_source_mapped(&self) -> Option<&'static str> {
        None
    }

    /// Starts what serves, and says how to fetch.
    ///
    /// # Errors
    /// What went wrong.
    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>>;
}

/// A program that finds no settings and leaves none: its home, and its folder for temporary files, are the contender's.
pub(super) fn isolated_command(program: &str, terms: &TransferTerms) -> Command {
    let mut command = Command::new(program);
    for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
        command.env(name, &terms.place);
    }
    command
}

/// Why a rival takes no part.
pub(crate) enum RivalAbsence {
    /// It is not installed.
    Missing(String),
    /// It did not start.
    Failed(String),
}

impl RivalAbsence {
    /// Puts it into the records.
    pub(crate) fn record_absence(&self, sink: &mut RecordSink, of: [&str; 2]) -> anyhow::Result<()> {
        match self {
            RivalAbsence::Missing(why) => sink.record_skipped(of, why),
            RivalAbsence::Failed(why) => sink.record_failed(of, why),
        }
    }
}

/// The version number in a line such as `curl 7.88.1 (x86_64-pc-linux-gnu) …`; the whole line when there is none.
pub(super) fn version_number(line: &str) -> String {
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
