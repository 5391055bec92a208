//! Partial files as an earlier attempt may have left them, and a node that holds all pieces but the last.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Download;
use engine::config::IoChoice;
use engine::proto::action::PeerAddress;
use engine::proto::manifest::Manifest;
use engine::proto::units::PIECE_BYTES;

use crate::rig::{Node, nothing_is_spawned, wait_for};

/// The one file of a directory with this ending; `None` when there is none.
pub(crate) fn ending(directory: &Path, ending: &str) -> Option<PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found = paths.filter(|path| path.to_str().unwrap().ends_with(ending));
    let path = found.next();
    assert_eq!(found.next(), None, "two files end with {ending}");
    path
}

/// Leaves a partial file with these bytes, and no record.
pub(crate) fn leave_part(manifest: &Arc<Manifest>, directory: &Path, content: &[u8]) {
    use std::os::unix::fs::FileExt;
    // A program that is being started would hold the file's lock for a moment.
    let _spawns = nothing_is_spawned();
    let node = Node::start(9, IoChoice::Auto);
    let order = engine::DownloadOrder { destination: directory.to_owned(), ..node.order(manifest) };
    let download = node.engine.download(order).unwrap();
    node.engine.stop();
    drop((download, node));
    std::fs::remove_file(ending(directory, ".record").unwrap()).unwrap();
    let part = std::fs::File::options().write(true).open(ending(directory, ".part").unwrap()).unwrap();
    part.try_lock().expect("a stopped node holds no lock");
    part.write_all_at(content, 0).unwrap();
}

/// A node that serves all pieces of a file but the last, which it never gets. A download from it alone gets all other pieces
/// and never ends, on any machine.
pub(crate) struct AllButLast {
    _download: Download,
    node: Node,
    /// Bytes that it holds.
    pub(crate) held: u64,
}

impl AllButLast {
    pub(crate) fn start(seed: u8, manifest: &Arc<Manifest>, content: &[u8]) -> AllButLast {
        let piece = PIECE_BYTES as usize;
        let there = &content[..(content.len().div_ceil(piece) - 1) * piece];
        let node = Node::start(seed, IoChoice::Auto);
        leave_part(manifest, node.directory.path(), there);
        let download = node.fetch(manifest, &[]);
        let held = there.len() as u64;
        wait_for(&download, |progress| progress.verified_bytes == held);
        AllButLast { _download: download, node, held }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        self.node.address()
    }
}
