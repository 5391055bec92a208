//! A connection that fetches: call, open, then two tasks, one that writes requests and one that receives pieces.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::buffers::Permit;
use super::download::{Call, DownloadState};
use super::landed::Landed;
use super::limits::LAST_WORD_MS;
use super::local::{Deadline, Local};
use super::outbox::{End, Outbox};
use super::receive::{ReceiveError, Receiver};
use super::stream::Stream;
use super::vital::spawn_vital;
use crate::mem::pool::PooledBuf;
use crate::mem::window::Outgoing;
use crate::proto::Ending;
use crate::proto::action::PeerAddress;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, RefusedCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS};
use crate::proto::picker::ConnectionId;
use crate::proto::session::{Holding, Opening, Violation};
use crate::proto::ticket::Ticket;
use crate::proto::units::PieceIndex;

/// Why a connection that fetches is over.
#[derive(Debug, thiserror::Error)]
enum Over {
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
    Crowded,
}

impl From<&Over> for Ending {
    fn from(over: &Over) -> Ending {
        match over {
            Over::Crowded => Ending::Crowded,
            Over::Io(_) | Over::Receive(ReceiveError::Ended | ReceiveError::Io(_)) => Ending::Lost,
            Over::Receive(ReceiveError::Codec(error)) => {
                Ending::Violated(Violation::Undecodable(error.clone()))
            }
            Over::Violation(violation) => Ending::Violated(violation.clone()),
            Over::Refused { code, .. } => Ending::Refused(*code),
            Over::Bye => Ending::Bye,
        }
    }
}

/// Calls a peer and fetches from it until either has had enough.
pub(crate) async fn fetch(local: Rc<Local>, download: Arc<DownloadState>, call: Call) {
    let over = match run(&local, &download, &call).await {
        Ok(never) => match never {},
        Err(over) => over,
    };
    tracing::debug!(file = %download.key, peer = %call.peer.address, %over, "a connection ended");
    let Call { connection, outbox, .. } = call;
    let ending = Ending::from(&over);
    outbox.end(end_for(&ending));
    download.closed(connection, &ending);
}

/// Whoever broke the protocol is told so.
fn end_for(ending: &Ending) -> End {
    match ending {
        Ending::Violated(_) => End::Bye(ByeCode::Protocol),
        _ => End::Gone,
    }
}

async fn run(
    local: &Rc<Local>,
    download: &Arc<DownloadState>,
    call: &Call,
) -> Result<std::convert::Infallible, Over> {
    let Call { connection, peer, further, ref outbox } = *call;
    let fetching = &local.context.fetching;
    let place = if further { fetching.enter_first_half() } else { fetching.enter() };
    let _place = place.ok_or(Over::Crowded)?;
    let timeout = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
    let stream = local.adopt(Stream::connect(local.io, peer.address, timeout).await?);
    let mut receiver = Receiver::of_pieces(Rc::clone(&stream));
    let deadline = Deadline::new(&stream, HANDSHAKE_TIMEOUT_MS);
    let (holding, ticket) = open(local, download, &stream, &mut receiver, peer).await?;
    drop(deadline);
    download.opened(connection, holding, &ticket);
    spawn_vital(write(Rc::clone(&stream), Arc::clone(outbox)));
    let over = receive(local, download, connection, &stream, &mut receiver).await;
    let violated = over.as_ref().is_err_and(|over| matches!(Ending::from(over), Ending::Violated(_)));
    if violated {
        // The task that writes says goodbye and ends it, unless the peer does not even read.
        spawn_vital(async move {
            tokio::time::sleep(Duration::from_millis(LAST_WORD_MS)).await;
            stream.shutdown();
        });
    } else {
        stream.shutdown();
    }
    over
}

/// Opens the file there; also the ticket that it was opened by.
async fn open(
    local: &Local,
    download: &DownloadState,
    stream: &Stream,
    receiver: &mut Receiver,
    peer: PeerAddress,
) -> Result<(Holding, Ticket), Over> {
    let mut opening = Opening::new(peer.key, local.context.nonce()?);
    let greeting = receiver.message(FRAME_MAX_BYTES).await?;
    // A provider with a crowd before its door says so instead of greeting.
    if let Message::Refused { code, message } = greeting {
        return Err(Over::Refused { code, message });
    }
    let ticket = download.ticket();
    let answer = opening.greeting(&greeting, &ticket, &local.context.secret)?;
    stream.send(vec![Outgoing::from(codec::encode(&answer))]).await?;
    let manifest = &download.manifest;
    match receiver.message(codec::opening_max_bytes(manifest.pieces())).await? {
        Message::Refused { code, message } => Err(Over::Refused { code, message }),
        message => {
            let holding = opening.opened(&message, manifest.geometry(), manifest.length_known())?;
            Ok((holding, ticket))
        }
    }
}

/// Sends what the transfer decides, until the end.
async fn write(stream: Rc<Stream>, outbox: Arc<Outbox>) {
    loop {
        let (messages, end) = outbox.take().await;
        let mut frames: Vec<u8> = messages.iter().flat_map(codec::encode).collect();
        if let Some(End::Bye(code)) = end {
            frames.extend(codec::encode(&Message::Bye { code }));
        }
        let sent = if frames.is_empty() { Ok(()) } else { stream.send(vec![Outgoing::from(frames)]).await };
        if end.is_some() || sent.is_err() {
            stream.shutdown();
            return;
        }
    }
}

async fn receive(
    local: &Rc<Local>,
    download: &Arc<DownloadState>,
    connection: ConnectionId,
    stream: &Stream,
    receiver: &mut Receiver,
) -> Result<std::convert::Infallible, Over> {
    loop {
        download.spent.wire_bytes.fetch_add(stream.take_moved(), Ordering::Relaxed);
        match receiver.message(FRAME_MAX_BYTES).await? {
            Message::Piece { index, length } => {
                piece(local, download, connection, receiver, index, length).await?;
            }
            message => {
                let goes_on = download.with(|transfer, now| transfer.message(now, connection, &message))?;
                if !goes_on {
                    return Err(Over::Bye);
                }
            }
        }
    }
}

/// Receives one piece and hands it on to be verified.
async fn piece(
    local: &Rc<Local>,
    download: &Arc<DownloadState>,
    connection: ConnectionId,
    receiver: &mut Receiver,
    index: PieceIndex,
    length: u32,
) -> Result<(), Over> {
    download.with(|transfer, _| transfer.piece_begins(connection, index, length))?;
    let (buffer, permit) = take_buffer(local, download, connection).await;
    let length = length as usize;
    let most = local.context.down.read_bytes();
    let counted = Cell::new(0);
    let arrived = |bytes: usize| {
        counted.set(counted.get() + bytes);
        download.with(|transfer, now| transfer.bytes(now, connection, bytes as u64));
        wait_for_limit(local, download, connection, bytes as u64)
    };
    let buffer = receiver.piece(length, buffer, most, arrived).await?;
    assert_eq!(counted.get(), length, "every byte of a piece is counted once");
    let job = download.with(|transfer, now| transfer.landed(now, connection, index));
    if let Some(job) = job {
        let download = Arc::clone(download);
        local.landed.push(Landed { download, job, buffer, length, permit });
    }
    Ok(())
}

/// Waits until as many bytes may have come. A peer whose next bytes are not taken until then is not silent.
async fn wait_for_limit(local: &Local, download: &DownloadState, connection: ConnectionId, bytes: u64) {
    let wait_ms = local.context.down.reserve(bytes);
    if wait_ms > 0 {
        download.with(|transfer, now| transfer.hold_up(now, connection, true));
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        download.with(|transfer, now| transfer.hold_up(now, connection, false));
    }
}

/// A buffer for the next piece. A peer that has to wait for it is not silent.
async fn take_buffer(
    local: &Local,
    download: &DownloadState,
    connection: ConnectionId,
) -> (PooledBuf, Permit) {
    if local.has_room()
        && let Some(taken) = local.context.buffers.try_take()
    {
        return taken;
    }
    download.with(|transfer, now| transfer.hold_up(now, connection, true));
    local.room().await;
    let taken = local.context.buffers.take().await;
    download.with(|transfer, now| transfer.hold_up(now, connection, false));
    taken
}
