//! A scripted provider: real keys, real frames, and whatever behaviour a test gives it.
//!
//! Invariant: each connection gets the script afresh on a thread of its own; the listener ends with the liar.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(dead_code, reason = "each test program needs another part of it")]

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

/// What a liar does on each connection.
type Script = dyn Fn(&Scene, &mut Wire) -> io::Result<()> + Send + Sync;

/// A scripted provider, listening.
pub(crate) struct Liar {
    /// Where, and under which key.
    pub(crate) peer: PeerAddress,
    listener: Arc<TcpListener>,
    struck: mpsc::Receiver<()>,
}

/// What a script works with.
pub(crate) struct Scene {
    /// Its key.
    pub(crate) secret: SecretKey,
    /// The file as it should be.
    pub(crate) content: Arc<Vec<u8>>,
    struck: mpsc::Sender<()>,
}

impl Liar {
    /// Starts one that follows `script`.
    pub(crate) fn start(
        content: &Arc<Vec<u8>>,
        script: impl Fn(&Scene, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> Liar {
        let secret = SecretKey::from_seed(&[66; 32]);
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let peer = PeerAddress { address: listener.local_addr().unwrap(), key: secret.peer_key() };
        let (tell, struck) = mpsc::channel();
        let script: Arc<Script> = Arc::new(script);
        let (accepting, content) = (Arc::clone(&listener), Arc::clone(content));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let scene =
                    Scene { secret: secret.clone(), content: Arc::clone(&content), struck: tell.clone() };
                let script = Arc::clone(&script);
                // A script ends by an error when the engine has had enough of it.
                std::thread::spawn(move || drop(script(&scene, &mut Wire::new(stream))));
            }
        });
        Liar { peer, listener, struck }
    }

    /// One that behaves.
    pub(crate) fn honest(content: &Arc<Vec<u8>>) -> Liar {
        Liar::start(content, |scene, wire| {
            scene.serve(wire, |scene, wire, index| wire.piece(index, scene.bytes(index)))
        })
    }

    /// One that behaves, and the pieces that it was asked for. How often does not count: a request is repeated when its answer is
    /// late.
    pub(crate) fn noting(content: &Arc<Vec<u8>>) -> (Liar, Arc<Mutex<BTreeSet<PieceIndex>>>) {
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&asked);
        let liar = Liar::start(content, move |scene, wire| {
            scene.serve(wire, |scene, wire, index| {
                noted.lock().unwrap().insert(index);
                wire.piece(index, scene.bytes(index))
            })
        });
        (liar, asked)
    }

    /// So many that behave, of whom nobody answers a request before all of them have been sent one.
    pub(crate) fn together(count: usize, content: &Arc<Vec<u8>>) -> Vec<Liar> {
        let asked = Arc::new((Mutex::new(BTreeSet::new()), Condvar::new()));
        let one = |number: usize| {
            let asked = Arc::clone(&asked);
            Liar::start(content, move |scene, wire| {
                scene.serve(wire, |scene, wire, index| {
                    let (who, more) = &*asked;
                    let mut who = who.lock().unwrap();
                    who.insert(number);
                    more.notify_all();
                    let all = more.wait_timeout_while(who, PATIENCE, |who| who.len() < count).unwrap();
                    if all.1.timed_out() {
                        return Err(io::Error::other("somebody was never asked"));
                    }
                    drop(all);
                    wire.piece(index, scene.bytes(index))
                })
            })
        };
        (0..count).map(one).collect()
    }

    /// Waits until it has done what it is there for.
    pub(crate) fn wait_for_strike(&self) {
        self.struck.recv_timeout(PATIENCE).expect("the liar was never given the chance");
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        // Ends the accept that is under way.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
    }
}

impl Scene {
    /// Notes that the misbehaviour has happened.
    pub(crate) fn strike(&self) {
        // The test may be over.
        let _ = self.struck.send(());
    }

    pub(crate) fn length(&self) -> u64 {
        self.content.len() as u64
    }

    pub(crate) fn full_bits(&self) -> Vec<u8> {
        Bitfield::full(Geometry::new(self.length()).unwrap().pieces()).to_bytes()
    }

    /// The bytes of a piece as they should be.
    pub(crate) fn bytes(&self, index: PieceIndex) -> &[u8] {
        let start = index.as_usize() * PIECE;
        &self.content[start..(start + PIECE).min(self.content.len())]
    }

    /// Their number.
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

    /// Greets as it should and waits for the `OpenConnection`; the nonce to sign.
    pub(crate) fn greet(&self, wire: &mut Wire) -> io::Result<Nonce> {
        let peer_key = self.secret.peer_key();
        wire.send(&Message::Greeting { version: PROTOCOL_VERSION, nonce: Nonce([1; 32]), peer_key })?;
        match wire.read()? {
            Message::Open { nonce, .. } => Ok(nonce),
            other => Err(io::Error::other(format!("{other:?} instead of an Open"))),
        }
    }

    /// Answers the `OpenConnection` with these claims, signed as it should be.
    pub(crate) fn claim(&self, wire: &mut Wire, length: u64, bitfield: Vec<u8>) -> io::Result<()> {
        let nonce = self.greet(wire)?;
        let signature = ticket::sign_opened(&self.secret, nonce);
        wire.send(&Message::Opened { length, bitfield, signature })
    }

    /// Opens as it should, with every piece.
    pub(crate) fn open(&self, wire: &mut Wire) -> io::Result<()> {
        self.claim(wire, self.length(), self.full_bits())
    }

    /// Opens, then calls `answer` for each requested piece until the engine goes.
    pub(crate) fn serve(
        &self,
        wire: &mut Wire,
        answer: impl FnMut(&Scene, &mut Wire, PieceIndex) -> io::Result<()>,
    ) -> io::Result<()> {
        self.open(wire)?;
        self.answer(wire, answer)
    }

    /// Calls `answer` for each requested piece until the engine goes.
    pub(crate) fn answer(
        &self,
        wire: &mut Wire,
        mut answer: impl FnMut(&Scene, &mut Wire, PieceIndex) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match wire.read()? {
                Message::Request { first, count } => {
                    for index in first.0..first.0 + count.0 {
                        answer(self, wire, PieceIndex(index))?;
                    }
                }
                Message::Bye { .. } => return Ok(()),
                // Whatever was asked for has been answered by now, so that there is nothing to cancel.
                _ => {}
            }
        }
    }

    /// Takes what comes and says nothing, until the engine goes.
    pub(crate) fn be_silent(wire: &mut Wire) -> io::Result<()> {
        loop {
            wire.read()?;
        }
    }
}
