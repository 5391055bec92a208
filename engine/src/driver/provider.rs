//! A connection that serves: greet, check the ticket, then two tasks, one that reads requests and one that sends pieces.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::limits::{GOODBYE_MS, HAVE_EVERY_MS, REQUESTS_READ_BYTES, VERIFIED_AGAIN_MAX};
use super::places::{AcceptedPeer, ServingPlaceGuard, busy_message};
use super::receive::{FrameReceiver, ReceiveError};
use super::send_piece::{CloseSignal, reject_reason, send_piece};
use super::share_file::ServedSource;
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
use crate::proto::places::PlaceEnd;
use crate::proto::session::{self, PieceAnswer, ProviderSession, Violation};
use crate::proto::ticket::{self, Nonce};
use crate::proto::time::Moment;
use crate::proto::units::{PieceIndex, PieceRange};

/// Why a connection that serves has ended.
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

/// Serves a peer that has connected, until the connection ends.
pub(crate) async fn serve_peer(worker: Rc<WorkerState>, accepted: AcceptedPeer) {
    let AcceptedPeer { socket, control, place } = accepted;
    let peer = socket.peer_addr();
    let place = Rc::new(place);
    let served = match PeerStream::new(worker.io, socket, control) {
        Ok(stream) => {
            let route = peer.as_ref().ok().and_then(|peer| worker.zero_copy_route(*peer));
            let stream = worker.register_stream(stream.with_route(route));
            let served = serve_connection(&worker, &stream, &place).await;
            stream.shutdown();
            served
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = served {
        tracing::debug!(?peer, %error, "a consumer's connection ended");
    }
}

async fn serve_connection(
    worker: &Rc<WorkerState>,
    stream: &Rc<PeerStream>,
    place: &Rc<ServingPlaceGuard>,
) -> Result<(), ServeError> {
    let mut receiver = FrameReceiver::for_frames(Rc::clone(stream), REQUESTS_READ_BYTES);
    let context = &worker.context;
    let deadline = StreamDeadline::new(stream, HANDSHAKE_TIMEOUT_MS);
    let nonce = context.random_nonce()?;
    let peer_key = context.secret.peer_key();
    send_message(stream, &Message::Greeting { version: PROTOCOL_VERSION, nonce, peer_key }).await?;
    let message = match receiver.read_message(FRAME_MAX_BYTES).await {
        Err(_) if place.end().is_some() => return refuse_consumer(stream, RefusedCode::Busy).await,
        message => message?,
    };
    match message {
        Message::Prove { nonce, ref address } => return prove_address(worker, stream, nonce, address).await,
        Message::Greeting { version, .. } => return refuse_version(worker, stream, version).await,
        _ => {}
    }
    let admitted = match admit_consumer(worker, place, &message, nonce) {
        Ok(admitted) => admitted,
        Err(code) => return refuse_consumer(stream, code).await,
    };
    let Ok(source) = admitted.share.open(&context.file_calls).await else {
        return refuse_consumer(stream, RefusedCode::Busy).await;
    };
    let mut cursor = HaveCursor { told_count: admitted.share.gained_count(), due: Moment::default() };
    let bitfield = admitted.share.with_held(Bitfield::to_bytes);
    let signature = ticket::sign_opened(&context.secret, admitted.consumer_nonce);
    let length = admitted.share.geometry().length();
    send_message(stream, &Message::Opened { length, bitfield, signature }).await?;
    drop(deadline);

    let connection = Rc::new(ServingConnection {
        session: RefCell::new(admitted.session),
        place: Rc::clone(place),
        share: admitted.share,
        source,
        recently_sent: RefCell::default(),
        wake: Arc::new(Notify::new()),
        close_signal: CloseSignal::default(),
        has_told_change: Cell::new(false),
        goodbye: Cell::new(None),
    });
    connection.share.add_listener(&connection.wake);
    let writer = spawn_critical({
        let (worker, stream, connection) = (Rc::clone(worker), Rc::clone(stream), Rc::clone(&connection));
        async move {
            let result = write_answers(&worker, &stream, &connection, &mut cursor).await;
            // Ends the reading task too.
            stream.shutdown();
            result
        }
    });
    let read = read_requests(worker, &mut receiver, &connection).await;
    if let Ok(ByeCode::BadPiece) = read {
        // The file here may be what is wrong.
        connection.share.doubt_pieces(connection.recently_sent.take());
        context.watch.wake();
    }
    let read = read.map(drop);
    let goodbye = goodbye_after_reading(&read, place.end());
    if read.is_err() && goodbye.is_none() {
        stream.shutdown();
    }
    connection.goodbye.set(goodbye);
    let deadline = goodbye.map(|_| StreamDeadline::new(stream, GOODBYE_MS));
    connection.close_signal.close();
    connection.wake.notify_one();
    let written = writer.await.expect("no code aborts the task, and its panic aborts the program");
    drop((admitted.admission, deadline));
    read.and(written)
}

/// The goodbye to send when no more is read, if any.
fn goodbye_after_reading(read: &Result<(), ServeError>, end: Option<PlaceEnd>) -> Option<ByeCode> {
    match (end, read) {
        (Some(PlaceEnd::Busy), _) => Some(ByeCode::Busy),
        (Some(PlaceEnd::Expired), _) => Some(ByeCode::Expired),
        (None, Err(ServeError::Violation(_) | ServeError::Receive(ReceiveError::Codec(_)))) => {
            Some(ByeCode::Protocol)
        }
        (None, _) => None,
    }
}

/// Proves to a tracker that this node answers at the address that it has connected to.
async fn prove_address(
    worker: &WorkerState,
    stream: &PeerStream,
    nonce: Nonce,
    address: &str,
) -> Result<(), ServeError> {
    if address.parse::<SocketAddr>().is_err() {
        return Err(Violation::OutOfTurn.into());
    }
    let signature = ticket::sign_address(&worker.context.secret, nonce, address);
    Ok(send_message(stream, &Message::Proof { signature }).await?)
}

/// Tells a consumer of another version, and the log, which version each side speaks.
async fn refuse_version(worker: &WorkerState, stream: &PeerStream, theirs: u32) -> Result<(), ServeError> {
    if let Ok(consumer) = stream.peer_ip()
        && worker.context.is_new_other_version(consumer, theirs)
    {
        tracing::warn!(
            "a peer at {consumer} speaks version {theirs} of the peer protocol, and this node version {PROTOCOL_VERSION}: \
             update the older one"
        );
    }
    let message =
        format!("this node speaks version {PROTOCOL_VERSION} of the peer protocol, you speak {theirs}");
    send_message(stream, &Message::Refused { code: RefusedCode::Protocol, message }).await?;
    Err(Violation::Version(theirs).into())
}

/// A consumer whose `Open` was accepted.
struct AdmittedConsumer {
    session: ProviderSession,
    share: Arc<Share>,
    admission: ConsumerAdmission,
    consumer_nonce: Nonce,
}

fn admit_consumer(
    worker: &WorkerState,
    place: &ServingPlaceGuard,
    message: &Message,
    nonce: Nonce,
) -> Result<AdmittedConsumer, RefusedCode> {
    let context = &worker.context;
    let trust = context.trust().ok_or(RefusedCode::Ticket)?;
    let own_key = context.secret.peer_key();
    let (grant, consumer_nonce) =
        session::check_open(message, nonce, own_key, trust.key, context.tracker_time())?;
    let name = FileName::new(&grant.file_name).map_err(|_| RefusedCode::Ticket)?;
    let key = FileKey { group: grant.group.clone(), name };
    let share = context.shares.find(&key).ok_or(RefusedCode::NotShared)?;
    if share.content_id() != grant.file_id {
        return Err(RefusedCode::OtherDigest);
    }
    let admission = share.admit(grant.peer_key).ok_or(RefusedCode::Busy)?;
    let now = context.clock.now();
    place.admit(now, &grant.user, grant.expires).map_err(|_| RefusedCode::Busy)?;
    let session = ProviderSession::new(grant, trust.key, share.geometry());
    Ok(AdmittedConsumer { session, share, admission, consumer_nonce })
}

async fn refuse_consumer(stream: &PeerStream, code: RefusedCode) -> Result<(), ServeError> {
    let text = match code {
        RefusedCode::Protocol => "this is a Shoal peer, which speaks another protocol or version",
        RefusedCode::Ticket => "the ticket is not from this node's tracker, or not for your key",
        RefusedCode::Expired => "the ticket has expired",
        RefusedCode::NotShared => "the file is not shared here",
        RefusedCode::OtherDigest => "another file of that name is shared here",
        RefusedCode::Busy => {
            send_message(stream, &busy_message()).await?;
            return Err(ServeError::Refused(code));
        }
    };
    send_message(stream, &Message::Refused { code, message: text.to_owned() }).await?;
    Err(ServeError::Refused(code))
}

async fn send_message(stream: &PeerStream, message: &Message) -> io::Result<()> {
    stream.send(vec![SendPart::from(codec::encode_message(message))]).await
}

/// An open connection, shared by its two tasks.
struct ServingConnection {
    session: RefCell<ProviderSession>,
    place: Rc<ServingPlaceGuard>,
    share: Arc<Share>,
    /// `None`: the file of the share has changed.
    source: Option<Arc<ServedSource>>,
    /// The last pieces that were sent, at most [`VERIFIED_AGAIN_MAX`].
    recently_sent: RefCell<VecDeque<PieceIndex>>,
    /// Wakes the writing task.
    wake: Arc<Notify>,
    close_signal: CloseSignal,
    /// The consumer was told that the source has changed.
    has_told_change: Cell<bool>,
    /// Goodbye code to send after a protocol violation, or when the place was lost.
    goodbye: Cell<Option<ByeCode>>,
}

impl ServingConnection {
    fn note_sent(&self, index: PieceIndex) {
        let mut recent = self.recently_sent.borrow_mut();
        if recent.len() >= VERIFIED_AGAIN_MAX {
            recent.pop_front();
        }
        recent.push_back(index);
    }

    /// Why no piece may be sent now, if so.
    fn reject_reason(&self) -> Option<RejectCode> {
        match &self.source {
            Some(source) => reject_reason(&self.share, source),
            None => Some(RejectCode::SourceChanged),
        }
    }
}

/// Which gained pieces the consumer was told of.
struct HaveCursor {
    told_count: usize,
    /// When the next `Have` may be sent.
    due: Moment,
}

/// Reads requests until the consumer says goodbye, and returns why it does; or until the connection loses its place.
async fn read_requests(
    worker: &WorkerState,
    receiver: &mut FrameReceiver,
    connection: &ServingConnection,
) -> Result<ByeCode, ServeError> {
    loop {
        let message = receiver.read_message(FRAME_MAX_BYTES).await?;
        let now = worker.context.clock.now();
        let bye = connection.session.borrow_mut().handle_message(now, &message)?;
        if let Some(code) = bye {
            return Ok(code);
        }
        if matches!(message, Message::Renew { .. }) {
            connection.place.renew(connection.session.borrow().expires());
        }
        if connection.place.end().is_some() {
            // What a consumer goes on sending would be read for ever.
            return Err(ReceiveError::Ended.into());
        }
        connection.wake.notify_one();
    }
}

async fn write_answers(
    worker: &WorkerState,
    stream: &PeerStream,
    connection: &ServingConnection,
    cursor: &mut HaveCursor,
) -> Result<(), ServeError> {
    loop {
        while !connection.close_signal.is_closed()
            && let Some(answer) = next_answer(worker, connection)
        {
            let rejected = match answer {
                PieceAnswer::Reject(index, code) => Some((index, code)),
                PieceAnswer::Piece(index) => {
                    let source = connection.source.as_ref().expect("without a source each piece is rejected");
                    let (share, close_signal) = (&connection.share, &connection.close_signal);
                    let rejected = send_piece(worker, stream, (share, source), close_signal, index).await?;
                    connection.note_sent(index);
                    connection.place.note_use(worker.context.clock.now());
                    rejected.map(|code| (index, code))
                }
            };
            if let Some((index, code)) = rejected {
                pace_rejection(worker, connection, code).await;
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
        match send_have(worker, stream, connection, cursor).await? {
            Some(due_ms) => drop(tokio::time::timeout(Duration::from_millis(due_ms), woken).await),
            None => woken.await,
        }
    }
}

/// Waits until the consumer's user may get another rejection: else a user could have requests rejected as fast as a core can.
/// Those that steer a consumer to other pieces are bounded by the pieces that are sent.
async fn pace_rejection(worker: &WorkerState, connection: &ServingConnection, code: RejectCode) {
    if code == RejectCode::Busy {
        return;
    }
    let wait_ms = connection.place.reserve_rejection(worker.context.clock.now());
    if wait_ms > 0 {
        connection.close_signal.closes_within(wait_ms).await;
    }
}

fn next_answer(worker: &WorkerState, connection: &ServingConnection) -> Option<PieceAnswer> {
    let share = &connection.share;
    let mut session = connection.session.borrow_mut();
    let history = share.upload_history();
    let answer =
        share.with_held(|held| session.next_answer(held, &history, worker.context.tracker_time()))?;
    match answer {
        PieceAnswer::Piece(index) => Some(match connection.reject_reason() {
            Some(code) => PieceAnswer::Reject(index, code),
            None => {
                share.count_chosen(index);
                answer
            }
        }),
        PieceAnswer::Reject(..) => Some(answer),
    }
}

/// The goodbye to send now, if any. After a change of the source a rejection goes first: a goodbye alone would look like a
/// share that has ended.
fn goodbye_code(connection: &ServingConnection) -> Option<ByeCode> {
    let share = &connection.share;
    let has_told_change = share.source_change().is_some() && connection.has_told_change.get();
    (share.is_closed() || has_told_change).then_some(ByeCode::Unshared)
}

/// Tells the consumer of gained pieces, at most every [`HAVE_EVERY_MS`]. Returns in how many milliseconds the rest may be
/// told, if there is a rest.
async fn send_have(
    worker: &WorkerState,
    stream: &PeerStream,
    connection: &ServingConnection,
    cursor: &mut HaveCursor,
) -> io::Result<Option<u64>> {
    if connection.share.gained_count() == cursor.told_count {
        return Ok(None);
    }
    let now = worker.context.clock.now();
    if now < cursor.due {
        return Ok(Some(cursor.due.ms_since(now) + 1));
    }
    cursor.due = now.plus_ms(HAVE_EVERY_MS);
    let ranges = PieceRange::from_ascending(connection.share.gained_since(&mut cursor.told_count));
    for chunk in ranges.chunks(HAVE_MAX_RANGES) {
        let ranges = chunk.iter().map(|range| (*range).into()).collect();
        send_message(stream, &Message::Have { ranges }).await?;
    }
    Ok(None)
}
