//! The life of a share.
//!
//! ```text
//!   Unlisted ──listed──► NotServed ──served──► Served ──announced──► Announced
//!      │                   │  ▲                  │                       │
//!   refused        unreadable └────not served────┴───────────────────────┘
//!      ▼                   ▼
//!   Refused            Unreadable ──served──► Served, or ──not served──► NotServed
//!
//!   Served ──refused──► Refused;   Announced ──ended by the tracker──► Served
//!   Refused by a tracker that did not know it ──login──► NotServed
//!   each state ──stopped──► Stopped, which leaves the table once the tracker knows
//!   each state ──file changed──► Stopped, which becomes Refused once the tracker knows
//! ```
//!
//! Always true: a thread changes the state of a share only while it holds its lock; the exceptions are
//! `mark_not_served` and `mark_retried`, which a login may do at any time, and `mark_unannounced`.

use crate::exit::{ClientFault, ExitCause};
use crate::node::disk::records::ShareStage;

/// The state of a share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum ShareState {
    /// Hashed and on record; the tracker has not listed it yet.
    Unlisted,
    /// The tracker refused it permanently and is not asked again, or its file has changed (exit code 14). Its user
    /// has to decide what to do.
    Refused(Option<ClientFault>),
    /// Listed. Not served, because its file has not been opened yet or its user is not logged in.
    NotServed,
    /// Listed. Not served, because its file cannot be read now.
    Unreadable {
        /// Why the file cannot be read.
        reason: String,
        /// Whether the tracker knows that the file is not served.
        is_reported: bool,
    },
    /// Listed and served. This process has not told the tracker yet.
    Served,
    /// Listed and served, and the tracker knows.
    Announced,
    /// Ended by its user, or because its file has changed. The tracker has not been told yet.
    Stopped {
        /// The state before the stop.
        before: Box<ShareState>,
    },
}

impl ShareState {
    pub(super) fn from_record(stage: ShareStage, refusal: Option<ClientFault>) -> ShareState {
        let refused = |refusal: Option<ClientFault>| refusal.map(|fault| ShareState::Refused(Some(fault)));
        match stage {
            ShareStage::Unlisted => ShareState::Unlisted,
            ShareStage::Refused => ShareState::Refused(refusal),
            ShareStage::Listed => ShareState::NotServed,
            ShareStage::Stopped => {
                ShareState::Stopped { before: Box::new(refused(refusal).unwrap_or(ShareState::NotServed)) }
            }
        }
    }

    /// The part of the state that outlives the process.
    pub(super) fn stage(&self) -> ShareStage {
        match self {
            ShareState::Unlisted => ShareStage::Unlisted,
            ShareState::Refused(_) => ShareStage::Refused,
            ShareState::Stopped { .. } => ShareStage::Stopped,
            ShareState::NotServed
            | ShareState::Unreadable { .. }
            | ShareState::Served
            | ShareState::Announced => ShareStage::Listed,
        }
    }

    /// How the file has changed since it was shared, with what to do about it.
    pub(super) fn source_change(&self) -> Option<&ClientFault> {
        self.refusal().filter(|fault| fault.exit == ExitCause::SourceChanged)
    }

    /// Why the tracker refused the share; `None` if it did not, or if the reason is unknown.
    pub(super) fn refusal(&self) -> Option<&ClientFault> {
        match self {
            ShareState::Refused(fault) => fault.as_ref(),
            ShareState::Stopped { before } => before.refusal(),
            _ => None,
        }
    }

    /// Whether the tracker lists the file and its user has not stopped it.
    pub(super) fn is_listed(&self) -> bool {
        self.stage() == ShareStage::Listed
    }

    /// Transition: the tracker has listed the file.
    pub(super) fn mark_listed(&mut self) {
        assert_eq!(*self, ShareState::Unlisted, "a file is listed once");
        *self = ShareState::NotServed;
    }

    /// Transition: the tracker has refused the file permanently, or has ended its share.
    pub(super) fn mark_refused(&mut self, why: ClientFault) {
        assert!(self.is_listed() || *self == ShareState::Unlisted, "{self:?}: the tracker was not asked");
        *self = ShareState::Refused(Some(why));
    }

    /// Transition: the engine serves the file.
    pub(super) fn mark_served(&mut self) {
        assert!(self.is_listed(), "{self:?}: only a listed file is served");
        *self = ShareState::Served;
    }

    /// Transition: the file cannot be read now.
    pub(super) fn mark_unreadable(&mut self, reason: String) {
        assert!(self.is_listed(), "{self:?}: only a listed file is opened");
        let is_reported = matches!(self, ShareState::Unreadable { is_reported: true, .. });
        *self = ShareState::Unreadable { reason, is_reported };
    }

    /// Transition: the tracker knows that the file is not served for now. Has no effect on a share that was
    /// taken down meanwhile.
    pub(super) fn mark_reported(&mut self) {
        if let ShareState::Unreadable { is_reported, .. } = self {
            *is_reported = true;
        }
    }

    /// Transition: the tracker knows that the file is served. Has no effect on a share that was taken down
    /// meanwhile.
    pub(super) fn mark_announced(&mut self) {
        if *self == ShareState::Served {
            *self = ShareState::Announced;
        }
    }

    /// Transition: the tracker may not know the share any more. Has no effect on a share that is not announced.
    pub(super) fn mark_unannounced(&mut self) {
        if *self == ShareState::Announced {
            *self = ShareState::Served;
        }
    }

    /// Transition: its user has logged in again, perhaps at other trackers. What a tracker did not know is announced again.
    /// Returns whether there is something to announce.
    pub(super) fn mark_retried(&mut self) -> bool {
        let is_retried =
            matches!(self, ShareState::Refused(Some(fault)) if fault.exit == ExitCause::NotFound);
        if is_retried {
            *self = ShareState::NotServed;
        }
        is_retried
    }

    /// Transition: the user has logged out. The file is not served until the user logs in again.
    pub(super) fn mark_not_served(&mut self) {
        match self {
            ShareState::Unlisted | ShareState::Refused(_) => {}
            ShareState::Stopped { before } => before.mark_not_served(),
            listed => *listed = ShareState::NotServed,
        }
    }

    /// Transition: the file has changed since it was shared. The tracker still has to be told.
    pub(super) fn mark_changed(&mut self, change: ClientFault) {
        assert_eq!(
            change.exit,
            ExitCause::SourceChanged,
            "{change}: this code tells a change from a refusal"
        );
        *self = ShareState::Stopped { before: Box::new(ShareState::Refused(Some(change))) };
    }

    /// Transition: the tracker knows that the share of a changed file has ended. Has no effect on other shares.
    pub(super) fn mark_change_reported(&mut self) {
        if let Some(change) = self.source_change().cloned() {
            *self = ShareState::Refused(Some(change));
        }
    }

    /// Transition: its user has ended the share. The tracker still has to be told.
    pub(super) fn mark_stopped(&mut self) {
        if self.source_change().is_some() {
            *self = ShareState::Stopped { before: Box::new(ShareState::NotServed) };
        } else if !matches!(self, ShareState::Stopped { .. }) {
            let before = Box::new(std::mem::replace(self, ShareState::Unlisted));
            *self = ShareState::Stopped { before };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_was_taken_down_is_neither_announced_nor_reported() {
        let mut state = ShareState::Unlisted;
        state.mark_listed();
        state.mark_served();
        state.mark_not_served();
        state.mark_announced();
        assert_eq!(state, ShareState::NotServed);
        state.mark_unreadable("why".into());
        state.mark_not_served();
        state.mark_reported();
        assert_eq!(state, ShareState::NotServed);
        state.mark_stopped();
        state.mark_stopped();
        assert_eq!(state, ShareState::Stopped { before: Box::new(ShareState::NotServed) });
    }

    #[test]
    fn a_file_that_stays_unreadable_is_reported_once() {
        let mut state = ShareState::NotServed;
        state.mark_unreadable("first".into());
        state.mark_reported();
        state.mark_unreadable("second".into());
        assert_eq!(state, ShareState::Unreadable { reason: "second".into(), is_reported: true });
    }

    #[test]
    fn a_changed_file_stays_known_until_its_user_stops_it() {
        let change = || ClientFault::new(ExitCause::SourceChanged, "another length");
        let mut state = ShareState::Announced;
        state.mark_changed(change());
        let read = |state: &ShareState| ShareState::from_record(state.stage(), state.refusal().cloned());
        assert_eq!((state.stage(), read(&state)), (ShareStage::Stopped, state.clone()));
        let mut stopped = state.clone();
        stopped.mark_stopped();
        assert_eq!(stopped.source_change(), None, "the user stopped it before the tracker was told");
        state.mark_change_reported();
        assert_eq!((&state, read(&state)), (&ShareState::Refused(Some(change())), state.clone()));
        state.mark_stopped();
        assert_eq!((state.stage(), state.source_change()), (ShareStage::Stopped, None));
    }

    #[test]
    #[should_panic(expected = "only a listed file is served")]
    fn a_stopped_share_is_not_served() {
        let mut state = ShareState::Announced;
        state.mark_stopped();
        state.mark_served();
    }
}
