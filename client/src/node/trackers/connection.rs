//! One TCP connection to a tracker: one line of request, one line of answer.
//!
//! An exchange ends within `TRACKER_ANSWER_TIMEOUT_MS` (or another timeout) plus the time that its bytes take at
//! `TRACKER_MIN_BYTES_PER_S`. A line that arrived before a request never counts as its answer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::clock;
use crate::limits;

/// An open connection without an outstanding answer.
#[derive(Debug)]
pub(super) struct TrackerConnection {
    address: SocketAddr,
    local: IpAddr,
    stream: TcpStream,
    received: Vec<u8>,
    has_exchanged: bool,
    answer_ms: u64,
}

/// Deadline of one exchange; moved bytes extend it.
struct ExchangeDeadline {
    started: Instant,
    answer_ms: u64,
    moved_bytes: u64,
}

impl ExchangeDeadline {
    fn new(started: Instant, answer_ms: u64) -> ExchangeDeadline {
        ExchangeDeadline { started, answer_ms, moved_bytes: 0 }
    }

    fn count_bytes(&mut self, bytes: usize) {
        self.moved_bytes += bytes as u64;
    }

    /// Time left at `now`.
    ///
    /// # Errors
    /// `TimedOut` when none is left.
    fn left(&self, now: Instant) -> io::Result<Duration> {
        let earned_ms = self.moved_bytes * 1_000 / limits::TRACKER_MIN_BYTES_PER_S;
        let allowed = Duration::from_millis(self.answer_ms + earned_ms);
        let left = allowed.saturating_sub(now.duration_since(self.started));
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl TrackerConnection {
    /// Connects to the first of `addresses` that accepts.
    ///
    /// # Errors
    /// A message with each address and its error.
    pub(super) fn connect_first(addresses: &[SocketAddr]) -> Result<TrackerConnection, String> {
        let mut tried = Vec::new();
        for address in addresses {
            match TrackerConnection::connect(*address) {
                Ok(line) => return Ok(line),
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
        Err(tried.join("; "))
    }

    /// Connects to a tracker.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn connect(address: SocketAddr) -> io::Result<TrackerConnection> {
        let stream =
            TcpStream::connect_timeout(&address, Duration::from_millis(limits::TRACKER_CONNECT_TIMEOUT_MS))?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        Ok(TrackerConnection {
            address,
            local,
            stream,
            received: Vec::new(),
            has_exchanged: false,
            answer_ms: limits::TRACKER_ANSWER_TIMEOUT_MS,
        })
    }

    /// Sets another timeout for answers, in ms.
    pub(super) fn with_timeout(self, answer_ms: u64) -> TrackerConnection {
        TrackerConnection { answer_ms, ..self }
    }

    /// The tracker's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The local address of the connection.
    pub(super) fn local(&self) -> IpAddr {
        self.local
    }

    /// Sends one request and reads its answer, both without the line end. After an error the connection must be dropped.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` when the tracker closed before it answered; `ConnectionAborted` when it sent
    /// something unasked; `TimedOut`; `InvalidData` for a line without an end.
    pub(super) fn exchange(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        // A tracker that refuses a connection may say so before any request: that counts as the first answer.
        if std::mem::replace(&mut self.has_exchanged, true) {
            self.expect_silence()?;
        }
        let mut deadline = ExchangeDeadline::new(clock::now(), self.answer_ms);
        let mut line = Vec::with_capacity(request.len() + 1);
        line.extend_from_slice(request);
        line.push(b'\n');
        self.send(&line, &mut deadline)?;
        self.receive(&mut deadline)
    }

    fn send(&mut self, mut line: &[u8], deadline: &mut ExchangeDeadline) -> io::Result<()> {
        while !line.is_empty() {
            self.stream.set_write_timeout(Some(deadline.left(clock::now())?))?;
            match self.stream.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    deadline.count_bytes(written);
                    line = &line[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(map_timeout(error)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: &mut ExchangeDeadline) -> io::Result<Vec<u8>> {
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
            if searched > limits::TRACKER_LINE_MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            self.stream.set_read_timeout(Some(deadline.left(clock::now())?))?;
            match self.stream.read(&mut block) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    deadline.count_bytes(read);
                    self.received.extend_from_slice(&block[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(map_timeout(error)),
            }
        }
    }

    /// Between an answer and the next request a tracker must send nothing.
    fn expect_silence(&self) -> io::Result<()> {
        let unasked =
            || io::Error::new(io::ErrorKind::ConnectionAborted, "the tracker sent an unrequested message");
        if !self.received.is_empty() {
            return Err(unasked());
        }
        let mut byte = [0_u8];
        match recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Err(unasked()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A socket's timeout shows as `WouldBlock`, which users cannot interpret.
fn map_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    use super::*;

    fn tracker_that_answers(bytes: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            assert_ne!(stream.read(&mut asked).unwrap(), 0);
            bytes.iter().for_each(|part| stream.write_all(part).unwrap());
            // Reads until the peer closes, so that no reset discards what was written.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read(&mut asked);
        });
        address
    }

    #[test]
    fn an_answer_may_come_in_parts_and_unrequested_lines_are_refused() {
        let mut connection =
            TrackerConnection::connect(tracker_that_answers(&[b"{\"a\"", b":1}\n{\"b\":2}\n"])).unwrap();
        assert_eq!(connection.exchange(b"x").unwrap(), b"{\"a\":1}");
        // The rest may be buffered, still in the kernel, or already followed by the end.
        connection.exchange(b"y").unwrap_err();
        let mut connection = TrackerConnection::connect(tracker_that_answers(&[])).unwrap();
        connection.has_exchanged = true;
        connection.received = b"{\"late\":1}\n".to_vec();
        assert_eq!(connection.exchange(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn a_line_longer_than_any_answer_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TrackerConnection::connect(listener.local_addr().unwrap()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let block = vec![b' '; limits::TRACKER_READ_BYTES];
            while stream.write_all(&block).is_ok() {}
        });
        assert_eq!(connection.exchange(b"x").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn bytes_extend_the_deadline_and_reads_do_not() {
        let start = clock::now();
        let mut deadline = ExchangeDeadline::new(start, limits::TRACKER_ANSWER_TIMEOUT_MS);
        let at = |seconds| start + Duration::from_secs(seconds);
        let allowed_s = limits::TRACKER_ANSWER_TIMEOUT_MS / 1_000;
        assert_eq!(deadline.left(at(allowed_s - 1)).unwrap(), Duration::from_secs(1));
        (0..100).for_each(|_| deadline.count_bytes(1));
        assert_eq!(
            deadline.left(at(allowed_s + 1)).unwrap_err().kind(),
            io::ErrorKind::TimedOut,
            "a trickle"
        );
        deadline.count_bytes(usize::try_from(2 * limits::TRACKER_MIN_BYTES_PER_S).unwrap());
        assert!(deadline.left(at(allowed_s + 1)).is_ok(), "a long answer");
    }

    #[test]
    fn a_closed_connection_is_detected_and_the_next_address_is_tried() {
        let mut connection = TrackerConnection::connect(tracker_that_answers(&[b"half"])).unwrap();
        assert_eq!(connection.exchange(b"x").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // Bound but not listening: connections are refused, and no other process gets the port.
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let refusing = getsockname(&bound).unwrap().try_into().unwrap();
        let accepting = tracker_that_answers(&[]);
        assert_eq!(TrackerConnection::connect_first(&[refusing, accepting]).unwrap().address(), accepting);
        assert!(TrackerConnection::connect_first(&[refusing]).unwrap_err().contains(&refusing.to_string()));
    }
}
