//! A connection that fetches: call, open, then two tasks, one that writes requests and one that receives pieces.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::buffers::BufferPermit;
use super::download::{ActiveDownload, ConnectRequest};
use super::download::{ConnectionEnd, RequestOutbox};
use super::limits::GOODBYE_MS;
use super::piece_queue::BufferedPiece;
use super::receive::{FrameReceiver, ReceiveError};
use super::stream::PeerStream;
use super::worker_state::{StreamDeadline, WorkerState};
use crate::abort::spawn_critical;
use crate::mem::pool::PooledBuf;
use crate::mem::window::SendPart;
use crate::proto::DisconnectReason;
use crate::proto::action::PeerAddress;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, RefusedCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS};
use crate::proto::picker::ConnectionId;
use crate::proto::session::{ConsumerHandshake, ProviderFile, Violation};
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceIndex;

/// Why a connection that fetches is over.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("refused: {message}")]
    Refused { code: RefusedCode, message: String },
    #[error("the peer said goodbye")]
    Bye,
    #[error("this node fetches by as many connections as it may")]
    ConnectionLimit,
}

impl From<&FetchError> for DisconnectReason {
    fn from(over: &FetchError) -> DisconnectReason {
        match over {
            FetchError::ConnectionLimit => DisconnectReason::ConnectionLimit,
            FetchError::Io(_) | FetchError::Receive(ReceiveError::Ended | ReceiveError::Io(_)) => {
                DisconnectReason::Lost
            }
            FetchError::Receive(ReceiveError::Codec(error)) => {
                DisconnectReason::Violated(Violation::Undecodable(error.clone()))
            }
            FetchError::Violation(violation) => DisconnectReason::Violated(violation.clone()),
            FetchError::Refused { code, .. } => DisconnectReason::Refused(*code),
            FetchError::Bye => DisconnectReason::Bye,
        }
    }
}

/// Calls a peer and fetches from it until either has had enough.
pub(crate) async fn fetch_from_peer(
    local: Rc<WorkerState>,
    download: Arc<ActiveDownload>,
    call: ConnectRequest,
) {
    let over = match run_connection(&local, &download, &call).await {
        Ok(never) => match never {},
        Err(over) => over,
    };
    tracing::debug!(file = %download.key, peer = %call.peer.address, %over, "a connection ended");
    let ConnectRequest { connection, outbox, .. } = call;
    let ending = DisconnectReason::from(&over);
    outbox.end(connection_end(&ending));
    download.connection_closed(connection, &ending);
}

/// Whoever broke the protocol is told so.
fn connection_end(ending: &DisconnectReason) -> ConnectionEnd {
    match ending {
        DisconnectReason::Violated(_) => ConnectionEnd::Bye(ByeCode::Protocol),
        _ => ConnectionEnd::Gone,
    }
}

async fn run_connection(
    local: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    call: &ConnectRequest,
) -> Result<std::convert::Infallible, FetchError> {
    let ConnectRequest { connection, peer, is_additional: further, ref outbox } = *call;
    let fetching = &local.context.fetch_slots;
    let place = if further { fetching.take_from_first_half() } else { fetching.take() };
    let _place = place.ok_or(FetchError::ConnectionLimit)?;
    let timeout = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
    let stream = local.register_stream(PeerStream::connect(local.io, peer.address, timeout).await?);
    let mut receiver = FrameReceiver::for_pieces(Rc::clone(&stream));
    let deadline = StreamDeadline::new(&stream, HANDSHAKE_TIMEOUT_MS);
    let (holding, ticket) = open_file(local, download, &stream, &mut receiver, peer).await?;
    drop(deadline);
    download.connection_opened(connection, holding, &ticket);
    spawn_critical(write_requests(Rc::clone(&stream), Arc::clone(outbox)));
    let over = receive_messages(local, download, connection, &stream, &mut receiver).await;
    let violated = over
        .as_ref()
        .is_err_and(|over| matches!(DisconnectReason::from(over), DisconnectReason::Violated(_)));
    if violated {
        // The task that writes says goodbye and ends it, unless the peer does not even read.
        spawn_critical(async move {
            tokio::time::sleep(Duration::from_millis(GOODBYE_MS)).await;
            stream.shutdown();
        });
    } else {
        stream.shutdown();
    }
    over
}

/// Opens the file there; also the ticket that it was opened by.
async fn open_file(
    local: &WorkerState,
    download: &ActiveDownload,
    stream: &PeerStream,
    receiver: &mut FrameReceiver,
    peer: PeerAddress,
) -> Result<(ProviderFile, Ticket), FetchError> {
    let mut opening = ConsumerHandshake::new(peer.key, local.context.random_nonce()?);
    let greeting = receiver.read_message(FRAME_MAX_BYTES).await?;
    // A provider with a crowd before its door says so instead of greeting.
    if let Message::Refused { code, message } = greeting {
        return Err(FetchError::Refused { code, message });
    }
    let ticket = download.ticket();
    let answer = opening.answer_greeting(&greeting, &ticket, &local.context.secret)?;
    stream.send(vec![SendPart::from(codec::encode_message(&answer))]).await?;
    let manifest = &download.manifest;
    match receiver.read_message(codec::opening_max_bytes(manifest.pieces())).await? {
        Message::Refused { code, message } => Err(FetchError::Refused { code, message }),
        message => {
            let holding = opening.accept_opened(&message, manifest.geometry(), manifest.is_length_known())?;
            Ok((holding, ticket))
        }
    }
}

/// Sends what the transfer decides, until the end.
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
    local: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    connection: ConnectionId,
    stream: &PeerStream,
    receiver: &mut FrameReceiver,
) -> Result<std::convert::Infallible, FetchError> {
    loop {
        download.cost.add_wire_bytes(stream.take_moved_bytes());
        match receiver.read_message(FRAME_MAX_BYTES).await? {
            Message::Piece { index, length } => {
                receive_piece(local, download, connection, receiver, index, length).await?;
            }
            message => {
                let goes_on = download
                    .with_transfer(|transfer, now| transfer.handle_message(now, connection, &message))?;
                if !goes_on {
                    return Err(FetchError::Bye);
                }
            }
        }
    }
}

/// Receives one piece and hands it on to be verified.
async fn receive_piece(
    local: &Rc<WorkerState>,
    download: &Arc<ActiveDownload>,
    connection: ConnectionId,
    receiver: &mut FrameReceiver,
    index: PieceIndex,
    length: u32,
) -> Result<(), FetchError> {
    download.with_transfer(|transfer, _| transfer.begin_piece(connection, index, length))?;
    let (buffer, permit) = take_buffer(local, download, connection).await;
    let length = length as usize;
    let most = local.context.download_limit.max_read_bytes();
    let counted = Cell::new(0);
    let arrived = |bytes: usize| {
        counted.set(counted.get() + bytes);
        download.with_transfer(|transfer, now| transfer.bytes_received(now, connection, bytes as u64));
        wait_for_rate_limit(local, download, connection, bytes as u64)
    };
    let buffer = receiver.read_piece(length, buffer, most, arrived).await?;
    assert_eq!(counted.get(), length, "every byte of a piece is counted once");
    let job = download.with_transfer(|transfer, now| transfer.piece_received(now, connection, index));
    if let Some(job) = job {
        let download = Arc::clone(download);
        local.to_verify.push(BufferedPiece { download, received: job, buffer, length, permit });
    }
    Ok(())
}

/// Waits until as many bytes may have come. A peer whose next bytes are not taken until then is not silent.
async fn wait_for_rate_limit(
    local: &WorkerState,
    download: &ActiveDownload,
    connection: ConnectionId,
    bytes: u64,
) {
    let wait_ms = local.context.download_limit.reserve(bytes);
    if wait_ms > 0 {
        download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, true));
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, false));
    }
}

/// A buffer for the next piece. A peer that has to wait for it is not silent.
async fn take_buffer(
    local: &WorkerState,
    download: &ActiveDownload,
    connection: ConnectionId,
) -> (PooledBuf, BufferPermit) {
    if local.has_queue_room()
        && let Some(taken) = local.context.buffers.try_take()
    {
        return taken;
    }
    download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, true));
    local.wait_for_queue_room().await;
    let taken = local.context.buffers.take().await;
    download.with_transfer(|transfer, now| transfer.set_receive_paused(now, connection, false));
    taken
}
