//! The description of a file: name, length, piece digests, file digest and chain.
//!
//! [`Manifest::new`] checks that there are as many digests as pieces, and that a chain has one state fewer. A [`FileName`]
//! is one path component that every Linux file system accepts and every terminal shows as it is.

use std::borrow::Borrow;

use sha1::Digest as _;

use super::bitfield::Bitfield;
use super::geometry::Geometry;
use super::hashes::Sha1List;
use super::limits::FILE_PIECES_MAX;
use super::units::{ChainState, Digest, PIECE_BYTES, PieceCount, PieceIndex};

/// Longest file name, in bytes of UTF-8.
pub const MAX_FILE_NAME_BYTES: usize = 255;

/// A file name: one path component without control characters or changes of text direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// Why a file name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFileName {
    /// The name is empty.
    #[error("a file name must not be empty")]
    Empty,
    /// The name is longer than [`MAX_FILE_NAME_BYTES`].
    #[error("a file name has at most {MAX_FILE_NAME_BYTES} bytes")]
    TooLong,
    /// The name is `.` or `..`.
    #[error("`.` and `..` are directories, not file names")]
    Dots,
    /// The name has a `/`, a control character, or a character that changes the direction of text.
    #[error("a file name must not contain {0:?}")]
    Forbidden(char),
    /// A new name has a character that shows nothing, so that it looks like another name.
    #[error("a new file name must not contain U+{:04X}, which shows nothing", u32::from(*.0))]
    Invisible(char),
    /// A new name consists of blanks.
    #[error("a new file name must not consist of blanks alone")]
    Blank,
    /// A new name has white space where it does not show, so that it looks like another name.
    #[error("a new file name must not begin or end with a blank, nor have two in a row")]
    HiddenBlank,
    /// A new name has a combining mark at its start or behind a blank.
    #[error("a new file name must not have the mark U+{:04X} without a character before it", u32::from(*.0))]
    LoneMark(char),
}

/// Characters that change the direction of text (Unicode, UAX #9), and so can disguise a name.
const BIDIRECTIONAL: [char; 12] = [
    '\u{061C}', '\u{200E}', '\u{200F}', '\u{202A}', '\u{202B}', '\u{202C}', '\u{202D}', '\u{202E}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

/// Ranges of characters that show nothing: Unicode's `Default_Ignorable_Code_Point`, separators of lines, marks of
/// annotations and objects, code points that are no characters, fillers, and blanks that are not white space.
const INVISIBLE: [(char, char); 22] = [
    ('\u{AD}', '\u{AD}'),
    ('\u{34F}', '\u{34F}'),
    ('\u{61C}', '\u{61C}'),
    ('\u{115F}', '\u{1160}'),
    ('\u{17B4}', '\u{17B5}'),
    ('\u{180B}', '\u{180F}'),
    ('\u{200B}', '\u{200F}'),
    ('\u{2028}', '\u{202E}'),
    ('\u{2060}', '\u{206F}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{FDD0}', '\u{FDEF}'),
    ('\u{FE00}', '\u{FE0F}'),
    ('\u{FEFF}', '\u{FEFF}'),
    ('\u{FFA0}', '\u{FFA0}'),
    ('\u{FFF0}', '\u{FFFC}'),
    ('\u{13430}', '\u{13442}'),
    ('\u{16FE4}', '\u{16FE4}'),
    ('\u{1BCA0}', '\u{1BCA3}'),
    ('\u{1D159}', '\u{1D159}'),
    ('\u{1D173}', '\u{1D17A}'),
    ('\u{E0000}', '\u{E0FFF}'),
];

/// Ranges of marks that combine with the character before them: Unicode's blocks of combining marks, and the points
/// and marks of Hebrew and Arabic.
const COMBINING: [(char, char); 14] = [
    ('\u{300}', '\u{36F}'),
    ('\u{483}', '\u{489}'),
    ('\u{591}', '\u{5BD}'),
    ('\u{5BF}', '\u{5BF}'),
    ('\u{5C1}', '\u{5C2}'),
    ('\u{5C4}', '\u{5C7}'),
    ('\u{610}', '\u{61A}'),
    ('\u{64B}', '\u{65F}'),
    ('\u{670}', '\u{670}'),
    ('\u{1AB0}', '\u{1AFF}'),
    ('\u{1DC0}', '\u{1DFF}'),
    ('\u{20D0}', '\u{20FF}'),
    ('\u{3099}', '\u{309A}'),
    ('\u{FE20}', '\u{FE2F}'),
];

fn is_in(ranges: &[(char, char)], c: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Whether a character shows nothing.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    is_in(&INVISIBLE, c) || matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF)
}

impl FileName {
    /// Checks an untrusted name. Accepts every name under which a file may be listed already.
    ///
    /// # Errors
    /// [`BadFileName`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<FileName, BadFileName> {
        if name.is_empty() {
            return Err(BadFileName::Empty);
        }
        if name.len() > MAX_FILE_NAME_BYTES {
            return Err(BadFileName::TooLong);
        }
        if name == "." || name == ".." {
            return Err(BadFileName::Dots);
        }
        match name.chars().find(|c| *c == '/' || c.is_control() || BIDIRECTIONAL.contains(c)) {
            Some(forbidden) => Err(BadFileName::Forbidden(forbidden)),
            None => Ok(FileName(name.to_owned())),
        }
    }

    /// Checks a name under which no file is listed yet: it must not look like another name or like none.
    ///
    /// # Errors
    /// [`BadFileName::Invisible`], [`BadFileName::Blank`], [`BadFileName::HiddenBlank`] or [`BadFileName::LoneMark`].
    pub fn check_new(&self) -> Result<(), BadFileName> {
        if let Some(invisible) = self.0.chars().find(|c| is_invisible(*c)) {
            return Err(BadFileName::Invisible(invisible));
        }
        if self.0.trim().is_empty() {
            return Err(BadFileName::Blank);
        }
        // Both ends count as blanks.
        let mut is_behind_blank = true;
        for c in self.0.chars().chain([' ']) {
            let is_blank = c.is_whitespace();
            match c {
                _ if is_behind_blank && is_blank => return Err(BadFileName::HiddenBlank),
                mark if is_behind_blank && is_in(&COMBINING, mark) => {
                    return Err(BadFileName::LoneMark(mark));
                }
                _ => is_behind_blank = is_blank,
            }
        }
        Ok(())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key under which the trackers list a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The group in which the file is shared.
    pub group: String,
    /// The file's name in the group.
    pub name: FileName,
}

impl std::fmt::Display for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.group, self.name)
    }
}

/// What proves the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileProof {
    /// SHA-1 of the whole file.
    Whole(Digest),
    /// SHA-1 of the joined piece digests, for uploads by the original client, which gives no other. It identifies the
    /// content, and only the pieces can be proven.
    PiecesOnly(Digest),
}

impl FileProof {
    /// The digest that identifies the content in tickets, records and names of partial files.
    #[must_use]
    pub fn id(self) -> Digest {
        match self {
            FileProof::Whole(digest) | FileProof::PiecesOnly(digest) => digest,
        }
    }

    /// The proof of a file of which only the piece digests are known.
    #[must_use]
    pub fn of_pieces(digests: impl IntoIterator<Item = impl Borrow<Digest>>) -> FileProof {
        let mut hash = sha1::Sha1::new();
        digests.into_iter().for_each(|digest| hash.update(digest.borrow().0));
        FileProof::PiecesOnly(Digest(hash.finalize().into()))
    }
}

/// All that is needed to fetch a file from untrusted peers and verify it. Cheap to clone, also for long files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    name: FileName,
    geometry: Geometry,
    length_known: bool,
    digests: Sha1List<Digest>,
    proof: FileProof,
    chain: Option<Sha1List<ChainState>>,
}

/// Why parts are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// The length does not have as many pieces as there are digests.
    #[error("{length} bytes do not make {digests} pieces")]
    Length {
        /// Claimed length, in bytes.
        length: u64,
        /// Number of digests.
        digests: usize,
    },
    /// More digests than a file may have pieces.
    #[error("{0} piece hashes are more than a file may have")]
    TooMany(usize),
    /// The chain of n pieces must have n - 1 states.
    #[error("a chain of {states} states does not fit {digests} pieces")]
    Chain {
        /// Number of states.
        states: usize,
        /// Number of digests.
        digests: usize,
    },
    /// The file is empty, but its digest is not that of no bytes.
    #[error("a file of 0 bytes has the SHA-1 da39a3ee5e6b4b0d3255bfef95601890afd80709 and no other")]
    Empty,
}

/// SHA-1 of no bytes.
pub const EMPTY_DIGEST: Digest = Digest([
    0xDA, 0x39, 0xA3, 0xEE, 0x5E, 0x6B, 0x4B, 0x0D, 0x32, 0x55, 0xBF, 0xEF, 0x95, 0x60, 0x18, 0x90, 0xAF,
    0xD8, 0x07, 0x09,
]);

impl Manifest {
    /// Builds a manifest from digests in memory; see [`Manifest::from_lists`].
    ///
    /// # Errors
    /// [`BadManifest`] when the parts contradict each other.
    pub fn new(
        name: FileName,
        length: Option<u64>,
        digests: Vec<Digest>,
        proof: FileProof,
        chain: Option<Vec<ChainState>>,
    ) -> Result<Manifest, BadManifest> {
        Manifest::from_lists(name, length, digests.into(), proof, chain.map(Sha1List::from))
    }

    /// Builds a manifest. `length` is `None` where the uploader gave none: then providers send it, and the digest of the last
    /// piece proves it. For a file of one piece the (empty) chain is always known.
    ///
    /// # Errors
    /// [`BadManifest`] when the parts contradict each other.
    pub fn from_lists(
        name: FileName,
        length: Option<u64>,
        digests: Sha1List<Digest>,
        proof: FileProof,
        chain: Option<Sha1List<ChainState>>,
    ) -> Result<Manifest, BadManifest> {
        let count = u32::try_from(digests.len())
            .ok()
            .filter(|count| *count <= FILE_PIECES_MAX)
            .ok_or(BadManifest::TooMany(digests.len()))?;
        let geometry = match length {
            None => Geometry::longest(PieceCount(count)),
            Some(length) => Geometry::new(length)
                .ok()
                .filter(|geometry| geometry.pieces().0 == count)
                .ok_or(BadManifest::Length { length, digests: digests.len() })?,
        };
        if count == 0 && proof != FileProof::Whole(EMPTY_DIGEST) {
            return Err(BadManifest::Empty);
        }
        if let Some(chain) = &chain
            && chain.len() != digests.len().saturating_sub(1)
        {
            return Err(BadManifest::Chain { states: chain.len(), digests: digests.len() });
        }
        let chain = chain.or_else(|| (count <= 1).then(|| Vec::new().into()));
        assert_eq!(geometry.pieces(), PieceCount(count), "each piece has a digest");
        let length_known = length.is_some() || count == 0;
        Ok(Manifest { name, geometry, length_known, digests, proof, chain })
    }

    /// The file's name.
    #[must_use]
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// The layout of the file; that of the longest possible file where the length is not known.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether [`Manifest::geometry`] is exact.
    #[must_use]
    pub fn is_length_known(&self) -> bool {
        self.length_known
    }

    /// Number of pieces.
    #[must_use]
    pub fn pieces(&self) -> PieceCount {
        self.geometry.pieces()
    }

    /// All piece digests, in order.
    #[must_use]
    pub fn digests(&self) -> &Sha1List<Digest> {
        &self.digests
    }

    /// The digest of a piece.
    ///
    /// # Panics
    /// When the file has no such piece.
    #[must_use]
    pub fn digest(&self, index: PieceIndex) -> Digest {
        self.digests.get(index.as_usize()).expect("the index is a piece of this file")
    }

    /// What proves the whole file.
    #[must_use]
    pub fn proof(&self) -> FileProof {
        self.proof
    }

    /// The pieces of zeros, found by their digest. Where the length is not known, a last piece that is shorter than the
    /// others is not found.
    #[must_use]
    pub fn zero_pieces(&self) -> Bitfield {
        let zeros_of = |length: u32| Digest(sha1::Sha1::digest(vec![0; length as usize]).into());
        let whole = zeros_of(PIECE_BYTES);
        let mut zeros = Bitfield::empty(self.pieces());
        for index in self.pieces().indices() {
            let zero = match self.geometry.piece_len(index) {
                PIECE_BYTES => self.digest(index) == whole,
                length => self.digest(index) == zeros_of(length),
            };
            if zero {
                zeros.insert(index);
            }
        }
        zeros
    }

    /// The chain: the state after each piece but the last. `None` where the uploader gave none.
    #[must_use]
    pub fn chain(&self) -> Option<&Sha1List<ChainState>> {
        self.chain.as_ref()
    }

    /// The path of the digests or the chain once some of them could not be read: then they prove nothing. See
    /// [`BackingBytes::unreadable_at`](super::hashes::BackingBytes::unreadable_at).
    #[must_use]
    pub fn unreadable_at(&self) -> Option<String> {
        self.digests.unreadable_at().or_else(|| self.chain.as_ref()?.unreadable_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_path_component() {
        for good in ["a", "report 2026.pdf", "Größe – 文件.bin", "...", ".hidden", &"x".repeat(255)] {
            assert!(FileName::new(good).is_ok(), "{good}");
        }
        assert_eq!(FileName::new(""), Err(BadFileName::Empty));
        assert_eq!(FileName::new(&"x".repeat(256)), Err(BadFileName::TooLong));
        assert_eq!(FileName::new(&"é".repeat(128)), Err(BadFileName::TooLong));
        assert_eq!(FileName::new(".."), Err(BadFileName::Dots));
        for bad in ['/', '\0', '\n', '\u{7f}', '\u{85}', '\u{202E}', '\u{2066}'] {
            assert_eq!(FileName::new(&format!("a{bad}b")), Err(BadFileName::Forbidden(bad)));
        }
    }

    #[test]
    fn a_new_name_shows_all_its_characters() {
        for name in ["a b.bin", "Grüße", "你好", "e\u{301}", "שלום", "a\u{202F}b", "👍🏽.png"] {
            assert_eq!(FileName::new(name).unwrap().check_new(), Ok(()), "{name:?}");
        }
        for hidden in [
            '\u{AD}',
            '\u{200B}',
            '\u{200C}',
            '\u{200D}',
            '\u{2028}',
            '\u{2060}',
            '\u{2063}',
            '\u{3164}',
            '\u{FE0F}',
            '\u{FEFF}',
            '\u{FFF9}',
            '\u{FFFC}',
            '\u{FFFF}',
            '\u{1FFFE}',
            '\u{13441}',
            '\u{E0041}',
            '\u{E0100}',
        ] {
            let listed = FileName::new(&format!("a{hidden}b")).unwrap();
            assert_eq!(listed.check_new(), Err(BadFileName::Invisible(hidden)), "a listed one stays valid");
        }
        assert_eq!(FileName::new(" \u{3000}").unwrap().check_new(), Err(BadFileName::Blank));
    }

    #[test]
    fn a_new_name_differs_from_others_by_what_it_shows() {
        for blank in [" ", "\u{A0}", "\u{3000}", " \u{A0}"] {
            for name in [format!("{blank}a"), format!("a{blank}"), format!("a{blank} b")] {
                let listed = FileName::new(&name).unwrap();
                assert_eq!(listed.check_new(), Err(BadFileName::HiddenBlank), "{name:?}");
            }
        }
        for (name, mark) in [("\u{301}", '\u{301}'), ("a \u{20DD}b", '\u{20DD}'), ("\u{5B0}a", '\u{5B0}')] {
            assert_eq!(
                FileName::new(name).unwrap().check_new(),
                Err(BadFileName::LoneMark(mark)),
                "{name:?}"
            );
        }
    }

    fn name() -> FileName {
        FileName::new("f").unwrap()
    }

    #[test]
    fn parts_that_contradict_each_other_are_refused() {
        let digest = Digest([1; 20]);
        let whole = FileProof::Whole(digest);
        let make = |length, n: usize, chain: Option<usize>| {
            let chain = chain.map(|states| vec![ChainState::INITIAL; states]);
            Manifest::new(name(), length, vec![digest; n], whole, chain).map(|m| m.chain().map(Sha1List::len))
        };
        assert_eq!(make(Some(1), 1, None), Ok(Some(0)), "one piece has the empty chain");
        assert_eq!(make(Some(524_289), 2, None), Ok(None));
        assert_eq!(make(Some(524_289), 2, Some(1)), Ok(Some(1)));
        assert_eq!(make(Some(524_289), 2, Some(2)), Err(BadManifest::Chain { states: 2, digests: 2 }));
        assert_eq!(make(Some(524_288), 2, None), Err(BadManifest::Length { length: 524_288, digests: 2 }));
        assert_eq!(make(Some(0), 0, None), Err(BadManifest::Empty));
        let empty = Manifest::new(name(), Some(0), vec![], FileProof::Whole(EMPTY_DIGEST), None).unwrap();
        assert_eq!(empty.pieces(), PieceCount(0));
    }

    #[test]
    fn without_a_length_the_longest_file_is_assumed() {
        let digests = vec![Digest([1; 20]); 3];
        let manifest = Manifest::new(name(), None, digests, FileProof::Whole(Digest([2; 20])), None).unwrap();
        assert!(!manifest.is_length_known());
        assert_eq!(manifest.geometry().length(), 3 * 524_288);
    }
}
