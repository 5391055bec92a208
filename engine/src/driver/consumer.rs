//! A connection that fetches: connect, open the file, then two tasks, one that writes requests and one that receives pieces.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::buffers::BufferPermit;
use super::download::{ActiveDownload, ConnectRequest, ConnectionEnd, RequestOutbox};
use super::limits::GOODBYE_MS;
use super::piece_queue::BufferedPiece;
use super::receive::{FrameReceiver, ReceiveError};
use super::stream::PeerStream;
use super::worker_state::{StreamDeadline, WorkerState};
use crate::abort::spawn_critical;
use crate::mem::pool::PooledBuf;
use crate::mem::window::SendPart;
use crate::proto::action::PeerAddress;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, PROTOCOL_VERSION, RefusedCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS};
use crate::proto::picker::ConnectionId;
use crate::proto::session::{ConsumerHandshake, ProviderFile, Violation};
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceIndex;
use crate::proto::{ConnectFailure, DisconnectReason};

/// Why a connection that fetches has ended.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Connect(ConnectFailure),
    #[error("no answer to the handshake for {HANDSHAKE_TIMEOUT_MS} ms")]
    Silent,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("refused: {message}")]
    Refused { code: RefusedCode, message: String },
    #[error("the peer said goodbye ({0:?})")]
    Bye(ByeCode),
    #[error("this node has as many fetching connections as it may")]
    ConnectionLimit,
}

impl From<&FetchError> for DisconnectReason {
    fn from(error: &FetchError) -> DisconnectReason {
        match error {
            FetchError::ConnectionLimit => DisconnectReason::ConnectionLimit,
            FetchError::Connect(failure) => DisconnectReason::Unreachable(failure.clone()),
            FetchError::Silent => DisconnectReason::Silent { for_ms: HANDSHAKE_TIMEOUT_MS },
            FetchError::Io(_) | FetchError::Receive(ReceiveError::Ended | ReceiveError::Io(_)) => {
                DisconnectReason::Lost
            }
            FetchError::Receive(ReceiveError::Codec(error)) => {
                DisconnectReason::Violated(Violation::Undecodable(error.clone()))
            }
            FetchError::Violation(violation) => DisconnectReason::Violated(violation.clone()),
            FetchError::Refused { code, .. } => DisconnectReason::Refused(*code),
            FetchError::Bye(ByeCode::Busy) => DisconnectReason::Refused(RefusedCode::Busy),
            FetchError::Bye(ByeCode::Expired) => DisconnectReason::Refused(RefusedCode::Expired),
            FetchError::Bye(_) => DisconnectReason::Bye,
        }
    }
}

/// Connects to a peer and fetches from it until the connection ends.
pub(crate) async fn fetch_from_peer(
    worker: Rc<WorkerState>,
    download: Arc<ActiveDownload>,
    request: ConnectRequest,
) {
    let Err(error) = run_connection(&worker, &download, &request).await;
    let reason = DisconnectReason::from(&error);
    let (file, peer) = (&download.key, request.peer.address);
    match reason {
        DisconnectReason::Bye | DisconnectReason::ConnectionLimit => {
            tracing::debug!(%file, %peer, %error, "a connection ended");
        }
        _ => tracing::info!("{peer} {reason} ({file}: {error})"),
    }
    let end = match reason {
        DisconnectReason::Violated(_) => ConnectionEnd::Bye(ByeCode::Protocol),
        _ => ConnectionEnd::Gone,
    };
    request.outbox.end(end);
    download.connection_closed(request.connection, &reason);
}

async fn run_connection(
    worker: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    request: &ConnectRequest,
) -> Result<Infallible, FetchError> {
    let ConnectRequest { connection, peer, is_additional, timeout_ms, ref outbox } = *request;
    let slots = &worker.context.fetch_slots;
    let slot = if is_additional { slots.take_from_first_half() } else { slots.take() };
    let _slot = slot.ok_or(FetchError::ConnectionLimit)?;
    let connected = PeerStream::connect(worker.io, peer.address, Duration::from_millis(timeout_ms)).await;
    let stream = connected.map_err(|error| FetchError::Connect(connect_failure(&error, timeout_ms)))?;
    let stream = worker.register_stream(stream);
    let mut receiver = FrameReceiver::for_pieces(Rc::clone(&stream));
    let deadline = StreamDeadline::new(&stream, HANDSHAKE_TIMEOUT_MS);
    let opened = open_file(worker, download, &stream, &mut receiver, peer).await;
    let (file, ticket) =
        opened.map_err(|error| if deadline.has_expired() { FetchError::Silent } else { error })?;
    drop(deadline);
    download.connection_opened(connection, file, &ticket);
    spawn_critical(write_requests(Rc::clone(&stream), Arc::clone(outbox)));
    let Err(error) = receive_messages(worker, download, connection, &stream, &mut receiver).await;
    if matches!(DisconnectReason::from(&error), DisconnectReason::Violated(_)) {
        // The writing task sends a goodbye and shuts the stream down. This covers a peer that does not read.
        spawn_critical(async move {
            tokio::time::sleep(Duration::from_millis(GOODBYE_MS)).await;
            stream.shutdown();
        });
    } else {
        stream.shutdown();
    }
    Err(error)
}

/// Why an attempt to connect that may take `timeout_ms` has failed.
fn connect_failure(error: &io::Error, timeout_ms: u64) -> ConnectFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectFailure::Refused,
        io::ErrorKind::TimedOut => ConnectFailure::TimedOut { after_ms: timeout_ms },
        io::ErrorKind::HostUnreachable => ConnectFailure::NoRoute,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => ConnectFailure::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable => ConnectFailure::NoFamily,
        io::ErrorKind::PermissionDenied => ConnectFailure::Forbidden,
        _ if Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT) => ConnectFailure::NoFamily,
        _ => ConnectFailure::Other(error.to_string()),
    }
}

/// Opens the file at the peer; also returns the ticket that was used.
async fn open_file(
    worker: &WorkerState,
    download: &ActiveDownload,
    stream: &PeerStream,
    receiver: &mut FrameReceiver,
    peer: PeerAddress,
) -> Result<(ProviderFile, Ticket), FetchError> {
    let mut handshake = ConsumerHandshake::new(peer.key, worker.context.random_nonce()?);
    let greeting = receiver.read_message(FRAME_MAX_BYTES).await?;
    // A busy provider refuses instead of greeting.
    if let Message::Refused { code, message } = greeting {
        return Err(FetchError::Refused { code, message });
    }
    let ticket = download.ticket();
    let answer = match handshake.answer_greeting(&greeting, &ticket, &worker.context.secret) {
        Err(violation @ Violation::Version(_)) => {
            let (nonce, peer_key) = (worker.context.random_nonce()?, worker.context.secret.peer_key());
            let own = Message::Greeting { version: PROTOCOL_VERSION, nonce, peer_key };
            stream.send(vec![SendPart::from(codec::encode_message(&own))]).await?;
            return Err(violation.into());
        }
        answer => answer?,
    };
    stream.send(vec![SendPart::from(codec::encode_message(&answer))]).await?;
    let manifest = &download.manifest;
    match receiver.read_message(codec::opening_max_bytes(manifest.pieces())).await? {
        Message::Refused { code, message } => Err(FetchError::Refused { code, message }),
        message => {
            let file = handshake.accept_opened(&message, manifest.geometry(), manifest.is_length_known())?;
            Ok((file, ticket))
        }
    }
}

/// Sends the outbox's messages until its end.
async fn write_requests(stream: Rc<PeerStream>, outbox: Arc<RequestOutbox>) {
    loop {
        let (messages, end) = outbox.take().await;
        let mut frames: Vec<u8> = messages.iter().flat_map(codec::encode_message).collect();
        if let Some(ConnectionEnd::Bye(code)) = end {
            frames.extend(codec::encode_message(&Message::Bye { code }));
        }
        let sent = if frames.is_empty() { Ok(()) } else { stream.send(vec![SendPart::from(frames)]).await };
        if end.is_some() || sent.is_err() {
            stream.shutdown();
            return;
        }
    }
}

async fn receive_messages(
    worker: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    connection: ConnectionId,
    stream: &PeerStream,
    receiver: &mut FrameReceiver,
) -> Result<Infallible, FetchError> {
    loop {
        download.cost.wire_bytes.fetch_add(stream.take_moved_bytes(), Ordering::Relaxed);
        match receiver.read_message(FRAME_MAX_BYTES).await? {
            Message::Piece { index, length } => {
                receive_piece(worker, download, connection, receiver, index, length).await?;
            }
            message => {
                let bye = download
                    .with_transfer(|transfer, now| transfer.handle_message(now, connection, &message))?;
                if let Some(code) = bye {
                    return Err(FetchError::Bye(code));
                }
            }
        }
    }
}

/// Receives one piece and queues it to be verified.
async fn receive_piece(
    worker: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    connection: ConnectionId,
    receiver: &mut FrameReceiver,
    index: PieceIndex,
    length: u32,
) -> Result<(), FetchError> {
    download.with_transfer(|transfer, _| transfer.begin_piece(connection, index, length))?;
    let (buffer, permit) = take_buffer(worker, download, connection).await;
    let length = length as usize;
    let max_read_bytes = worker.context.download_limit.max_read_bytes();
    let counted = Cell::new(0);
    let on_read = |bytes: usize| {
        counted.set(counted.get() + bytes);
        download.with_transfer(|transfer, now| transfer.bytes_received(now, connection, bytes as u64));
        wait_for_rate_limit(worker, download, connection, bytes as u64)
    };
    let buffer = receiver.read_piece(length, buffer, max_read_bytes, on_read).await?;
    assert_eq!(counted.get(), length, "every byte of a piece is counted once");
    let received = download.with_transfer(|transfer, now| transfer.piece_received(now, connection, index));
    if let Some(received) = received {
        let download = Arc::clone(download);
        worker.to_verify.push(BufferedPiece { download, received, buffer, length, permit });
    }
    Ok(())
}

/// Waits until the download limit allows these bytes. The transfer must not take the peer for silent meanwhile.
async fn wait_for_rate_limit(
    worker: &WorkerState,
    download: &ActiveDownload,
    connection: ConnectionId,
    bytes: u64,
) {
    let wait_ms = worker.context.download_limit.reserve(bytes);
    if wait_ms > 0 {
        download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, true));
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, false));
    }
}

/// Takes a buffer for the next piece. The transfer must not take the peer for silent while that waits.
async fn take_buffer(
    worker: &WorkerState,
    download: &ActiveDownload,
    connection: ConnectionId,
) -> (PooledBuf, BufferPermit) {
    if worker.has_queue_room()
        && let Some(taken) = worker.context.buffers.try_take()
    {
        return taken;
    }
    download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, true));
    worker.wait_for_queue_room().await;
    let taken = worker.context.buffers.take().await;
    download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, false));
    taken
}
