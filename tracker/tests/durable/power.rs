//! Loss of power under load: what was acknowledged is there afterwards. With syncs that do nothing the same test must fail,
//! or it proves nothing.

use std::sync::{Arc, Mutex, mpsc};

use super::crash_disk::CrashHome;
use super::rig::{PATIENCE, create_user, is_there, propose, start};

const COMMANDS: usize = 60;

/// Loses power after `until` acknowledgements, with others in progress. Returns what was lost as an error.
fn lose_power(seed: u64, until: usize, honest: bool) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let home = CrashHome::fresh(dir.path().into(), honest);
    let disk = home.disk.clone();
    let replica = start(home).unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (count, counted) = mpsc::sync_channel(COMMANDS);
    for number in 0..COMMANDS {
        let (acknowledged, count) = (Arc::clone(&acknowledged), count.clone());
        let reply = move |answer: Result<_, _>| {
            if answer.is_ok() {
                acknowledged.lock().unwrap().push(number);
                count.send(()).unwrap();
            }
        };
        replica.propose(create_user(number), reply).unwrap();
        if number < until {
            counted.recv_timeout(PATIENCE).unwrap();
        }
    }
    let promised = acknowledged.lock().unwrap().clone();
    assert!(promised.len() >= until);
    // Read before the disk, to which others still write: acknowledgements after this line do not matter.
    let witness = std::fs::read(dir.path().join(tracker::replica::WITNESS_FILE)).unwrap();
    let left = disk.after_power_loss(seed);
    drop(replica);
    let after = tempfile::tempdir().unwrap();
    if honest && seed.is_multiple_of(2) {
        std::fs::write(after.path().join(tracker::replica::WITNESS_FILE), witness).unwrap();
    }
    let replica =
        start(CrashHome::holding(left, after.path().into(), true)).map_err(|fault| fault.to_string())?;
    let lost: Vec<usize> = promised.into_iter().filter(|number| !is_there(&replica, *number)).collect();
    if !lost.is_empty() {
        return Err(format!("lost {lost:?}"));
    }
    propose(&replica, create_user(COMMANDS)).unwrap().unwrap();
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost() {
    for seed in 1..=12 {
        lose_power(seed * 7_919, usize::try_from(seed).unwrap() * 4, true).unwrap();
    }
}

#[test]
fn without_syncs_a_change_is_lost() {
    let survived = (1..=4).filter(|seed| lose_power(seed * 7_919, 20, false).is_ok()).count();
    assert_eq!(survived, 0, "the test above could not see a missing sync");
}
