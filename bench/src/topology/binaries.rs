//! Which programs are measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The programs of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShoalBinaries {
    /// `tracker`.
    pub(crate) tracker: PathBuf,
    /// `client`.
    pub(crate) client: PathBuf,
}

impl ShoalBinaries {
    /// Those in `folder`, else those beside the harness itself.
    pub(crate) fn find(folder: Option<&Path>) -> anyhow::Result<ShoalBinaries> {
        let own = std::env::current_exe().context("the harness does not find its own program")?;
        let beside = own.parent().context("a program lies in a folder")?;
        let folder = folder.unwrap_or(beside);
        let pick = |names: [&str; 2]| {
            let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
            match found {
                // Programs are started from other folders than this one.
                Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display())),
                None => bail!(
                    "there is neither {} nor {} in {}: `cargo build --release` builds it, `--bin DIR` names another folder",
                    names[0],
                    names[1],
                    folder.display()
                ),
            }
        };
        // As cargo names them, and as packages install them.
        Ok(ShoalBinaries { tracker: pick(["tracker", "shoal-tracker"])?, client: pick(["client", "shoal"])? })
    }
}

/// Without what the environment of the harness says to Shoal's programs: how much they log, say, is not to change figures.
pub(crate) fn with_clean_environment(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name == "RUST_LOG" || name.to_str().is_some_and(|name| name.starts_with("SHOAL_")) {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_are_found_and_none_is_told() {
        let place = tempfile::tempdir().unwrap();
        let refusal = ShoalBinaries::find(Some(place.path())).unwrap_err().to_string();
        assert!(refusal.contains("--bin"), "{refusal}");
        for name in ["tracker", "shoal"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let found = ShoalBinaries::find(Some(place.path())).unwrap();
        assert!(found.tracker.ends_with("tracker") && found.client.ends_with("shoal"));
    }
}
