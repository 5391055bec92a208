//! The repository's Rust sources and documents, read once.
//!
//! Documents are all other texts: Markdown, manifests, scripts, CI.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::source::{self, Source};

/// Folders that are not searched: build output, version control, files that a run leaves.
const NOT_OURS: [&str; 3] = ["target", ".git", "tracker_data"];

/// Endings of documents, and names of documents without an ending.
const DOCUMENTS: [&str; 8] = [".md", ".toml", ".sh", ".yml", ".txt", "Makefile", ".ci/run", ".gitignore"];

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// From the top of the repository.
    pub(crate) path: String,
    /// Counted from 1; 0 for the whole file.
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

/// A text other than Rust source.
pub(crate) struct Document {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

/// All texts that the rules read.
pub(crate) struct Tree {
    /// Every `.rs` file, tests included.
    pub(crate) sources: Vec<Source>,
    /// Every document.
    pub(crate) documents: Vec<Document>,
}

impl Tree {
    /// The repository that this crate is part of, read at the first call.
    pub(crate) fn get() -> &'static Tree {
        static TREE: LazyLock<Tree> = LazyLock::new(|| {
            let top =
                Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository");
            let mut tree = Tree { sources: Vec::new(), documents: Vec::new() };
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
        } else if DOCUMENTS.iter().any(|ending| path.ends_with(ending)) {
            let text = read();
            self.documents.push(Document { path, text });
        }
    }
}
