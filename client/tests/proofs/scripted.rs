//! Raw implementations of the protocols: a tracker's client over a plain socket, a provider with a file in memory, a consumer
//! with a ticket that may not be its own, and a tracker with false answers.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use engine::proto::bitfield::Bitfield;
use engine::proto::codec::{self, LENGTH_BYTES};
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::geometry::Geometry;
use engine::proto::limits::OPENED_MAX_BYTES;
use engine::proto::ticket::{self, Nonce, PeerKey, SecretKey, Ticket};
use engine::proto::units::{PieceCount, PieceRange};
use serde_json::{Value, json};

/// A tracker's client over plain JSON lines.
pub(crate) struct RawClient {
    stream: BufReader<TcpStream>,
}

impl RawClient {
    /// Connects and logs in with this peer key.
    pub(crate) fn login(tracker: SocketAddr, user: &str, key: PeerKey) -> RawClient {
        let mut client = RawClient { stream: BufReader::new(TcpStream::connect(tracker).unwrap()) };
        client.ask(&json!({"command": "login",
            "command_args": {"user_id": user, "passwd": "password", "peer_key": hex(&key.0)}}));
        client
    }

    /// Sends a request; the answer must be a success.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.stream.get_mut().write_all(request.to_string().as_bytes()).unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["status"], "success", "{request}: {answer}");
        answer
    }
}

impl RawClient {
    /// A ticket for a file, for the node with this key.
    pub(crate) fn ticket(&mut self, group: &str, file: &str, key: &SecretKey) -> Ticket {
        let answer = self.ask(&json!({"command": "get_peers",
            "command_args": {"group_id": group, "file_name": file},
            "peer_key": hex(&key.peer_key().0)}));
        let text = answer["ticket"].as_str().unwrap();
        Ticket(base64::engine::general_purpose::STANDARD.decode(text).unwrap())
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves `content` to every peer that connects, without checking tickets, until the test ends.
pub(crate) fn serve_without_tickets(content: Vec<u8>, secret: SecretKey) -> SocketAddr {
    serve_recording(content, secret).0
}

/// Indices of requested pieces.
pub(crate) type RequestedPieces = Arc<Mutex<BTreeSet<u32>>>;

/// Like [`serve_without_tickets`], and records which pieces are requested.
pub(crate) fn serve_recording(content: Vec<u8>, secret: SecretKey) -> (SocketAddr, RequestedPieces) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = RequestedPieces::default();
    let notes = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (content, secret, notes) = (content.clone(), secret.clone(), Arc::clone(&notes));
            // The thread ends with its connection.
            std::thread::spawn(move || serve_one(stream, &content, &secret, &notes));
        }
    });
    (address, asked)
}

fn serve_one(
    mut stream: TcpStream,
    content: &[u8],
    secret: &SecretKey,
    asked: &RequestedPieces,
) -> Option<()> {
    let geometry = Geometry::new(content.len() as u64).unwrap();
    let greeting =
        Message::Greeting { version: PROTOCOL_VERSION, nonce: Nonce([1; 32]), peer_key: secret.peer_key() };
    send(&mut stream, &greeting)?;
    let Message::Open { nonce, .. } = receive(&mut stream)? else { return None };
    let opened = Message::Opened {
        length: geometry.length(),
        bitfield: Bitfield::full(geometry.pieces()).to_bytes(),
        signature: ticket::sign_opened(secret, nonce),
    };
    send(&mut stream, &opened)?;
    loop {
        let Message::Request { first, count } = receive(&mut stream)? else { continue };
        for index in PieceRange::from_count(first, count)?.indices() {
            asked.lock().unwrap().insert(index.0);
            let (offset, length) = (geometry.offset(index), geometry.piece_len(index));
            send(&mut stream, &Message::Piece { index, length })?;
            let offset = usize::try_from(offset).unwrap();
            stream.write_all(&content[offset..offset + length as usize]).ok()?;
        }
    }
}

/// Connects to a real node with a ticket and a key; returns the connection and the node's answer.
pub(crate) fn open(node: SocketAddr, ticket: &Ticket, key: &SecretKey) -> (TcpStream, Message) {
    let mut stream = TcpStream::connect(node).unwrap();
    send_open(&mut stream, ticket, key);
    let answer = receive(&mut stream).unwrap();
    (stream, answer)
}

/// Connects to a real node with a ticket and a key, requests the first piece, and returns all messages of the node.
pub(crate) fn consume(node: SocketAddr, ticket: &Ticket, key: &SecretKey) -> Vec<Message> {
    let mut stream = TcpStream::connect(node).unwrap();
    send_open(&mut stream, ticket, key);
    // Fails if the node has refused and closed already.
    let _ = send(
        &mut stream,
        &Message::Request { first: engine::proto::units::PieceIndex(0), count: PieceCount(1) },
    );
    let mut said = Vec::new();
    while let Some(message) = receive(&mut stream) {
        let piece = matches!(message, Message::Piece { .. });
        said.push(message);
        if piece {
            break;
        }
    }
    said
}

fn send_open(stream: &mut TcpStream, ticket: &Ticket, key: &SecretKey) {
    let greeting = receive(stream).unwrap();
    let Message::Greeting { nonce, peer_key, .. } = greeting else { panic!("{greeting:?}") };
    let signature = ticket::sign_open(key, nonce, ticket, peer_key);
    send(stream, &Message::Open { ticket: ticket.clone(), nonce: Nonce([2; 32]), signature }).unwrap();
}

/// Sends a frame; `None` if the peer has closed.
pub(crate) fn send(stream: &mut TcpStream, message: &Message) -> Option<()> {
    stream.write_all(&codec::encode_message(message)).ok()
}

/// The next frame; `None` at the end.
pub(crate) fn receive(stream: &mut TcpStream) -> Option<Message> {
    let mut head = [0; LENGTH_BYTES];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; codec::frame_len(head, OPENED_MAX_BYTES).ok()?];
    stream.read_exact(&mut body).ok()?;
    codec::decode_message(&body).ok()
}

/// A tracker that accepts every login and answers other commands with `answer`.
pub(crate) fn lying_tracker(answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> SocketAddr {
    scripted_tracker(move |request| {
        let mut reply = answer(request["command"].as_str().unwrap());
        let envelope =
            json!({"status": "success", "message": "", "epoch": 1, "request_id": request["request_id"]});
        reply.as_object_mut().unwrap().extend(envelope.as_object().unwrap().clone());
        format!("{reply}\n")
    })
}

/// A tracker that accepts every login, ping and `status`, does not know `check_address`, and sends exactly the text that
/// `say` returns for other requests.
pub(crate) fn scripted_tracker(say: impl Fn(&Value) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let say = Arc::new(say);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let say = Arc::clone(&say);
            std::thread::spawn(move || {
                let requests = BufReader::new(stream.try_clone().unwrap());
                for line in requests.lines().map_while(Result::ok) {
                    let request: Value = serde_json::from_str(&line).unwrap();
                    let said = match request["command"].as_str().unwrap() {
                        "login" | "ping" | "status" => {
                            let reply = json!({"session": "s", "tracker_key": "11".repeat(32), "server_time": 1,
                                "status": "success", "message": "", "epoch": 1,
                                "request_id": request["request_id"]});
                            format!("{reply}\n")
                        }
                        "check_address" => {
                            let reply = json!({"status": "failure", "code": "unknown_command", "message": "",
                                "epoch": 1, "request_id": request["request_id"]});
                            format!("{reply}\n")
                        }
                        _ => say(&request),
                    };
                    if stream.write_all(said.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
