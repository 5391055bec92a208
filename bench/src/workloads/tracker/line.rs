//! One connection of the load: requests go out as fast as the kernel takes them, answers come back in order.
//!
//! Invariant: the n-th answer belongs to the n-th request.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::bail;
use mio::net::TcpStream;

use super::requests::SUCCESS;
use crate::mix::Kind;

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

/// One connection.
pub(crate) struct Line {
    /// To be registered.
    pub(crate) socket: TcpStream,
    /// Requests whose answers have not come.
    pub(crate) underway: VecDeque<Underway>,
    /// Requests that the kernel has not taken yet.
    pub(crate) unsent: Vec<u8>,
    sent: usize,
    /// The beginning of a line of which the end has not come.
    begun: Vec<u8>,
}

impl Line {
    /// Over an open connection.
    pub(crate) fn new(socket: TcpStream) -> Line {
        Line { socket, underway: VecDeque::new(), unsent: Vec::new(), sent: 0, begun: Vec::new() }
    }

    /// Sends what the kernel takes.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while self.sent < self.unsent.len() {
            match self.socket.write(&self.unsent[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads all that is there, and gives every answer in it.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        mut answered: impl FnMut(Answered),
    ) -> anyhow::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the tracker closed a connection"),
                Ok(bytes) => self.take(&scratch[..bytes], &mut answered)?,
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], answered: &mut impl FnMut(Answered)) -> anyhow::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let success = if self.begun.is_empty() {
                bytes.starts_with(SUCCESS)
            } else {
                self.begun.extend_from_slice(&bytes[..end]);
                self.begun.starts_with(SUCCESS)
            };
            self.begun.clear();
            bytes = &bytes[end + 1..];
            match self.underway.pop_front() {
                Some(request) => answered(Answered { request, success }),
                None => bail!("the tracker sent an answer that nobody asked for"),
            }
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_belong_to_requests_in_order_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut line = Line::new(TcpStream::from_std(ours));
        for kind in [Kind::Ping, Kind::GetPeers, Kind::Login] {
            line.underway.push_back(Underway { kind, due_ns: 7 });
        }
        theirs.write_all(b"unused").unwrap();
        let mut found = Vec::new();
        let mut note = |answered: Answered| found.push((answered.request.kind, answered.success));
        line.take(b"{\"status\":\"succ", &mut note).unwrap();
        line.take(b"ess\"}\n{\"status\":\"failure\"}\n{\"status\":\"success\"", &mut note).unwrap();
        line.take(b"}\n", &mut note).unwrap();
        assert_eq!(found, [(Kind::Ping, true), (Kind::GetPeers, false), (Kind::Login, true)]);
        assert!(line.take(b"{}\n", &mut |_| {}).is_err());
    }
}
