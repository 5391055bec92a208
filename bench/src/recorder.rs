//! Interleaved rounds: every workload once a round, so that a machine that slows down slows them all.

use std::time::Duration;

use crate::clock;

/// Something to measure.
pub(crate) struct Workload<'a> {
    /// What it does.
    pub(crate) name: &'static str,
    /// By which way of hashing, or by whom.
    pub(crate) kind: String,
    /// Does it once.
    pub(crate) run: Box<dyn Fn() + 'a>,
}

/// Runs all workloads `warmup` rounds for nothing and `runs` rounds that count, and says of these what each took.
pub(crate) fn measure<'a>(
    workloads: &[Workload<'a>],
    warmup: u32,
    runs: u32,
    mut note: impl FnMut(u32, &Workload<'a>, Duration) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for round in 0..warmup + runs {
        for workload in workloads {
            let (took, ()) = clock::timed(&workload.run);
            if let Some(counted) = round.checked_sub(warmup) {
                note(counted, workload, took)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn rounds_are_interleaved_and_warm_ones_do_not_count() {
        let ran = RefCell::new(Vec::new());
        let workload = |name: &'static str| Workload {
            name,
            kind: String::new(),
            run: Box::new({
                let ran = &ran;
                move || ran.borrow_mut().push(name)
            }),
        };
        let mut noted = Vec::new();
        measure(&[workload("a"), workload("b")], 1, 2, |round, workload, _| {
            noted.push((round, workload.name));
            Ok(())
        })
        .unwrap();
        assert_eq!(*ran.borrow(), ["a", "b", "a", "b", "a", "b"]);
        assert_eq!(noted, [(0, "a"), (0, "b"), (1, "a"), (1, "b")]);
    }
}
