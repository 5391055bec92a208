//! Locates the measured programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The programs of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShoalBinaries {
    pub(crate) tracker: PathBuf,
    pub(crate) client: PathBuf,
}

impl ShoalBinaries {
    /// The programs in `folder`, or else those next to the harness.
    pub(crate) fn find(folder: Option<&Path>) -> anyhow::Result<ShoalBinaries> {
        let own = std::env::current_exe().context("cannot find the harness's own program")?;
        let beside = own.parent().context("a program lies in a folder")?;
        let folder = folder.unwrap_or(beside);
        let pick = |names: [&str; 2]| {
            let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
            match found {
                // Absolute, since programs are started in other working directories.
                Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display())),
                None => bail!(
                    "{} and {} are missing in {}: run `cargo build --release`, or name another folder with `--bin DIR`",
                    names[0],
                    names[1],
                    folder.display()
                ),
            }
        };
        // The names that cargo gives them, and those of installed packages.
        Ok(ShoalBinaries { tracker: pick(["tracker", "shoal-tracker"])?, client: pick(["client", "shoal"])? })
    }
}

/// Removes variables that Shoal's programs read, such as `RUST_LOG`: the caller's environment must not change the
/// figures.
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
    fn programs_are_found_by_either_name_and_missing_ones_are_reported() {
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
