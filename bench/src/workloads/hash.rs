//! `bench hash`: every hashing implementation for this CPU, compared with one pass of the `sha1` crate over the same
//! bytes.
//!
//! On one thread, for each implementation: `stream` is one sequential pass, `digests` hashes all pieces, and
//! `both_states` computes digests and links as the verification of a download does. `upload` computes digests, chain
//! and file digest, as sharing a file does, with the client's number of threads.
//!
//! With `--rivals` the bytes are also written to a file, which stays in the page cache. Other programs hash that file in
//! the same rounds, and the workload `upload of the file` hashes it with Shoal.

use std::fs::File;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use engine::hash::{FileHash, FileHasher, HashKind, Hasher, LinkCheck, LinkEnd, PieceJob, WindowSource};
use engine::proto::geometry::Geometry;
use engine::proto::units::{ChainState, Digest, PIECE_BYTES};
use engine::storage::source::Source;
use sha1::Digest as _;
use tempfile::TempDir;

use crate::cli::HashArgs;
use crate::interleave::{TimedWorkload, measure_rounds};
use crate::limits::HASH_BATCH_PIECES;
use crate::results::sink::RecordSink;
use crate::topology::other_load::OtherLoad;
use crate::topology::shutdown;
use crate::topology::test_file::{RANDOM_SEED, fill_random};
use crate::{report, rivals};

/// The reference: all other kinds are compared with it.
const REFERENCE: &str = "sha1 crate";

/// Runs `bench hash`.
pub(crate) fn run_hash(args: &HashArgs) -> anyhow::Result<()> {
    let size = args.size.bytes();
    let rounds =
        [("rounds", args.rounds.runs.to_string()), ("warm-up rounds", args.rounds.warmup.to_string())];
    let mut sink = RecordSink::begin(args.output.record_output(), "hash", Some(size), &rounds)?;
    let bytes = random_bytes(size, sink.host().and_then(|host| host.memory_available_bytes))?;
    let geometry = Geometry::new(size)?;
    let best = Hasher::best();
    let file_hasher = FileHasher::new(best, None)?;
    // Created before the workloads that borrow it, so it is dropped after them.
    let rival_input = if args.rivals { Some(RivalInput::create(args, &bytes)?) } else { None };
    let mut workloads = vec![reference_workload(&bytes)];
    for kind in HashKind::supported() {
        workloads.extend(kind_workloads(Hasher::new(kind)?, &bytes));
    }
    workloads.push(upload_workload("upload", &file_hasher, geometry, bytes.as_slice()));
    if let Some(rival_input) = &rival_input {
        workloads.push(upload_workload("upload of the file", &file_hasher, geometry, &rival_input.source));
        for (name, program, entry) in rivals::hashing::list_rivals(&rival_input.file) {
            match entry {
                Ok((kind, run)) => workloads.push(TimedWorkload { name, kind, run }),
                Err(absent) => absent.record(&mut sink, [name, program])?,
            }
        }
    }
    let other_load = OtherLoad::start();
    measure_rounds(&workloads, args.rounds.warmup, args.rounds.runs, |round, workload, took| match took {
        Ok(took) => record_throughput(&mut sink, workload, round, size, took),
        Err(error) => sink.record_failed([workload.name, &workload.kind], &format!("{error:#}")),
    })?;
    sink.add_other_load(other_load.busy_cpus());
    report::finish_run(sink)
}

fn record_throughput(
    sink: &mut RecordSink,
    workload: &TimedWorkload<'_>,
    round: u32,
    size: u64,
    took: Duration,
) -> anyhow::Result<()> {
    let row_key = [workload.name, workload.kind.as_str(), "throughput"];
    let gb_per_s = size as f64 / took.as_nanos().max(1) as f64;
    sink.record_value(row_key, round, gb_per_s, "GB/s", workload.kind == REFERENCE)
}

/// A file for other programs to hash.
struct RivalInput {
    source: Source,
    file: PathBuf,
    // The folder of the file. Declared last, so it is removed last.
    _folder: TempDir,
}

impl RivalInput {
    /// Writes the bytes to a file. It is in the page cache, since it was just written.
    fn create(args: &HashArgs, bytes: &[u8]) -> anyhow::Result<RivalInput> {
        let folder = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let own_folder = TempDir::with_prefix_in("shoal-bench-", &folder).with_context(|| {
            format!("cannot create a folder in {}: choose another --dir", folder.display())
        })?;
        shutdown::clean_up_on_signal(own_folder.path().to_owned())?;
        let file = own_folder.path().join("content.bin");
        let written = std::fs::write(&file, bytes).and_then(|()| File::open(&file)?.sync_all());
        written.with_context(|| {
            format!("cannot write {}: use a smaller --size or another --dir", file.display())
        })?;
        Ok(RivalInput { source: Source::open(&file)?, file, _folder: own_folder })
    }
}

/// Hashes everything that sharing a file needs.
fn upload_workload<'a, W>(
    name: &'static str,
    hasher: &'a FileHasher,
    geometry: Geometry,
    windows: &'a W,
) -> TimedWorkload<'a>
where
    W: WindowSource + ?Sized,
    anyhow::Error: From<W::Error>,
{
    let kind = Hasher::best().kind().to_string();
    let run = move || {
        black_box(hasher.hash_file(geometry, windows, |_| {})?);
        Ok(())
    };
    TimedWorkload { name, kind, run: Box::new(run) }
}

/// The workload of the [`REFERENCE`]: one SHA-1 pass over the bytes.
fn reference_workload(bytes: &[u8]) -> TimedWorkload<'_> {
    TimedWorkload {
        name: "stream",
        kind: REFERENCE.to_owned(),
        run: Box::new(move || {
            black_box(sha1::Sha1::digest(bytes));
            Ok(())
        }),
    }
}

/// The three single-threaded workloads of one implementation.
fn kind_workloads(hasher: Hasher, bytes: &[u8]) -> [TimedWorkload<'_>; 3] {
    let kind = || hasher.kind().to_string();
    let stream = move || {
        let mut pass = FileHash::new(hasher);
        pass.update(bytes);
        black_box(pass.finish());
        Ok(())
    };
    let digests = move || {
        for batch in bytes.chunks(HASH_BATCH_PIECES * PIECE_BYTES as usize) {
            let pieces: Vec<&[u8]> = batch.chunks(PIECE_BYTES as usize).collect();
            black_box(hasher.digest_many(&pieces));
        }
        Ok(())
    };
    // The expected digests are zeros: a comparison costs the same whether or not it succeeds.
    let to = LinkEnd::File { length: bytes.len() as u64, digest: Digest([0; 20]) };
    let link = Some(LinkCheck { from: ChainState::INITIAL, to });
    let both_states = move || {
        for batch in bytes.chunks(HASH_BATCH_PIECES * PIECE_BYTES as usize) {
            let pieces = batch.chunks(PIECE_BYTES as usize);
            let jobs: Vec<PieceJob<'_>> =
                pieces.map(|bytes| PieceJob { bytes, digest: Digest([0; 20]), link }).collect();
            black_box(hasher.verify(&jobs));
        }
        Ok(())
    };
    [
        TimedWorkload { name: "stream", kind: kind(), run: Box::new(stream) },
        TimedWorkload { name: "digests", kind: kind(), run: Box::new(digests) },
        TimedWorkload { name: "both_states", kind: kind(), run: Box::new(both_states) },
    ]
}

/// Pseudorandom bytes: no page is zero or equal to another, so the kernel cannot merge any.
fn random_bytes(size: u64, available: Option<u64>) -> anyhow::Result<Vec<u8>> {
    if let Some(available) = available
        && size > available
    {
        bail!("{size} bytes exceed the {available} bytes of available memory: use a smaller --size");
    }
    let length = usize::try_from(size).context("more bytes than memory can address: use a smaller --size")?;
    let mut bytes = vec![0; length];
    let mut state = RANDOM_SEED;
    fill_random(&mut state, &mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_have_the_given_size_and_no_equal_pages() {
        let bytes = random_bytes(3 * 4_096 + 5, None).unwrap();
        assert_eq!(bytes.len(), 3 * 4_096 + 5);
        let pages: Vec<&[u8]> = bytes.chunks_exact(4_096).collect();
        assert!(pages[0] != pages[1] && pages[1] != pages[2] && pages[0] != pages[2]);
    }

    #[test]
    fn more_than_the_available_memory_is_refused_with_a_remedy() {
        let refusal = random_bytes(2, Some(1)).unwrap_err();
        assert!(refusal.to_string().contains("--size"), "{refusal}");
    }
}
