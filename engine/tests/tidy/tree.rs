//! The repository as the rules see it: its Rust sources and its papers, read once.
//!
//! Papers are whatever people read or tools obey besides Rust: Markdown, manifests, scripts, CI.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::source::{self, Source};

/// Folders that hold nothing of ours: build output, version control, what a run leaves behind.
const NOT_OURS: [&str; 3] = ["target", ".git", "tracker_data"];

/// Endings of papers, and names of those without an ending.
const PAPERS: [&str; 8] = [".md", ".toml", ".sh", ".yml", ".txt", "Makefile", ".ci/run", ".gitignore"];

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// From the top of the repository.
    pub(crate) path: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub(crate) line: usize,
    /// What is wrong, and what to do.
    pub(crate) what: String,
}

impl Finding {
    /// A finding at a line of a file.
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A text that is no Rust source.
pub(crate) struct Paper {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    /// As it stands.
    pub(crate) text: String,
}

/// Everything that the rules read.
pub(crate) struct Tree {
    /// Every `.rs` file, tests included.
    pub(crate) sources: Vec<Source>,
    /// Every paper.
    pub(crate) papers: Vec<Paper>,
}

impl Tree {
    /// The repository that this crate is part of, read at the first call.
    pub(crate) fn get() -> &'static Tree {
        static TREE: LazyLock<Tree> = LazyLock::new(|| {
            let top =
                Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
            let mut tree = Tree { sources: Vec::new(), papers: Vec::new() };
            tree.walk(top, "");
            source::mark_test_modules(&mut tree.sources);
            tree
        });
        &TREE
    }

    fn walk(&mut self, folder: &Path, prefix: &str) {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<_, _>>)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !NOT_OURS.contains(&name.as_str()) {
                    self.walk(&entry.path(), &format!("{path}/"));
                }
            } else {
                self.read(&entry.path(), path);
            }
        }
    }

    fn read(&mut self, file: &Path, path: String) {
        let read = || fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        let is_source = Path::new(&path).extension().is_some_and(|ending| ending == "rs");
        if is_source {
            self.sources.push(Source::new(&path, &read()));
        } else if PAPERS.iter().any(|ending| path.ends_with(ending)) {
            let text = read();
            self.papers.push(Paper { path, text });
        }
    }
}
