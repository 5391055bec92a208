//! Socket options of peer connections, and the listener.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::limits::{LISTEN_BACKLOG, USER_TIMEOUT_MS};
use crate::proto::limits::KEEPALIVE_S;

/// Listens without SO_REUSEPORT, so that two nodes never share a port unnoticed.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One socket for both families where the address is [::].
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Prepares a connection to or from a peer. What the system refuses is left as it is: each option only makes it better.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(KEEPALIVE_S));
    let local = stream.peer_addr().is_ok_and(|peer| is_same_machine(stream, peer.ip()));
    let results = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive)),
        ("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(Duration::from_millis(USER_TIMEOUT_MS)))),
        ("TCP_CONGESTION", if local { without_pacing(&socket) } else { Ok(()) }),
    ];
    for (option, result) in results {
        if let Err(error) = result {
            tracing::debug!(option, %error, "socket option not set");
        }
    }
}

fn is_same_machine(stream: &TcpStream, peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || stream.local_addr().is_ok_and(|local| local.ip() == peer)
}

/// Inside one machine bbr's pacing only slows; reno is allowed to every user. Real networks keep what the operator chose.
fn without_pacing(socket: &SockRef<'_>) -> io::Result<()> {
    if socket.tcp_congestion()?.starts_with(b"bbr") { socket.set_tcp_congestion(b"reno") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_never_shared() {
        let first = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let second = listen(first.local_addr().unwrap());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_inside_the_machine_are_not_paced() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(!socket.tcp_congestion().unwrap().starts_with(b"bbr"));
    }
}
