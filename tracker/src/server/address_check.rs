//! Calls a node back at the address under which it is listed, on worker threads, and has it prove its key.
//!
//! Only the address of the session that asks is called, which [`share_address`](crate::api::address::share_address) ties to
//! the IP of its connection: no client can have another machine called. A call has a deadline, even when the other side sends a byte now and then.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use engine::proto::codec::{self, LENGTH_BYTES};
use engine::proto::frame::{Message, PROTOCOL_VERSION};
use engine::proto::ticket::{self, Nonce, PeerKey};

use crate::api::answers::AddressProblem;
use crate::state::id::UserId;

use super::clock::ServerClock;
use super::limits::{
    ADDRESS_CHECK_FRAME_BYTES, ADDRESS_CHECK_MS, ADDRESS_CHECKS_PER_WINDOW, ADDRESS_CHECKS_WINDOW_MS,
};

/// The address to call, and the key that must be proven there.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressCheckJob {
    pub(super) address: SocketAddr,
    pub(super) peer_key: PeerKey,
}

/// What a worker thread keeps from job to job.
pub(super) struct CheckScratch {
    clock: ServerClock,
}

impl Default for CheckScratch {
    fn default() -> CheckScratch {
        CheckScratch { clock: ServerClock::new() }
    }
}

/// Calls the address. The error says what kept the node from being reached.
pub(super) fn run_address_check(
    scratch: &mut CheckScratch,
    job: AddressCheckJob,
) -> Result<(), AddressProblem> {
    let deadline = CallDeadline { clock: scratch.clock, end_ms: scratch.clock.now().ms + ADDRESS_CHECK_MS };
    let mut nonce = Nonce([0; 32]);
    getrandom::fill(&mut nonce.0).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        AddressProblem::NotChecked
    })?;
    let connected = TcpStream::connect_timeout(&job.address, deadline.left().map_err(problem_of)?);
    let mut stream = connected.map_err(problem_of)?;
    let Message::Greeting { version, peer_key, .. } = read_message(&mut stream, &deadline)? else {
        return Err(AddressProblem::OtherProgram);
    };
    if version != PROTOCOL_VERSION {
        return Err(AddressProblem::OtherVersion);
    }
    if peer_key != job.peer_key {
        return Err(AddressProblem::OtherNode);
    }
    let address = job.address.to_string();
    let prove = codec::encode_message(&Message::Prove { nonce, address: address.clone() });
    stream.set_write_timeout(Some(deadline.left().map_err(problem_of)?)).map_err(problem_of)?;
    stream.write_all(&prove).map_err(problem_of)?;
    let Message::Proof { signature } = read_message(&mut stream, &deadline)? else {
        return Err(AddressProblem::OtherProgram);
    };
    let is_proven = ticket::verify_address(job.peer_key, nonce, &address, signature);
    if is_proven { Ok(()) } else { Err(AddressProblem::OtherNode) }
}

/// The end of one call.
struct CallDeadline {
    clock: ServerClock,
    end_ms: u64,
}

impl CallDeadline {
    fn left(&self) -> io::Result<Duration> {
        match self.end_ms.saturating_sub(self.clock.now().ms) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            left_ms => Ok(Duration::from_millis(left_ms)),
        }
    }
}

fn read_message(stream: &mut TcpStream, deadline: &CallDeadline) -> Result<Message, AddressProblem> {
    let mut head = [0; LENGTH_BYTES];
    read_all(stream, &mut head, deadline)?;
    let length =
        codec::frame_len(head, ADDRESS_CHECK_FRAME_BYTES).map_err(|_| AddressProblem::OtherProgram)?;
    let mut body = vec![0; length];
    read_all(stream, &mut body, deadline)?;
    codec::decode_message(&body).map_err(|_| AddressProblem::OtherProgram)
}

fn read_all(
    stream: &mut TcpStream,
    mut rest: &mut [u8],
    deadline: &CallDeadline,
) -> Result<(), AddressProblem> {
    while !rest.is_empty() {
        stream.set_read_timeout(Some(deadline.left().map_err(problem_of)?)).map_err(problem_of)?;
        match stream.read(rest) {
            Ok(0) => return Err(AddressProblem::OtherProgram),
            Ok(bytes) => rest = &mut rest[bytes..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(problem_of(error)),
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the form that `map_err` takes")]
fn problem_of(error: io::Error) -> AddressProblem {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => AddressProblem::TimedOut,
        io::ErrorKind::ConnectionRefused => AddressProblem::Refused,
        _ => AddressProblem::Unreachable,
    }
}

/// How often each user has had an address checked lately.
#[derive(Debug, Default)]
pub(super) struct AddressCheckCounts {
    users: BTreeMap<UserId, CheckWindow>,
}

#[derive(Clone, Copy, Debug)]
struct CheckWindow {
    start_ms: u64,
    count: u32,
}

impl CheckWindow {
    fn is_over(self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.start_ms) >= ADDRESS_CHECKS_WINDOW_MS
    }
}

impl AddressCheckCounts {
    /// Counts a check. Returns `false` when the user has had too many.
    pub(super) fn admit(&mut self, user: &UserId, now_ms: u64) -> bool {
        self.users.retain(|_, window| !window.is_over(now_ms));
        let window = self.users.entry(user.clone()).or_insert(CheckWindow { start_ms: now_ms, count: 0 });
        window.count += 1;
        window.count <= ADDRESS_CHECKS_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_checks_in_a_window() {
        let mut counts = AddressCheckCounts::default();
        let [alice, bob] = ["alice", "bob"].map(|name| UserId::new(name).unwrap());
        assert!((0..ADDRESS_CHECKS_PER_WINDOW).all(|_| counts.admit(&alice, 5)));
        assert!(!counts.admit(&alice, 6) && counts.admit(&bob, 6));
        assert!(counts.admit(&alice, 5 + ADDRESS_CHECKS_WINDOW_MS));
        assert_eq!(counts.users.len(), 2, "a window that is over is dropped");
    }
}
