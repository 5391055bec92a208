//! Peers that together have those pieces of a very long file that are not zeros, and the upload of its manifest.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use engine::hash::{FileHasher, Hasher};
use engine::proto::bitfield::Bitfield;
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::geometry::Geometry;
use engine::proto::ticket::{self, Nonce, SecretKey};
use engine::proto::units::{PieceCount, PieceIndex, PieceRange};
use serde_json::{Value, json};

use crate::scripted::{RawClient, hex, receive, send};

const PIECE: usize = 524_288;

/// Pieces per message.
const PART: u32 = 65_536;

/// A file and its distribution over peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Pieces of the file.
    pub(crate) pieces: u32,
    /// Number of peers.
    pub(crate) peers: usize,
    /// Pieces of each peer that are not zeros.
    pub(crate) each: usize,
    /// The remaining pieces are not zeros, and no peer has them.
    pub(crate) dense: bool,
}

/// The peers, online as long as this value lives.
pub(crate) struct Swarm {
    _online: Vec<RawClient>,
}

impl Swarm {
    /// Uploads the manifest as user alice to group g, file f, and makes the peers announce their pieces. No peer has the last piece,
    /// so that no download completes.
    pub(crate) fn start(tracker: SocketAddr, shape: Shape) -> Swarm {
        let Shape { pieces, peers, each, .. } = shape;
        let total = u32::try_from(peers * each).unwrap();
        assert!(total < pieces, "{shape:?} leaves no piece without a peer");
        // Each piece is filled with one byte value; pieces that are not zeros are spread over the file.
        let places: Vec<(PieceIndex, u32)> =
            (0..total).map(|number| (PieceIndex(number * (pieces / total)), number + 1)).collect();
        let mut online = Vec::new();
        for (number, own) in places.chunks(each).enumerate() {
            let secret = SecretKey::from_seed(&[u8::try_from(number + 10).unwrap(); 32]);
            let own: BTreeMap<PieceIndex, u32> = own.iter().copied().collect();
            let ranges: Vec<[u32; 2]> = own.keys().map(|index| [index.0, index.0]).collect();
            let address = serve(own, pieces, secret.clone());
            let mut raw = RawClient::login(tracker, "alice", secret.peer_key());
            let sender = |mut request: Value| {
                request["sender_ip"] = "127.0.0.1".into();
                request["sender_port"] = address.port().into();
                request
            };
            let key = hex(&secret.peer_key().0);
            // States its address, so that the tracker counts the whole session as one node.
            let who = json!({"user_id": "alice", "passwd": "password", "peer_key": key});
            raw.ask(&sender(json!({"command": "login", "command_args": who})));
            if number == 0 {
                upload(&places, shape, |part| {
                    let mut part = sender(part);
                    part["command_args"]["peer_key"] = key.as_str().into();
                    raw.ask(&part);
                });
            } else {
                let view = json!({"group_id": "g", "file_name": "f", "view": "compact", "count": 1, "peer_key": key});
                raw.ask(&sender(json!({"command": "download_file", "command_args": view})));
                let gained = json!({"group_id": "g", "file_name": "f", "ranges": ranges});
                raw.ask(&sender(json!({"command": "update_pieces", "command_args": gained})));
            }
            online.push(raw);
        }
        Swarm { _online: online }
    }
}

/// Sends the manifest in parts. The chain is invalid: a download checks its links and then stops using it.
fn upload(places: &[(PieceIndex, u32)], shape: Shape, mut ask: impl FnMut(Value)) {
    let Shape { pieces: all, dense, .. } = shape;
    let hasher = FileHasher::new(Hasher::best(), Some(1)).unwrap();
    let digest = |content: &[u8]| {
        let Ok(hashes) = hasher.hash_file(Geometry::new(PIECE as u64).unwrap(), content, |_| {});
        hashes.digest.0
    };
    let zeros = digest(&vec![0; PIECE]);
    let others: BTreeMap<u32, [u8; 20]> =
        places.iter().map(|(index, number)| (index.0, digest(&filled(*number)))).collect();
    for first in (0..all).step_by(PART as usize) {
        let pieces = first..all.min(first + PART);
        let is_last = pieces.end == all;
        let rest = |index| if dense || index + 1 == all { twice(index) } else { zeros };
        let digests =
            pieces.clone().flat_map(|index| others.get(&index).copied().unwrap_or_else(|| rest(index)));
        let states = pieces.filter(|index| index + 1 < all).flat_map(|index| {
            let mut state = [3; 20];
            state[..4].copy_from_slice(&index.to_be_bytes());
            state
        });
        let base64 = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut request = json!({"command": "upload_file",
            "command_args": {"group_id": "g", "file_name": "f", "upload_id": "big", "first": first},
            "piecewise_sha": base64(digests.collect()), "file_chain": base64(states.collect())});
        if is_last {
            request["command_args"]["file_size"] = (u64::from(all) * PIECE as u64).into();
            request["fileSha"] = "07".repeat(20).into();
        } else {
            request["command_args"]["more"] = true.into();
        }
        ask(request);
    }
}

/// A digest shared by two pieces, without a known content.
fn twice(index: u32) -> [u8; 20] {
    let mut digest = [11; 20];
    digest[8..12].copy_from_slice(&(index / 2).to_be_bytes());
    digest[..4].copy_from_slice(&(index / 2).wrapping_mul(2_654_435_761).to_be_bytes());
    digest
}

fn filled(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(PIECE / 4)
}

/// Serves some pieces to every peer that connects, until the test ends.
fn serve(own: BTreeMap<PieceIndex, u32>, pieces: u32, secret: SecretKey) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let own = Arc::new(own);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (own, secret) = (Arc::clone(&own), secret.clone());
            // The thread ends with its connection.
            std::thread::spawn(move || serve_one(stream, &own, pieces, &secret));
        }
    });
    address
}

fn serve_one(
    mut stream: TcpStream,
    own: &BTreeMap<PieceIndex, u32>,
    pieces: u32,
    secret: &SecretKey,
) -> Option<()> {
    let nonce = Nonce([1; 32]);
    send(&mut stream, &Message::Greeting { version: PROTOCOL_VERSION, nonce, peer_key: secret.peer_key() })?;
    let Message::Open { nonce, .. } = receive(&mut stream)? else { return None };
    let mut held = Bitfield::empty(PieceCount(pieces));
    own.keys().for_each(|index| {
        held.insert(*index);
    });
    let signature = ticket::sign_opened(secret, nonce);
    let length = u64::from(pieces) * PIECE as u64;
    send(&mut stream, &Message::Opened { length, bitfield: held.to_bytes(), signature })?;
    loop {
        let Message::Request { first, count } = receive(&mut stream)? else { continue };
        for index in PieceRange::from_count(first, count)?.indices() {
            let content = filled(*own.get(&index)?);
            send(&mut stream, &Message::Piece { index, length: u32::try_from(PIECE).unwrap() })?;
            std::io::Write::write_all(&mut stream, &content).ok()?;
        }
    }
}
