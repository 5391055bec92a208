//! Every kind of hashing against the `sha1` crate, and the chain: pieces verified out of order prove the
//! file.
//!
//! Kinds that this CPU lacks are skipped, with a line on the output.

use std::cell::Cell;
use std::ops::Range;

use proptest::prelude::*;
use sha1::Digest as _;

use super::*;
use crate::proto::geometry::Geometry;
use crate::proto::units::{ChainState, Digest, PIECE_BYTES};

const PIECE: usize = PIECE_BYTES as usize;

fn hashers() -> Vec<Hasher> {
    let found = HashKind::ALL.into_iter().filter_map(|kind| match Hasher::new(kind) {
        Ok(hasher) => Some(hasher),
        Err(lacking) => {
            println!("skipped: {lacking}");
            None
        }
    });
    found.collect()
}

fn reference(bytes: &[u8]) -> Digest {
    Digest(sha1::Sha1::digest(bytes).into())
}

/// Bytes without a pattern that could hide swapped lanes.
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A file's jobs, each piece with its own link.
fn jobs<'a>(file: &'a [u8], hashes: &FileHashes) -> Vec<PieceJob<'a>> {
    let ends = hashes.chain.iter().map(|state| LinkEnd::State(*state));
    let end = LinkEnd::File { length: file.len() as u64, digest: hashes.digest };
    let starts = std::iter::once(ChainState::INITIAL).chain(hashes.chain.iter().copied());
    file.chunks(PIECE)
        .zip(&hashes.digests)
        .zip(starts.zip(ends.chain([end])))
        .map(|((bytes, digest), (from, to))| PieceJob {
            bytes,
            digest: *digest,
            link: Some(LinkCheck { from, to }),
        })
        .collect()
}

fn upload(hasher: Hasher, file: &[u8]) -> FileHashes {
    let geometry = Geometry::new(file.len() as u64).unwrap();
    FileHasher::new(hasher, Some(2)).unwrap().hash_file(geometry, file, |_| {}).unwrap()
}

const PROVEN: HashVerdict = HashVerdict { digest_holds: true, link_holds: Some(true) };

#[test]
fn known_values_are_computed() {
    // FIPS 180 examples, and the empty message.
    let known = [
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
        ),
    ];
    for hasher in hashers() {
        for (text, digest) in known {
            assert_eq!(hasher.digest(text.as_bytes()).to_string(), digest, "{}", hasher.kind());
        }
    }
}

#[test]
fn every_count_of_lanes_hashes_right() {
    // Full sets of lanes, partly filled ones, single pieces, and one piece more or fewer than each.
    let file = random_bytes(1, 35 * 4_096 + 3);
    for hasher in hashers() {
        for count in 0..=34 {
            let pieces: Vec<&[u8]> = file[3..].chunks_exact(4_096).take(count).collect();
            let expected: Vec<Digest> = pieces.iter().map(|piece| reference(piece)).collect();
            assert_eq!(hasher.digest_many(&pieces), expected, "{} {count}", hasher.kind());
        }
    }
}

#[test]
fn a_pass_has_a_state_between_blocks_only() {
    let file = random_bytes(2, 1_000);
    for hasher in hashers() {
        for step in [1, 7, 63, 64, 65, 128, 999] {
            let mut pass = FileHash::new(hasher);
            for part in file.chunks(step) {
                pass.update(part);
                assert_eq!(pass.state().is_some(), pass.length().is_multiple_of(64));
            }
            assert_eq!(pass.finish(), reference(&file), "{} {step}", hasher.kind());
        }
        assert_eq!(FileHash::new(hasher).state(), Some(ChainState::INITIAL));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_pieces_at_any_offsets_hash_right(
        seed: u64,
        ranges in prop::collection::vec((0..3 * PIECE, 0..3 * PIECE), 1..6),
        equal in (0..64_usize, 0..3_000_usize, 0..40_usize),
    ) {
        let file = random_bytes(seed, 3 * PIECE);
        let mut pieces: Vec<&[u8]> = ranges.iter().map(|(a, b)| &file[*a.min(b)..*a.max(b)]).collect();
        let (offset, length, count) = equal;
        pieces.extend((0..count).map(|i| &file[offset + i * 67..][..length]));
        let expected: Vec<Digest> = pieces.iter().map(|piece| reference(piece)).collect();
        for hasher in hashers() {
            prop_assert_eq!(&hasher.digest_many(&pieces), &expected, "{}", hasher.kind());
            prop_assert_eq!(hasher.digest(pieces[0]), expected[0], "{}", hasher.kind());
        }
    }
}

#[test]
fn pieces_verified_out_of_order_prove_the_file() {
    // Lengths with different padding, one piece, whole pieces only, and more than a set of lanes.
    let lengths = [1, 55, 56, 63, 64, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 55, 3 * PIECE + 56]
        .into_iter()
        .chain([3 * PIECE + 63, 3 * PIECE + 64, 18 * PIECE, 17 * PIECE + 1]);
    for (seed, length) in (0..).zip(lengths) {
        let file = random_bytes(seed, length);
        for hasher in hashers() {
            let hashes = upload(hasher, &file);
            assert_eq!(hashes.digest, reference(&file), "{} {length}", hasher.kind());
            assert_eq!(hashes.chain.len(), length.div_ceil(PIECE) - 1);
            let mut jobs = jobs(&file, &hashes);
            fastrand::Rng::with_seed(seed).shuffle(&mut jobs);
            assert!(
                hasher.verify(&jobs).iter().all(|verdict| *verdict == PROVEN),
                "{} {length}",
                hasher.kind()
            );
            for job in &jobs {
                assert_eq!(hasher.verify(&[*job]), [PROVEN], "{} {length}", hasher.kind());
            }
        }
    }
}

#[test]
fn only_the_bad_piece_is_blamed() {
    let mut file = random_bytes(3, 17 * PIECE + 100);
    for hasher in hashers() {
        let hashes = upload(hasher, &file);
        for bad in [0, 5, 16, 17] {
            file[bad * PIECE + 77] ^= 1;
            let verdicts = hasher.verify(&jobs(&file, &hashes));
            let blamed = HashVerdict { digest_holds: false, link_holds: Some(false) };
            for (i, verdict) in verdicts.into_iter().enumerate() {
                assert_eq!(verdict, if i == bad { blamed } else { PROVEN }, "{} {bad} {i}", hasher.kind());
                assert_eq!(verdict.is_proven(), i != bad);
            }
            file[bad * PIECE + 77] ^= 1;
        }
    }
}

#[test]
fn a_wrong_chain_fails_its_links_and_no_digest() {
    let file = random_bytes(4, 4 * PIECE + 9);
    for hasher in hashers() {
        let mut hashes = upload(hasher, &file);
        hashes.chain[1].0[19] ^= 1;
        let verdicts = hasher.verify(&jobs(&file, &hashes));
        assert!(verdicts.iter().all(|verdict| verdict.digest_holds));
        let links: Vec<Option<bool>> = verdicts.iter().map(|verdict| verdict.link_holds).collect();
        // The state between pieces 1 and 2 is wrong, so both links at it fail.
        assert_eq!(links, [true, false, false, true, true].map(Some), "{}", hasher.kind());
    }
}

#[test]
fn the_last_link_needs_the_right_digest_and_length() {
    let file = random_bytes(5, 2 * PIECE + 200);
    for hasher in hashers() {
        let hashes = upload(hasher, &file);
        let last = jobs(&file, &hashes)[2];
        let link_to = |to| {
            let link = last.link.map(|link| LinkCheck { to, ..link });
            hasher.verify(&[PieceJob { link, ..last }])[0].link_holds
        };
        let end = |length: usize| LinkEnd::File { length: length as u64, digest: hashes.digest };
        assert_eq!(link_to(end(file.len())), Some(true));
        for wrong in [0, 199, 200, file.len() - 1, file.len() + 1, file.len() + 64, 3 * PIECE + 200] {
            assert_eq!(link_to(end(wrong)), Some(false), "{} {wrong}", hasher.kind());
        }
        let other = LinkEnd::File { length: file.len() as u64, digest: Digest([7; 20]) };
        assert_eq!(link_to(other), Some(false));
        // 200 bytes fill no block, so no state can follow them.
        assert_eq!(link_to(LinkEnd::State(hashes.chain[0])), Some(false));
    }
}

#[test]
fn jobs_with_and_without_links_keep_their_order() {
    let file = random_bytes(6, 40 * 1_024);
    for hasher in hashers() {
        let jobs: Vec<PieceJob<'_>> = file
            .chunks(1_024)
            .enumerate()
            .map(|(i, bytes)| {
                let mut after = FileHash::new(hasher);
                after.update(bytes);
                let to = if i % 4 == 1 { ChainState::INITIAL } else { after.state().unwrap() };
                let link = LinkCheck { from: ChainState::INITIAL, to: LinkEnd::State(to) };
                let digest = if i % 5 == 0 { Digest([0; 20]) } else { reference(bytes) };
                PieceJob { bytes, digest, link: (i % 2 == 1).then_some(link) }
            })
            .collect();
        for (i, verdict) in hasher.verify(&jobs).into_iter().enumerate() {
            let link_holds = (i % 2 == 1).then_some(i % 4 != 1);
            assert_eq!(
                verdict,
                HashVerdict { digest_holds: i % 5 != 0, link_holds },
                "{} {i}",
                hasher.kind()
            );
        }
    }
}

#[test]
fn lanes_work_without_sha_instructions() {
    use super::lanes::{BlockWork, LaneSet, SingleStream, absorb_works};
    use super::simd::{Avx2, Avx512};
    let wides = [Avx512::detect().map(LaneSet::Avx512), Avx2::detect().map(LaneSet::Avx2)];
    let file = random_bytes(8, 34 * 256);
    for count in 0..=34 {
        let fresh = || -> Vec<BlockWork<'_, 2>> {
            let pieces = file.chunks_exact(256).take(count);
            pieces
                .map(|piece| BlockWork { states: [[1; 5], [2; 5]], blocks: block::split_blocks(piece).0 })
                .collect()
        };
        let states = |works: &[BlockWork<'_, 2>]| works.iter().map(|work| work.states).collect::<Vec<_>>();
        let mut expected = fresh();
        absorb_works(LaneSet::None, SingleStream::Asm, &mut expected);
        for wide in wides.into_iter().flatten() {
            let mut works = fresh();
            absorb_works(wide, SingleStream::Asm, &mut works);
            assert_eq!(states(&works), states(&expected), "{wide:?} {count}");
        }
    }
}

#[test]
fn the_hash_of_nothing_needs_no_window() {
    let hashes = upload(Hasher::best(), &[]);
    assert_eq!(hashes.digest, crate::proto::manifest::EMPTY_DIGEST);
    assert!(hashes.digests.is_empty() && hashes.chain.is_empty());
}

/// A file that records which windows were lent, and fails at `fails_at`.
struct Watched {
    bytes: Vec<u8>,
    lent: std::sync::Mutex<Vec<Range<u64>>>,
    announced: std::sync::Mutex<Vec<Range<u64>>>,
    fails_at: u64,
}

impl WindowSource for Watched {
    type Error = &'static str;

    fn with_window<R>(&self, range: Range<u64>, read: impl FnOnce(&[u8]) -> R) -> Result<R, &'static str> {
        self.lent.lock().unwrap().push(range.clone());
        if range.contains(&self.fails_at) {
            return Err("changed");
        }
        self.bytes.with_window(range, read).map_err(|never| match never {})
    }

    fn will_need(&self, range: Range<u64>) {
        self.announced.lock().unwrap().push(range);
    }
}

fn watched(length: usize, fails_at: u64) -> Watched {
    let bytes = random_bytes(7, length);
    Watched { bytes, lent: Vec::new().into(), announced: Vec::new().into(), fails_at }
}

#[test]
fn an_upload_reads_each_byte_once_and_reports_progress() {
    let window = u64::from(limits::WINDOW_PIECES) * u64::from(PIECE_BYTES);
    let length = window + 3 * u64::from(PIECE_BYTES) + 5;
    let file = watched(usize::try_from(length).unwrap(), u64::MAX);
    let told = Cell::new(0);
    let hashed = FileHasher::new(Hasher::best(), Some(1)).unwrap().hash_file(
        Geometry::new(length).unwrap(),
        &file,
        |done| {
            assert!(done > told.get() && done - told.get() <= u64::from(PIECE_BYTES));
            told.set(done);
        },
    );
    let hashes = hashed.unwrap();
    assert_eq!(told.get(), length);
    assert_eq!(*file.lent.lock().unwrap(), [0..window, window..length]);
    assert_eq!(file.announced.lock().unwrap().as_slice(), std::slice::from_ref(&(window..length)));
    assert_eq!(hashes.digest, reference(&file.bytes));
    let expected: Vec<Digest> = file.bytes.chunks(PIECE).map(reference).collect();
    assert_eq!(hashes.digests, expected);
}

#[test]
fn a_failing_window_ends_the_upload() {
    let window = u64::from(limits::WINDOW_PIECES) * u64::from(PIECE_BYTES);
    let length = window + 1;
    let file = watched(usize::try_from(length).unwrap(), window);
    let hasher = FileHasher::new(Hasher::best(), None).unwrap();
    assert!(hasher.threads() >= 1);
    assert_eq!(hasher.hash_file(Geometry::new(length).unwrap(), &file, |_| {}), Err("changed"));
}
