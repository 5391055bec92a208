//! One TCP connection to one tracker: a line out, a line back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use tracker::api::limits::ANSWER_MAX_BYTES;

use crate::limits;

/// An open connection, on which no answer is outstanding.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddr,
    local: IpAddr,
    stream: TcpStream,
    received: Vec<u8>,
}

impl Line {
    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    /// What was tried and what came of it, for people.
    pub(super) fn to_first(addresses: &[SocketAddr]) -> Result<Line, String> {
        let mut tried = Vec::new();
        for address in addresses {
            match Line::to(*address) {
                Ok(line) => return Ok(line),
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
        Err(tried.join("; "))
    }

    fn to(address: SocketAddr) -> io::Result<Line> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_millis(limits::TRACKER_CONNECT_MS))?;
        let answer = Some(Duration::from_millis(limits::TRACKER_ANSWER_MS));
        stream.set_read_timeout(answer)?;
        stream.set_write_timeout(answer)?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        Ok(Line { address, local, stream, received: Vec::new() })
    }

    /// The tracker at the other end.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Our own address towards it.
    pub(super) fn local(&self) -> IpAddr {
        self.local
    }

    /// Sends one request and reads its answer, both without the end of the line. After an error the connection is of
    /// no more use.
    ///
    /// # Errors
    /// What the connection says; `UnexpectedEof` when the tracker closed it before it answered.
    pub(super) fn exchange(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(request.len() + 1);
        line.extend_from_slice(request);
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let mut searched = 0;
        let mut block = vec![0; limits::TRACKER_READ_BYTES];
        loop {
            if let Some(end) = self.received[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched + end + 1);
                let mut answer = std::mem::replace(&mut self.received, rest);
                answer.pop();
                return Ok(answer);
            }
            searched = self.received.len();
            if searched > ANSWER_MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            match self.stream.read(&mut block) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend_from_slice(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn tracker_that_answers(bytes: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            assert_ne!(stream.read(&mut asked).unwrap(), 0);
            bytes.iter().for_each(|part| stream.write_all(part).unwrap());
            // Reads on until the other side has gone, so that no reset eats what was written.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read(&mut asked);
        });
        address
    }

    #[test]
    fn an_answer_may_come_in_parts_and_with_the_next() {
        let mut line = Line::to(tracker_that_answers(&[b"{\"a\"", b":1}\n{\"b\":2}\n"])).unwrap();
        assert_eq!(line.exchange(b"x").unwrap(), b"{\"a\":1}");
        assert_eq!(line.exchange(b"y").unwrap(), b"{\"b\":2}");
    }

    #[test]
    fn a_tracker_that_closes_is_noticed_and_the_next_is_tried() {
        let mut line = Line::to(tracker_that_answers(&[b"half"])).unwrap();
        assert_eq!(line.exchange(b"x").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let somebody = tracker_that_answers(&[]);
        assert_eq!(Line::to_first(&[nobody, somebody]).unwrap().address(), somebody);
        assert!(Line::to_first(&[nobody]).unwrap_err().contains(&nobody.to_string()));
    }
}
