//! Downloads over a long link: what is asked for is enough to keep it full.
//!
//! What a link is used for in time is said beside a bare stream through the same relay, and not asserted: that is the
//! machine's as much as the engine's. `SHOAL_LINK_MIB` makes the file longer, for a figure that means something.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use engine::proto::action::PeerAddress;

use super::PIECE;
use crate::relay::{Line, Relay};
use crate::rig::clock::Timer;
use crate::rig::{Node, back_ends, bytes, durable};

/// 1 Gbit/s with a round trip of 50 ms: 6.25 MB are under way while it is full.
const LINE: Line = Line { delay: Duration::from_millis(25), rate: 125_000_000, gate_bytes: 0 };

/// Of the file, in MiB.
fn length_mib() -> usize {
    std::env::var("SHOAL_LINK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(32)
}

#[test]
fn a_download_has_the_whole_of_a_long_link_under_way() {
    // No piece arrives before so much is under way that the link is full.
    let line = Line { gate_bytes: LINE.product_bytes(), ..LINE };
    let content = bytes(length_mib() * 2 * PIECE, 3);
    let pump_s = pump(&content);
    for io in back_ends() {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        let manifest = seeder.upload("f", &content);
        let relay = Relay::start(seeder.address().address, line);
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[PeerAddress { address: relay.address, key: seeder.address().key }]);
        let progress = durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == content);
        assert!(relay.peak_bytes() >= line.product_bytes(), "{} bytes under way", relay.peak_bytes());
        let proven_s = progress.proven_after.unwrap().as_secs_f64();
        eprintln!(
            "{io:?}: {proven_s:.2} s, a bare stream {pump_s:.2} s: {:.0} % of it; at most {} bytes under way",
            100.0 * pump_s / proven_s,
            relay.peak_bytes()
        );
    }
}

/// Seconds for a bare stream of the content through such a relay.
fn pump(content: &[u8]) -> f64 {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let relay = Relay::start(server.local_addr().unwrap(), LINE);
    std::thread::scope(|scope| {
        scope.spawn(|| server.accept().unwrap().0.write_all(content).unwrap());
        let timer = Timer::start();
        let mut stream = TcpStream::connect(relay.address).unwrap();
        let (mut buffer, mut got) = (vec![0; PIECE], 0);
        while got < content.len() {
            match stream.read(&mut buffer).unwrap() {
                0 => panic!("the stream ended after {got} bytes"),
                count => got += count,
            }
        }
        timer.now().as_secs_f64()
    })
}
