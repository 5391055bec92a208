//! A disk that loses in a crash whatever was not flushed.

use proptest::prelude::*;

use super::*;

/// One thing that happens to a download.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u32),
    /// A flush and a record; and a piece that is written while the flush runs.
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

    /// A disk that loses, in a crash, whatever was not flushed: what a record claims must be on it.
    #[test]
    fn a_crash_of_the_machine_finds_every_recorded_piece(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest(40);
        let (target, ledger, _) = open(directory.path(), &manifest);
        let mut cached = Bitfield::empty(PieceCount(40));
        let mut on_disk = cached.clone();
        for step in steps {
            match step {
                Step::Write(index) => {
                    write(&target, &ledger, index);
                    cached.insert(PieceIndex(index));
                }
                Step::Record(meanwhile) => {
                    let flush = || {
                        on_disk = cached.clone();
                        write(&target, &ledger, meanwhile);
                        cached.insert(PieceIndex(meanwhile));
                        Ok(())
                    };
                    ledger.write_record(flush, claim).unwrap();
                }
            }
            let bytes = std::fs::read(&ledger.path).unwrap();
            let (record, noted) = ResumeRecord::parse(&bytes).unwrap();
            for index in record.durable.iter() {
                prop_assert!(on_disk.has(index), "{} is claimed and would be lost", index);
            }
            for index in cached.iter() {
                let known = record.durable.has(index)
                    || noted.get(&index) == Some(&PieceNote::Written { link_holds: true });
                prop_assert!(known, "{} is there, and nobody would believe it", index);
            }
        }
    }
}
