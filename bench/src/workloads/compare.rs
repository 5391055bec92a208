//! `bench compare A B`: the same transfers with two builds or two settings, in the same rounds, in ABBA order. Results
//! of B are multiples of A's.
//!
//! A side is a folder of programs, a revision of the repository (built once, below `target/compare`), or options of
//! the node such as `'--io epoll'`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::transfer::rounds::TransferRounds;
use super::transfer::shoal::ShoalContender;
use super::transfer::{TransferSetup, fail_if_any};
use crate::cli::CompareArgs;
use crate::report;
use crate::results::node_counts::NodeCounts;
use crate::results::sink::RecordSink;
use crate::topology::binaries::ShoalBinaries;
use crate::topology::spawned::create_empty_folder;

/// The folder of built revisions, below the repository.
const BUILDS: &str = "target/compare";

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CompareSide {
    /// A folder with programs.
    Folder(PathBuf),
    /// A revision, as git resolves it.
    Revision(String),
    /// The default programs, with these options of the node.
    Options(Vec<String>),
}

impl CompareSide {
    fn parse(word: &str) -> CompareSide {
        if word.starts_with("--") {
            CompareSide::Options(word.split_whitespace().map(str::to_owned).collect())
        } else if Path::new(word).is_dir() {
            CompareSide::Folder(word.into())
        } else {
            CompareSide::Revision(word.to_owned())
        }
    }

    fn binaries(&self, default_folder: Option<&Path>) -> anyhow::Result<ShoalBinaries> {
        match self {
            CompareSide::Folder(folder) => ShoalBinaries::find(Some(folder)),
            CompareSide::Revision(name) => ShoalBinaries::find(Some(&build_programs(Path::new("."), name)?)),
            CompareSide::Options(_) => ShoalBinaries::find(default_folder),
        }
    }

    fn options(&self) -> &[String] {
        if let CompareSide::Options(options) = self { options } else { &[] }
    }
}

/// Runs `bench compare`.
pub(crate) fn run_compare(args: &CompareArgs) -> anyhow::Result<()> {
    let sides = [&args.a, &args.b].map(|word| (word.as_str(), CompareSide::parse(word)));
    // Programs are built before the run enters its own network, since cargo may have to download.
    let default_folder = args.bin.bin.as_deref();
    let binaries = [sides[0].1.binaries(default_folder)?, sides[1].1.binaries(default_folder)?];
    let shape = NodeCounts { seeders: args.seeders, leechers: args.leechers };
    let stage = TransferSetup::prepare(&args.setup, shape.leechers)?;
    let mut settings = stage.settings();
    settings.extend([("A", args.a.clone()), ("B", args.b.clone()), ("nodes", shape.to_string())]);
    let size = args.setup.size.bytes();
    let mut sink = RecordSink::begin(args.setup.output.record_output(), "compare", Some(size), &settings)?;
    stage.warn();
    let terms = stage.terms(shape, "compare")?;
    let mut rounds = TransferRounds::new(&stage.rounds, "compare", &terms);
    for (number, ((word, side), binaries)) in sides.iter().zip(&binaries).enumerate() {
        let kind = format!("{} {word}", if number == 0 { "A" } else { "B" });
        let contender = ShoalContender::start(&kind, number == 0, binaries, side.options(), &terms)?;
        rounds.add_contender(Box::new(contender));
    }
    let failed = rounds.run(&mut sink)?;
    report::finish_run(sink)?;
    fail_if_any(&failed)
}

/// The folder of a revision's programs. They are built if they are missing.
fn build_programs(at: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let top = PathBuf::from(run_git(at, &["rev-parse", "--show-toplevel"])?);
    let commit = run_git(&top, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
        .with_context(|| {
            format!("{name} is neither a folder, nor a revision, nor options of the node (`--…`)")
        })?;
    let builds = top.join(BUILDS);
    let programs = builds.join(format!("{commit}-programs"));
    if ShoalBinaries::find(Some(&programs)).is_ok() {
        return Ok(programs);
    }
    std::fs::create_dir_all(&builds)?;
    let tree = builds.join(format!("{commit}-tree"));
    let tree_text = tree.to_string_lossy();
    // An interrupted build may have left its tree.
    let _ = run_git(&top, &["worktree", "remove", "--force", &tree_text]);
    run_git(&top, &["worktree", "add", "--force", "--detach", &tree_text, &commit])?;
    eprintln!("bench: building {commit} (this takes minutes)");
    // One target folder for all revisions: they share most dependencies.
    let target = builds.join("target");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--package", "tracker", "--package", "client"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&tree)
        .status()
        .context("cannot start cargo: https://rustup.rs has it");
    run_git(&top, &["worktree", "remove", "--force", &tree_text])?;
    if !built?.success() {
        bail!("{name} ({commit}) does not build: see cargo's output above");
    }
    copy_programs(&target.join("release"), &programs)?;
    Ok(programs)
}

/// Copies both programs to a folder, which is renamed into place when it is complete.
fn copy_programs(built: &Path, programs: &Path) -> anyhow::Result<()> {
    let ShoalBinaries { tracker, client } = ShoalBinaries::find(Some(built))?;
    let part = create_empty_folder(programs.with_extension("part"))?;
    for program in [tracker, client] {
        let name = program.file_name().context("a program has a name")?;
        std::fs::copy(&program, part.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    std::fs::rename(&part, programs).with_context(|| format!("cannot create {}", programs.display()))
}

fn run_git(at: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(at).args(words);
    Ok(crate::topology::spawned::run_program("git", &mut command)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits a workspace of two programs that print `word`.
    fn commit(top: &Path, word: &str) -> String {
        for program in ["tracker", "client"] {
            let source = top.join(program).join("src");
            std::fs::create_dir_all(&source).unwrap();
            let manifest =
                format!("[package]\nname = \"{program}\"\nversion = \"0.0.1\"\nedition = \"2024\"\n");
            std::fs::write(top.join(program).join("Cargo.toml"), manifest).unwrap();
            std::fs::write(source.join("main.rs"), format!("fn main() {{ println!(\"{word}\") }}\n"))
                .unwrap();
        }
        std::fs::write(
            top.join("Cargo.toml"),
            "[workspace]\nresolver = \"3\"\nmembers = [\"tracker\", \"client\"]\n",
        )
        .unwrap();
        std::fs::write(top.join(".gitignore"), "target\n").unwrap();
        let mut lock = Command::new("cargo");
        lock.args(["generate-lockfile", "--offline"]).current_dir(top);
        crate::topology::spawned::run_program("cargo", &mut lock).unwrap();
        run_git(top, &["add", "."]).unwrap();
        let who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
        run_git(top, &[&who[..], &["commit", "--quiet", "-m", word]].concat()).unwrap();
        run_git(top, &["rev-parse", "HEAD"]).unwrap()
    }

    #[test]
    fn named_revisions_are_built_once() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path();
        run_git(top, &["init", "--quiet"]).unwrap();
        let commits = [commit(top, "first"), commit(top, "second")];
        // Uncommitted changes are not built.
        std::fs::write(top.join("client/src/main.rs"), "no program").unwrap();
        for (name, word) in [("HEAD~1", "first"), ("HEAD", "second")] {
            let programs = ShoalBinaries::find(Some(&build_programs(top, name).unwrap())).unwrap();
            for program in [programs.tracker, programs.client] {
                let output = crate::topology::spawned::run_program("it", &mut Command::new(program)).unwrap();
                assert_eq!(output.trim(), word);
            }
        }
        // A built revision is not built again, so the file keeps its new content.
        std::fs::write(top.join(BUILDS).join(format!("{}-programs", commits[0])).join("client"), "").unwrap();
        let again = build_programs(top, &commits[0]).unwrap();
        assert_eq!(std::fs::metadata(again.join("client")).unwrap().len(), 0);
        assert_eq!(run_git(top, &["worktree", "list"]).unwrap().lines().count(), 1, "a tree was left behind");
        let fault = format!("{:#}", build_programs(top, "no-such-revision").unwrap_err());
        assert!(fault.contains("no-such-revision is neither"), "{fault}");
    }

    #[test]
    fn sides_are_recognized() {
        assert_eq!(
            CompareSide::parse("--io  epoll"),
            CompareSide::Options(vec!["--io".to_owned(), "epoll".to_owned()])
        );
        assert_eq!(CompareSide::parse("HEAD~1"), CompareSide::Revision("HEAD~1".to_owned()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(CompareSide::parse(path), CompareSide::Folder(path.into()));
    }
}
