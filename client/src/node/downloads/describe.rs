//! Gets the description of a file from the trackers: manifest, peers and ticket. A long description comes in
//! parts.
//!
//! Always true: a tracker cannot keep the requests going forever, since each part continues the one before,
//! has at least one piece, and the total is limited by the length of the file. All parts state the same
//! length and the same SHA-1 of the file, and the ticket is for that content. One part is in memory at a
//! time.
//!
//! Parts of two uploads with the same name and SHA-1 but different lists of pieces could be joined by
//! mistake. Then the verification of the pieces or of the whole file fails.

use std::sync::Arc;

use engine::proto::action::{NamedPeer, PeerAddress};
use engine::proto::geometry::Geometry;
use engine::proto::manifest::{FileProof, Manifest};
use engine::proto::ticket::Ticket;
use engine::proto::units::{ChainState, Digest, PieceCount, PieceIndex};
use engine::storage::sha1_list::Sha1ListBuilder;
use tracker::api::GroupFile;
use tracker::api::answers::{DownloadAnswer, PeerEntry};
use tracker::api::limits::PIECES_PER_MESSAGE;
use tracker::api::request::{Command, DownloadView, PiecePage};

use crate::exit::{ClientFault, ExitCause};
use crate::limits;
use crate::node::core::NodeCore;
use crate::node::trackers::RequestUrgency;
use crate::printable::make_printable;

/// What is needed to start a download.
pub(super) struct FileDescription {
    /// The manifest.
    pub(super) manifest: Arc<Manifest>,
    /// Peers that have pieces of the file.
    pub(super) peers: Vec<NamedPeer>,
    /// The tracker's permission to fetch the file.
    pub(super) ticket: Ticket,
}

/// Asks the trackers, in the name of `user`, for the description of a file. With `content`, only that content is wanted.
///
/// # Errors
/// The tracker's refusal. Exit code 13 when the description contradicts itself or names another file. Exit
/// code 1 when the file was replaced during each attempt.
pub(super) fn describe_file(
    core: &NodeCore,
    user: &str,
    key: &GroupFile,
    content: Option<Digest>,
    urgency: RequestUrgency,
) -> Result<FileDescription, ClientFault> {
    let engine = core.peer.engine()?;
    let empty = || PartialDescription::new(engine.sha1_list_builder(), engine.sha1_list_builder());
    join_parts(key, empty, |first| {
        let answer = ask_part(core, user, (key, content), first, urgency)?;
        core.trackers.learn_time(answer.server_time);
        Ok(answer)
    })
}

/// Joins the parts that `ask` returns. If the file was replaced meanwhile, starts again from the first part.
fn join_parts(
    key: &GroupFile,
    empty: impl Fn() -> PartialDescription,
    mut ask: impl FnMut(PieceIndex) -> Result<DownloadAnswer, ClientFault>,
) -> Result<FileDescription, ClientFault> {
    for _ in 0..limits::DESCRIBE_ATTEMPTS {
        match join_once(key, empty(), &mut ask) {
            Err(DescribeError::Changed) => {
                tracing::info!("{key} was replaced while its description was fetched");
            }
            Err(DescribeError::Fault(fault)) => return Err(fault),
            Ok(description) => return Ok(description),
        }
    }
    let message =
        format!("{key} was replaced by another file each time the trackers were asked for its description");
    Err(ClientFault::new(ExitCause::Other, make_printable(&message)).fix("try again later"))
}

fn join_once(
    key: &GroupFile,
    mut joined: PartialDescription,
    ask: &mut impl FnMut(PieceIndex) -> Result<DownloadAnswer, ClientFault>,
) -> Result<FileDescription, DescribeError> {
    while let Some(first) = joined.next {
        let answer = ask(first).map_err(|fault| match fault.exit {
            // The file was replaced by a shorter one, which has no such part.
            ExitCause::Usage if first.0 > 0 => DescribeError::Changed,
            _ => DescribeError::Fault(fault),
        })?;
        joined.add(key, answer)?;
    }
    joined.finish(key)
}

/// Why parts cannot be joined.
#[derive(Debug)]
enum DescribeError {
    /// The file was replaced by another of the same name between two parts.
    Changed,
    /// Another error.
    Fault(ClientFault),
}

impl<F: Into<ClientFault>> From<F> for DescribeError {
    fn from(fault: F) -> DescribeError {
        DescribeError::Fault(fault.into())
    }
}

fn ask_part(
    core: &NodeCore,
    user: &str,
    (key, content): (&GroupFile, Option<Digest>),
    first: PieceIndex,
    urgency: RequestUrgency,
) -> Result<DownloadAnswer, ClientFault> {
    let count = u32::try_from(PIECES_PER_MESSAGE).ok().map(PieceCount);
    let command = Command::DownloadFile {
        file: key.clone(),
        content,
        view: DownloadView::Compact,
        part: PiecePage { first, count },
        peer_key: Some(core.peer.key()),
    };
    core.trackers.request_as(user, command, urgency).map(|(answer, _)| answer)
}

/// The parts received so far. The builders take the hashes of each part, so that only one part is in memory.
struct PartialDescription {
    /// The first piece of the next part; `None` after the last part.
    next: Option<PieceIndex>,
    digests: Sha1ListBuilder<Digest>,
    /// `None` after a part without a chain.
    chain: Option<Sha1ListBuilder<ChainState>>,
    /// From the last part; `None` before the first.
    head: Option<DescriptionHead>,
}

/// The fields that each part repeats.
struct DescriptionHead {
    size: Option<u64>,
    sha: Option<String>,
    peers: Vec<PeerEntry>,
    ticket: Option<Ticket>,
}

impl PartialDescription {
    fn new(digests: Sha1ListBuilder<Digest>, chain: Sha1ListBuilder<ChainState>) -> PartialDescription {
        PartialDescription { next: Some(PieceIndex(0)), digests, chain: Some(chain), head: None }
    }

    fn add(&mut self, key: &GroupFile, answer: DownloadAnswer) -> Result<(), DescribeError> {
        let changed =
            |known: &DescriptionHead| known.sha != answer.file_sha || known.size != answer.file_size;
        if self.head.as_ref().is_some_and(changed) {
            return Err(DescribeError::Changed);
        }
        self.next = self.next_part(&answer).map_err(|what| contradiction_fault(key, what))?;
        if answer.file_path != key.name {
            return Err(contradiction_fault(key, "it is the description of another file").into());
        }
        self.head = Some(DescriptionHead {
            size: answer.file_size,
            sha: answer.file_sha,
            peers: answer.peers.unwrap_or_default(),
            ticket: answer.ticket,
        });
        self.digests.push(&answer.file_chunks.values)?;
        self.chain = match (self.chain.take(), answer.file_chain) {
            (Some(mut chain), Some(more)) => {
                chain.push(&more.values)?;
                Some(chain)
            }
            _ => None,
        };
        Ok(())
    }

    /// The first piece of the next part; `None` if this is the last part. The error says what is wrong with the
    /// number of pieces.
    fn next_part(&self, answer: &DownloadAnswer) -> Result<Option<PieceIndex>, &'static str> {
        let part = answer.file_chunks.values.len();
        let total = self.digests.len() + part;
        if answer.file_chain.as_ref().is_some_and(|chain| chain.values.len() > part) {
            return Err("its chain is longer than the list of its pieces");
        }
        if part > PIECES_PER_MESSAGE || total > max_pieces(answer.file_size)? {
            return Err("it has more pieces than it can have");
        }
        match answer.next {
            None => Ok(None),
            Some(next) if part > 0 && next as usize == total => Ok(Some(PieceIndex(next))),
            Some(_) => Err("its parts do not follow one another"),
        }
    }

    fn finish(self, key: &GroupFile) -> Result<FileDescription, DescribeError> {
        let Some(head) = self.head else { return Err(contradiction_fault(key, "it is empty").into()) };
        let digests = self.digests.finish()?;
        let chain = self.chain.map(Sha1ListBuilder::finish).transpose()?;
        let proof = match &head.sha {
            Some(sha) => {
                FileProof::Whole(sha.parse().map_err(|bad| contradiction_fault(key, &format!("{bad}")))?)
            }
            None => FileProof::of_pieces(digests.iter()),
        };
        let manifest = Manifest::from_lists(key.name.clone(), head.size, digests, proof, chain)
            .map_err(|bad| contradiction_fault(key, &bad.to_string()))?;
        let ticket = head.ticket.ok_or_else(|| contradiction_fault(key, "it comes without a ticket"))?;
        // Seeders check the signature. Here it only matters that the ticket is for this content.
        let grant = ticket.unverified_grant().map_err(|bad| contradiction_fault(key, &bad.to_string()))?;
        if grant.file_id != proof.id() {
            return Err(DescribeError::Changed);
        }
        if let Some(place) = manifest.unreadable_at() {
            let message = format!("hashes of {key} that were kept in {place} are lost");
            return Err(ClientFault::new(ExitCause::LocalIo, message)
                .fix("check that disk, and try again")
                .into());
        }
        Ok(FileDescription { manifest: Arc::new(manifest), peers: connectable_peers(&head.peers), ticket })
    }
}

/// The maximum number of pieces of a file with this length.
fn max_pieces(file_size: Option<u64>) -> Result<usize, &'static str> {
    let Some(size) = file_size else { return Ok(limits::PIECES_WITHOUT_SIZE_MAX) };
    let geometry = Geometry::new(size).map_err(|_| "it is longer than a file can be")?;
    Ok(geometry.pieces().0 as usize)
}

/// The peers to which this node can connect: those with a key.
pub(super) fn connectable_peers(entries: &[PeerEntry]) -> Vec<NamedPeer> {
    let with_key = |entry: &PeerEntry| {
        let address = PeerAddress { address: entry.address(), key: entry.peer_key? };
        Some(NamedPeer { address, is_seeder: entry.complete })
    };
    entries.iter().filter_map(with_key).collect()
}

fn contradiction_fault(key: &GroupFile, what: &str) -> ClientFault {
    ClientFault::new(
        ExitCause::Protocol,
        make_printable(&format!("the tracker's description of {key} is refused: {what}")),
    )
    .fix("ask the uploader to remove the file and upload it again; `client doctor` shows the trackers")
}

#[cfg(test)]
mod tests {
    use engine::proto::hashes::Sha1List;
    use engine::proto::manifest::FileName;
    use engine::proto::ticket::{Grant, SecretKey, UnixSeconds};
    use tracker::api::GroupId;
    use tracker::api::hashes::{HashForm, HashList};

    use super::*;

    fn key() -> GroupFile {
        GroupFile { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() }
    }

    fn list<T>(values: Vec<T>) -> Option<HashList<T>> {
        Some(HashList { form: HashForm::Base64, values })
    }

    fn part(digests: u8, chain: u8) -> DownloadAnswer {
        DownloadAnswer {
            file_path: FileName::new("f").unwrap(),
            file_chunks: list((0..digests).map(|n| Digest([n; 20])).collect()).unwrap(),
            chunk_metadata: None,
            file_size: Some(4 * 524_288),
            file_sha: Some(Digest([9; 20]).to_string()),
            pieces_only: false,
            file_chain: list((0..chain).map(|n| ChainState([n; 20])).collect()),
            peers: Some(vec![]),
            ticket: Some(ticket()),
            server_time: 0,
            next: None,
        }
    }

    fn ticket() -> Ticket {
        let secret = SecretKey::from_seed(&[1; 32]);
        let grant = Grant {
            user: "u".into(),
            group: "g".into(),
            file_name: "f".into(),
            file_id: Digest([9; 20]),
            peer_key: secret.peer_key(),
            expires: UnixSeconds(1),
        };
        Ticket::sign(grant, &secret)
    }

    fn with_next(next: u32, part: DownloadAnswer) -> DownloadAnswer {
        DownloadAnswer { next: Some(next), ..part }
    }

    fn empty() -> PartialDescription {
        PartialDescription::new(Sha1ListBuilder::new(None), Sha1ListBuilder::new(None))
    }

    fn join(parts: Vec<DownloadAnswer>) -> Result<FileDescription, ClientFault> {
        let mut parts = parts.into_iter();
        super::join_parts(&key(), empty, |_| {
            Ok(parts.next().expect("parts are asked for one after the other"))
        })
    }

    #[test]
    fn parts_join_into_one_manifest() {
        let manifest = join(vec![with_next(2, part(2, 2)), part(2, 1)]).map(|found| found.manifest).unwrap();
        assert_eq!(manifest.pieces(), PieceCount(4));
        assert_eq!(manifest.chain().map(Sha1List::len), Some(3));
        let without = DownloadAnswer { file_chain: None, ..part(2, 0) };
        let manifest = join(vec![with_next(2, part(2, 2)), without]).map(|found| found.manifest).unwrap();
        assert_eq!(manifest.chain(), None, "a chain with gaps is dropped");
    }

    #[test]
    fn a_contradictory_description_is_refused() {
        let other_name = DownloadAnswer {
            file_path: FileName::new("../x".trim_start_matches("../")).unwrap(),
            ..part(4, 3)
        };
        let no_ticket = DownloadAnswer { ticket: None, ..part(4, 3) };
        let bad_sha = DownloadAnswer { file_sha: Some("x".into()), ..part(4, 3) };
        let no_real_ticket = DownloadAnswer { ticket: Some(Ticket(vec![1])), ..part(4, 3) };
        for parts in
            [vec![other_name], vec![no_ticket], vec![no_real_ticket], vec![bad_sha], vec![part(3, 2)]]
        {
            assert_eq!(join(parts).map(|_| ()).unwrap_err().exit, ExitCause::Protocol);
        }
    }

    #[test]
    fn parts_that_cannot_end_are_refused_at_once() {
        let unknown = |part| DownloadAnswer { file_size: None, ..part };
        for endless in [
            with_next(1, part(0, 0)),
            with_next(0, part(0, 0)),
            with_next(3, part(2, 2)),
            with_next(1, part(2, 2)),
            with_next(5, part(5, 4)),
            part(2, 3),
            with_next(4, DownloadAnswer { file_size: Some(u64::MAX), ..part(4, 3) }),
            with_next(1, unknown(part(0, 0))),
        ] {
            let DescribeError::Fault(refused) = empty().add(&key(), endless).unwrap_err() else { panic!() };
            assert_eq!(refused.exit, ExitCause::Protocol, "{refused}");
        }
    }

    fn replaced(part: DownloadAnswer) -> DownloadAnswer {
        DownloadAnswer { file_sha: Some(Digest([8; 20]).to_string()), ..part }
    }

    #[test]
    fn a_file_that_was_replaced_is_described_again() {
        let manifest =
            join(vec![with_next(2, part(2, 2)), replaced(part(2, 1)), part(4, 3)]).unwrap().manifest;
        assert_eq!((manifest.pieces(), manifest.proof().id()), (PieceCount(4), Digest([9; 20])));
        // The ticket is for the earlier content.
        let manifest = join(vec![replaced(part(4, 3)), part(4, 3)]).unwrap().manifest;
        assert_eq!(manifest.proof().id(), Digest([9; 20]));
        // The new file is so short that it has no second part.
        let mut asked = Vec::new();
        let short = super::join_parts(&key(), empty, |first| {
            asked.push(first.0);
            match asked.len() {
                1 => Ok(with_next(2, part(2, 2))),
                2 => Err(ClientFault::new(ExitCause::Usage, "there is no such piece")),
                _ => Ok(part(4, 3)),
            }
        });
        assert!(short.is_ok());
        assert_eq!(asked, [0, 2, 0]);
    }

    #[test]
    fn a_file_that_is_replaced_each_time_is_a_passing_fault() {
        let mut asked = 0;
        let given_up = super::join_parts(&key(), empty, |_| {
            asked += 1;
            Ok(replaced(part(4, 3)))
        });
        assert_eq!(given_up.map(|_| ()).unwrap_err().exit, ExitCause::Other);
        assert_eq!(asked, limits::DESCRIBE_ATTEMPTS);
    }

    #[test]
    fn the_number_of_pieces_is_limited_without_a_length_too() {
        let mut joined = empty();
        let mut parts = 0;
        let refused = loop {
            let first = joined.next.unwrap().0;
            let digests = list(vec![Digest([7; 20]); PIECES_PER_MESSAGE]).unwrap();
            let next = first + u32::try_from(PIECES_PER_MESSAGE).unwrap();
            let endless = DownloadAnswer {
                file_chunks: digests,
                file_chain: None,
                file_size: None,
                ..with_next(next, part(0, 0))
            };
            match joined.add(&key(), endless) {
                Ok(()) => parts += 1,
                Err(DescribeError::Fault(refused)) => break refused,
                Err(DescribeError::Changed) => panic!("it is the same file"),
            }
        };
        assert_eq!(refused.exit, ExitCause::Protocol);
        assert_eq!(parts * PIECES_PER_MESSAGE, limits::PIECES_WITHOUT_SIZE_MAX);
    }
}
