//! `bench hash`: every way of hashing that this CPU has, beside one pass of the `sha1` crate over the same bytes.
//!
//! Per kind: `stream` is one sequential pass, `digests` the digests of all pieces, `both_states` digests and links, the
//! way downloads are verified; all three on one thread. `upload` is what sharing a file costs: digests, chain and
//! file digest, with the threads that the client would use.

use std::hint::black_box;

use anyhow::{Context as _, bail};
use engine::hash::{FileHash, FileHasher, HashKind, Hasher, LinkCheck, LinkEnd, PieceJob};
use engine::proto::geometry::Geometry;
use engine::proto::units::{ChainState, Digest, PIECE_BYTES};
use sha1::Digest as _;

use crate::cli::HashArgs;
use crate::recorder::{Workload, measure};
use crate::report;
use crate::results::sink::Sink;

/// Pieces that are verified together, as a download does with what has landed.
const BATCH_PIECES: usize = 16;

/// The kind that all others are compared with.
const REFERENCE: &str = "sha1 crate";

/// Measures and reports.
pub(crate) fn run(args: &HashArgs) -> anyhow::Result<()> {
    let size = args.size.bytes();
    let rounds = [("rounds", args.runs.to_string()), ("warm-up rounds", args.warmup.to_string())];
    let mut sink = Sink::begin(args.output.wanted(), "hash", Some(size), &rounds)?;
    let bytes = content(size, sink.host().and_then(|host| host.memory_available_bytes))?;
    let geometry = Geometry::new(size)?;
    let best = Hasher::best();
    let file_hasher = FileHasher::new(best, None)?;
    let mut workloads = vec![reference(&bytes)];
    for kind in HashKind::supported() {
        workloads.extend(of_kind(Hasher::new(kind)?, &bytes));
    }
    workloads.push(Workload {
        name: "upload",
        kind: best.kind().to_string(),
        run: Box::new(|| match file_hasher.hash_file(geometry, bytes.as_slice(), |_| {}) {
            Ok(hashes) => drop(black_box(hashes)),
            Err(never) => match never {},
        }),
    });
    measure(&workloads, args.warmup, args.runs, |round, workload, took| {
        let of = [workload.name, workload.kind.as_str(), "throughput"];
        let gb_per_s = size as f64 / took.as_nanos().max(1) as f64;
        if workload.kind == REFERENCE {
            sink.reference(of, round, gb_per_s, "GB/s")
        } else {
            sink.sample(of, round, gb_per_s, "GB/s")
        }
    })?;
    report::conclude(sink)
}

/// What all others are compared with.
fn reference(bytes: &[u8]) -> Workload<'_> {
    Workload {
        name: "stream",
        kind: REFERENCE.to_owned(),
        run: Box::new(move || {
            black_box(sha1::Sha1::digest(bytes));
        }),
    }
}

/// The workloads of one kind.
fn of_kind(hasher: Hasher, bytes: &[u8]) -> [Workload<'_>; 3] {
    let kind = || hasher.kind().to_string();
    let stream = move || {
        let mut pass = FileHash::new(hasher);
        pass.update(bytes);
        black_box(pass.finish());
    };
    let digests = move || {
        for batch in bytes.chunks(BATCH_PIECES * PIECE_BYTES as usize) {
            let pieces: Vec<&[u8]> = batch.chunks(PIECE_BYTES as usize).collect();
            black_box(hasher.digest_many(&pieces));
        }
    };
    // What the values should be costs nothing to compare, so wrong ones do.
    let to = LinkEnd::File { length: bytes.len() as u64, digest: Digest([0; 20]) };
    let link = Some(LinkCheck { from: ChainState::INITIAL, to });
    let both_states = move || {
        for batch in bytes.chunks(BATCH_PIECES * PIECE_BYTES as usize) {
            let pieces = batch.chunks(PIECE_BYTES as usize);
            let jobs: Vec<PieceJob<'_>> =
                pieces.map(|bytes| PieceJob { bytes, digest: Digest([0; 20]), link }).collect();
            black_box(hasher.verify(&jobs));
        }
    };
    [
        Workload { name: "stream", kind: kind(), run: Box::new(stream) },
        Workload { name: "digests", kind: kind(), run: Box::new(digests) },
        Workload { name: "both_states", kind: kind(), run: Box::new(both_states) },
    ]
}

/// Bytes to hash, no page like another, so that none is shared or zero.
fn content(size: u64, available: Option<u64>) -> anyhow::Result<Vec<u8>> {
    if let Some(available) = available
        && size > available
    {
        bail!("{size} bytes do not fit the {available} bytes of memory that are free: use a smaller --size");
    }
    let length = usize::try_from(size).context("more bytes than memory can address: use a smaller --size")?;
    let mut bytes = vec![0; length];
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    for place in bytes.chunks_mut(size_of::<u64>()) {
        // xorshift64: speed matters here, not quality.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_the_size_asked_for_and_no_two_equal_pages() {
        let bytes = content(3 * 4_096 + 5, None).unwrap();
        assert_eq!(bytes.len(), 3 * 4_096 + 5);
        let pages: Vec<&[u8]> = bytes.chunks_exact(4_096).collect();
        assert!(pages[0] != pages[1] && pages[1] != pages[2] && pages[0] != pages[2]);
    }

    #[test]
    fn more_than_the_memory_is_refused_with_the_way_out() {
        let refusal = content(2, Some(1)).unwrap_err();
        assert!(refusal.to_string().contains("--size"), "{refusal}");
    }
}
