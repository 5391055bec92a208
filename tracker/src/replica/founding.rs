//! Decides whether this tracker may begin a log, continues one, or must leave the decision to its operator. Pure.
//!
//! Invariant: a cluster never gets two logs. So only the first line of the cluster file founds, only where there is neither
//! key nor log, and only when no tracker answers on the other lines.

use std::net::SocketAddr;

/// What is known before the log is opened.
#[derive(Clone, Debug)]
pub struct FoundingEvidence<'a> {
    /// Whether this tracker serves the first line of the cluster file.
    pub is_first_line: bool,
    /// Whether `cluster.key` exists.
    pub has_key: bool,
    /// Whether the tracker's directory has a log.
    pub log: LogPresence,
    /// Results of probing the other lines; only needed if [`needs_probes`] says so.
    pub probes: &'a [(SocketAddr, ProbeAnswer)],
    /// Whether `--found` was given: lines that do not answer count as free.
    pub found_anyway: bool,
}

/// The log in a tracker's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPresence {
    /// No log.
    None,
    /// A log without an entry, left by a founding that was interrupted.
    Unfinished,
    /// A log with entries.
    Whole,
}

/// Result of probing an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// The connection was refused: no program listens there.
    Refused,
    /// No answer in time: a tracker may be there.
    NoAnswer,
    /// A tracker answered.
    Tracker,
    /// Another program answered.
    OtherProgram,
}

/// What to do with a tracker's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundingDecision {
    /// Open the existing log.
    Resume,
    /// Begin a log, with the existing key or a new one.
    Found,
    /// Probe these addresses again: they may be trackers.
    Wait(Vec<SocketAddr>),
    /// Change nothing and refuse to start.
    Refuse(FoundingRefusal),
}

/// Why a tracker does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingRefusal {
    /// There is a key but no log: the disk was lost, or this is another directory.
    #[error(
        "there is a cluster.key but no log: it was lost, or is in another directory. Put its directory back from a backup, or \
         name the right --data"
    )]
    LogLost,
    /// A log without a key.
    #[error(
        "there is a log but no cluster.key beside it: copy cluster.key back; the log cannot be used without it"
    )]
    KeyLost,
    /// A tracker of this cluster is running.
    #[error(
        "a tracker answers at {0}, so the cluster exists already, and this version runs clusters of one tracker: stop that \
         one, or take its line out of the file"
    )]
    AlreadyFounded(SocketAddr),
    /// This tracker does not serve the first line.
    #[error(
        "only the first line of the cluster file founds a cluster, and this version runs clusters of one tracker: serve \
         the first line, or name a file whose first line is this tracker's"
    )]
    NotFirstLine,
}

/// Whether [`decide_founding`] needs the results of probing the other lines.
#[must_use]
pub fn needs_probes(evidence: &FoundingEvidence<'_>) -> bool {
    may_found(evidence).is_ok_and(|found| found)
}

/// Decides by the evidence.
#[must_use]
pub fn decide_founding(evidence: &FoundingEvidence<'_>) -> FoundingDecision {
    match may_found(evidence) {
        Err(refusal) => FoundingDecision::Refuse(refusal),
        Ok(false) => FoundingDecision::Resume,
        Ok(true) => decide_new_log(evidence),
    }
}

/// Whether a log may begin, judged by this tracker's directory alone; `false` when there is a log.
fn may_found(evidence: &FoundingEvidence<'_>) -> Result<bool, FoundingRefusal> {
    match (evidence.log, evidence.has_key) {
        (LogPresence::Whole, true) => Ok(false),
        (LogPresence::Whole, false) => Err(FoundingRefusal::KeyLost),
        (LogPresence::None, true) if evidence.is_first_line => Err(FoundingRefusal::LogLost),
        (LogPresence::None | LogPresence::Unfinished, _) if !evidence.is_first_line => {
            Err(FoundingRefusal::NotFirstLine)
        }
        (LogPresence::None | LogPresence::Unfinished, _) => Ok(true),
    }
}

fn decide_new_log(evidence: &FoundingEvidence<'_>) -> FoundingDecision {
    let those = |wanted: ProbeAnswer| {
        evidence.probes.iter().filter(move |(_, answered)| *answered == wanted).map(|(address, _)| *address)
    };
    if let Some(tracker) = those(ProbeAnswer::Tracker).next() {
        return FoundingDecision::Refuse(FoundingRefusal::AlreadyFounded(tracker));
    }
    let silent: Vec<SocketAddr> = those(ProbeAnswer::NoAnswer).collect();
    if silent.is_empty() || evidence.found_anyway {
        FoundingDecision::Found
    } else {
        FoundingDecision::Wait(silent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn fresh(others: &[(SocketAddr, ProbeAnswer)]) -> FoundingEvidence<'_> {
        FoundingEvidence {
            is_first_line: true,
            has_key: false,
            log: LogPresence::None,
            probes: others,
            found_anyway: false,
        }
    }

    #[test]
    fn the_first_line_founds_when_every_other_refuses_or_is_another_program() {
        let others = [(at(1), ProbeAnswer::Refused), (at(2), ProbeAnswer::OtherProgram)];
        assert_eq!(decide_founding(&fresh(&others)), FoundingDecision::Found);
        assert_eq!(decide_founding(&fresh(&[])), FoundingDecision::Found);
    }

    #[test]
    fn a_line_that_does_not_answer_is_waited_for_unless_the_operator_says_otherwise() {
        let others = [(at(1), ProbeAnswer::Refused), (at(2), ProbeAnswer::NoAnswer)];
        assert_eq!(decide_founding(&fresh(&others)), FoundingDecision::Wait(vec![at(2)]));
        assert_eq!(
            decide_founding(&FoundingEvidence { found_anyway: true, ..fresh(&others) }),
            FoundingDecision::Found
        );
    }

    #[test]
    fn a_cluster_with_a_running_tracker_is_never_founded() {
        let others = [(at(1), ProbeAnswer::Tracker), (at(2), ProbeAnswer::NoAnswer)];
        for found_anyway in [false, true] {
            let decision = decide_founding(&FoundingEvidence { found_anyway, ..fresh(&others) });
            assert_eq!(decision, FoundingDecision::Refuse(FoundingRefusal::AlreadyFounded(at(1))));
        }
    }

    #[test]
    fn an_unfinished_founding_starts_over_with_or_without_its_key() {
        for has_key in [false, true] {
            assert_eq!(
                decide_founding(&FoundingEvidence { has_key, log: LogPresence::Unfinished, ..fresh(&[]) }),
                FoundingDecision::Found
            );
        }
    }

    proptest! {
        #[test]
        fn a_log_begins_only_where_none_can_have_been(
            is_first_line: bool, has_key: bool, found_anyway: bool, which in 0..3_usize,
            answers in proptest::collection::vec(0..4_usize, 0..3),
        ) {
            let log = [LogPresence::None, LogPresence::Unfinished, LogPresence::Whole][which];
            let kinds = [ProbeAnswer::Refused, ProbeAnswer::NoAnswer, ProbeAnswer::Tracker, ProbeAnswer::OtherProgram];
            let others: Vec<_> = answers.iter().map(|kind| (at(9), kinds[*kind])).collect();
            let evidence = FoundingEvidence { is_first_line, has_key, log, probes: &others, found_anyway };
            match decide_founding(&evidence) {
                FoundingDecision::Found => {
                    prop_assert!(is_first_line && log != LogPresence::Whole);
                    prop_assert!(!has_key || log == LogPresence::Unfinished);
                    prop_assert!(others.iter().all(|(_, answered)| *answered != ProbeAnswer::Tracker));
                }
                FoundingDecision::Resume => prop_assert!(log == LogPresence::Whole && has_key),
                FoundingDecision::Wait(silent) => prop_assert!(!silent.is_empty() && !found_anyway),
                FoundingDecision::Refuse(_) => {}
            }
            let asks = needs_probes(&evidence);
            prop_assert_eq!(asks, log != LogPresence::Whole && !matches!(decide_founding(&FoundingEvidence { probes: &[], ..evidence }), FoundingDecision::Refuse(_)));
        }
    }
}
