//! A file's description, from the trackers: in parts where it is long, checked before it is believed.

use std::sync::Arc;

use engine::proto::action::PeerAddress;
use engine::proto::manifest::{FileProof, Manifest};
use engine::proto::ticket::Ticket;
use engine::proto::units::{ChainState, Digest, PieceCount, PieceIndex};
use tracker::api::FileKey;
use tracker::api::answers::{DownloadAnswer, PeerEntry};
use tracker::api::limits::PIECES_PER_MESSAGE;
use tracker::api::request::{Command, Part, View};

use super::core::Core;
use super::trackers::Urgency;
use crate::exit::{Exit, Fault};

/// Everything that it takes to start fetching.
pub(super) struct Description {
    /// What the file is.
    pub(super) manifest: Arc<Manifest>,
    /// Who has it.
    pub(super) peers: Vec<PeerAddress>,
    /// The trackers' permission.
    pub(super) ticket: Ticket,
}

/// Asks the trackers what a file is, who has it, and for a ticket.
///
/// # Errors
/// Their refusal; exit 13 when what they say contradicts itself or names another file.
pub(super) fn describe(core: &Core, key: &FileKey) -> Result<Description, Fault> {
    let mut joined = Joined::default();
    let mut first = 0;
    loop {
        let answer = ask_part(core, key, PieceIndex(first))?;
        core.trackers.learn_time(answer.server_time);
        let next = answer.next;
        joined.add(key, answer)?;
        match next {
            None => return joined.finish(key),
            Some(next) if next > first => first = next,
            Some(_) => return Err(contradiction(key, "its parts do not go on")),
        }
    }
}

fn ask_part(core: &Core, key: &FileKey, first: PieceIndex) -> Result<DownloadAnswer, Fault> {
    let count = u32::try_from(PIECES_PER_MESSAGE).ok().map(PieceCount);
    let command = Command::DownloadFile {
        file: key.clone(),
        view: View::Compact,
        part: Part { first, count },
        peer_key: Some(core.peer.key()),
    };
    core.trackers.ask(command, Urgency::Asked).map(|(answer, _)| answer)
}

/// The parts so far.
#[derive(Default)]
struct Joined {
    digests: Vec<Digest>,
    chain: Option<Vec<ChainState>>,
    head: Option<Head>,
}

/// What every part says again.
struct Head {
    size: Option<u64>,
    sha: Option<String>,
    peers: Vec<PeerEntry>,
    ticket: Option<Ticket>,
}

impl Joined {
    fn add(&mut self, key: &FileKey, answer: DownloadAnswer) -> Result<(), Fault> {
        if answer.file_path != key.name {
            return Err(contradiction(key, "it is the description of another file"));
        }
        let head = Head {
            size: answer.file_size,
            sha: answer.file_sha,
            peers: answer.peers.unwrap_or_default(),
            ticket: answer.ticket,
        };
        match &self.head {
            None => self.chain = answer.file_chain.map(|list| list.values),
            Some(known) if known.sha == head.sha && known.size == head.size => {
                self.chain = self.chain.take().zip(answer.file_chain).map(|(mut chain, more)| {
                    chain.extend(more.values);
                    chain
                });
            }
            Some(_) => return Err(contradiction(key, "it became another file while it was described")),
        }
        self.head = Some(head);
        self.digests.extend(answer.file_chunks.values);
        Ok(())
    }

    fn finish(self, key: &FileKey) -> Result<Description, Fault> {
        let Some(head) = self.head else { return Err(contradiction(key, "it is empty")) };
        let proof = match &head.sha {
            Some(sha) => FileProof::Whole(sha.parse().map_err(|bad| contradiction(key, &format!("{bad}")))?),
            None => FileProof::of_pieces(&self.digests),
        };
        let manifest = Manifest::new(key.name.clone(), head.size, self.digests, proof, self.chain)
            .map_err(|bad| contradiction(key, &bad.to_string()))?;
        let ticket = head.ticket.ok_or_else(|| contradiction(key, "it comes without a ticket"))?;
        Ok(Description { manifest: Arc::new(manifest), peers: peers(&head.peers), ticket })
    }
}

/// The peers that can be fetched from: those with a key to prove who they are.
pub(super) fn peers(entries: &[PeerEntry]) -> Vec<PeerAddress> {
    let with_key = |entry: &PeerEntry| Some(PeerAddress { address: entry.address(), key: entry.peer_key? });
    entries.iter().filter_map(with_key).collect()
}

fn contradiction(key: &FileKey, what: &str) -> Fault {
    Fault::new(Exit::Protocol, format!("the tracker's description of {key} is refused: {what}"))
        .fix("ask the uploader to remove the file and upload it again; `client doctor` shows the trackers")
}

#[cfg(test)]
mod tests {
    use engine::proto::manifest::FileName;
    use tracker::api::GroupId;
    use tracker::api::hashes::{HashForm, HashList};

    use super::*;

    fn key() -> FileKey {
        FileKey { group: GroupId::new("g").unwrap(), name: FileName::new("f").unwrap() }
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
            ticket: Some(Ticket(vec![1])),
            server_time: 0,
            next: None,
        }
    }

    fn join(parts: Vec<DownloadAnswer>) -> Result<Description, Fault> {
        let mut joined = Joined::default();
        parts.into_iter().try_for_each(|part| joined.add(&key(), part))?;
        joined.finish(&key())
    }

    #[test]
    fn parts_join_into_one_manifest() {
        let manifest = join(vec![part(2, 2), part(2, 1)]).map(|found| found.manifest).unwrap();
        assert_eq!(manifest.pieces(), PieceCount(4));
        assert_eq!(manifest.chain().map(<[_]>::len), Some(3));
        let without = DownloadAnswer { file_chain: None, ..part(2, 0) };
        let manifest = join(vec![part(2, 2), without]).map(|found| found.manifest).unwrap();
        assert_eq!(manifest.chain(), None, "half a chain is none");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let other_name = DownloadAnswer {
            file_path: FileName::new("../x".trim_start_matches("../")).unwrap(),
            ..part(4, 3)
        };
        let other_sha = DownloadAnswer { file_sha: Some(Digest([8; 20]).to_string()), ..part(2, 1) };
        let no_ticket = DownloadAnswer { ticket: None, ..part(4, 3) };
        let bad_sha = DownloadAnswer { file_sha: Some("x".into()), ..part(4, 3) };
        for parts in
            [vec![other_name], vec![part(2, 2), other_sha], vec![no_ticket], vec![bad_sha], vec![part(3, 2)]]
        {
            assert_eq!(join(parts).map(|_| ()).unwrap_err().exit, Exit::Protocol);
        }
    }
}
