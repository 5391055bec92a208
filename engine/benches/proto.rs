//! The pure core: encoding and decoding of frames, and choosing the pieces of a file.
//!
//! `cargo bench -p engine --bench proto`. Both run for every piece, and must not be noticeable there.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use engine::proto::bitfield::Bitfield;
use engine::proto::codec;
use engine::proto::frame::Message;
use engine::proto::picker::{ConnectionId, PiecePicker};
use engine::proto::units::{PieceCount, PieceIndex};

/// Pieces of files of 1 GiB, 32 GiB and 512 GiB.
const FILES: [u32; 3] = [1 << 11, 1 << 16, 1 << 20];

/// Pieces that a connection requests at once.
const WINDOW: u32 = 64;

fn main() {
    divan::main();
}

/// Messages that are sent for every few pieces.
fn messages() -> [Message; 3] {
    [
        Message::Request { first: PieceIndex(70_000), count: PieceCount(64) },
        Message::Piece { index: PieceIndex(70_000), length: 524_288 },
        Message::Cancel { first: PieceIndex(70_000), count: PieceCount(3) },
    ]
}

/// Encodes frames.
#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let messages = messages();
    bencher
        .counter(ItemsCount::new(messages.len()))
        .bench(|| black_box(&messages).each_ref().map(codec::encode_message));
}

/// Decodes frames.
#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let frames = messages().each_ref().map(codec::encode_message);
    bencher.counter(ItemsCount::new(frames.len())).bench(|| {
        black_box(&frames).each_ref().map(|frame| codec::decode_message(&frame[codec::LENGTH_BYTES..]))
    });
}

/// Chooses a whole file from one complete holder, window by window.
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

/// Chooses one window from a partial holder: the rarest pieces first.
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
