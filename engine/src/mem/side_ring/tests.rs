//! The side ring with real sockets: order, lifetime of the sent bytes, files that shrink, peers that
//! disconnect.
//!
//! Over loopback the kernel copies delivered bytes and reports that. Bytes that wait for a reader are in the
//! sender's pages.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::super::mapping::Mapping;
use super::super::window::MappedWindow;
use super::*;

const FILE_BYTES: usize = 3_000_000;

/// Fits the sender's buffer, which every user may have, but never the receiver's.
const WINDOW_BYTES: usize = 150_000;
const SEND_BUFFER_BYTES: usize = 200_000;
const RECEIVE_BUFFER_BYTES: usize = 20_000;

/// Short enough that the sender's buffer has room for more sends than may be in flight.
const SHORT_BYTES: usize = 2_000;

fn pattern() -> Vec<u8> {
    (0..FILE_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn mapped() -> (File, Arc<Mapping>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern()).unwrap();
    let mapping = Mapping::new(&file, FILE_BYTES as u64).unwrap();
    (file, Arc::new(mapping))
}

fn sockets() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket2::SockRef::from(&near).set_send_buffer_size(SEND_BUFFER_BYTES).unwrap();
    (Arc::new(near), listener.accept().unwrap().0)
}

/// Runs a test on both runtimes that a worker may have, or prints why not.
fn on_a_ring<F: Future<Output = ()>>(test: impl Fn(Rc<SideRing>) -> F) {
    let begin = || {
        let ring = Rc::new(SideRing::new().unwrap());
        let driven = Rc::clone(&ring);
        tokio::task::spawn_local(async move { driven.run().await });
        ring
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let allowed = runtime.block_on(async { SideRing::new().map(drop) });
    match (allowed, tokio_uring::Runtime::new(&tokio_uring::builder())) {
        (Ok(()), Ok(uring)) => {
            tokio::task::LocalSet::new().block_on(&runtime, async { test(begin()).await });
            uring.block_on(async { test(begin()).await });
        }
        (refused, _) => eprintln!("skipped: no zero-copy sends here ({refused:?})"),
    }
}

/// The arguments of a report, once it was called.
type Seen = Rc<Cell<Option<(CopyOutcome, u64)>>>;

/// A report that stores its arguments.
fn kept() -> (SendReport, Seen) {
    let seen = Seen::default();
    let sees = Rc::clone(&seen);
    (Box::new(move |usage, bytes| sees.set(Some((usage, bytes)))), seen)
}

fn receive_all(mut socket: TcpStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A connection that was reset has delivered what it had.
        let _ = socket.read_to_end(&mut bytes);
        bytes
    })
}

/// Lets the runtime process completions until `reached`.
async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn window(mapping: &Arc<Mapping>) -> Vec<SendPart> {
    vec![MappedWindow::new(Arc::clone(mapping), 0..WINDOW_BYTES).into()]
}

#[test]
fn frames_and_windows_arrive_in_order_and_are_reported() {
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        let (near, far) = sockets();
        let received = receive_all(far);
        let mut expected = Vec::new();
        let mut reports = Vec::new();
        for range in [0..1, 1..700_001, 2_000_000..FILE_BYTES, 5..WINDOW_BYTES] {
            let head = format!("frame {range:?};").into_bytes();
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&pattern()[range.clone()]);
            let parts = vec![SendPart::from(head), MappedWindow::new(Arc::clone(&mapping), range).into()];
            let length: usize = parts.iter().map(SendPart::len).sum();
            let (report, seen) = kept();
            assert_eq!(
                ring.send(&near, parts, report).await.unwrap(),
                length,
                "a send waits for all of its bytes"
            );
            reports.push((seen, length as u64));
        }
        until(|| ring.in_flight() == 0).await;
        for (seen, length) in reports {
            assert_eq!(seen.get(), Some((CopyOutcome::Copied, length)), "loopback copies");
        }
        near.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(received.join().unwrap() == expected);
    });
}

#[test]
fn a_mapping_lives_until_the_kernel_notifies() {
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        let watched: Weak<Mapping> = Arc::downgrade(&mapping);
        let (near, far) = sockets();
        let (report, seen) = kept();
        let parts = window(&mapping);
        drop(mapping);
        assert_eq!(ring.send(&near, parts, report).await.unwrap(), WINDOW_BYTES);
        // Sent but not read: the kernel still holds pages.
        assert_eq!((ring.in_flight(), seen.get()), (1, None));
        assert!(watched.upgrade().is_some(), "the kernel still holds pages of it");
        drop(near);
        let received = receive_all(far);
        until(|| ring.in_flight() == 0).await;
        assert!(watched.upgrade().is_none(), "the send is dropped");
        assert_eq!(seen.get(), Some((CopyOutcome::Copied, WINDOW_BYTES as u64)));
        assert!(received.join().unwrap() == pattern()[..WINDOW_BYTES]);
    });
}

#[test]
fn a_dropped_ring_leaks_pages_that_the_kernel_holds() {
    let watched = Cell::new(Weak::new());
    let far_end = Cell::new(None);
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        watched.set(Arc::downgrade(&mapping));
        let (near, far) = sockets();
        ring.send(&near, window(&mapping), kept().0).await.unwrap();
        // Drop one more send that waits for room in the socket, and then the ring itself.
        let parts = [window(&mapping), window(&mapping)].map(|mut parts| parts.remove(0));
        near.set_nonblocking(false).unwrap();
        socket2::SockRef::from(&*near).set_send_buffer_size(1).unwrap();
        let mut waits = Box::pin(ring.send(&near, parts.into(), kept().0));
        let pending =
            std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context).is_pending()));
        assert!(pending.await, "there is no room for it");
        assert_eq!(ring.in_flight(), 2);
        far_end.set(Some(far));
    });
    let Some(far) = far_end.take() else { return };
    // Ring and runtime are gone.
    assert!(watched.take().upgrade().is_some(), "pages that the kernel may read stay mapped");
    let bytes = receive_all(far).join().unwrap();
    assert!(bytes.len() >= WINDOW_BYTES, "earlier bytes arrive");
    assert!(
        bytes
            == pattern()[..WINDOW_BYTES]
                .iter()
                .chain(&pattern())
                .copied()
                .take(bytes.len())
                .collect::<Vec<_>>()
    );
}

#[test]
fn sending_a_truncated_file_is_an_error_and_no_signal() {
    on_a_ring(async |ring| {
        let (file, mapping) = mapped();
        file.set_len(0).unwrap();
        let (near, _far) = sockets();
        let (report, seen) = kept();
        let error = ring.send(&near, window(&mapping), report).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(!mapping.has_faulted(), "the kernel read the page, not this process");
        until(|| ring.in_flight() == 0).await;
        assert_eq!(seen.get(), None, "nothing was sent or copied");
    });
}

#[test]
fn truncation_during_a_send_is_harmless() {
    on_a_ring(async |ring| {
        let (file, mapping) = mapped();
        let (near, far) = sockets();
        assert_eq!(ring.send(&near, window(&mapping), kept().0).await.unwrap(), WINDOW_BYTES);
        // The kernel holds pages that the file has no more.
        file.set_len(0).unwrap();
        drop(mapping);
        drop(near);
        let received = receive_all(far);
        until(|| ring.in_flight() == 0).await;
        assert_eq!(received.join().unwrap().len(), WINDOW_BYTES, "the stream stays in order");
    });
}

#[test]
fn a_closed_socket_is_an_error_and_no_signal() {
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        let (near, far) = sockets();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        drop(far);
        let error = ring.send(&near, window(&mapping), kept().0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        until(|| ring.in_flight() == 0).await;
    });
}

#[test]
fn a_shutdown_ends_a_waiting_send() {
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        let (near, far) = sockets();
        socket2::SockRef::from(&*near).set_send_buffer_size(1).unwrap();
        let (sender, socket) = (Rc::clone(&ring), Arc::clone(&near));
        let whole = vec![MappedWindow::new(Arc::clone(&mapping), 0..FILE_BYTES).into()];
        let sending = tokio::task::spawn_local(async move { sender.send(&socket, whole, kept().0).await });
        until(|| ring.in_flight() == 1).await;
        near.shutdown(std::net::Shutdown::Both).unwrap();
        let sent = sending.await.unwrap();
        assert!(sent.as_ref().map_or(true, |sent| *sent < FILE_BYTES), "{sent:?}");
        drop((near, far));
        until(|| ring.in_flight() == 0).await;
        assert_eq!(Arc::strong_count(&mapping), 1, "the send is dropped");
    });
}

#[test]
fn sends_in_flight_are_bounded() {
    on_a_ring(async |ring| {
        let (_file, mapping) = mapped();
        let (near, far) = sockets();
        let part = || vec![SendPart::from(MappedWindow::new(Arc::clone(&mapping), 0..SHORT_BYTES))];
        // The receiver takes in a few, and the kernel notifies for those.
        while ring.has_room() {
            ring.send(&near, part(), kept().0).await.unwrap();
        }
        assert_eq!(ring.in_flight(), SIDE_RING_SENDS_MAX as usize);
        drop(near);
        let received = receive_all(far);
        until(|| ring.in_flight() == 0).await;
        assert_eq!(received.join().unwrap().len() % SHORT_BYTES, 0);
        assert!(ring.has_room());
    });
}

#[test]
fn a_broken_ring_ends_its_sends_and_takes_no_more() {
    on_a_ring(async |_| {
        // A ring that was never enabled returns EBADFD.
        let disabled = IoUring::builder().setup_r_disabled().build(SIDE_RING_SENDS_MAX).unwrap();
        let descriptor = disabled.as_fd().try_clone_to_owned().unwrap();
        let ring = SideRing::of(disabled, descriptor).unwrap();
        let (_file, mapping) = mapped();
        let (near, far) = sockets();
        assert!(ring.has_room());
        let error = ring.send(&near, window(&mapping), kept().0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!ring.has_room(), "further sends go the ordinary way");
        assert_eq!(Arc::strong_count(&near), 1, "the connection can be closed");
        assert_eq!(Arc::strong_count(&mapping), 2, "pages that the kernel might read stay mapped");
        drop(ring);
        assert_eq!(Arc::strong_count(&mapping), 2);
        drop(near);
        assert!(receive_all(far).join().unwrap().is_empty());
    });
}
