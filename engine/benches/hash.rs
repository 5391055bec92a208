//! Throughput of every hash implementation that this CPU supports: single streams, pieces in lanes, digests with links.
//!
//! `cargo bench -p engine --bench hash`. For ratios to a rival, interleaved and with their spread, see `bench hash`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use engine::hash::{FileHash, HashKind, Hasher, LinkCheck, LinkEnd, PieceJob};
use engine::proto::units::{ChainState, Digest, PIECE_BYTES};

/// Numbers of pieces: around the points where lanes become faster, and full sets of lanes.
const PIECES: [usize; 7] = [1, 2, 4, 5, 6, 8, 16];

fn main() {
    divan::main();
}

/// Pieces of random bytes from a fixed seed.
fn pieces(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * PIECE_BYTES as usize];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

fn hasher(kind: HashKind) -> Option<Hasher> {
    Hasher::new(kind).inspect_err(|lacking| eprintln!("skipped: {lacking}")).ok()
}

/// One stream, as in the sequential pass over a file.
#[divan::bench(args = [HashKind::ShaNi, HashKind::Asm])]
fn stream(bencher: Bencher<'_, '_>, kind: HashKind) {
    let Some(hasher) = hasher(kind) else { return };
    let bytes = pieces(16);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut pass = FileHash::new(hasher);
        pass.update(black_box(&bytes));
        pass.finish()
    });
}

/// The digests of a number of pieces.
#[divan::bench(args = kinds_and_counts())]
fn digests(bencher: Bencher<'_, '_>, case: Case) {
    let Some(hasher) = hasher(case.kind) else { return };
    let bytes = pieces(case.pieces);
    let slices: Vec<&[u8]> = bytes.chunks(PIECE_BYTES as usize).collect();
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| hasher.digest_many(black_box(&slices)));
}

/// The digests and links of a number of pieces.
#[divan::bench(args = kinds_and_counts())]
fn both_states(bencher: Bencher<'_, '_>, case: Case) {
    let Some(hasher) = hasher(case.kind) else { return };
    let bytes = pieces(case.pieces);
    let link = LinkCheck { from: ChainState::INITIAL, to: LinkEnd::State(ChainState::INITIAL) };
    let jobs: Vec<PieceJob<'_>> = bytes
        .chunks(PIECE_BYTES as usize)
        .map(|bytes| PieceJob { bytes, digest: Digest([0; 20]), link: Some(link) })
        .collect();
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| hasher.verify(black_box(&jobs)));
}

/// One implementation and a number of pieces.
#[derive(Clone, Copy)]
struct Case {
    kind: HashKind,
    pieces: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {:02}", self.kind, self.pieces)
    }
}

fn kinds_and_counts() -> impl Iterator<Item = Case> {
    HashKind::ALL.into_iter().flat_map(|kind| PIECES.map(|pieces| Case { kind, pieces }))
}
