//! What every BitTorrent rival needs: a `.torrent` of the file (BEP 3) and a tracker for the announces.
//!
//! A thread of the harness answers the announces (BEP 23), so no rival needs an installed tracker or waits for one. A
//! leecher learns of the seeders and of the other leechers; a seeder learns of no peer, since all leechers connect to
//! it. Seeders serve the source file where it lies.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use engine::hash::Hasher;
use engine::proto::units::PIECE_BYTES;
use engine::storage::source::Source;

use crate::contender::{FetchSteps, ProgramContender, TransferTerms};
use crate::limits::{ANNOUNCE_INTERVAL_S, ANNOUNCE_MAX_BYTES, ANNOUNCE_TIMEOUT, HASH_BATCH_PIECES};
use crate::topology::spawned::SpawnedProgram;

/// A torrent of the file, and the ports on which its peers listen.
pub(super) struct TorrentSwarm {
    pub(super) file: PathBuf,
    /// One for each source.
    pub(super) seeders: Vec<u16>,
    /// One for each receiver.
    pub(super) leechers: Vec<u16>,
}

impl TorrentSwarm {
    /// Hashes the file. Announces are answered from now until the harness ends.
    pub(super) fn create(terms: &TransferTerms, name: &str) -> anyhow::Result<TorrentSwarm> {
        let mut seeders = super::ports::free_ports(terms.seeders + terms.leechers)?;
        let leechers = seeders.split_off(terms.seeders);
        let known = AnnouncedPorts { seeders: seeders.clone(), leechers: leechers.clone() };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let announce = format!("http://{}/announce", listener.local_addr()?);
        std::thread::Builder::new().name(format!("announces for {name}")).spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that has closed its connection announces again.
                let _ = answer_announce(socket, &known);
            }
        })?;
        let file = terms.folder.join(format!("{name}.torrent"));
        std::fs::write(&file, build_metainfo(terms, &announce)?)?;
        Ok(TorrentSwarm { file, seeders, leechers })
    }

    /// Starts the seeders and makes a contender. `seed` starts a seeder of a folder at a port. `fetch` makes the
    /// command of a leecher, given its number and the folder for its copy.
    pub(super) fn into_contender(
        self,
        kind: &str,
        terms: &TransferTerms,
        seed: impl Fn(&TorrentSwarm, &Path, u16) -> anyhow::Result<SpawnedProgram>,
        fetch: impl Fn(&TorrentSwarm, usize, &Path) -> Command + 'static,
    ) -> anyhow::Result<ProgramContender> {
        let source = &terms.file.path;
        let (folder, name) = source.parent().zip(source.file_name()).context("the file lies in a folder")?;
        let name = name.to_owned();
        let seeders = self.seeders.iter().map(|port| seed(&self, folder, *port));
        let seeders = seeders.collect::<anyhow::Result<Vec<_>>>()?;
        let steps = move |number: usize, into: &Path| {
            let command = fetch(&self, number, into);
            FetchSteps { commands: vec![command], copy: Some(into.join(&name)) }
        };
        Ok(ProgramContender::new(kind, terms, seeders, steps).into_swarm())
    }
}

/// The contents of the `.torrent` file.
fn build_metainfo(terms: &TransferTerms, announce: &str) -> anyhow::Result<Vec<u8>> {
    let source = Source::open(&terms.file.path)?;
    let mut digests = Vec::new();
    let step = HASH_BATCH_PIECES as u64 * u64::from(PIECE_BYTES);
    for start in (0..source.length()).step_by(usize::try_from(step)?) {
        let end = (start + step).min(source.length());
        let hashed = source.with_bytes(start..end, |bytes| {
            let pieces: Vec<&[u8]> = bytes.chunks(PIECE_BYTES as usize).collect();
            Hasher::best().digest_many(&pieces)
        });
        let hashed = hashed.map_err(|changed| anyhow::anyhow!("{changed:?}"))?;
        digests.extend(hashed.iter().flat_map(|digest| digest.0));
    }
    let name =
        terms.file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(encode_metainfo(announce, &name, source.length(), &digests))
}

/// A metainfo dictionary (BEP 3); its keys are sorted.
fn encode_metainfo(announce: &str, name: &str, length: u64, digests: &[u8]) -> Vec<u8> {
    let text = |text: &str| format!("{}:{text}", text.len());
    let mut bytes = format!(
        "d8:announce{}4:infod6:lengthi{length}e4:name{}12:piece lengthi{PIECE_BYTES}e6:pieces{}:",
        text(announce),
        text(name),
        digests.len()
    )
    .into_bytes();
    bytes.extend_from_slice(digests);
    bytes.extend_from_slice(b"ee");
    bytes
}

/// The ports of all peers.
struct AnnouncedPorts {
    seeders: Vec<u16>,
    leechers: Vec<u16>,
}

impl AnnouncedPorts {
    /// The ports that the sender of this announce learns.
    fn peers_for(&self, request: &[u8]) -> Vec<u16> {
        match announced_port(request) {
            Some(port) if self.seeders.contains(&port) => Vec::new(),
            own => {
                let all = self.seeders.iter().chain(&self.leechers).copied();
                all.filter(|port| Some(*port) != own).collect()
            }
        }
    }
}

/// The port in an announce (BEP 3).
fn announced_port(request: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(request.split(|byte| *byte == b'\r').next()?).ok()?;
    let (_, query) = line.split_whitespace().nth(1)?.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("port=")?.parse().ok())
}

/// A response with six bytes for each peer (BEP 23).
fn encode_answer(peers: &[u16]) -> Vec<u8> {
    let mut body = format!("d8:intervali{ANNOUNCE_INTERVAL_S}e5:peers{}:", 6 * peers.len()).into_bytes();
    for port in peers {
        body.extend([127, 0, 0, 1]);
        body.extend(port.to_be_bytes());
    }
    body.push(b'e');
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    answer
}

fn answer_announce(mut socket: TcpStream, known: &AnnouncedPorts) -> std::io::Result<()> {
    socket.set_read_timeout(Some(ANNOUNCE_TIMEOUT))?;
    let mut request = Vec::new();
    let mut part = [0; 1_024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < ANNOUNCE_MAX_BYTES {
        match socket.read(&mut part)? {
            0 => break,
            count => request.extend_from_slice(&part[..count]),
        }
    }
    socket.write_all(&encode_answer(&known.peers_for(&request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leechers_learn_of_all_peers_but_themselves() {
        let known = AnnouncedPorts { seeders: vec![1, 2], leechers: vec![7, 8] };
        let asks =
            |port: u16| format!("GET /announce?info_hash=%01&port={port}&left=5 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(known.peers_for(asks(7).as_bytes()), [1, 2, 8]);
        assert_eq!(known.peers_for(asks(8).as_bytes()), [1, 2, 7]);
        assert!(known.peers_for(asks(2).as_bytes()).is_empty());
        assert_eq!(known.peers_for(b"GET /announce HTTP/1.1\r\n"), [1, 2, 7, 8]);
    }

    #[test]
    fn a_torrent_and_an_answer_are_bencoded() {
        let torrent = encode_metainfo("http://a/", "f", 5, b"01234567890123456789");
        let wanted = "d8:announce9:http://a/4:infod6:lengthi5e4:name1:f12:piece lengthi524288e6:pieces20:01234567890123456789ee";
        assert_eq!(String::from_utf8(torrent).unwrap(), wanted);
        let answer = encode_answer(&[258]);
        assert!(answer.ends_with(b"d8:intervali60e5:peers6:\x7f\0\0\x01\x01\x02e"));
        assert!(String::from_utf8_lossy(&answer).contains("Content-Length: 31\r\n"), "{}", answer.len());
    }
}
