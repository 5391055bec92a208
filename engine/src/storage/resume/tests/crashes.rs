//! Random steps on a disk that loses unflushed data in a crash.

use proptest::prelude::*;

use super::*;

/// One step of a download.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u32),
    /// A flush and a record, and a piece that is written during the flush.
    Record(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u32..40).prop_map(Step::Write),
        1 => (0u32..40).prop_map(Step::Record),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Every piece that a record claims must be among the flushed ones.
    #[test]
    fn every_recorded_piece_was_flushed(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(40);
        let (target, journal, _) = open(directory.path(), &manifest);
        let mut cached = Bitfield::empty(PieceCount(40));
        let mut on_disk = cached.clone();
        for step in steps {
            match step {
                Step::Write(index) => {
                    write(&target, &journal, index);
                    cached.insert(PieceIndex(index));
                }
                Step::Record(during_flush) => {
                    let flush = || {
                        on_disk = cached.clone();
                        write(&target, &journal, during_flush);
                        cached.insert(PieceIndex(during_flush));
                        Ok(())
                    };
                    journal.write_record(flush, || claim(&target)).unwrap();
                }
            }
            let bytes = std::fs::read(&journal.path).unwrap();
            let (record, noted) = ResumeRecord::parse(&bytes).unwrap();
            for index in record.durable.iter() {
                prop_assert!(on_disk.has(index), "piece {} is claimed and not flushed", index);
            }
            for index in cached.iter() {
                let known = record.durable.has(index) || noted.contains(&index);
                prop_assert!(known, "piece {} was written and is neither recorded nor noted", index);
            }
        }
    }
}
