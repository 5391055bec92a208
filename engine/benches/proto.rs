//! The pure core by itself: frames into bytes and back, and what a picker takes to choose the pieces of a file.
//!
//! `cargo bench -p engine --bench proto`. Both are on the path of every piece, and neither may be felt there.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use engine::proto::bitfield::Bitfield;
use engine::proto::codec;
use engine::proto::frame::Message;
use engine::proto::picker::{ConnectionId, PiecePicker};
use engine::proto::units::{PieceCount, PieceIndex};

/// Pieces of a file of 1 GiB, 32 GiB and 512 GiB.
const FILES: [u32; 3] = [1 << 11, 1 << 16, 1 << 20];

/// Pieces that a connection asks for at once.
const WINDOW: u32 = 64;

fn main() {
    divan::main();
}

/// The messages of a transfer's every piece.
fn messages() -> [Message; 3] {
    [
        Message::Request { first: PieceIndex(70_000), count: PieceCount(64) },
        Message::Piece { index: PieceIndex(70_000), length: 524_288 },
        Message::Cancel { first: PieceIndex(70_000), count: PieceCount(3) },
    ]
}

/// Messages into frames.
#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let messages = messages();
    bencher
        .counter(ItemsCount::new(messages.len()))
        .bench(|| black_box(&messages).each_ref().map(codec::encode_message));
}

/// Frames into messages.
#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let frames = messages().each_ref().map(codec::encode_message);
    bencher.counter(ItemsCount::new(frames.len())).bench(|| {
        black_box(&frames).each_ref().map(|frame| codec::decode_message(&frame[codec::LENGTH_BYTES..]))
    });
}

/// A whole file chosen from one provider that has all of it, window by window.
#[divan::bench(args = FILES)]
fn pick_all(bencher: Bencher<'_, '_>, pieces: u32) {
    let all = Bitfield::full(PieceCount(pieces));
    bencher.counter(ItemsCount::new(pieces)).with_inputs(|| PiecePicker::new(all.clone(), 1)).bench_refs(
        |picker| {
            let mut cursor = None;
            while !picker.pick(ConnectionId(0), &all, &mut cursor, None, WINDOW).is_empty() {}
        },
    );
}

/// One window chosen of a file that several leechers have parts of: the rarest first.
#[divan::bench(args = FILES)]
fn pick_rarest(bencher: Bencher<'_, '_>, pieces: u32) {
    let all = Bitfield::full(PieceCount(pieces));
    let mut partial = Bitfield::empty(PieceCount(pieces));
    let mut random = fastrand::Rng::with_seed(1);
    let mut picker = PiecePicker::new(all, 1);
    for index in 0..pieces {
        for _ in 0..random.u32(0..4) {
            partial.insert(PieceIndex(index));
            picker.add_partial_holder(PieceIndex(index));
        }
    }
    bencher.counter(ItemsCount::new(WINDOW)).bench_local(|| {
        let mut cursor = None;
        let picked = picker.pick(ConnectionId(0), black_box(&partial), &mut cursor, None, WINDOW);
        for index in &picked {
            picker.abandon(ConnectionId(0), *index);
        }
        picked
    });
}
