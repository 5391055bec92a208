//! What is known of the file of a share: when it is examined next, whether it answers, and what has to be hashed again.
//!
//! ```text
//!   Proven ──attributes changed──► Wanted(Whole) ──┐
//!     │  ▲                                         ├──► Running ──► Proven, or Wanted again when it could not be read
//!     └──┼───wrong at a consumer──► Wanted(Pieces)─┘
//! ```
//!
//! Pure: time comes in as an argument, in milliseconds of the engine's clock.

use std::collections::BTreeSet;

use super::limits::{NO_ANSWER_MS, SOURCE_IDLE_CHECK_MS, VERIFIED_AGAIN_MAX, VERIFY_AGAIN_MS};
use crate::proto::units::PieceIndex;
use crate::storage::limits::SOURCE_CHECK_MS;

/// What is known of a share's file.
#[derive(Debug, Default)]
pub(super) struct ShareWatch {
    examine_at_ms: u64,
    /// When the examination that runs was started.
    examined_since_ms: Option<u64>,
    content_trust: ContentTrust,
    /// When the next verification may start.
    verify_at_ms: u64,
    /// Why the file could not be read last.
    trouble: Option<String>,
}

/// Whether the content of a file is known to be what was hashed.
#[derive(Debug, Default)]
enum ContentTrust {
    #[default]
    Proven,
    Wanted(RecheckScope),
    Running,
}

/// What has to be hashed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecheckScope {
    /// Pieces that a consumer received, of which one was wrong.
    Pieces(BTreeSet<PieceIndex>),
    /// The whole file, since its attributes have changed. No piece is held before it was hashed.
    Whole,
}

impl ShareWatch {
    /// Whether the file is to be examined now. If so, counts the time until [`ShareWatch::end_examination`].
    pub(super) fn take_examination(&mut self, now_ms: u64, is_open: bool) -> bool {
        let is_due = self.examined_since_ms.is_none() && now_ms >= self.examine_at_ms;
        if is_due {
            self.examine_at_ms = now_ms + if is_open { SOURCE_CHECK_MS } else { SOURCE_IDLE_CHECK_MS };
            self.examined_since_ms = Some(now_ms);
        }
        is_due
    }

    /// The examination has ended, or could not be started.
    pub(super) fn end_examination(&mut self) {
        self.examined_since_ms = None;
    }

    /// Why the file could not be read last; `None` when it could.
    pub(super) fn set_trouble(&mut self, trouble: Option<String>) {
        self.trouble = trouble;
    }

    /// Why the file could not be read last.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// For how long the file's filesystem has not answered, in milliseconds, if that is long.
    pub(super) fn no_answer_ms(&self, now_ms: u64) -> Option<u64> {
        let since_ms = self.examined_since_ms?;
        Some(now_ms.saturating_sub(since_ms)).filter(|silent_ms| *silent_ms >= NO_ANSWER_MS)
    }

    /// The attributes of the file have changed. Returns whether its content counted until now.
    pub(super) fn doubt_whole(&mut self) -> bool {
        let counts = match &self.content_trust {
            ContentTrust::Proven | ContentTrust::Wanted(RecheckScope::Pieces(_)) => true,
            // A verification that runs compares the attributes at its end.
            ContentTrust::Running | ContentTrust::Wanted(RecheckScope::Whole) => false,
        };
        if counts {
            self.content_trust = ContentTrust::Wanted(RecheckScope::Whole);
        }
        counts
    }

    /// A consumer found that a piece was wrong; `pieces` are the last that it was sent.
    pub(super) fn doubt_pieces(&mut self, pieces: impl IntoIterator<Item = PieceIndex>) {
        let mut doubted = match &mut self.content_trust {
            ContentTrust::Proven => BTreeSet::new(),
            ContentTrust::Wanted(RecheckScope::Pieces(doubted)) => std::mem::take(doubted),
            ContentTrust::Wanted(RecheckScope::Whole) | ContentTrust::Running => return,
        };
        doubted.extend(pieces);
        while doubted.len() > VERIFIED_AGAIN_MAX {
            doubted.pop_first();
        }
        self.content_trust = ContentTrust::Wanted(RecheckScope::Pieces(doubted));
    }

    /// What is to be verified now. The caller starts that, and calls [`ShareWatch::end_verification`].
    pub(super) fn take_doubt(&mut self, now_ms: u64) -> Option<RecheckScope> {
        if now_ms < self.verify_at_ms {
            return None;
        }
        match std::mem::replace(&mut self.content_trust, ContentTrust::Running) {
            ContentTrust::Wanted(doubt) => {
                self.verify_at_ms = now_ms + VERIFY_AGAIN_MS;
                Some(doubt)
            }
            other => {
                self.content_trust = other;
                None
            }
        }
    }

    /// A verification has ended; `rest` is what has to be verified later.
    pub(super) fn end_verification(&mut self, rest: Option<RecheckScope>) {
        self.content_trust = rest.map_or(ContentTrust::Proven, ContentTrust::Wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_examination_that_does_not_end_shows_and_is_not_repeated() {
        let mut watch = ShareWatch::default();
        assert!(watch.take_examination(10, false));
        assert!(!watch.take_examination(10 + 9 * SOURCE_IDLE_CHECK_MS, false));
        assert_eq!(watch.no_answer_ms(9 + NO_ANSWER_MS), None);
        assert_eq!(watch.no_answer_ms(11 + NO_ANSWER_MS), Some(NO_ANSWER_MS + 1));
        watch.end_examination();
        assert_eq!(watch.no_answer_ms(11 + NO_ANSWER_MS), None);
        assert!(!watch.take_examination(9 + SOURCE_IDLE_CHECK_MS, false));
        assert!(watch.take_examination(10 + SOURCE_IDLE_CHECK_MS, true));
        watch.end_examination();
        assert!(watch.take_examination(10 + SOURCE_IDLE_CHECK_MS + SOURCE_CHECK_MS, true));
    }

    #[test]
    fn verifications_are_bounded_and_not_started_too_often() {
        let mut watch = ShareWatch::default();
        assert_eq!(watch.take_doubt(0), None);
        let many = u32::try_from(2 * VERIFIED_AGAIN_MAX).unwrap();
        watch.doubt_pieces((0..many).map(PieceIndex));
        let Some(RecheckScope::Pieces(doubted)) = watch.take_doubt(0) else { panic!("pieces are doubted") };
        assert_eq!((doubted.len(), doubted.last()), (VERIFIED_AGAIN_MAX, Some(&PieceIndex(many - 1))));
        assert!(!watch.doubt_whole(), "it runs");
        watch.end_verification(None);
        assert!(watch.doubt_whole() && !watch.doubt_whole());
        watch.doubt_pieces([PieceIndex(1)]);
        assert_eq!(watch.take_doubt(VERIFY_AGAIN_MS - 1), None);
        assert_eq!(watch.take_doubt(VERIFY_AGAIN_MS), Some(RecheckScope::Whole), "all includes some");
        watch.end_verification(Some(RecheckScope::Whole));
        assert_eq!(watch.take_doubt(2 * VERIFY_AGAIN_MS), Some(RecheckScope::Whole));
    }
}
