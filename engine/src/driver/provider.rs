//! A connection that serves: greet, check the ticket, then two tasks, one that takes requests and one that sends pieces.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::limits::{HAVE_EVERY_MS, LAST_WORD_MS, REQUESTS_READ_BYTES};
use super::local::{Deadline, Local};
use super::receive::{ReceiveError, Receiver};
use super::shares::{Admission, Share};
use super::stream::Stream;
use super::vital::spawn_vital;
use crate::mem::window::{Outgoing, Window};
use crate::proto::bitfield::Bitfield;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, PROTOCOL_VERSION, RefusedCode, RejectCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS, HAVE_MAX_RANGES};
use crate::proto::manifest::{FileKey, FileName};
use crate::proto::session::{self, Answer, Provider, Violation};
use crate::proto::ticket::{self, Nonce};
use crate::proto::time::Moment;
use crate::proto::units::{PieceIndex, PieceRange};

/// Why a connection that serves is over.
#[derive(Debug, thiserror::Error)]
enum Over {
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
pub(crate) async fn serve(local: Rc<Local>, socket: std::net::TcpStream) {
    let peer = socket.peer_addr();
    let over = match Stream::new(local.io, socket) {
        Ok(stream) => {
            let route = peer.as_ref().ok().and_then(|peer| local.route(*peer));
            let stream = local.adopt(stream.by(route));
            let over = run(&local, &stream).await;
            stream.shutdown();
            over
        }
        Err(error) => Err(error.into()),
    };
    if let Err(over) = over {
        tracing::debug!(?peer, %over, "a consumer's connection ended");
    }
}

async fn run(local: &Rc<Local>, stream: &Rc<Stream>) -> Result<(), Over> {
    let mut receiver = Receiver::of_frames(Rc::clone(stream), REQUESTS_READ_BYTES);
    let context = &local.context;
    let Some((_place, stranger)) = context.serving.enter().zip(context.strangers.enter()) else {
        return refuse(stream, RefusedCode::Busy).await;
    };
    let deadline = Deadline::new(stream, HANDSHAKE_TIMEOUT_MS);
    let nonce = local.context.nonce()?;
    let peer_key = local.context.secret.peer_key();
    send(stream, &Message::Greeting { version: PROTOCOL_VERSION, nonce, peer_key }).await?;
    let message = receiver.message(FRAME_MAX_BYTES).await?;
    let opened = match admit(local, &message, nonce) {
        Ok(opened) => opened,
        Err(code) => return refuse(stream, code).await,
    };
    let mut news = News { told: opened.share.news_so_far(), due: Moment::default() };
    let bitfield = opened.share.with_held(Bitfield::to_bytes);
    let signature = ticket::sign_opened(&local.context.secret, opened.consumer_nonce);
    let length = opened.share.geometry().length();
    send(stream, &Message::Opened { length, bitfield, signature }).await?;
    drop((deadline, stranger));

    let connection = Rc::new(Connection {
        provider: RefCell::new(opened.provider),
        share: opened.share,
        wake: Arc::new(Notify::new()),
        over: Cell::new(false),
        last_word: Cell::new(None),
    });
    connection.share.listen(&connection.wake);
    let writer = spawn_vital({
        let (local, stream, connection) = (Rc::clone(local), Rc::clone(stream), Rc::clone(&connection));
        async move {
            let result = write(&local, &stream, &connection, &mut news).await;
            // Whatever ended it, the reader has to end too.
            stream.shutdown();
            result
        }
    });
    let read = read(&mut receiver, &connection).await;
    let mut deadline = None;
    match &read {
        Err(Over::Violation(_) | Over::Receive(ReceiveError::Codec(_))) => {
            connection.last_word.set(Some(ByeCode::Protocol));
            deadline = Some(Deadline::new(stream, LAST_WORD_MS));
        }
        Err(_) => stream.shutdown(),
        Ok(()) => {}
    }
    connection.over.set(true);
    connection.wake.notify_one();
    let written = writer.await.expect("nobody aborts it, and its panic ends the program");
    drop((opened.admission, deadline));
    read.and(written)
}

/// What an accepted `Open` leads to.
struct Opened {
    provider: Provider,
    share: Arc<Share>,
    admission: Admission,
    consumer_nonce: Nonce,
}

fn admit(local: &Local, message: &Message, nonce: Nonce) -> Result<Opened, RefusedCode> {
    let context = &local.context;
    let trust = context.trust().ok_or(RefusedCode::Ticket)?;
    let own = context.secret.peer_key();
    let (grant, consumer_nonce) =
        session::check_open(message, nonce, own, trust.key, context.trackers_time())?;
    let name = FileName::new(&grant.file_name).map_err(|_| RefusedCode::Ticket)?;
    let key = FileKey { group: grant.group.clone(), name };
    let share = context.shares.find(&key).ok_or(RefusedCode::NotShared)?;
    if share.content() != grant.file_id {
        return Err(RefusedCode::OtherDigest);
    }
    if share.changed().is_some() {
        return Err(RefusedCode::NotShared);
    }
    let admission = share.admit(grant.peer_key).ok_or(RefusedCode::Busy)?;
    let provider = Provider::new(grant, trust.key, share.geometry());
    Ok(Opened { provider, share, admission, consumer_nonce })
}

async fn refuse(stream: &Stream, code: RefusedCode) -> Result<(), Over> {
    let message = match code {
        RefusedCode::Protocol => "this is a Shoal peer, which speaks another protocol or version",
        RefusedCode::Ticket => "the ticket is not one of the trackers that this node trusts, or not yours",
        RefusedCode::Expired => "the ticket has expired",
        RefusedCode::NotShared => "the file is not shared here",
        RefusedCode::OtherDigest => "another file of that name is shared here",
        RefusedCode::Busy => "too many connections",
    };
    send(stream, &Message::Refused { code, message: message.to_owned() }).await?;
    Err(Over::Refused(code))
}

async fn send(stream: &Stream, message: &Message) -> io::Result<()> {
    stream.send(vec![Outgoing::from(codec::encode(message))]).await
}

/// An open connection, between its two tasks.
struct Connection {
    provider: RefCell<Provider>,
    share: Arc<Share>,
    wake: Arc<Notify>,
    over: Cell<bool>,
    /// Whoever broke the protocol is told so.
    last_word: Cell<Option<ByeCode>>,
}

/// What a consumer has been told of what was gained.
struct News {
    told: usize,
    /// When the next may be told.
    due: Moment,
}

async fn read(receiver: &mut Receiver, connection: &Connection) -> Result<(), Over> {
    loop {
        let message = receiver.message(FRAME_MAX_BYTES).await?;
        let bye = connection.provider.borrow_mut().message(&message)?;
        if bye.is_some() {
            return Ok(());
        }
        connection.wake.notify_one();
    }
}

async fn write(local: &Local, stream: &Stream, connection: &Connection, news: &mut News) -> Result<(), Over> {
    loop {
        while !connection.over.get()
            && let Some(answer) = next_answer(local, connection)
        {
            match answer {
                Answer::Reject(index, code) => send(stream, &Message::Reject { index, code }).await?,
                Answer::Piece(index) => piece(local, stream, connection, index).await?,
            }
        }
        if connection.over.get() {
            if let Some(code) = connection.last_word.take() {
                send(stream, &Message::Bye { code }).await?;
            }
            return Ok(());
        }
        if let Some(code) = farewell(&connection.share) {
            send(stream, &Message::Bye { code }).await?;
            return Ok(());
        }
        let woken = connection.wake.notified();
        match tell_news(local, stream, connection, news).await? {
            // Whether it was woken or the time is over: it looks again.
            Some(due_ms) => drop(tokio::time::timeout(Duration::from_millis(due_ms), woken).await),
            None => woken.await,
        }
    }
}

fn next_answer(local: &Local, connection: &Connection) -> Option<Answer> {
    let share = &connection.share;
    let mut provider = connection.provider.borrow_mut();
    let spread = share.spread();
    let answer =
        share.with_held(|held| provider.next_answer(held, &spread, local.context.trackers_time()))?;
    match answer {
        Answer::Piece(index) => Some(match unservable(local, share) {
            Some(code) => Answer::Reject(index, code),
            None => {
                share.count_chosen(index);
                answer
            }
        }),
        Answer::Reject(..) => Some(answer),
    }
}

/// Why no piece of this share may be sent now, if so.
fn unservable(local: &Local, share: &Share) -> Option<RejectCode> {
    if let Err(changed) = share.source().check(local.context.clock.now().ms()) {
        share.set_changed(changed.to_string());
    }
    if share.changed().is_some() {
        Some(RejectCode::SourceChanged)
    } else {
        share.is_closed().then_some(RejectCode::NotHeld)
    }
}

fn farewell(share: &Share) -> Option<ByeCode> {
    (share.is_closed() || share.changed().is_some()).then_some(ByeCode::Unshared)
}

/// Tells what was gained, at most every [`HAVE_EVERY_MS`]; in how many milliseconds what is left may be told, if any is.
async fn tell_news(
    local: &Local,
    stream: &Stream,
    connection: &Connection,
    news: &mut News,
) -> io::Result<Option<u64>> {
    if connection.share.news_so_far() == news.told {
        return Ok(None);
    }
    let now = local.context.clock.now();
    if now < news.due {
        return Ok(Some(news.due.ms_since(now) + 1));
    }
    news.due = now.plus_ms(HAVE_EVERY_MS);
    let ranges = PieceRange::joined(connection.share.news(&mut news.told));
    for some in ranges.chunks(HAVE_MAX_RANGES) {
        send(stream, &Message::Have { ranges: some.iter().map(|range| (*range).into()).collect() }).await?;
    }
    Ok(None)
}

/// Sends a piece straight from the mapping; under a limit in portions, between which other connections have their turn.
async fn piece(
    local: &Local,
    stream: &Stream,
    connection: &Connection,
    index: PieceIndex,
) -> Result<(), Over> {
    let share = &connection.share;
    let geometry = share.geometry();
    let (offset, length) = (geometry.offset(index), geometry.piece_len(index));
    let end = offset + u64::from(length);
    let portion = local.context.up.portion();
    let mut at = end.min(offset.saturating_add(portion));
    local.context.up.book(at - offset).await;
    if let Err(error) = bring_in(local, &share.source().window(offset..end)).await {
        tracing::debug!(%error, piece = %index, "a piece of the source cannot be read");
        share.set_changed(share.source().note_unreadable().to_string());
    }
    // The waits may have been long: what was true when the piece was chosen need not be any more.
    if let Some(code) = unservable(local, share) {
        return Ok(send(stream, &Message::Reject { index, code }).await?);
    }
    share.count_sent(at - offset);
    let head = codec::encode(&Message::Piece { index, length });
    let mut parts = vec![Outgoing::from(head), Outgoing::from(share.source().window(offset..at))];
    loop {
        let sent = stream.send(parts).await;
        if sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT)) {
            share.set_changed(share.source().note_unreadable().to_string());
        }
        sent?;
        if at == end {
            return Ok(());
        }
        let next = end.min(at.saturating_add(portion));
        // Whoever has gone has no turn.
        if !connection.over.get() {
            local.context.up.book(next - at).await;
        }
        if connection.over.get() || unservable(local, share).is_some() {
            // In the middle of a piece there is nothing else to say.
            stream.shutdown();
            return Ok(());
        }
        share.count_sent(next - at);
        parts = vec![Outgoing::from(share.source().window(at..next))];
        at = next;
    }
}

/// Has a cold piece read by another thread, so that no page fault stalls this one's ring.
async fn bring_in(local: &Local, window: &Window) -> io::Result<()> {
    if window.is_resident() {
        return Ok(());
    }
    let (done, resident) = oneshot::channel();
    let tell = Box::new(move |result| {
        // The connection may be gone by now.
        let _ = done.send(result);
    });
    match local.context.prefault.try_submit(window.clone(), tell) {
        Ok(()) => resident.await.unwrap_or(Ok(())),
        // Too many wait already: the send itself brings the piece in.
        Err(_) => Ok(()),
    }
}
