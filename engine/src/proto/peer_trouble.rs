//! What became of the peers that a transfer cannot fetch from, in words for users.
//!
//! A peer that was never called, or from which pieces come, has no trouble. The words name the peer, say what happened,
//! and where that helps ask for what its owner should look at.

use std::fmt;
use std::net::SocketAddr;

use super::frame::{PROTOCOL_VERSION, RefusedCode};
use super::limits::PEER_TROUBLES_SHOWN;
use super::session::Violation;

/// Why no connection to a peer could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The peer's machine answers, and nothing listens on the port.
    Refused,
    /// There was no answer within this time.
    TimedOut {
        /// In milliseconds.
        after_ms: u64,
    },
    /// No router knows a way to the peer's machine, or it is switched off.
    NoRoute,
    /// This machine has no network that leads there.
    NetworkUnreachable,
    /// This machine has no address of the peer's family.
    NoFamily,
    /// This machine forbids the connection.
    Forbidden,
    /// Another error, as the system names it.
    Other(String),
}

/// How a connection ended, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The call failed.
    Unreachable(ConnectFailure),
    /// The peer has sent nothing for this long.
    Silent {
        /// In milliseconds.
        for_ms: u64,
    },
    /// The connection broke.
    Lost,
    /// The peer rejected requests for pieces that it had announced.
    Withheld,
    /// The file that the peer served has changed.
    SourceChanged,
    /// The peer refused to open.
    Refused(RefusedCode),
    /// The peer broke the protocol.
    Violated(Violation),
    /// The peer said goodbye.
    Bye,
    /// This node has as many connections as it may, so the peer was not called.
    ConnectionLimit,
}

/// What keeps a transfer from fetching from one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTroubleKind {
    /// The last connection ended so, and there is no other.
    Ended(DisconnectReason),
    /// The peer has not answered for this long: a call, or requests on an open connection.
    Unanswered {
        /// In milliseconds.
        for_ms: u64,
        /// The connection is open.
        is_open: bool,
    },
    /// The peer was dropped because it sent wrong bytes.
    Banned,
}

/// A peer that a transfer cannot fetch from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTrouble {
    /// Where the trackers say that the peer listens.
    pub address: SocketAddr,
    /// The trackers say that the peer has the whole file.
    pub has_all: bool,
    /// What happened.
    pub kind: PeerTroubleKind,
}

/// The peers that a transfer cannot fetch from, seeders first. The text names [`PEER_TROUBLES_SHOWN`] and counts the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTroubles(Vec<PeerTrouble>);

impl PeerTroubles {
    pub(super) fn new(mut all: Vec<PeerTrouble>) -> PeerTroubles {
        all.sort_by_key(|trouble| !trouble.has_all);
        PeerTroubles(all)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PeerTrouble> {
        self.0.iter()
    }

    /// Those whose kind is not `kind`.
    #[must_use]
    pub fn except(&self, kind: &PeerTroubleKind) -> PeerTroubles {
        PeerTroubles(self.iter().filter(|trouble| trouble.kind != *kind).cloned().collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PeerTroubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().take(PEER_TROUBLES_SHOWN).map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))?;
        match self.0.len() - texts.len() {
            0 => Ok(()),
            1 => f.write_str("; and 1 more peer"),
            more => write!(f, "; and {more} more peers"),
        }
    }
}

impl fmt::Display for PeerTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.has_all { "it" } else { "a part of it" };
        write!(f, "{} has {what} but {}", self.address, self.kind)
    }
}

impl PeerTroubleKind {
    /// One word for programs, the same in every version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PeerTroubleKind::Banned => "banned",
            PeerTroubleKind::Unanswered { .. } => "no_answer",
            PeerTroubleKind::Ended(reason) => match reason {
                DisconnectReason::Unreachable(failure) => match failure {
                    ConnectFailure::Refused => "connection_refused",
                    ConnectFailure::TimedOut { .. } => "timed_out",
                    ConnectFailure::NoRoute => "no_route",
                    ConnectFailure::NetworkUnreachable => "network_unreachable",
                    ConnectFailure::NoFamily => "no_family",
                    ConnectFailure::Forbidden => "forbidden",
                    ConnectFailure::Other(_) => "unreachable",
                },
                DisconnectReason::Silent { .. } => "silent",
                DisconnectReason::Lost => "lost",
                DisconnectReason::Withheld => "rejects",
                DisconnectReason::SourceChanged => "source_changed",
                DisconnectReason::Refused(code) => match code {
                    RefusedCode::Protocol => "protocol",
                    RefusedCode::Ticket => "ticket",
                    RefusedCode::Expired => "expired",
                    RefusedCode::NotShared => "not_shared",
                    RefusedCode::OtherDigest => "other_digest",
                    RefusedCode::Busy => "busy",
                },
                DisconnectReason::Violated(Violation::Version(_)) => "version",
                DisconnectReason::Violated(_) => "protocol",
                DisconnectReason::Bye => "bye",
                DisconnectReason::ConnectionLimit => "connection_limit",
            },
        }
    }
}

impl fmt::Display for PeerTroubleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerTroubleKind::Ended(reason) => reason.fmt(f),
            PeerTroubleKind::Unanswered { for_ms, is_open: false } => {
                write!(f, "does not answer: nothing came for {} s; is that port open?", for_ms / 1_000)
            }
            PeerTroubleKind::Unanswered { for_ms, is_open: true } => silent_text(f, *for_ms),
            PeerTroubleKind::Banned => f.write_str("was dropped because it sent wrong bytes"),
        }
    }
}

fn silent_text(f: &mut fmt::Formatter<'_>, for_ms: u64) -> fmt::Result {
    write!(f, "has sent nothing for {} s; is its link up, and its node running?", for_ms / 1_000)
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisconnectReason::Unreachable(failure) => failure.fmt(f),
            DisconnectReason::Silent { for_ms } => silent_text(f, *for_ms),
            DisconnectReason::Lost => f.write_str("the connection to it broke"),
            DisconnectReason::Withheld => f.write_str("rejects requests for pieces that it announced"),
            DisconnectReason::SourceChanged => f.write_str("no longer serves it: its file has changed"),
            DisconnectReason::Refused(code) => f.write_str(refused_text(*code)),
            DisconnectReason::Violated(Violation::Version(theirs)) => write!(
                f,
                "speaks version {theirs} of the peer protocol, and this node version {PROTOCOL_VERSION}: update the older one"
            ),
            DisconnectReason::Violated(Violation::Identity) => {
                f.write_str("another node answers there: it does not have the key that the tracker names")
            }
            DisconnectReason::Violated(violation) => write!(f, "breaks the protocol: {violation}"),
            DisconnectReason::Bye => f.write_str("ended the connection: it stopped sharing"),
            DisconnectReason::ConnectionLimit => {
                f.write_str("was not called: this node has as many connections as it may")
            }
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFailure::Refused => f.write_str(
                "refuses connections: nothing listens on that port; does its node run, and listen at that address?",
            ),
            ConnectFailure::TimedOut { after_ms } => {
                write!(f, "does not answer: timed out after {} s; is that port open?", after_ms / 1_000)
            }
            ConnectFailure::NoRoute => {
                f.write_str("cannot be reached: no route to that host; is it switched on, and its link up?")
            }
            ConnectFailure::NetworkUnreachable => {
                f.write_str("cannot be reached: this machine has no network that leads there")
            }
            ConnectFailure::NoFamily => {
                f.write_str("cannot be reached: this machine has no address of that family (IPv4 or IPv6)")
            }
            ConnectFailure::Forbidden => {
                f.write_str("cannot be reached: a rule of this machine forbids the connection")
            }
            ConnectFailure::Other(error) => write!(f, "cannot be reached: {error}"),
        }
    }
}

fn refused_text(code: RefusedCode) -> &'static str {
    match code {
        RefusedCode::Protocol => "does not understand this node: it speaks another version of the protocol",
        RefusedCode::Ticket => "refuses this node's ticket: is it logged in at the same trackers?",
        RefusedCode::Expired => "says that this node's ticket has expired",
        RefusedCode::NotShared => "says that it does not share it",
        RefusedCode::OtherDigest => "shares other content under this name",
        RefusedCode::Busy => "is busy: it has as many connections as it may",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(port: u16, has_all: bool, kind: PeerTroubleKind) -> PeerTrouble {
        PeerTrouble { address: ([10, 77, 0, 11], port).into(), has_all, kind }
    }

    #[test]
    fn a_trouble_names_the_peer_and_what_happened() {
        let ended = |reason| PeerTroubleKind::Ended(reason);
        let timed_out = ConnectFailure::TimedOut { after_ms: 2_000 };
        assert_eq!(
            trouble(40_603, true, ended(DisconnectReason::Unreachable(timed_out))).to_string(),
            "10.77.0.11:40603 has it but does not answer: timed out after 2 s; is that port open?"
        );
        let version = DisconnectReason::Violated(Violation::Version(7));
        let text = trouble(1, false, ended(version)).to_string();
        assert!(text.contains("has a part of it but speaks version 7"), "{text}");
        assert!(text.contains(&format!("this node version {PROTOCOL_VERSION}")), "{text}");
    }

    #[test]
    fn seeders_come_first_and_the_rest_is_counted() {
        let lost = || PeerTroubleKind::Ended(DisconnectReason::Lost);
        let all: Vec<PeerTrouble> = (0..6).map(|port| trouble(port, port >= 4, lost())).collect();
        let troubles = PeerTroubles::new(all);
        assert!(troubles.iter().take(2).all(|trouble| trouble.has_all));
        assert!(troubles.to_string().ends_with("; and 3 more peers"), "{troubles}");
        assert_eq!(troubles.to_string().matches(" has ").count(), PEER_TROUBLES_SHOWN, "{troubles}");
        assert!(PeerTroubles::default().is_empty() && PeerTroubles::default().to_string().is_empty());
    }
}
