//! Rules about documents and manifests: links that lead somewhere, versions in one place.

use std::collections::BTreeSet;

use crate::tree::{Document, Finding};

/// The manifest of a crate outside the workspace, which cannot take versions from the root manifest.
const OUTSIDE_WORKSPACE: &str = "fuzz/Cargo.toml";

/// Members take versions from the root manifest.
pub(crate) fn versions(document: &Document) -> Vec<Finding> {
    if !document.path.ends_with("/Cargo.toml") || document.path == OUTSIDE_WORKSPACE {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut section = "";
    for (line, text) in document.text.lines().enumerate() {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if text.is_empty() || text.starts_with('#') {
            continue;
        } else if section.contains("dependencies") && !text.contains("workspace = true") {
            let what = "a dependency takes its version from the root Cargo.toml: `workspace = true`";
            findings.push(Finding::new(&document.path, line + 1, what));
        } else if section == "package" && (text.starts_with("version =") || text.starts_with("edition =")) {
            let what = "the package takes this from the root Cargo.toml: `.workspace = true`";
            findings.push(Finding::new(&document.path, line + 1, what));
        }
    }
    findings
}

/// Relative links of Markdown lead to files that exist, and to headings that they have.
pub(crate) fn links(documents: &[Document]) -> Vec<Finding> {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let exists = |path: &str| top.join(path).exists();
    documents
        .iter()
        .filter(|document| document.path.ends_with(".md"))
        .flat_map(|document| links_of(document, documents, &exists))
        .collect()
}

fn links_of(document: &Document, documents: &[Document], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, target) in targets(&document.text) {
        let mut fault = |what| findings.push(Finding::new(&document.path, line, what));
        let (file, heading) =
            target.split_once('#').map_or((target, None), |(file, head)| (file, Some(head)));
        let path = if file.is_empty() { document.path.clone() } else { joined(folder, file) };
        if !exists(&path) {
            fault(format!("the link to {target} leads to {path}, which does not exist"));
        } else if let (Some(heading), Some(other)) =
            (heading, documents.iter().find(|other| other.path == path))
            && !headings(&other.text).contains(heading)
        {
            fault(format!("{path} has no heading #{heading}"));
        }
    }
    findings
}

/// The relative link targets of a Markdown text outside of code, each with its line.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (line, text) in text.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let parts = if in_code { Vec::new() } else { text.split("](").skip(1).collect() };
        for part in parts {
            let target = part.split(')').next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line + 1, target));
            }
        }
    }
    found
}

fn joined(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            ".." => _ = parts.pop(),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The headings of a Markdown text as link targets: lower case, spaces to hyphens, other punctuation gone.
fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn versions_of_members_are_found() {
        let manifest = |text: &str| versions(&document("x/Cargo.toml", text)).len();
        assert_eq!(
            manifest("[package]\nversion.workspace = true\n[dependencies]\n# a\nserde.workspace = true\n"),
            0
        );
        assert_eq!(manifest("[dependencies]\nserde = \"1\"\n"), 1);
        assert_eq!(manifest("[dev-dependencies]\nserde = { version = \"1\" }\n"), 1);
        assert_eq!(manifest("[package]\nversion = \"1.0.0\"\n"), 1);
        assert_eq!(versions(&document("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\n")), []);
    }

    #[test]
    fn dead_links_are_found() {
        let documents = [
            document(
                "README.md",
                "# Top\n[a](docs/a.md#the-way) [b](#top) [c](https://x/y)\n```\n[d](gone)\n```\n",
            ),
            document("docs/a.md", "## The `way`\n[up](../README.md#top)\n"),
        ];
        let exists = |path: &str| documents.iter().any(|document| document.path == path);
        let check = |document: &Document| links_of(document, &documents, &exists).len();
        assert_eq!(documents.iter().map(check).sum::<usize>(), 0);
        assert_eq!(check(&document("docs/b.md", "[gone](c.md) [no heading](a.md#elsewhere) [a](a.md)")), 2);
    }
}
