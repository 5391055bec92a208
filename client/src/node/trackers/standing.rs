//! How a tracker stands to the login of this node: whether it knows the session, and whether its state is the newest that
//! this node has seen of the cluster.
//!
//! Always true: a tracker that does not know a login or a record is no reason to erase it here. The tracker may have been
//! restored from an older backup, or belong to another cluster.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::node::disk::state_dir::SavedSession;
use crate::printable::make_printable;

/// What a tracker tells of itself: fields of its answers to `ping` and `status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TrackerIdentity {
    /// Id of its cluster; `None` from a tracker of an earlier version.
    #[serde(default)]
    pub(crate) cluster: Option<String>,
    /// Number of its last change.
    #[serde(default)]
    pub(crate) revision: Option<u64>,
}

/// How a tracker stands to the login of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum TrackerStanding {
    /// As far as is known, it knows all that this node has told.
    #[default]
    UpToDate,
    /// It does not know the session: that has ended, or its state is older than the login.
    UnknownSession {
        /// The tracker.
        tracker: SocketAddr,
    },
    /// It belongs to another cluster.
    OtherCluster {
        /// The tracker.
        tracker: SocketAddr,
        /// Id of its cluster.
        cluster: String,
        /// Id of the cluster that the user has logged in to.
        login_cluster: String,
    },
    /// Its state is an older one of the same cluster.
    OlderState {
        /// Number of its last change.
        revision: u64,
        /// Number of the last change that this node has seen.
        known: u64,
    },
}

impl TrackerStanding {
    /// Whether what the tracker says to be unknown may well exist: it is no reason to give anything up.
    pub(crate) fn is_behind(&self) -> bool {
        *self != TrackerStanding::UpToDate
    }

    /// Why the login or shares are unknown there; `None` when they are not.
    pub(crate) fn unknown_reason(&self) -> Option<String> {
        self.is_behind().then(|| self.to_string())
    }
}

impl fmt::Display for TrackerStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrackerStanding::UpToDate => f.write_str("the tracker is up to date"),
            TrackerStanding::UnknownSession { tracker } => write!(
                f,
                "the tracker at {tracker} does not know this login: it has ended, or the tracker has an older state"
            ),
            TrackerStanding::OtherCluster { tracker, cluster, login_cluster } => write!(
                f,
                "the tracker at {tracker} belongs to another cluster than the one you logged in to ({} instead of {})",
                short_id(cluster),
                short_id(login_cluster)
            ),
            TrackerStanding::OlderState { revision, known } => write!(
                f,
                "the tracker has an older state of its cluster, as after a restored backup (change {revision}; {known} was \
                 seen before)"
            ),
        }
    }
}

/// The beginning of a cluster's id, which tells clusters apart.
fn short_id(id: &str) -> String {
    make_printable(&id.chars().take(8).collect::<String>())
}

/// What is known of the login at the tracker that answered last.
#[derive(Debug, Default)]
pub(super) struct LoginStanding {
    pub(super) standing: TrackerStanding,
    /// Id of the cluster of the last login.
    cluster: Option<String>,
    /// Number of the last change that this node has seen of that cluster.
    known: Option<u64>,
}

impl LoginStanding {
    /// The standing of a login that an earlier process has saved.
    pub(super) fn of_session(session: &SavedSession) -> LoginStanding {
        let (cluster, known) = (session.cluster.clone(), session.revision);
        LoginStanding { cluster, known, ..LoginStanding::default() }
    }

    /// Number of the last change that this node has seen of the cluster.
    pub(super) fn revision(&self) -> Option<u64> {
        self.known
    }

    /// A tracker that knows the session has told of itself.
    pub(super) fn note_identity(&mut self, told: &TrackerIdentity) {
        if told.cluster != self.cluster {
            // The user has logged in there.
            self.cluster.clone_from(&told.cluster);
            self.known = None;
        }
        let revision = told.revision;
        self.standing = match (revision, self.known) {
            (Some(revision), Some(known)) if revision < known => {
                TrackerStanding::OlderState { revision, known }
            }
            _ => TrackerStanding::UpToDate,
        };
        self.known = self.known.max(revision);
    }

    /// A tracker of `cluster` does not know the session.
    pub(super) fn note_refused(&mut self, cluster: Option<String>, tracker: SocketAddr) {
        self.standing = match (self.cluster.clone(), cluster) {
            (Some(login_cluster), Some(cluster)) if login_cluster != cluster => {
                TrackerStanding::OtherCluster { tracker, cluster, login_cluster }
            }
            _ => TrackerStanding::UnknownSession { tracker },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "aaaaaaaaaaaa";
    const OTHER: &str = "bbbbbbbbbbbb";

    fn told(cluster: &str, revision: Option<u64>) -> TrackerIdentity {
        TrackerIdentity { cluster: Some(cluster.into()), revision }
    }

    #[test]
    fn an_older_state_is_noticed_until_the_newer_one_is_back() {
        let mut login = LoginStanding::default();
        login.note_identity(&told(OWN, Some(12)));
        assert_eq!(login.standing, TrackerStanding::UpToDate);
        for _ in 0..2 {
            login.note_identity(&told(OWN, Some(7)));
            assert_eq!(login.standing, TrackerStanding::OlderState { revision: 7, known: 12 });
            assert_eq!(login.revision(), Some(12));
        }
        login.note_identity(&told(OWN, Some(13)));
        assert_eq!((&login.standing, login.revision()), (&TrackerStanding::UpToDate, Some(13)));
        login.note_identity(&told(OTHER, Some(2)));
        assert_eq!(login.standing, TrackerStanding::UpToDate, "another cluster counts its own changes");
        login.note_identity(&told(OTHER, None));
        assert_eq!(login.standing, TrackerStanding::UpToDate, "the log is being reopened");
    }

    #[test]
    fn another_cluster_is_named_and_an_unknown_login_is_not_taken_for_one() {
        let tracker = ([10, 0, 0, 1], 8_000).into();
        let mut login = LoginStanding::default();
        login.note_identity(&told(OWN, Some(12)));
        login.note_refused(Some(OTHER.into()), tracker);
        let text = login.standing.to_string();
        assert!(
            text.contains("another cluster than the one you logged in to (bbbbbbbb instead of aaaaaaaa)")
        );
        for cluster in [None, Some(OWN.into())] {
            login.note_refused(cluster, tracker);
            assert_eq!(login.standing, TrackerStanding::UnknownSession { tracker });
        }
        login.note_identity(&told(OWN, Some(12)));
        assert!(!login.standing.is_behind());
    }
}
