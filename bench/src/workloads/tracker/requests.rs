//! The requests of the load: accounts with their sessions, and the text of each kind of request.
//!
//! As those of a real node, requests contain their session and the node's address.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::limits::{ACCOUNTS, ANSWER_TIMEOUT_MS, FILE_PIECES};
use crate::mix::RequestKind;

/// The group of all files.
const GROUP: &str = "bench";

/// The file that is looked up.
const FILE: &str = "looked-up.bin";

/// The password of every account.
const PASSWORD: &str = "password";

/// The start of every answer to a request that was carried out.
pub(crate) const SUCCESS: &[u8] = b"{\"status\":\"success\"";

pub(crate) struct BenchAccount {
    user: String,
    port: u16,
    key: String,
    session: String,
    /// Whole requests: ping, get_peers, update_pieces, login.
    texts: [Vec<u8>; 4],
    /// The text of an upload, before and after the file name.
    upload: [Vec<u8>; 2],
    /// The text of an account's first look-up, before and after the peer key.
    first: [Vec<u8>; 2],
}

/// A connection that waits for each answer.
struct TrackerSession {
    socket: TcpStream,
    answers: BufReader<TcpStream>,
}

impl TrackerSession {
    fn connect(address: SocketAddr) -> anyhow::Result<TrackerSession> {
        let socket = TcpStream::connect(address).context("the tracker does not accept connections")?;
        TrackerSession::from_socket(socket)
    }

    fn from_socket(socket: TcpStream) -> anyhow::Result<TrackerSession> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(ANSWER_TIMEOUT_MS)))?;
        let answers = BufReader::new(socket.try_clone()?);
        Ok(TrackerSession { socket, answers })
    }

    fn exchange(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.socket.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("the tracker's answer is not JSON")?;
        if answer["status"] != "success" {
            bail!("the tracker refused {}: {}", request["command"], answer["message"]);
        }
        Ok(answer)
    }
}

/// Creates accounts with sessions, a group of all, and a file that one account shares and the others download.
/// Existing ones are reused. Uploads of the load describe files of `upload_pieces` pieces.
pub(crate) fn prepare_accounts(
    address: SocketAddr,
    upload_pieces: usize,
) -> anyhow::Result<Vec<BenchAccount>> {
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let mut session = TrackerSession::connect(address)?;
        let user = format!("bench{number}");
        let port = 20_000 + u16::try_from(number)?;
        let key = format!("{:064x}", number + 1);
        // The account may exist from an earlier run; then the login succeeds.
        let _ = session.exchange(
            &json!({"command": "create_user", "command_args": {"user_id": user, "passwd": PASSWORD}}),
        );
        let answer = session.exchange(&login_request(&user, port, &key))?;
        let session_id = answer["session"].as_str().context("the login gave no session")?.to_owned();
        let account = BenchAccount::new(user, port, key, session_id, upload_pieces);
        // Group and membership may exist too; the next request fails if they do not.
        let join = if number == 0 { "create_group" } else { "join_group" };
        let _ = session.exchange(&account.request(join, &json!({"group_id": GROUP})));
        let file = json!({"group_id": GROUP, "file_name": FILE, "view": "compact"});
        if number == 0 {
            let digest = "ab".repeat(20);
            let mut upload = account.request("upload_file", &file);
            upload["piecewise_sha"] = vec![digest.clone(); FILE_PIECES as usize].into();
            upload["fileSha"] = digest.into();
            session.exchange(&upload)?;
        } else {
            // This makes the account a leecher of the swarm.
            session.exchange(&account.request("download_file", &file))?;
        }
        accounts.push(account);
    }
    Ok(accounts)
}

fn login_request(user: &str, port: u16, key: &str) -> Value {
    json!({
        "command": "login", "command_args": {"user_id": user, "passwd": PASSWORD, "peer_key": key},
        "sender_ip": "127.0.0.1", "sender_port": port.to_string()
    })
}

/// The parts of a request before and after a word.
fn split_around(word: &str, request: &Value) -> [Vec<u8>; 2] {
    let text = request.to_string();
    let (before, behind) = text.split_once(word).unwrap_or((&text, ""));
    [before.as_bytes().to_vec(), format!("{behind}\n").into_bytes()]
}

impl BenchAccount {
    fn new(user: String, port: u16, key: String, session: String, upload_pieces: usize) -> BenchAccount {
        let mut account = BenchAccount {
            user,
            port,
            key,
            session,
            texts: Default::default(),
            upload: Default::default(),
            first: Default::default(),
        };
        let file = json!({"group_id": GROUP, "file_name": FILE});
        let line = |value: Value| format!("{value}\n").into_bytes();
        let mut look_up = file.clone();
        look_up["peer_key"] = account.key.as_str().into();
        let mut gained = file;
        gained["ranges"] = json!([[0, FILE_PIECES / 2]]);
        let texts = [
            line(account.request("ping", &json!({}))),
            line(account.request("get_peers", &look_up)),
            line(account.request("update_pieces", &gained)),
            // Creates another session: that of the load stays valid.
            line(login_request(&account.user, account.port, &account.key)),
        ];
        let digest = "cd".repeat(20);
        let mut upload = account.request("upload_file", &json!({"group_id": GROUP, "file_name": "NAME"}));
        upload["piecewise_sha"] = vec![digest.clone(); upload_pieces].into();
        upload["fileSha"] = digest.into();
        account.upload = split_around("NAME", &upload);
        look_up["peer_key"] = "KEY".into();
        account.first = split_around("KEY", &account.request("get_peers", &look_up));
        account.texts = texts;
        account
    }

    fn request(&self, command: &str, args: &Value) -> Value {
        json!({
            "command": command, "command_args": args, "session": self.session,
            "sender_ip": "127.0.0.1", "sender_port": self.port.to_string()
        })
    }

    /// Appends a request; `number` makes it unique where its kind needs that.
    pub(crate) fn append(&self, kind: RequestKind, number: u64, out: &mut Vec<u8>) {
        match kind {
            RequestKind::Ping => out.extend_from_slice(&self.texts[0]),
            RequestKind::GetPeers => out.extend_from_slice(&self.texts[1]),
            RequestKind::UpdatePieces => out.extend_from_slice(&self.texts[2]),
            RequestKind::Login => out.extend_from_slice(&self.texts[3]),
            RequestKind::FirstGetPeers => {
                out.extend_from_slice(&self.first[0]);
                // Keys are unique per account and differ from its node's key.
                out.extend_from_slice(format!("{:032x}{number:032x}", self.port).as_bytes());
                out.extend_from_slice(&self.first[1]);
            }
            RequestKind::UploadFile => {
                out.extend_from_slice(&self.upload[0]);
                // The end of the session token makes file names unique per account and run.
                out.extend_from_slice(
                    format!("{}-{number}", self.session.get(70..).unwrap_or("x")).as_bytes(),
                );
                out.extend_from_slice(&self.upload[1]);
            }
        }
    }
}

/// Connections that have authenticated and stay idle.
pub(crate) struct IdleConnections<'a> {
    sockets: Vec<TcpStream>,
    accounts: &'a [BenchAccount],
}

impl<'a> IdleConnections<'a> {
    /// Opens `count` connections, one after the other.
    pub(crate) fn open(
        address: SocketAddr,
        accounts: &'a [BenchAccount],
        count: usize,
    ) -> anyhow::Result<IdleConnections<'a>> {
        let mut idle = IdleConnections { sockets: Vec::new(), accounts };
        for at in 0..count {
            let mut session = TrackerSession::connect(address)?;
            session.exchange(&idle.ping(at))?;
            idle.sockets.push(session.socket);
        }
        Ok(idle)
    }

    /// How many were opened.
    pub(crate) fn count(&self) -> usize {
        self.sockets.len()
    }

    /// How many the tracker has left open: a read returns neither bytes nor the end of the stream.
    pub(crate) fn open_count(&self) -> usize {
        let is_open = |socket: &&TcpStream| {
            let peeked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
            let waits = peeked.is_err_and(|fault| fault.kind() == ErrorKind::WouldBlock);
            waits && socket.set_nonblocking(false).is_ok()
        };
        self.sockets.iter().filter(is_open).count()
    }

    /// How many still get an answer.
    pub(crate) fn answering_count(&self) -> usize {
        let answers = |at: &usize| {
            let session = self.sockets[*at]
                .try_clone()
                .map_err(anyhow::Error::from)
                .and_then(TrackerSession::from_socket);
            session.and_then(|mut session| session.exchange(&self.ping(*at))).is_ok()
        };
        (0..self.sockets.len()).filter(answers).count()
    }

    fn ping(&self, at: usize) -> Value {
        self.accounts[at % self.accounts.len()].request("ping", &json!({}))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_closed_connection_is_not_counted_as_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for _ in 0..3 {
                let (socket, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(socket.try_clone().unwrap());
                lines.read_line(&mut String::new()).unwrap();
                (&socket).write_all(b"{\"status\":\"success\"}\n").unwrap();
                kept.push((socket, lines));
            }
            kept
        });
        let account = BenchAccount::new("u".to_owned(), 1, "k".to_owned(), "s".to_owned(), 1);
        let accounts = [account];
        let idle = IdleConnections::open(address, &accounts, 3).unwrap();
        let mut kept = fake.join().unwrap();
        assert_eq!(idle.open_count(), 3);
        drop(kept.remove(1));
        // Blocks until the close has arrived.
        assert_eq!(std::io::Read::read(&mut &idle.sockets[1], &mut [0]).unwrap(), 0);
        assert_eq!(idle.open_count(), 2);
        let fake = std::thread::spawn(move || {
            for (socket, mut lines) in kept {
                lines.read_line(&mut String::new()).unwrap();
                (&socket).write_all(b"{\"status\":\"success\"}\n").unwrap();
            }
        });
        assert_eq!(idle.answering_count(), 2);
        fake.join().unwrap();
    }
}
