//! Founding: whether this tracker may begin a log, goes on with one, or has to leave it to its operator.
//!
//! Pure: the evidence comes in, a decision goes out. Invariant: two logs never begin for one cluster. So only the first line of the cluster
//! file founds, only where neither key nor log is, and only when nobody answers on the other lines.

use std::net::SocketAddr;

/// What is known before the log is opened.
#[derive(Clone, Debug)]
pub struct FoundingEvidence<'a> {
    /// Whether this tracker has the cluster file's first line.
    pub is_first_line: bool,
    /// Whether `cluster.key` is there.
    pub has_key: bool,
    /// What of a log is there.
    pub log: LogPresence,
    /// What answered on the other lines; asked only when it matters.
    pub probes: &'a [(SocketAddr, ProbeAnswer)],
    /// Whether the operator said `--found`: lines that do not answer count as free.
    pub found_anyway: bool,
}

/// What of a log is in the tracker's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPresence {
    /// Nothing.
    None,
    /// A log without an entry: a founding that did not come to its end.
    Unfinished,
    /// A log.
    Whole,
}

/// What an address said to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// It refused the connection: nobody is there.
    Refused,
    /// Nothing in time: somebody may be there.
    NoAnswer,
    /// It is a tracker.
    Tracker,
    /// It is something else.
    OtherProgram,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundingDecision {
    /// Open the log that is there.
    Resume,
    /// Begin a log, with the key that is there or with a new one.
    Found,
    /// Ask these again: they may be trackers.
    Wait(Vec<SocketAddr>),
    /// Leave everything as it is.
    Refuse(FoundingRefusal),
}

/// Why a tracker does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingRefusal {
    /// A key without a log: the disk was lost, or the directory is another.
    #[error(
        "there is a cluster.key but no log: it was lost, or lies elsewhere. Put its directory back from a backup, or name \
         the right --data"
    )]
    LogLost,
    /// A log without a key.
    #[error(
        "there is a log but no cluster.key beside it: copy cluster.key back; the log cannot be used without it"
    )]
    KeyLost,
    /// Somebody leads this cluster already, or could.
    #[error(
        "a tracker answers at {0}, so the cluster is founded, and this version runs clusters of one tracker: end that one, \
         or take its line out of the file"
    )]
    AlreadyFounded(SocketAddr),
    /// Not the first line.
    #[error(
        "only the first line of the cluster file founds a cluster, and this version runs clusters of one tracker: serve \
         the first line, or name a file whose first line is this tracker's"
    )]
    NotFirstLine,
}

/// Whether the others have to be asked before [`decide_founding`] can.
#[must_use]
pub fn needs_probes(evidence: &FoundingEvidence<'_>) -> bool {
    may_found(evidence).is_ok_and(|found| found)
}

/// What to do on this evidence.
#[must_use]
pub fn decide_founding(evidence: &FoundingEvidence<'_>) -> FoundingDecision {
    match may_found(evidence) {
        Err(refusal) => FoundingDecision::Refuse(refusal),
        Ok(false) => FoundingDecision::Resume,
        Ok(true) => decide_new_log(evidence),
    }
}

/// Whether a log begins here, as far as what lies here says; `false` when one is there.
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
    fn the_first_line_founds_when_every_other_refuses_or_is_a_stranger() {
        let others = [(at(1), ProbeAnswer::Refused), (at(2), ProbeAnswer::OtherProgram)];
        assert_eq!(decide_founding(&fresh(&others)), FoundingDecision::Found);
        assert_eq!(decide_founding(&fresh(&[])), FoundingDecision::Found);
    }

    #[test]
    fn one_that_does_not_answer_is_waited_for_until_the_operator_says_otherwise() {
        let others = [(at(1), ProbeAnswer::Refused), (at(2), ProbeAnswer::NoAnswer)];
        assert_eq!(decide_founding(&fresh(&others)), FoundingDecision::Wait(vec![at(2)]));
        assert_eq!(
            decide_founding(&FoundingEvidence { found_anyway: true, ..fresh(&others) }),
            FoundingDecision::Found
        );
    }

    #[test]
    fn a_running_tracker_is_never_founded_against() {
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
