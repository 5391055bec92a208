//! Which peers get zero-copy sends, within which budget and for how long; then real sends over loopback, which copies.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream as StdStream};

use super::super::stream::PeerStream;
use super::*;
use crate::mem::mapping::Mapping;
use crate::mem::window::MappedWindow;

const PIECE: u64 = PIECE_BYTES as u64;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn zero_copy(choice: ZeroCopyChoice, pieces: u64) -> Arc<ZeroCopyPolicy> {
    Arc::new(ZeroCopyPolicy::with_budget(choice, EngineClock::start(), pieces * charged_bytes(PIECE)))
}

#[test]
fn a_budget_is_used_up_and_released() {
    let zero_copy = zero_copy(ZeroCopyChoice::Auto, 2);
    let (first, _second) = (zero_copy.reserve(PEER, PIECE).unwrap(), zero_copy.reserve(PEER, PIECE).unwrap());
    assert!(zero_copy.reserve(PEER, ZERO_COPY_MIN_BYTES).is_none(), "the budget is used up");
    drop(first);
    let _third = zero_copy.reserve(PEER, PIECE).unwrap();
    assert!(zero_copy.reserve(PEER, PIECE).is_none());
}

#[test]
fn the_budget_follows_the_lock_limit() {
    let mib = 1024 * 1024;
    assert_eq!(locked_budget_bytes(Some(8 * mib)), 4 * mib);
    assert_eq!(locked_budget_bytes(None), ZERO_COPY_LOCKED_MAX);
    assert_eq!(locked_budget_bytes(Some(u64::MAX - 1)), ZERO_COPY_LOCKED_MAX);
    let with = |limit| {
        ZeroCopyPolicy::with_budget(
            ZeroCopyChoice::Always,
            EngineClock::start(),
            locked_budget_bytes(Some(limit)),
        )
    };
    assert_eq!(with(64 * 1024).choice, ZeroCopyChoice::Off, "no piece fits");
    assert_eq!(with(2 * charged_bytes(PIECE)).choice, ZeroCopyChoice::Always);
}

#[test]
fn short_sends_and_own_addresses_are_sent_with_a_copy() {
    let auto = zero_copy(ZeroCopyChoice::Auto, 2);
    assert!(auto.reserve(PEER, ZERO_COPY_MIN_BYTES - 1).is_none());
    assert!(auto.reserve(PEER, ZERO_COPY_MIN_BYTES).is_some());
    let [own, other] = ["127.0.0.1:1", "192.0.2.1:1"].map(|address| address.parse().unwrap());
    assert!(!auto.applies_to(own) && auto.applies_to(other));
    let always = zero_copy(ZeroCopyChoice::Always, 2);
    assert!(always.applies_to(own) && always.applies_to(other));
    let off = zero_copy(ZeroCopyChoice::Off, 2);
    assert!(!off.applies_to(own) && !off.applies_to(other));
    let epoll = ZeroCopyPolicy::new(ZeroCopyChoice::Always, IoKind::Epoll, EngineClock::start());
    assert!(!epoll.applies_to(other), "zero-copy sends need a ring");
}

#[test]
fn a_peer_is_excluded_for_a_while_after_a_copy() {
    let auto = zero_copy(ZeroCopyChoice::Auto, 9);
    auto.record_usage(PEER, CopyOutcome::Mapped, 5);
    assert!(auto.reserve(PEER, PIECE).is_some());
    auto.record_usage(PEER, CopyOutcome::Copied, 7);
    auto.record_usage(PEER, CopyOutcome::Copied, 7);
    assert!(auto.reserve(PEER, PIECE).is_none());
    assert!(auto.reserve(IpAddr::from([192, 0, 2, 2]), PIECE).is_some(), "other peers are not excluded");
    assert_eq!(auto.sends(), ZeroCopySends { mapped_bytes: 5, copied_bytes: 14, refused: 0 });
    // As if the exclusion had expired.
    lock(&auto.excluded)[0].1 = Moment::default();
    assert!(auto.reserve(PEER, PIECE).is_some());
    assert!(lock(&auto.excluded).is_empty());

    let always = zero_copy(ZeroCopyChoice::Always, 9);
    always.record_usage(PEER, CopyOutcome::Copied, 7);
    assert!(always.reserve(PEER, PIECE).is_some());
}

#[test]
fn the_list_of_excluded_peers_is_bounded() {
    let auto = zero_copy(ZeroCopyChoice::Auto, 9);
    for number in 0..=u32::try_from(ZERO_COPY_COPIED_PEERS).unwrap() {
        auto.record_usage(IpAddr::V4(number.into()), CopyOutcome::Copied, 1);
    }
    assert_eq!(lock(&auto.excluded).len(), ZERO_COPY_COPIED_PEERS);
    assert!(!auto.is_excluded(IpAddr::V4(0.into())) && auto.is_excluded(IpAddr::V4(1.into())));
}

#[test]
fn only_refusals_of_the_kernel_are_sent_again_with_a_copy() {
    let zero_copy = zero_copy(ZeroCopyChoice::Auto, 9);
    let is_fallback = |code| zero_copy.record_error(&io::Error::from_raw_os_error(code));
    assert!(is_fallback(libc::ENOMEM) && is_fallback(libc::ENOBUFS));
    assert!(!is_fallback(libc::EFAULT) && !is_fallback(libc::ECONNRESET));
    assert_eq!(zero_copy.sends().refused, 2);
    assert!(zero_copy.reserve(PEER, PIECE).is_some());
    assert!(is_fallback(libc::EINVAL));
    assert!(zero_copy.reserve(PEER, PIECE).is_none(), "the kernel stays unsupported");
}

#[test]
fn a_connection_sends_with_a_copy_once_copies_are_reported() {
    let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) else {
        eprintln!("skipped: io_uring is forbidden here");
        return;
    };
    let mut file = tempfile::tempfile().unwrap();
    let content = vec![7; usize::try_from(PIECE).unwrap()];
    file.write_all(&content).unwrap();
    let mapping = Arc::new(Mapping::new(&file, PIECE).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut far = listener.accept().unwrap().0;
    let received = std::thread::spawn(move || io::copy(&mut far, &mut io::sink()).unwrap());
    let zero_copy = zero_copy(ZeroCopyChoice::Auto, 1_000);
    let mut sent = 0;
    runtime.block_on(async {
        let Ok(ring) = SideRing::new().map(Rc::new) else {
            eprintln!("skipped: no zero-copy sends here");
            return;
        };
        let driven = Rc::clone(&ring);
        tokio::task::spawn_local(async move { driven.run().await });
        let peer = near.peer_addr().unwrap().ip();
        let route = ZeroCopyRoute::new(Rc::clone(&ring), Arc::clone(&zero_copy), peer);
        let control = Arc::new(near.try_clone().unwrap());
        let stream = PeerStream::new(IoKind::Uring, near, control).unwrap().with_route(Some(route));
        let piece = || SendPart::from(MappedWindow::new(Arc::clone(&mapping), 0..content.len()));
        while !zero_copy.is_excluded(peer) {
            stream.send(vec![vec![1, 2, 3].into(), piece()]).await.unwrap();
            sent += 3 + PIECE;
            // One after the other: a send without room in the ring is copied and not counted.
            while ring.in_flight() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        assert!(zero_copy.sends().copied_bytes > 0);
        assert_eq!(zero_copy.sends().copied_bytes, sent, "every byte is counted once");
        stream.send(vec![piece()]).await.unwrap();
        sent += PIECE;
        assert_eq!(ring.in_flight(), 0, "it was sent with a copy");
        assert_eq!(zero_copy.locked_bytes.load(Ordering::Relaxed), 0);
        stream.shutdown();
    });
    drop(runtime);
    assert_eq!(received.join().unwrap(), sent);
}
