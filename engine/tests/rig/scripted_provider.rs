//! A scripted provider: real keys and frames, with the behaviour that a test gives it.
//!
//! Invariant: each connection runs the script from its start on a thread of its own; the listener ends with the provider.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, mpsc};

use engine::proto::action::PeerAddress;
use engine::proto::bitfield::Bitfield;
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::geometry::Geometry;
use engine::proto::ticket::{self, Nonce, SecretKey};
use engine::proto::units::PieceIndex;

use crate::PIECE;
use crate::rig::PATIENCE;
use crate::wire::Wire;

/// What the provider does on each connection.
type Script = dyn Fn(&ProviderScene, &mut Wire) -> io::Result<()> + Send + Sync;

/// A scripted provider, listening.
pub(crate) struct ScriptedProvider {
    /// Its address and key.
    pub(crate) peer: PeerAddress,
    listener: Arc<TcpListener>,
    misbehaved: mpsc::Receiver<()>,
}

/// What a script works with on one connection.
pub(crate) struct ProviderScene {
    /// The provider's key.
    pub(crate) secret: SecretKey,
    /// The file as it should be.
    pub(crate) content: Arc<Vec<u8>>,
    misbehaved: mpsc::Sender<()>,
}

impl ScriptedProvider {
    /// Starts a provider that runs `script` on each connection.
    pub(crate) fn start(
        content: &Arc<Vec<u8>>,
        script: impl Fn(&ProviderScene, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> ScriptedProvider {
        let secret = SecretKey::from_seed(&[66; 32]);
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let peer = PeerAddress { address: listener.local_addr().unwrap(), key: secret.peer_key() };
        let (mark_misbehaviour, misbehaved) = mpsc::channel();
        let script: Arc<Script> = Arc::new(script);
        let (accepting, content) = (Arc::clone(&listener), Arc::clone(content));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let scene = ProviderScene {
                    secret: secret.clone(),
                    content: Arc::clone(&content),
                    misbehaved: mark_misbehaviour.clone(),
                };
                let script = Arc::clone(&script);
                // A script ends with an error when the engine closes the connection.
                std::thread::spawn(move || drop(script(&scene, &mut Wire::new(stream))));
            }
        });
        ScriptedProvider { peer, listener, misbehaved }
    }

    /// Starts a provider that follows the protocol.
    pub(crate) fn honest(content: &Arc<Vec<u8>>) -> ScriptedProvider {
        ScriptedProvider::start(content, |scene, wire| {
            scene.serve(wire, |scene, wire, index| wire.piece(index, scene.bytes(index)))
        })
    }

    /// Starts a provider that follows the protocol; also returns the pieces requested of it. A request is repeated when its
    /// answer is late, so requests are not counted.
    pub(crate) fn recording(content: &Arc<Vec<u8>>) -> (ScriptedProvider, Arc<Mutex<BTreeSet<PieceIndex>>>) {
        let requested = Arc::new(Mutex::new(BTreeSet::new()));
        let recorded = Arc::clone(&requested);
        let provider = ScriptedProvider::start(content, move |scene, wire| {
            scene.serve(wire, |scene, wire, index| {
                recorded.lock().unwrap().insert(index);
                wire.piece(index, scene.bytes(index))
            })
        });
        (provider, requested)
    }

    /// Starts `count` providers that follow the protocol. None answers a request before each has received one.
    pub(crate) fn barrier(count: usize, content: &Arc<Vec<u8>>) -> Vec<ScriptedProvider> {
        let asked = Arc::new((Mutex::new(BTreeSet::new()), Condvar::new()));
        let one = |number: usize| {
            let asked = Arc::clone(&asked);
            ScriptedProvider::start(content, move |scene, wire| {
                scene.serve(wire, |scene, wire, index| {
                    let (requested, changed) = &*asked;
                    let mut requested = requested.lock().unwrap();
                    requested.insert(number);
                    changed.notify_all();
                    let all = changed
                        .wait_timeout_while(requested, PATIENCE, |numbers| numbers.len() < count)
                        .unwrap();
                    if all.1.timed_out() {
                        return Err(io::Error::other("one provider never received a request"));
                    }
                    drop(all);
                    wire.piece(index, scene.bytes(index))
                })
            })
        };
        (0..count).map(one).collect()
    }

    /// Waits until a script has called [`ProviderScene::mark_misbehaviour`].
    pub(crate) fn wait_for_misbehaviour(&self) {
        self.misbehaved.recv_timeout(PATIENCE).expect("the script never got as far as its misbehaviour");
    }
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        // Ends the accept that blocks.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
    }
}

impl ProviderScene {
    /// Reports that the misbehaviour has happened.
    pub(crate) fn mark_misbehaviour(&self) {
        // The test may be over.
        let _ = self.misbehaved.send(());
    }

    pub(crate) fn length(&self) -> u64 {
        self.content.len() as u64
    }

    pub(crate) fn full_bits(&self) -> Vec<u8> {
        Bitfield::full(Geometry::new(self.length()).unwrap().pieces()).to_bytes()
    }

    /// The right bytes of a piece.
    pub(crate) fn bytes(&self, index: PieceIndex) -> &[u8] {
        let start = index.as_usize() * PIECE;
        &self.content[start..(start + PIECE).min(self.content.len())]
    }

    /// Length of a piece.
    pub(crate) fn piece_len(&self, index: PieceIndex) -> u32 {
        u32::try_from(self.bytes(index).len()).unwrap()
    }

    /// The bytes of a piece, with one bit wrong.
    pub(crate) fn wrong_bytes(&self, index: PieceIndex) -> Vec<u8> {
        let mut bytes = self.bytes(index).to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    }

    /// Greets and waits for the `Open`; returns the nonce to sign.
    pub(crate) fn greet(&self, wire: &mut Wire) -> io::Result<Nonce> {
        let peer_key = self.secret.peer_key();
        wire.send(&Message::Greeting { version: PROTOCOL_VERSION, nonce: Nonce([1; 32]), peer_key })?;
        match wire.read()? {
            Message::Open { nonce, .. } => Ok(nonce),
            other => Err(io::Error::other(format!("{other:?} instead of an Open"))),
        }
    }

    /// Answers the `Open` with these claims and a right signature.
    pub(crate) fn claim(&self, wire: &mut Wire, length: u64, bitfield: Vec<u8>) -> io::Result<()> {
        let nonce = self.greet(wire)?;
        let signature = ticket::sign_opened(&self.secret, nonce);
        wire.send(&Message::Opened { length, bitfield, signature })
    }

    /// Opens the file with every piece.
    pub(crate) fn open(&self, wire: &mut Wire) -> io::Result<()> {
        self.claim(wire, self.length(), self.full_bits())
    }

    /// Opens the file, then calls `answer` for each requested piece until the engine leaves.
    pub(crate) fn serve(
        &self,
        wire: &mut Wire,
        answer: impl FnMut(&ProviderScene, &mut Wire, PieceIndex) -> io::Result<()>,
    ) -> io::Result<()> {
        self.open(wire)?;
        self.answer(wire, answer)
    }

    /// Calls `answer` for each requested piece until the engine leaves.
    pub(crate) fn answer(
        &self,
        wire: &mut Wire,
        mut answer: impl FnMut(&ProviderScene, &mut Wire, PieceIndex) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match wire.read()? {
                Message::Request { first, count } => {
                    for index in first.0..first.0 + count.0 {
                        answer(self, wire, PieceIndex(index))?;
                    }
                }
                Message::Bye { .. } => return Ok(()),
                // All requests are answered by now, so there is nothing to cancel.
                _ => {}
            }
        }
    }

    /// Reads and sends nothing until the engine leaves.
    pub(crate) fn be_silent(wire: &mut Wire) -> io::Result<()> {
        loop {
            wire.read()?;
        }
    }
}
