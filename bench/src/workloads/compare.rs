//! `bench compare A B`: the same transfers by two builds or with two settings, in the same rounds; B as a multiple of A. Rounds
//! go ABBA.
//!
//! What is compared is a folder of programs, a revision of the repository (built into a folder below `target/compare`), or
//! options of the node, such as `'--io epoll'`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::transfer::rounds::Rounds;
use super::transfer::shoal::ShoalContender;
use super::transfer::{Stage, all_succeeded};
use crate::cli::CompareArgs;
use crate::report;
use crate::results::sink::Sink;
use crate::topology::binaries::Binaries;

/// Where revisions are built, below the repository.
const BUILDS: &str = "target/compare";

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    /// Programs that there are.
    Folder(PathBuf),
    /// What git knows by this name.
    Revision(String),
    /// The programs at hand, with these options of the node.
    Options(Vec<String>),
}

impl Side {
    fn read(word: &str) -> Side {
        if word.starts_with("--") {
            Side::Options(word.split_whitespace().map(str::to_owned).collect())
        } else if Path::new(word).is_dir() {
            Side::Folder(word.into())
        } else {
            Side::Revision(word.to_owned())
        }
    }

    fn binaries(&self, at_hand: Option<&Path>) -> anyhow::Result<Binaries> {
        match self {
            Side::Folder(folder) => Binaries::find(Some(folder)),
            Side::Revision(name) => Binaries::find(Some(&build(name)?)),
            Side::Options(_) => Binaries::find(at_hand),
        }
    }

    fn options(&self) -> &[String] {
        if let Side::Options(options) = self { options } else { &[] }
    }
}

/// Measures and reports.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let sides = [&args.a, &args.b].map(|word| (word.as_str(), Side::read(word)));
    // Before anything is measured, and in the machine's own network: a build may fetch.
    let at_hand = args.bin.as_deref();
    let binaries = [sides[0].1.binaries(at_hand)?, sides[1].1.binaries(at_hand)?];
    let stage = Stage::set(&args.stage)?;
    let mut settings = stage.settings();
    settings.extend([("A", args.a.clone()), ("B", args.b.clone()), ("seeders", args.seeders.to_string())]);
    let size = args.stage.size.bytes();
    let mut sink = Sink::begin(args.stage.output.wanted(), "compare", Some(size), &settings)?;
    stage.warn();
    let terms = stage.terms(args.seeders, "compare")?;
    let mut rounds = Rounds::new(&stage.rounds, "compare", &terms);
    for (number, ((word, side), binaries)) in sides.iter().zip(&binaries).enumerate() {
        let kind = format!("{} {word}", if number == 0 { "A" } else { "B" });
        let contender = ShoalContender::start(&kind, number == 0, binaries, side.options(), &terms)?;
        rounds.enter(Box::new(contender));
    }
    let failed = rounds.run(&mut sink)?;
    report::conclude(sink)?;
    all_succeeded(&failed)
}

/// Builds a revision in a working tree of its own; the folder of its programs. What was built before is there still.
fn build(name: &str) -> anyhow::Result<PathBuf> {
    let top = PathBuf::from(git(Path::new("."), &["rev-parse", "--show-toplevel"])?);
    let commit = git(&top, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
        .with_context(|| {
            format!("{name} is neither a folder, nor a revision, nor options of the node (`--…`)")
        })?;
    let builds = top.join(BUILDS);
    let (tree, target) = (builds.join(format!("{commit}-tree")), builds.join(&commit));
    let programs = target.join("release");
    if Binaries::find(Some(&programs)).is_ok() {
        return Ok(programs);
    }
    std::fs::create_dir_all(&builds)?;
    let tree_text = tree.to_string_lossy();
    // What a build that was killed has left.
    let _ = git(&top, &["worktree", "remove", "--force", &tree_text]);
    git(&top, &["worktree", "add", "--force", "--detach", &tree_text, &commit])?;
    eprintln!("bench: building {commit}");
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "tracker",
            "--package",
            "client",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(&tree)
        .status()
        .context("cannot start cargo");
    git(&top, &["worktree", "remove", "--force", &tree_text])?;
    if !built?.success() {
        bail!("{name} ({commit}) does not build");
    }
    Ok(programs)
}

fn git(at: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(at).args(words);
    Ok(crate::topology::spawned::output("git", &mut command)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        assert_eq!(Side::read("--io  epoll"), Side::Options(vec!["--io".to_owned(), "epoll".to_owned()]));
        assert_eq!(Side::read("HEAD~1"), Side::Revision("HEAD~1".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(Side::read(path), Side::Folder(path.into()));
    }
}
