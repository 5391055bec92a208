//! Sending by sendmsg and by io_uring, with real sockets: order, short counts, files that shrink.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::super::mapping::Mapping;
use super::super::window::MappedWindow;
use super::*;

const FILE_BYTES: usize = 3_000_000;

fn pattern() -> Vec<u8> {
    (0..FILE_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn mapped() -> (File, Arc<Mapping>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern()).unwrap();
    let mapping = Mapping::new(&file, FILE_BYTES as u64).unwrap();
    (file, Arc::new(mapping))
}

fn sockets() -> (StdStream, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Alternating frames and windows, and the bytes that should arrive.
fn batch(mapping: &Arc<Mapping>) -> (Vec<SendPart>, Vec<u8>) {
    let windows = [0..1, 1..700_001, 2_000_000..FILE_BYTES];
    let mut parts = Vec::new();
    let mut bytes = Vec::new();
    for window in windows {
        let head = format!("frame {window:?};").into_bytes();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&pattern()[window.clone()]);
        parts.push(SendPart::from(head));
        parts.push(MappedWindow::new(Arc::clone(mapping), window).into());
    }
    (parts, bytes)
}

fn receive_all(mut socket: StdStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[test]
fn sendmsg_delivers_frames_and_windows_in_order() {
    let (_file, mapping) = mapped();
    let (near, far) = sockets();
    let received = receive_all(far);
    let (mut parts, expected) = batch(&mapping);
    // A non-blocking socket gives short counts and refusals for three megabytes.
    near.set_nonblocking(true).unwrap();
    while !parts.is_empty() {
        match send_vectored(near.as_fd(), &parts) {
            Ok(sent) => SendPart::advance(&mut parts, sent),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    drop(near);
    assert!(received.join().unwrap() == expected);
}

#[test]
fn the_ring_delivers_frames_and_windows_in_order() {
    let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) else {
        eprintln!("skipped: io_uring is forbidden here");
        return;
    };
    let (_file, mapping) = mapped();
    let (near, far) = sockets();
    let received = receive_all(far);
    let (parts, expected) = batch(&mapping);
    runtime.block_on(async {
        let stream = TcpStream::from_std(near);
        let mut rest = parts;
        while !rest.is_empty() {
            let (sent, back) = send_uring(&stream, rest).await;
            rest = back;
            SendPart::advance(&mut rest, sent.unwrap());
        }
    });
    drop(runtime);
    assert!(received.join().unwrap() == expected);
}

#[test]
fn sending_a_truncated_file_is_an_error_and_no_signal() {
    let (file, mapping) = mapped();
    file.set_len(0).unwrap();
    let parts = || vec![SendPart::from(MappedWindow::new(Arc::clone(&mapping), 1_000_000..1_500_000))];
    let (near, _far) = sockets();
    assert_eq!(send_vectored(near.as_fd(), &parts()).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    assert!(!mapping.has_faulted(), "the kernel read the page, not this process");
    let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) else {
        eprintln!("skipped in part: io_uring is forbidden here");
        return;
    };
    let result = runtime.block_on(async {
        let stream = TcpStream::from_std(near);
        send_uring(&stream, parts()).await.0
    });
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
}

#[test]
fn a_closed_socket_is_an_error_and_no_signal() {
    let (near, far) = sockets();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    drop(far);
    let parts = [SendPart::from(vec![1, 2, 3])];
    assert_eq!(send_vectored(near.as_fd(), &parts).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn advance_removes_what_was_sent() {
    let (_file, mapping) = mapped();
    let mut parts =
        vec![SendPart::from(vec![0; 10]), MappedWindow::new(mapping, 0..20).into(), vec![0; 5].into()];
    SendPart::advance(&mut parts, 0);
    assert_eq!(parts.iter().map(SendPart::len).collect::<Vec<_>>(), [10, 20, 5]);
    SendPart::advance(&mut parts, 10);
    assert_eq!(parts.iter().map(SendPart::len).collect::<Vec<_>>(), [20, 5]);
    SendPart::advance(&mut parts, 22);
    assert_eq!(parts.iter().map(SendPart::len).collect::<Vec<_>>(), [3]);
    SendPart::advance(&mut parts, 3);
    assert!(parts.is_empty());
}

#[test]
#[should_panic(expected = "0 parts to send")]
fn sending_nothing_is_a_mistake() {
    let (near, _far) = sockets();
    let _ = send_vectored(near.as_fd(), &[]);
}
