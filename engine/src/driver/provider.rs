//! A connection that serves: greet, check the ticket, then two tasks, one that takes requests and one that sends pieces.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::limits::{HAVE_EVERY_MS, LAST_WORD_MS, REQUESTS_READ_BYTES};
use super::local::{Deadline, Local};
use super::receive::{ReceiveError, Receiver};
use super::sending;
use super::shares::{Admission, Share};
use super::stream::Stream;
use super::vital::spawn_vital;
use crate::mem::window::Outgoing;
use crate::proto::bitfield::Bitfield;
use crate::proto::codec;
use crate::proto::frame::{ByeCode, Message, PROTOCOL_VERSION, RefusedCode, RejectCode};
use crate::proto::limits::{FRAME_MAX_BYTES, HANDSHAKE_TIMEOUT_MS, HAVE_MAX_RANGES};
use crate::proto::manifest::{FileKey, FileName};
use crate::proto::session::{self, Answer, Provider, Violation};
use crate::proto::ticket::{self, Nonce};
use crate::proto::time::Moment;
use crate::proto::units::PieceRange;

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
        over: sending::Over::default(),
        told_of_change: Cell::new(false),
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
    connection.over.set();
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
    over: sending::Over,
    /// Its consumer was told that the source has changed.
    told_of_change: Cell<bool>,
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
        while !connection.over.is_set()
            && let Some(answer) = next_answer(local, connection)
        {
            let rejected = match answer {
                Answer::Reject(index, code) => Some((index, code)),
                Answer::Piece(index) => {
                    let sent =
                        sending::piece(local, stream, &connection.share, &connection.over, index).await?;
                    sent.map(|code| (index, code))
                }
            };
            if let Some((index, code)) = rejected {
                send(stream, &Message::Reject { index, code }).await?;
                connection.told_of_change.update(|told| told || code == RejectCode::SourceChanged);
            }
        }
        if connection.over.is_set() {
            if let Some(code) = connection.last_word.take() {
                send(stream, &Message::Bye { code }).await?;
            }
            return Ok(());
        }
        if let Some(code) = farewell(connection) {
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
        Answer::Piece(index) => Some(match sending::unservable(local, share) {
            Some(code) => Answer::Reject(index, code),
            None => {
                share.count_chosen(index);
                answer
            }
        }),
        Answer::Reject(..) => Some(answer),
    }
}

/// Whether to say goodbye, and how. That the source has changed is told by the answer to a request first: a goodbye alone would
/// look like a share that was ended.
fn farewell(connection: &Connection) -> Option<ByeCode> {
    let share = &connection.share;
    let told = share.changed().is_some() && connection.told_of_change.get();
    (share.is_closed() || told).then_some(ByeCode::Unshared)
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
