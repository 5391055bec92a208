//! The listening socket. It has SO_REUSEADDR, so that a restarted tracker gets its port back at once, and
//! never SO_REUSEPORT, so that two trackers cannot share a port by mistake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::limits::{BACKLOG, KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, USER_TIMEOUT_MS};

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("{0} is taken by another program")]
    Taken(SocketAddr),
    /// The IP is not an address of this machine.
    #[error("{0} is not an address of this machine")]
    NotOurs(SocketAddr),
    /// Any other error of the system.
    #[error("cannot listen on {address}: {error}")]
    Other {
        /// The address to listen on.
        address: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
}

/// Starts to listen on an address; with port 0 the system chooses the port.
///
/// # Errors
/// [`BindError`]: the address is taken or not of this machine, or the system refused the socket.
pub fn bind_listener(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = open_socket(address)?;
        set_connection_options(&socket)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from_std(socket.into()))
    };
    listen().map_err(|error| bind_error(address, error))
}

/// Checks that an address can be served. It binds but does not listen, so that no client can connect
/// meanwhile.
///
/// # Errors
/// As [`bind_listener`].
pub fn check_address(address: SocketAddr) -> Result<(), BindError> {
    open_socket(address).map(drop).map_err(|error| bind_error(address, error))
}

fn bind_error(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        _ => BindError::Other { address, error },
    }
}

/// Sets the options that accepted sockets inherit: answers are not held back, and the connections of a host that is gone
/// end, whether it owes an acknowledgement or not.
fn set_connection_options(listener: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(KEEPALIVE_IDLE_S))
        .with_interval(Duration::from_secs(KEEPALIVE_INTERVAL_S));
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_keepalive(&keepalive)?;
    listener.set_tcp_user_timeout(Some(Duration::from_millis(USER_TIMEOUT_MS)))
}

fn open_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_and_a_foreign_address_are_distinguished() {
        let first = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert!(matches!(bind_listener(address), Err(BindError::Taken(taken)) if taken == address));
        assert!(matches!(check_address(address), Err(BindError::Taken(taken)) if taken == address));
        assert!(matches!(bind_listener("240.0.0.1:0".parse().unwrap()), Err(BindError::NotOurs(_))));
        drop(first);
        // Another program may get the port in between, but not ten times.
        let free_again = (0..10).any(|_| {
            let address = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
            check_address(address).is_ok() && bind_listener(address).is_ok()
        });
        assert!(free_again);
    }

    #[test]
    fn accepted_sockets_notice_hosts_that_are_gone() {
        let listener = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The connection is established, so it waits to be accepted.
        let (accepted, _) = listener.accept().unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        let timeout = socket.tcp_user_timeout().unwrap().unwrap();
        assert_eq!(timeout, Duration::from_millis(USER_TIMEOUT_MS));
        // By then at least one question was asked, without which the kernel does not end an idle connection.
        let asked = socket.tcp_keepalive_time().unwrap() + socket.tcp_keepalive_interval().unwrap();
        assert!(asked < timeout && timeout < Duration::from_secs(60));
    }
}
