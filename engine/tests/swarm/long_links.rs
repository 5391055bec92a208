//! Downloads over a long link: enough pieces are requested to keep it full.
//!
//! The time is printed beside that of a plain stream through the same relay and not asserted, since it depends on the machine.
//! `SHOAL_LINK_MIB` makes the file longer, for a meaningful figure.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use engine::proto::action::PeerAddress;

use super::PIECE;
use crate::relay::{LinkProfile, Relay};
use crate::rig::clock::Timer;
use crate::rig::{Node, back_ends, bytes, durable};

/// 1 Gbit/s with a round trip of 50 ms: 6.25 MB are in flight when it is full.
const LINK: LinkProfile = LinkProfile { delay: Duration::from_millis(25), rate: 125_000_000, gate_bytes: 0 };

/// Length of the file in MiB.
fn length_mib() -> usize {
    std::env::var("SHOAL_LINK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(32)
}

#[test]
fn a_download_fills_a_long_link() {
    // No piece arrives before enough bytes are in flight to fill the link.
    let link = LinkProfile { gate_bytes: LINK.product_bytes(), ..LINK };
    let content = bytes(length_mib() * 2 * PIECE, 3);
    let plain_s = time_plain_stream(&content);
    for io in back_ends() {
        let (seeder, leecher) = (Node::start(1, io), Node::start(2, io));
        let manifest = seeder.upload("f", &content);
        let relay = Relay::start(seeder.address().address, link);
        let download = leecher.fetch(&manifest, &[]);
        download.add_peers(&[PeerAddress { address: relay.address, key: seeder.address().key }]);
        let progress = durable(&download);
        assert!(std::fs::read(leecher.path("f")).unwrap() == content);
        assert!(relay.peak_bytes() >= link.product_bytes(), "{} bytes in flight", relay.peak_bytes());
        let proven_s = progress.proven_after.unwrap().as_secs_f64();
        eprintln!(
            "{io:?}: {proven_s:.2} s, a plain stream {plain_s:.2} s: {:.0} % of it; at most {} bytes in flight",
            100.0 * plain_s / proven_s,
            relay.peak_bytes()
        );
    }
}

/// Seconds that a plain stream of the content takes through such a relay.
fn time_plain_stream(content: &[u8]) -> f64 {
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let relay = Relay::start(server.local_addr().unwrap(), LINK);
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
