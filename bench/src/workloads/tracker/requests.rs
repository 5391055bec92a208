//! What is sent: accounts with their sessions, and the text of each kind of request, as the client's node sends it.
//!
//! Requests name their session and where their node listens, as those of the node do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::limits::{ACCOUNTS, FILE_PIECES, PATIENCE_MS};
use crate::mix::Kind;

/// The group of all files.
const GROUP: &str = "bench";

/// The file that is looked up.
const FILE: &str = "looked-up.bin";

/// Everybody's password.
const PASSWORD: &str = "password";

/// How every answer to a request that was carried out begins.
pub(crate) const SUCCESS: &[u8] = b"{\"status\":\"success\"";

/// An account with a session.
pub(crate) struct Account {
    user: String,
    port: u16,
    key: String,
    session: String,
    /// By number of kind; of an upload, what stands before and behind the name.
    texts: [Vec<u8>; 4],
    upload: [Vec<u8>; 2],
    /// What stands before and behind the key of a first look-up.
    first: [Vec<u8>; 2],
}

/// A connection that waits for each answer.
struct Talk {
    socket: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Talk {
    fn to(address: SocketAddr) -> anyhow::Result<Talk> {
        let socket = TcpStream::connect(address).context("the tracker does not take connections")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(PATIENCE_MS)))?;
        let answers = BufReader::new(socket.try_clone()?);
        Ok(Talk { socket, answers })
    }

    fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.socket.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("the tracker did not answer by JSON")?;
        if answer["status"] != "success" {
            bail!("the tracker refused {}: {}", request["command"], answer["message"]);
        }
        Ok(answer)
    }
}

/// Makes the accounts, a group of all, and a file that one has and the others fetch; gives the accounts with their sessions.
/// On a tracker that has them already they are used as they are.
pub(crate) fn prepare(address: SocketAddr) -> anyhow::Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        let mut talk = Talk::to(address)?;
        let user = format!("bench{number}");
        let port = 20_000 + u16::try_from(number)?;
        let key = format!("{:064x}", number + 1);
        // An account may be there from an earlier run; the login shows whether it is.
        let _ = talk
            .ask(&json!({"command": "create_user", "command_args": {"user_id": user, "passwd": PASSWORD}}));
        let answer = talk.ask(&login(&user, port, &key))?;
        let session = answer["session"].as_str().context("a login without a session")?.to_owned();
        let account = Account::new(user, port, key, session);
        // Group and membership may be there from an earlier run too; the next request shows whether they are.
        let join = if number == 0 { "create_group" } else { "join_group" };
        let _ = talk.ask(&account.request(join, &json!({"group_id": GROUP})));
        let file = json!({"group_id": GROUP, "file_name": FILE, "view": "compact"});
        if number == 0 {
            let digest = "ab".repeat(20);
            let mut upload = account.request("upload_file", &file);
            upload["piecewise_sha"] = vec![digest.clone(); FILE_PIECES as usize].into();
            upload["fileSha"] = digest.into();
            talk.ask(&upload)?;
        } else {
            // Whoever asks is a leecher of the swarm from then on.
            talk.ask(&account.request("download_file", &file))?;
        }
        accounts.push(account);
    }
    Ok(accounts)
}

fn login(user: &str, port: u16, key: &str) -> Value {
    json!({
        "command": "login", "command_args": {"user_id": user, "passwd": PASSWORD, "peer_key": key},
        "sender_ip": "127.0.0.1", "sender_port": port.to_string()
    })
}

/// What stands before and behind a word of a request.
fn around(word: &str, request: &Value) -> [Vec<u8>; 2] {
    let text = request.to_string();
    let (before, behind) = text.split_once(word).unwrap_or((&text, ""));
    [before.as_bytes().to_vec(), format!("{behind}\n").into_bytes()]
}

impl Account {
    fn new(user: String, port: u16, key: String, session: String) -> Account {
        let mut account = Account {
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
            // Logs another session in: that of the load goes on.
            line(login(&account.user, account.port, &account.key)),
        ];
        let digest = "cd".repeat(20);
        let mut upload = account.request("upload_file", &json!({"group_id": GROUP, "file_name": "NAME"}));
        upload["piecewise_sha"] = json!([digest]);
        upload["fileSha"] = digest.into();
        account.upload = around("NAME", &upload);
        look_up["peer_key"] = "KEY".into();
        account.first = around("KEY", &account.request("get_peers", &look_up));
        account.texts = texts;
        account
    }

    fn request(&self, command: &str, args: &Value) -> Value {
        json!({
            "command": command, "command_args": args, "session": self.session,
            "sender_ip": "127.0.0.1", "sender_port": self.port.to_string()
        })
    }

    /// Appends a request; `number` tells it from all others of the run, where their texts differ.
    pub(crate) fn append(&self, kind: Kind, number: u64, out: &mut Vec<u8>) {
        match kind {
            Kind::Ping => out.extend_from_slice(&self.texts[0]),
            Kind::GetPeers => out.extend_from_slice(&self.texts[1]),
            Kind::UpdatePieces => out.extend_from_slice(&self.texts[2]),
            Kind::Login => out.extend_from_slice(&self.texts[3]),
            Kind::FirstPeers => {
                out.extend_from_slice(&self.first[0]);
                // Every account has keys of its own, and none of them is that of its node.
                out.extend_from_slice(format!("{:032x}{number:032x}", self.port).as_bytes());
                out.extend_from_slice(&self.first[1]);
            }
            Kind::Upload => {
                out.extend_from_slice(&self.upload[0]);
                out.extend_from_slice(
                    format!("{}-{number}", self.session.get(70..).unwrap_or("x")).as_bytes(),
                );
                out.extend_from_slice(&self.upload[1]);
            }
        }
    }
}

/// A connection that has shown its session and waits.
pub(crate) fn idle(address: SocketAddr, account: &Account) -> anyhow::Result<TcpStream> {
    let mut talk = Talk::to(address)?;
    talk.ask(&account.request("ping", &json!({})))?;
    Ok(talk.socket)
}
