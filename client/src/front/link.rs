//! A front end's side of the connection to a node.
//!
//! Invariant: what greets at the other end runs as the same user, since passwords go there, and it greets in time or not
//! at all. Whoever greets nobody and closes is ending; everybody else is a node, or something else that is there.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::protocol::{Answer, Ask, Event, Tell};
use super::wire;
use crate::exit::{Exit, Fault};
use crate::limits;

/// Why there is no greeting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoGreeting {
    /// The node at the other end was just ending: there is none any more.
    Ending,
    /// Somebody is there, who does not let this front end in or cannot be talked to.
    Fault(Fault),
}

impl From<Fault> for NoGreeting {
    fn from(fault: Fault) -> NoGreeting {
        NoGreeting::Fault(fault)
    }
}

impl From<NoGreeting> for Fault {
    fn from(why: NoGreeting) -> Fault {
        match why {
            NoGreeting::Ending => gone(),
            NoGreeting::Fault(fault) => fault,
        }
    }
}

/// An open connection to a node, in this process or another.
pub(crate) struct NodeLink {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    pid: u32,
}

impl NodeLink {
    /// Greets the node at the other end of `stream`.
    ///
    /// # Errors
    /// That the node is ending; a fault when nobody answers in time, when the node takes nobody, or when it is none of
    /// this version or another user's.
    pub(crate) fn over(stream: UnixStream) -> Result<NodeLink, NoGreeting> {
        NodeLink::greeted(stream, Duration::from_millis(limits::NODE_START_WAIT_MS))
    }

    fn greeted(stream: UnixStream, patience: Duration) -> Result<NodeLink, NoGreeting> {
        let other = socket_peercred(&stream).map_err(|error| unusable(&error.into()))?.uid;
        if other != geteuid() {
            let message =
                format!("the node of this state directory runs as another user ({})", other.as_raw());
            let fault = Fault::new(Exit::LocalIo, message).fix("name a directory of your own: `--state DIR`");
            return Err(fault.into());
        }
        let writer = stream.try_clone().map_err(|error| unusable(&error))?;
        stream.set_read_timeout(Some(patience)).map_err(|error| unusable(&error))?;
        let mut reader = BufReader::new(stream);
        match wire::read_line(&mut reader, limits::ASK_MAX_BYTES) {
            Ok(Some(Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid })) => {
                // From here on it may take its time: a download does.
                writer.set_read_timeout(None).map_err(|error| unusable(&error))?;
                Ok(NodeLink { reader, writer, pid })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let message = "the node of this state directory takes commands but does not answer";
                let fix = "see with `ps` what it does and end it, or use another `--state DIR`";
                Err(Fault::new(Exit::Other, message).fix(fix).into())
            }
            Ok(Some(Tell::Failed(fault))) => Err(fault.into()),
            Ok(None) => Err(NoGreeting::Ending),
            // What was connected and not accepted yet when the node ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(NoGreeting::Ending),
            Err(error) if error.raw_os_error().is_some() => Err(unusable(&error).into()),
            Ok(Some(_)) | Err(_) => {
                let message = "the node that runs here is of another version and is not understood";
                let fix = "end it with its own `client quit` (or SIGTERM), then try again";
                Err(Fault::new(Exit::Protocol, message).fix(fix).into())
            }
        }
    }

    /// The node's process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle that can end the connection from elsewhere.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub(crate) fn breaker(&self) -> std::io::Result<UnixStream> {
        self.writer.try_clone()
    }

    /// Asks, hands on each event, and gives the answer. When `on_event` fails the question is abandoned: the
    /// connection is of no more use and is to be dropped.
    ///
    /// # Errors
    /// The node's fault, `on_event`'s, or that the node went away.
    pub(crate) fn ask(
        &mut self,
        ask: &Ask,
        on_event: &mut dyn FnMut(Event) -> Result<(), Fault>,
    ) -> Result<Answer, Fault> {
        wire::write_line(&mut self.writer, ask).map_err(|error| match error.raw_os_error() {
            Some(_) => gone(),
            None => unsayable(&error),
        })?;
        loop {
            match wire::read_line(&mut self.reader, limits::TELL_MAX_BYTES) {
                Ok(Some(Tell::Event(event))) => on_event(event)?,
                Ok(Some(Tell::Done(answer))) => return Ok(answer),
                Ok(Some(Tell::Failed(fault))) => return Err(fault),
                Ok(Some(Tell::Hello { .. })) => {
                    return Err(Fault::new(Exit::Protocol, "the node greeted in the middle of an answer"));
                }
                Ok(None) | Err(_) => return Err(gone()),
            }
        }
    }
}

fn unusable(error: &io::Error) -> Fault {
    Fault::new(Exit::LocalIo, format!("cannot talk to the node: {error}")).fix("raise `ulimit -n`")
}

/// Nothing was sent: what was asked has no form as a line.
fn unsayable(error: &io::Error) -> Fault {
    Fault::new(Exit::Usage, format!("this cannot be put to the node: {error}"))
        .fix("give names and paths that are UTF-8")
}

fn gone() -> Fault {
    Fault::new(Exit::Other, "the node of this state directory went away before it answered")
        .fix("start it again with `client serve`, or give the command again: it then needs no node")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_that_says(lines: &[Tell]) -> UnixStream {
        let (front, mut node) = UnixStream::pair().unwrap();
        lines.iter().for_each(|line| wire::write_line(&mut node, line).unwrap());
        // The question may go unread; the lines are in the front end's buffer and the stream stays open for writing.
        node.shutdown(std::net::Shutdown::Write).unwrap();
        std::mem::forget(node);
        front
    }

    const HELLO: Tell = Tell::Hello { protocol: limits::FRONT_PROTOCOL, pid: 7 };

    #[test]
    fn events_come_before_the_answer() {
        let notice = Event::Notice { text: "n".into() };
        let said = Answer::Said { message: "ok".into() };
        let stream = node_that_says(&[HELLO, Tell::Event(notice.clone()), Tell::Done(said.clone())]);
        let mut link = NodeLink::over(stream).unwrap();
        let mut events = Vec::new();
        let answer = link.ask(&Ask::Whoami, &mut |event| {
            events.push(event);
            Ok(())
        });
        assert_eq!(answer, Ok(said));
        assert_eq!(events, [notice]);
    }

    #[test]
    fn a_node_that_goes_away_is_exit_1_and_a_foreign_one_13() {
        let mut link = NodeLink::over(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.ask(&Ask::Whoami, &mut |_| Ok(())).unwrap_err().exit, Exit::Other);
        let other = Tell::Hello { protocol: limits::FRONT_PROTOCOL + 1, pid: 7 };
        assert_eq!(exit_of(NodeLink::over(node_that_says(&[other]))), Exit::Protocol);
    }

    fn exit_of(greeted: Result<NodeLink, NoGreeting>) -> Exit {
        match greeted.map(|_| ()) {
            Err(NoGreeting::Fault(fault)) => fault.exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_closes_without_a_word_is_ending_and_who_refuses_is_there() {
        let silent = NodeLink::over(node_that_says(&[])).map(|_| ());
        assert_eq!(silent, Err(NoGreeting::Ending));
        let full = Fault::new(Exit::Other, "too many");
        let refusing = NodeLink::over(node_that_says(&[Tell::Failed(full.clone())])).map(|_| ());
        assert_eq!(refusing, Err(NoGreeting::Fault(full)));
    }

    #[test]
    fn a_connection_that_nobody_accepted_in_time_is_a_node_that_was_ending() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let front = UnixStream::connect(dir.path().join("s")).unwrap();
        drop(listener);
        assert_eq!(NodeLink::over(front).map(|_| ()), Err(NoGreeting::Ending));
    }

    #[test]
    fn what_cannot_be_said_is_no_dead_node() {
        use std::os::unix::ffi::OsStrExt;
        let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(b"/a\xff"));
        let mut link = NodeLink::over(node_that_says(&[HELLO])).unwrap();
        let asked = link.ask(&Ask::Upload { group: "g".into(), path }, &mut |_| Ok(()));
        assert_eq!(asked.unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_node_that_never_greets_is_given_up() {
        let (front, _node) = UnixStream::pair().unwrap();
        let silent = NodeLink::greeted(front, Duration::from_millis(1));
        assert_eq!(exit_of(silent), Exit::Other, "somebody is there");
        let link = NodeLink::over(node_that_says(&[HELLO])).unwrap();
        assert_eq!(link.writer.read_timeout().unwrap(), None, "an answer may take long");
    }
}
