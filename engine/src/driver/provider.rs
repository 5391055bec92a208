//! A connection that serves: greet, check the ticket, then two tasks, one that takes requests and one that sends pieces.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::limits::{GOODBYE_MS, HAVE_EVERY_MS, REQUESTS_READ_BYTES};
use super::receive::{FrameReceiver, ReceiveError};
use super::send_piece;
use super::shares::{ConsumerAdmission, Share};
use super::stream::PeerStream;
use super::worker_state::{StreamDeadline, WorkerState};
use crate::abort::spawn_critical;
use crate::mem::window::SendPart;
use crate::proto::bitfield::Bitfield;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, PROTOCOL_VERSION, RefusedCode, RejectCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS, HAVE_MAX_RANGES};
use crate::proto::manifest::{FileKey, FileName};
use crate::proto::session::{self, PieceAnswer, ProviderSession, Violation};
use crate::proto::ticket::{self, Nonce};
use crate::proto::time::Moment;
use crate::proto::units::PieceRange;

/// Why a connection that serves is over.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("refused ({0:?})")]
    Refused(RefusedCode),
}

/// Serves whoever connected.
pub(crate) async fn serve_peer(local: Rc<WorkerState>, socket: std::net::TcpStream) {
    let peer = socket.peer_addr();
    let over = match PeerStream::new(local.io, socket) {
        Ok(stream) => {
            let route = peer.as_ref().ok().and_then(|peer| local.zero_copy_route(*peer));
            let stream = local.register_stream(stream.with_route(route));
            let over = serve_connection(&local, &stream).await;
            stream.shutdown();
            over
        }
        Err(error) => Err(error.into()),
    };
    if let Err(over) = over {
        tracing::debug!(?peer, %over, "a consumer's connection ended");
    }
}

async fn serve_connection(local: &Rc<WorkerState>, stream: &Rc<PeerStream>) -> Result<(), ServeError> {
    let mut receiver = FrameReceiver::for_frames(Rc::clone(stream), REQUESTS_READ_BYTES);
    let context = &local.context;
    let Some((_place, stranger)) = context.serve_slots.take().zip(context.handshake_slots.take()) else {
        return refuse_consumer(stream, RefusedCode::Busy).await;
    };
    let deadline = StreamDeadline::new(stream, HANDSHAKE_TIMEOUT_MS);
    let nonce = local.context.random_nonce()?;
    let peer_key = local.context.secret.peer_key();
    send_message(stream, &Message::Greeting { version: PROTOCOL_VERSION, nonce, peer_key }).await?;
    let message = receiver.read_message(FRAME_MAX_BYTES).await?;
    let opened = match admit_consumer(local, &message, nonce) {
        Ok(opened) => opened,
        Err(code) => return refuse_consumer(stream, code).await,
    };
    let mut news = HaveCursor { told_count: opened.share.gained_count(), due: Moment::default() };
    let bitfield = opened.share.with_held(Bitfield::to_bytes);
    let signature = ticket::sign_opened(&local.context.secret, opened.consumer_nonce);
    let length = opened.share.geometry().length();
    send_message(stream, &Message::Opened { length, bitfield, signature }).await?;
    drop((deadline, stranger));

    let connection = Rc::new(ServingConnection {
        provider: RefCell::new(opened.provider),
        share: opened.share,
        wake: Arc::new(Notify::new()),
        close_signal: send_piece::CloseSignal::default(),
        has_told_change: Cell::new(false),
        goodbye: Cell::new(None),
    });
    connection.share.add_listener(&connection.wake);
    let writer = spawn_critical({
        let (local, stream, connection) = (Rc::clone(local), Rc::clone(stream), Rc::clone(&connection));
        async move {
            let result = write_answers(&local, &stream, &connection, &mut news).await;
            // Whatever ended it, the reader has to end too.
            stream.shutdown();
            result
        }
    });
    let read = read_requests(&mut receiver, &connection).await;
    let mut deadline = None;
    match &read {
        Err(ServeError::Violation(_) | ServeError::Receive(ReceiveError::Codec(_))) => {
            connection.goodbye.set(Some(ByeCode::Protocol));
            deadline = Some(StreamDeadline::new(stream, GOODBYE_MS));
        }
        Err(_) => stream.shutdown(),
        Ok(()) => {}
    }
    connection.close_signal.close();
    connection.wake.notify_one();
    let written = writer.await.expect("nobody aborts it, and its panic ends the program");
    drop((opened.admission, deadline));
    read.and(written)
}

/// What an accepted `OpenConnection` leads to.
struct AdmittedConsumer {
    provider: ProviderSession,
    share: Arc<Share>,
    admission: ConsumerAdmission,
    consumer_nonce: Nonce,
}

fn admit_consumer(
    local: &WorkerState,
    message: &Message,
    nonce: Nonce,
) -> Result<AdmittedConsumer, RefusedCode> {
    let context = &local.context;
    let trust = context.trust().ok_or(RefusedCode::Ticket)?;
    let own = context.secret.peer_key();
    let (grant, consumer_nonce) =
        session::check_open(message, nonce, own, trust.key, context.tracker_time())?;
    let name = FileName::new(&grant.file_name).map_err(|_| RefusedCode::Ticket)?;
    let key = FileKey { group: grant.group.clone(), name };
    let share = context.shares.find(&key).ok_or(RefusedCode::NotShared)?;
    if share.content_id() != grant.file_id {
        return Err(RefusedCode::OtherDigest);
    }
    let admission = share.admit(grant.peer_key).ok_or(RefusedCode::Busy)?;
    let provider = ProviderSession::new(grant, trust.key, share.geometry());
    Ok(AdmittedConsumer { provider, share, admission, consumer_nonce })
}

async fn refuse_consumer(stream: &PeerStream, code: RefusedCode) -> Result<(), ServeError> {
    let message = match code {
        RefusedCode::Protocol => "this is a Shoal peer, which speaks another protocol or version",
        RefusedCode::Ticket => "the ticket is not one of the trackers that this node trusts, or not yours",
        RefusedCode::Expired => "the ticket has expired",
        RefusedCode::NotShared => "the file is not shared here",
        RefusedCode::OtherDigest => "another file of that name is shared here",
        RefusedCode::Busy => "too many connections",
    };
    send_message(stream, &Message::Refused { code, message: message.to_owned() }).await?;
    Err(ServeError::Refused(code))
}

async fn send_message(stream: &PeerStream, message: &Message) -> io::Result<()> {
    stream.send(vec![SendPart::from(codec::encode_message(message))]).await
}

/// An open connection, between its two tasks.
struct ServingConnection {
    provider: RefCell<ProviderSession>,
    share: Arc<Share>,
    wake: Arc<Notify>,
    close_signal: send_piece::CloseSignal,
    /// Its consumer was told that the source has changed.
    has_told_change: Cell<bool>,
    /// Whoever broke the protocol is told so.
    goodbye: Cell<Option<ByeCode>>,
}

/// What a consumer has been told of what was gained.
struct HaveCursor {
    told_count: usize,
    /// When the next may be told.
    due: Moment,
}

async fn read_requests(
    receiver: &mut FrameReceiver,
    connection: &ServingConnection,
) -> Result<(), ServeError> {
    loop {
        let message = receiver.read_message(FRAME_MAX_BYTES).await?;
        let bye = connection.provider.borrow_mut().handle_message(&message)?;
        if bye.is_some() {
            return Ok(());
        }
        connection.wake.notify_one();
    }
}

async fn write_answers(
    local: &WorkerState,
    stream: &PeerStream,
    connection: &ServingConnection,
    news: &mut HaveCursor,
) -> Result<(), ServeError> {
    loop {
        while !connection.close_signal.is_closed()
            && let Some(answer) = next_answer(local, connection)
        {
            let rejected = match answer {
                PieceAnswer::Reject(index, code) => Some((index, code)),
                PieceAnswer::Piece(index) => {
                    let sent = send_piece::send_piece(
                        local,
                        stream,
                        &connection.share,
                        &connection.close_signal,
                        index,
                    )
                    .await?;
                    sent.map(|code| (index, code))
                }
            };
            if let Some((index, code)) = rejected {
                send_message(stream, &Message::Reject { index, code }).await?;
                connection.has_told_change.update(|told| told || code == RejectCode::SourceChanged);
            }
        }
        if connection.close_signal.is_closed() {
            if let Some(code) = connection.goodbye.take() {
                send_message(stream, &Message::Bye { code }).await?;
            }
            return Ok(());
        }
        if let Some(code) = goodbye_code(connection) {
            send_message(stream, &Message::Bye { code }).await?;
            return Ok(());
        }
        let woken = connection.wake.notified();
        match send_have(local, stream, connection, news).await? {
            // Whether it was woken or the time is over: it looks again.
            Some(due_ms) => drop(tokio::time::timeout(Duration::from_millis(due_ms), woken).await),
            None => woken.await,
        }
    }
}

fn next_answer(local: &WorkerState, connection: &ServingConnection) -> Option<PieceAnswer> {
    let share = &connection.share;
    let mut provider = connection.provider.borrow_mut();
    let spread = share.spread();
    let answer = share.with_held(|held| provider.next_answer(held, &spread, local.context.tracker_time()))?;
    match answer {
        PieceAnswer::Piece(index) => Some(match send_piece::reject_reason(local, share) {
            Some(code) => PieceAnswer::Reject(index, code),
            None => {
                share.count_chosen(index);
                answer
            }
        }),
        PieceAnswer::Reject(..) => Some(answer),
    }
}

/// Whether to say goodbye, and how. That the source has changed is told by the answer to a request first: a goodbye alone would
/// look like a share that was ended.
fn goodbye_code(connection: &ServingConnection) -> Option<ByeCode> {
    let share = &connection.share;
    let told = share.source_change().is_some() && connection.has_told_change.get();
    (share.is_closed() || told).then_some(ByeCode::Unshared)
}

/// Tells what was gained, at most every [`HAVE_EVERY_MS`]; in how many milliseconds what is left may be told, if any is.
async fn send_have(
    local: &WorkerState,
    stream: &PeerStream,
    connection: &ServingConnection,
    news: &mut HaveCursor,
) -> io::Result<Option<u64>> {
    if connection.share.gained_count() == news.told_count {
        return Ok(None);
    }
    let now = local.context.clock.now();
    if now < news.due {
        return Ok(Some(news.due.ms_since(now) + 1));
    }
    news.due = now.plus_ms(HAVE_EVERY_MS);
    let ranges = PieceRange::from_ascending(connection.share.gained_since(&mut news.told_count));
    for some in ranges.chunks(HAVE_MAX_RANGES) {
        send_message(stream, &Message::Have { ranges: some.iter().map(|range| (*range).into()).collect() })
            .await?;
    }
    Ok(None)
}
