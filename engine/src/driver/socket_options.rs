//! Socket options of peer connections, and the listener.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::limits::{LISTEN_BACKLOG, USER_TIMEOUT_MS};
use crate::proto::limits::KEEPALIVE_S;

/// Listens on an address, without SO_REUSEPORT: two nodes must not share a port unnoticed.
pub(crate) fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One socket for both families when the address is [::].
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets the options of a peer connection. It works without any of them, so a refused option is only logged.
pub(crate) fn set_socket_options(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(KEEPALIVE_S));
    let is_local = stream.peer_addr().is_ok_and(is_own_address);
    let results = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive)),
        ("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(Duration::from_millis(USER_TIMEOUT_MS)))),
        ("TCP_CONGESTION", if is_local { disable_pacing(&socket) } else { Ok(()) }),
    ];
    for (option, result) in results {
        if let Err(error) = result {
            tracing::debug!(option, %error, "cannot set a socket option");
        }
    }
}

/// Whether an address is this machine's: the kernel then chooses it as the source address too. Nothing is sent.
pub(crate) fn is_own_address(mut address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.set_ip(ip);
    let chosen = || {
        let any: IpAddr =
            if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.local_addr()
    };
    ip.is_loopback() || chosen().is_ok_and(|chosen| chosen.ip() == ip)
}

/// Replaces bbr by reno on connections within one machine, where bbr's pacing only costs time. Every user may choose reno.
fn disable_pacing(socket: &SockRef<'_>) -> io::Result<()> {
    if socket.tcp_congestion()?.starts_with(b"bbr") { socket.set_tcp_congestion(b"reno") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_never_shared() {
        let first = listen_on(([127, 0, 0, 1], 0).into()).unwrap();
        let second = listen_on(first.local_addr().unwrap());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn own_addresses_are_recognized() {
        for own in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_own_address(own.parse().unwrap()), "{own}");
        }
        // Documentation addresses (RFC 5737, RFC 3849), which no machine has.
        for other in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
            assert!(!is_own_address(other.parse().unwrap()), "{other}");
        }
        // The address that this machine has on its network, if it has one.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:1").is_ok() {
            assert!(is_own_address(socket.local_addr().unwrap()));
        }
    }

    #[test]
    fn connections_within_the_machine_are_not_paced() {
        let listener = listen_on(([127, 0, 0, 1], 0).into()).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_socket_options(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(!socket.tcp_congestion().unwrap().starts_with(b"bbr"));
    }
}
