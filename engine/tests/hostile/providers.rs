//! A real leecher against providers that misbehave: alone, the download reports what it waits for; with an honest seeder
//! beside them, the file arrives whole.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::config::IoChoice;
use engine::proto::codec;
use engine::proto::frame::{Message, PROTOCOL_VERSION, RejectCode, WireRange};
use engine::proto::limits::HAVE_MAX_RANGES;
use engine::proto::ticket::{self, Nonce, SecretKey};
use engine::proto::units::{PIECE_BYTES, PieceIndex};
use engine::stats::{DownloadPhase, SuspectPeer, WaitReason};

use crate::PIECE;
use crate::rig::{Node, back_ends, bytes, durable, wait_for};
use crate::scripted_provider::{ProviderScene, ScriptedProvider};
use crate::wire::{Wire, assert_no_worker_panicked, watch_workers};

/// Pieces of the file: the last byte of its bit field has unused bits, and the last piece is short.
const PIECES: u32 = 21;

/// Time between two bytes of a slow provider.
const BYTE_EVERY: Duration = Duration::from_millis(50);

/// Whether the phase is right while the misbehaving provider is the only peer.
type PhaseCheck = fn(&DownloadPhase) -> bool;

fn ticket_missing(phase: &DownloadPhase) -> bool {
    matches!(phase, DownloadPhase::Waiting(WaitReason::Ticket))
}

fn no_peers(phase: &DownloadPhase) -> bool {
    matches!(phase, DownloadPhase::Waiting(WaitReason::NoPeers { .. }))
}

fn source_changed(phase: &DownloadPhase) -> bool {
    matches!(phase, DownloadPhase::Waiting(WaitReason::SourceChanged { .. }))
}

fn bad_pieces(phase: &DownloadPhase) -> bool {
    matches!(phase, DownloadPhase::Waiting(WaitReason::BadPieces { .. }))
}

/// A slow provider may keep the download in any phase.
fn any_phase(_: &DownloadPhase) -> bool {
    true
}

fn content() -> Arc<Vec<u8>> {
    Arc::new(bytes(PIECES as usize * PIECE - 77, 21))
}

/// Runs a misbehaving provider alone, then with an honest seeder; with both back ends. `blamed`: it has to be reported.
fn survive(
    alone: PhaseCheck,
    blamed: bool,
    script: impl Fn(&ProviderScene, &mut Wire) -> io::Result<()> + Clone + Send + Sync + 'static,
) {
    watch_workers();
    let content = content();
    for io in back_ends() {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        let manifest = seeder.upload("f", &content);
        let provider = ScriptedProvider::start(&content, script.clone());
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[provider.peer]);
        provider.wait_for_misbehaviour();
        wait_for(&download, |progress| alone(&progress.phase));
        download.add_peers(&[seeder.address()]);
        let progress = durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == *content, "the file is whole");
        assert_eq!(progress.sequential_passes, 0, "a good chain proves the file");
        let suspects: Vec<_> = download.take_suspects().iter().map(|suspect| suspect.address).collect();
        assert_eq!(suspects, if blamed { vec![provider.peer.address] } else { Vec::new() });
        assert_no_worker_panicked();
    }
}

/// As [`survive`], with a provider that opens the file and then answers each request by `answer`.
fn survive_answers(
    alone: PhaseCheck,
    blamed: bool,
    answer: impl Fn(&ProviderScene, &mut Wire, PieceIndex) -> io::Result<()> + Clone + Send + Sync + 'static,
) {
    survive(alone, blamed, move |scene, wire| scene.serve(wire, &answer));
}

#[test]
fn wrong_bytes() {
    survive_answers(bad_pieces, true, |scene, wire, index| {
        scene.mark_misbehaviour();
        wire.piece(index, &scene.wrong_bytes(index))
    });
}

#[test]
fn wrong_bytes_and_a_hangup_before_they_are_hashed() {
    survive_answers(bad_pieces, true, |scene, wire, index| {
        scene.mark_misbehaviour();
        wire.piece(index, &scene.wrong_bytes(index))?;
        Err(io::Error::other("hangs up"))
    });
}

#[test]
fn wrong_bytes_followed_by_a_piece_of_four_gigabytes() {
    survive(bad_pieces, true, |scene, wire| {
        scene.open(wire)?;
        let Message::Request { first, .. } = wire.read()? else { return Ok(()) };
        wire.piece(first, &scene.wrong_bytes(first))?;
        scene.mark_misbehaviour();
        // The engine may have closed the connection; otherwise it must refuse this length.
        wire.send(&Message::Piece { index: first, length: u32::MAX })?;
        ProviderScene::be_silent(wire)
    });
}

#[test]
fn the_bytes_of_another_piece() {
    survive_answers(bad_pieces, true, |scene, wire, index| {
        scene.mark_misbehaviour();
        let other = PieceIndex(if index.0 == 0 { 1 } else { 0 });
        wire.piece(index, &scene.bytes(other)[..scene.bytes(index).len()])
    });
}

#[test]
fn an_unrequested_piece() {
    survive(no_peers, false, |scene, wire| {
        scene.open(wire)?;
        let index = PieceIndex(0);
        scene.mark_misbehaviour();
        // Sent before the first request, and once more.
        wire.piece(index, scene.bytes(index))?;
        wire.piece(index, scene.bytes(index))?;
        ProviderScene::be_silent(wire)
    });
}

#[test]
fn a_piece_past_the_end() {
    survive_answers(no_peers, false, |scene, wire, _| {
        scene.mark_misbehaviour();
        wire.piece(PieceIndex(PIECES), scene.bytes(PieceIndex(0)))
    });
}

#[test]
fn pieces_of_wrong_lengths() {
    for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES + 1, u32::MAX] {
        survive_answers(no_peers, false, move |scene, wire, index| {
            wire.send(&Message::Piece { index, length })?;
            scene.mark_misbehaviour();
            wire.raw(&scene.content[..PIECE])
        });
    }
}

#[test]
fn silence_after_opening() {
    survive(no_peers, false, |scene, wire| {
        scene.open(wire)?;
        scene.mark_misbehaviour();
        ProviderScene::be_silent(wire)
    });
}

#[test]
fn silence_in_the_middle_of_a_piece() {
    survive(no_peers, false, |scene, wire| {
        scene.serve(wire, |scene, wire, index| {
            wire.send(&Message::Piece { index, length: scene.piece_len(index) })?;
            wire.raw(&scene.bytes(index)[..1_000])?;
            scene.mark_misbehaviour();
            ProviderScene::be_silent(wire)
        })
    });
}

#[test]
fn a_hangup_in_the_middle_of_a_piece() {
    survive_answers(no_peers, false, |scene, wire, index| {
        wire.send(&Message::Piece { index, length: scene.piece_len(index) })?;
        wire.raw(&scene.bytes(index)[..PIECE / 3])?;
        scene.mark_misbehaviour();
        Err(io::Error::other("hangs up"))
    });
}

#[test]
fn a_hangup_before_during_and_after_the_greeting() {
    let greeting = |scene: &ProviderScene| {
        let peer_key = scene.secret.peer_key();
        codec::encode_message(&Message::Greeting {
            version: PROTOCOL_VERSION,
            nonce: Nonce([1; 32]),
            peer_key,
        })
    };
    for part in [0, 3, 4, 20, 69] {
        survive(no_peers, false, move |scene, wire| {
            scene.mark_misbehaviour();
            wire.raw(&greeting(scene)[..part])
        });
    }
    survive(no_peers, false, |scene, wire| {
        scene.greet(wire)?;
        scene.mark_misbehaviour();
        Ok(())
    });
}

#[test]
fn a_key_other_than_the_trackers() {
    survive(no_peers, false, |scene, wire| {
        let impostor = SecretKey::from_seed(&[67; 32]);
        let peer_key = impostor.peer_key();
        wire.send(&Message::Greeting { version: PROTOCOL_VERSION, nonce: Nonce([1; 32]), peer_key })?;
        scene.mark_misbehaviour();
        assert!(wire.read().is_err(), "an `Open` was signed for another key");
        Ok(())
    });
}

#[test]
fn signatures_by_other_keys_or_of_other_nonces() {
    for (by, over) in [(67, None), (66, Some(Nonce([9; 32])))] {
        survive(no_peers, false, move |scene, wire| {
            let nonce = scene.greet(wire)?;
            let key = SecretKey::from_seed(&[by; 32]);
            let signature = ticket::sign_opened(&key, over.unwrap_or(nonce));
            scene.mark_misbehaviour();
            wire.send(&Message::Opened { length: scene.length(), bitfield: scene.full_bits(), signature })?;
            ProviderScene::be_silent(wire)
        });
    }
}

#[test]
fn another_version_of_the_protocol() {
    survive(no_peers, false, |scene, wire| {
        let peer_key = scene.secret.peer_key();
        wire.send(&Message::Greeting { version: PROTOCOL_VERSION + 1, nonce: Nonce([1; 32]), peer_key })?;
        scene.mark_misbehaviour();
        ProviderScene::be_silent(wire)
    });
}

#[test]
fn a_file_of_another_length() {
    let right = content().len() as u64;
    for wrong in [0, 1, right - 1, right + 1, right + PIECE as u64, u64::MAX] {
        survive(no_peers, false, move |scene, wire| {
            scene.mark_misbehaviour();
            scene.claim(wire, wrong, scene.full_bits())?;
            ProviderScene::be_silent(wire)
        });
    }
}

#[test]
fn bit_fields_that_do_not_fit() {
    for wrong in [vec![0xFF; 3], vec![0xFF; 2], vec![0; 4], vec![], vec![0xFF; 3_000_000]] {
        survive(no_peers, false, move |scene, wire| {
            scene.mark_misbehaviour();
            scene.claim(wire, scene.length(), wrong.clone())?;
            ProviderScene::be_silent(wire)
        });
    }
}

#[test]
fn announcements_past_the_end_or_backwards_or_twice() {
    let again = vec![(0, PIECES - 2); HAVE_MAX_RANGES];
    for runs in [vec![(0, PIECES)], vec![(u32::MAX, u32::MAX)], vec![(5, 4)], vec![(3, 4), (0, 1)], again] {
        let wire_range = |(first, last)| WireRange { first, last };
        let ranges: Vec<WireRange> = runs.into_iter().map(wire_range).collect();
        survive(no_peers, false, move |scene, wire| {
            scene.open(wire)?;
            scene.mark_misbehaviour();
            wire.send(&Message::Have { ranges: ranges.clone() })?;
            ProviderScene::be_silent(wire)
        });
    }
}

#[test]
fn a_cancelled_answer_without_a_cancel() {
    survive_answers(no_peers, false, |scene, wire, index| {
        scene.mark_misbehaviour();
        wire.send(&Message::Reject { index, code: RejectCode::Cancelled })
    });
}

#[test]
fn rejections_of_everything() {
    let codes = [
        (RejectCode::NotHeld, no_peers as PhaseCheck),
        (RejectCode::Busy, no_peers),
        (RejectCode::SourceChanged, source_changed),
        (RejectCode::Expired, ticket_missing),
    ];
    for (code, waits) in codes {
        survive_answers(waits, false, move |scene, wire, index| {
            scene.mark_misbehaviour();
            wire.send(&Message::Reject { index, code })
        });
    }
}

#[test]
fn a_piece_that_is_rejected_and_announced_again() {
    survive_answers(any_phase, false, |scene, wire, index| {
        scene.mark_misbehaviour();
        wire.send(&Message::Reject { index, code: RejectCode::NotHeld })?;
        wire.send(&Message::Have { ranges: vec![WireRange { first: index.0, last: index.0 }] })
    });
}

#[test]
fn a_rejection_of_an_unrequested_piece() {
    survive(no_peers, false, |scene, wire| {
        scene.open(wire)?;
        scene.mark_misbehaviour();
        wire.send(&Message::Reject { index: PieceIndex(u32::MAX), code: RejectCode::NotHeld })?;
        ProviderScene::be_silent(wire)
    });
}

#[test]
fn frames_that_claim_gigabytes() {
    for when_open in [false, true] {
        survive(no_peers, false, move |scene, wire| {
            if when_open {
                scene.open(wire)?;
            }
            scene.mark_misbehaviour();
            wire.raw(&u32::MAX.to_le_bytes())?;
            ProviderScene::be_silent(wire)
        });
    }
}

#[test]
fn garbage_and_messages_out_of_turn() {
    let garbage = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        [4u32.to_le_bytes().to_vec(), vec![0xFF; 4]].concat(),
        vec![0; 64],
        codec::encode_message(&Message::Prove { nonce: Nonce([3; 32]), address: String::new() }),
    ];
    for garbage in garbage {
        for when_open in [false, true] {
            let garbage = garbage.clone();
            survive(no_peers, false, move |scene, wire| {
                if when_open {
                    scene.open(wire)?;
                }
                scene.mark_misbehaviour();
                wire.raw(&garbage)?;
                // Else the engine would wait for a claimed length.
                wire.half_close();
                ProviderScene::be_silent(wire)
            });
        }
    }
}

#[test]
fn bytes_that_arrive_one_by_one() {
    survive(any_phase, false, |scene, wire| {
        let (_sender, pause) = mpsc::channel::<()>();
        scene.serve(wire, |scene, wire, index| {
            wire.send(&Message::Piece { index, length: scene.piece_len(index) })?;
            for byte in scene.bytes(index) {
                wire.raw(std::slice::from_ref(byte))?;
                scene.mark_misbehaviour();
                // The channel stays empty: this waits without a sleep.
                let _ = pause.recv_timeout(BYTE_EVERY);
            }
            Ok(())
        })
    });
}

#[test]
fn one_wrong_piece_is_fetched_again_and_forgiven() {
    let content = content();
    let (uploader, leecher) = (Node::start(1, IoChoice::Auto), Node::start(2, IoChoice::Auto));
    let manifest = uploader.upload("f", &content);
    let has_lied = AtomicBool::new(false);
    let provider = ScriptedProvider::start(&content, move |scene, wire| {
        scene.open(wire)?;
        loop {
            let (first, count) = match wire.read()? {
                Message::Request { first, count } => (first.0, count.0),
                Message::Bye { .. } => return Ok(()),
                _ => continue,
            };
            for index in (first..first + count).map(PieceIndex) {
                let wrong = !has_lied.swap(true, Ordering::SeqCst);
                let bytes = if wrong { scene.wrong_bytes(index) } else { scene.bytes(index).to_vec() };
                wire.piece(index, &bytes)?;
            }
        }
    });
    let download = leecher.fetch(&manifest, &[]);
    // The only peer.
    download.add_peers(&[provider.peer]);
    durable(&download);
    assert!(std::fs::read(leecher.path("f")).unwrap() == *content);
    assert_eq!(download.take_suspects(), Vec::<SuspectPeer>::new(), "a peer was blamed for one wrong piece");
}
