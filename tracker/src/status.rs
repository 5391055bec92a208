//! `tracker status`: asks each tracker of the cluster for its status, one after another.

use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use tracker::api::answers::StatusAnswer;
use tracker::api::codec::{MessageForm, MessageReader, append_message};
use tracker::api::limits::REQUEST_MAX_BYTES;
use tracker::api::request::{Command, Request};
use tracker::api::response::ReceivedAnswer;

/// Time limit for connecting, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the trackers' answers come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClusterHealth {
    /// A tracker answered that it accepts changes.
    Good,
    /// Those that answered refuse changes.
    RefusesChanges,
    /// None answered.
    NoAnswer,
}

/// Prints one line per tracker.
pub(crate) fn print_trackers(trackers: &[SocketAddr], out: &mut impl Write) -> anyhow::Result<ClusterHealth> {
    let mut health = ClusterHealth::NoAnswer;
    for address in trackers.iter().filter(|address| address.port() != 0) {
        match ask_status(*address) {
            Ok(status) => {
                health = health.min(match status.refuses_changes {
                    None => ClusterHealth::Good,
                    Some(_) => ClusterHealth::RefusesChanges,
                });
                writeln!(out, "{address}  {}", describe_status(*address, &status))?;
            }
            Err(error) => writeln!(out, "{address}  no answer: {}", describe_error(&error))?,
        }
    }
    Ok(health)
}

/// Why a tracker did not answer. The system's words for a timeout name a resource.
fn describe_error(error: &anyhow::Error) -> String {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            format!("nothing came within {} s", TIMEOUT.as_secs())
        }
        Some(io::ErrorKind::ConnectionRefused) => "nothing listens there".to_owned(),
        Some(io::ErrorKind::ConnectionReset) => "the connection was closed without an answer".to_owned(),
        _ => format!("{error:#}"),
    }
}

fn describe_status(address: SocketAddr, status: &StatusAnswer) -> String {
    let role = match status.leader {
        Some(leader) if leader == address => "leads".to_owned(),
        Some(leader) => format!("follows {leader}"),
        None => "knows no leader".to_owned(),
    };
    let counted = |number, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let (voters, learners) = (status.voters.len(), status.learners.len());
    let counts = format!("{}, {}", counted(voters, "voter"), counted(learners, "learner"));
    match &status.refuses_changes {
        None => format!("{role}; {counts}"),
        Some(why) => format!("{role}; {counts}; refuses changes: {why}"),
    }
}

fn ask_status(address: SocketAddr) -> anyhow::Result<StatusAnswer> {
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Vec::new();
    append_message(MessageForm::Stream, &Request::new(Command::Status).to_json(), &mut request);
    connection.write_all(&request)?;
    let mut incoming = MessageReader::new();
    let mut block = [0; 4096];
    loop {
        let bytes = connection.read(&mut block)?;
        anyhow::ensure!(bytes > 0, "the connection was closed without an answer");
        incoming.extend(&block[..bytes]);
        if let Some(text) = incoming.next_message(REQUEST_MAX_BYTES)? {
            let received = ReceivedAnswer::parse(text)?.map_err(|refused| refused.failure)?;
            return received.answer().context("its answer cannot be read");
        }
    }
}
