//! Interleaved rounds: every workload runs once a round, so that a slower machine slows all of them. Each round begins
//! with another workload.

use std::time::Duration;

use crate::clock;

pub(crate) struct TimedWorkload<'a> {
    pub(crate) name: &'static str,
    /// The hashing implementation or program that runs.
    pub(crate) kind: String,
    /// Runs it once.
    pub(crate) run: Box<dyn Fn() -> anyhow::Result<()> + 'a>,
}

/// Rotates an order by the number of the round, so that each element comes first equally often.
pub(crate) fn rotate_order<T>(several: &mut [T], round: u32) {
    if !several.is_empty() {
        several.rotate_left(round as usize % several.len());
    }
}

/// Runs `warmup` rounds that do not count and then `runs` rounds, and calls `note` with the time of each measured run.
/// A workload that fails, in any round, is reported once and not run again.
pub(crate) fn measure_rounds<'a>(
    workloads: &[TimedWorkload<'a>],
    warmup: u32,
    runs: u32,
    mut note: impl FnMut(u32, &TimedWorkload<'a>, anyhow::Result<Duration>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut taking_part: Vec<&TimedWorkload<'a>> = workloads.iter().collect();
    for round in 0..warmup + runs {
        let mut failed = Vec::new();
        let mut order: Vec<usize> = (0..taking_part.len()).collect();
        rotate_order(&mut order, round.checked_sub(warmup).unwrap_or(round));
        for at in order {
            let workload = taking_part[at];
            let (took, outcome) = clock::time_work(&workload.run);
            match (outcome, round.checked_sub(warmup)) {
                (Ok(()), Some(counted)) => note(counted, workload, Ok(took))?,
                (Ok(()), None) => {}
                (Err(fault), counted) => {
                    failed.push(at);
                    note(counted.unwrap_or(0), workload, Err(fault))?;
                }
            }
        }
        failed.sort_unstable();
        for at in failed.into_iter().rev() {
            taking_part.remove(at);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn rounds_are_interleaved_and_warm_up_does_not_count() {
        let ran = RefCell::new(Vec::new());
        let workload = |name: &'static str| TimedWorkload {
            name,
            kind: String::new(),
            run: Box::new({
                let ran = &ran;
                move || {
                    ran.borrow_mut().push(name);
                    Ok(())
                }
            }),
        };
        let mut noted = Vec::new();
        measure_rounds(&[workload("a"), workload("b")], 1, 2, |round, workload, took| {
            assert!(took.is_ok());
            noted.push((round, workload.name));
            Ok(())
        })
        .unwrap();
        assert_eq!(*ran.borrow(), ["a", "b", "a", "b", "b", "a"]);
        assert_eq!(noted, [(0, "a"), (0, "b"), (1, "b"), (1, "a")]);
    }

    #[test]
    fn a_failure_is_reported_once_and_the_others_go_on() {
        let workload = |name: &'static str, fails: bool| TimedWorkload {
            name,
            kind: String::new(),
            run: Box::new(move || if fails { Err(anyhow::anyhow!("disk full")) } else { Ok(()) }),
        };
        let mut noted = Vec::new();
        measure_rounds(&[workload("bad", true), workload("good", false)], 1, 2, |_, workload, took| {
            noted.push((workload.name, took.is_ok()));
            Ok(())
        })
        .unwrap();
        assert_eq!(noted, [("bad", false), ("good", true), ("good", true)]);
    }
}
