//! One connection of the load, in two kinds: one that carries many requests, and one that is made anew for each.
//!
//! Invariants: the n-th answer belongs to the n-th request; a request is under way from when it is given until its answer
//! is whole, whether the kernel has taken it or not.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::requests::SUCCESS;
use crate::mix::Kind;

/// What is heard of by the kernel's events.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Underway {
    /// What was asked.
    pub(crate) kind: Kind,
    /// When it was due, in nanoseconds.
    pub(crate) due_ns: u64,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// Of which request.
    pub(crate) request: Underway,
    /// Whether it was carried out.
    pub(crate) success: bool,
}

/// What carries requests one after the other.
pub(crate) trait Line: Sized {
    /// Opens a line to a tracker, whose events come under `token`.
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self>;

    /// Takes a request, which goes out with the next [`Line::flush`].
    fn ask(&mut self, request: Underway, text: &[u8]);

    /// Sends what the kernel takes.
    fn flush(&mut self) -> anyhow::Result<()>;

    /// Reads all that is there, and gives every answer in it.
    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(Answered)) -> anyhow::Result<()>;

    /// Requests whose answers have not come.
    fn underway(&self) -> &VecDeque<Underway>;
}

/// Bytes on their way out.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
    fn flush(&mut self, socket: &mut TcpStream) -> anyhow::Result<()> {
        while self.sent < self.bytes.len() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(fault) if is_not_now(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Whether the kernel will tell when it is worth another try; a connection that is being made says so in its own way.
fn is_not_now(fault: &std::io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// A connection on which requests follow each other, a line of JSON each, before their answers have come.
pub(crate) struct Pipelined {
    socket: TcpStream,
    underway: VecDeque<Underway>,
    unsent: Unsent,
    /// The beginning of a line of which the end has not come.
    begun: Vec<u8>,
}

impl Line for Pipelined {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Pipelined> {
        // Waits: a figure begins with open connections.
        let socket =
            std::net::TcpStream::connect(address).context("the tracker does not take connections")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        registry.register(&mut socket, token, BOTH)?;
        Ok(Pipelined { socket, underway: VecDeque::new(), unsent: Unsent::default(), begun: Vec::new() })
    }

    fn ask(&mut self, request: Underway, text: &[u8]) {
        self.unsent.bytes.extend_from_slice(text);
        self.underway.push_back(request);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.unsent.flush(&mut self.socket)
    }

    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(Answered)) -> anyhow::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the tracker closed a connection"),
                Ok(bytes) => take_lines(&mut self.begun, &mut self.underway, &scratch[..bytes], answered)?,
                Err(fault) if is_not_now(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    fn underway(&self) -> &VecDeque<Underway> {
        &self.underway
    }
}

fn take_lines(
    begun: &mut Vec<u8>,
    underway: &mut VecDeque<Underway>,
    mut bytes: &[u8],
    answered: &mut dyn FnMut(Answered),
) -> anyhow::Result<()> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let success = if begun.is_empty() {
            bytes.starts_with(SUCCESS)
        } else {
            begun.extend_from_slice(&bytes[..end]);
            begun.starts_with(SUCCESS)
        };
        begun.clear();
        bytes = &bytes[end + 1..];
        match underway.pop_front() {
            Some(request) => answered(Answered { request, success }),
            None => bail!("the tracker sent an answer that nobody asked for"),
        }
    }
    begun.extend_from_slice(bytes);
    Ok(())
}

/// A place for connections of which each carries one request, as HTTP trackers are asked: the next is made when the answer
/// to the one before has ended.
pub(crate) struct OneEach {
    address: SocketAddr,
    registry: Registry,
    token: Token,
    socket: Option<TcpStream>,
    /// The first is that of the connection that there is.
    underway: VecDeque<Underway>,
    /// What the others will say.
    waiting: VecDeque<Vec<u8>>,
    unsent: Unsent,
    answer: Vec<u8>,
}

impl OneEach {
    /// Makes a connection for the next request, where one waits.
    fn next(&mut self) -> anyhow::Result<()> {
        self.socket = None;
        self.answer.clear();
        let Some(text) = self.waiting.pop_front() else { return Ok(()) };
        let mut socket = TcpStream::connect(self.address).context("the tracker does not take connections")?;
        self.registry.register(&mut socket, self.token, BOTH)?;
        self.unsent = Unsent { bytes: text, sent: 0 };
        self.socket = Some(socket);
        Ok(())
    }
}

impl Line for OneEach {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<OneEach> {
        Ok(OneEach {
            address,
            registry: registry.try_clone()?,
            token,
            socket: None,
            underway: VecDeque::new(),
            waiting: VecDeque::new(),
            unsent: Unsent::default(),
            answer: Vec::new(),
        })
    }

    fn ask(&mut self, request: Underway, text: &[u8]) {
        self.waiting.push_back(text.to_vec());
        self.underway.push_back(request);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.socket.is_none() {
            self.next()?;
        }
        match &mut self.socket {
            Some(socket) => self.unsent.flush(socket),
            None => Ok(()),
        }
    }

    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(Answered)) -> anyhow::Result<()> {
        while let Some(socket) = &mut self.socket {
            match socket.read(scratch) {
                Ok(0) => {
                    let request = self.underway.pop_front().context("an answer that nobody asked for")?;
                    answered(Answered { request, success: is_announced(&self.answer) });
                    self.next()?;
                }
                Ok(bytes) => self.answer.extend_from_slice(&scratch[..bytes]),
                Err(fault) if is_not_now(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault).context("a connection to the tracker broke"),
            }
        }
        Ok(())
    }

    fn underway(&self) -> &VecDeque<Underway> {
        &self.underway
    }
}

/// Whether an HTTP tracker took an announce: refusals too have the status 200, and say so by `failure reason` (BEP 3).
pub(crate) fn is_announced(answer: &[u8]) -> bool {
    let is_ok = [&b"HTTP/1.1 200"[..], b"HTTP/1.0 200"].iter().any(|status| answer.starts_with(status));
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    is_ok && body.is_some_and(|body| body.starts_with(b"d") && !body.starts_with(b"d14:failure reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_belong_to_requests_in_order_however_they_are_cut() {
        let mut underway: VecDeque<Underway> = [Kind::Ping, Kind::GetPeers, Kind::Login]
            .into_iter()
            .map(|kind| Underway { kind, due_ns: 7 })
            .collect();
        let (mut begun, mut found) = (Vec::new(), Vec::new());
        let mut note = |answered: Answered| found.push((answered.request.kind, answered.success));
        let mut take = |bytes: &[u8]| take_lines(&mut begun, &mut underway, bytes, &mut note);
        take(b"{\"status\":\"succ").unwrap();
        take(b"ess\"}\n{\"status\":\"failure\"}\n{\"status\":\"success\"").unwrap();
        take(b"}\n").unwrap();
        assert!(take(b"{}\n").is_err());
        assert_eq!(found, [(Kind::Ping, true), (Kind::GetPeers, false), (Kind::Login, true)]);
    }

    #[test]
    fn a_refused_announce_is_told_from_one_that_was_taken() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert!(is_announced(&[&ok[..], b"d8:completei0ee"].concat()));
        assert!(!is_announced(&[&ok[..], b"d14:failure reason3:no.e"].concat()));
        assert!(!is_announced(b"HTTP/1.1 500 Invalid Request\r\n\r\nd8:completei0ee"));
        assert!(!is_announced(b"HTTP/1.1 200 OK"));
    }
}
