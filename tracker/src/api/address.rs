//! IP addresses of clients: parsing, the address under which a session shares, and which addresses may be revealed.
//!
//! Addresses are compared in parsed form, with IPv4-mapped IPv6 addresses as IPv4: `::ffff:10.0.0.1` is `10.0.0.1`.
//!
//! A session shares under its connection's own IP and the port that it claims, so a client cannot direct a swarm at
//! another machine. Only a loopback connection may claim another IP, and that IP must be a loopback address too.

use std::net::{IpAddr, SocketAddr};

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Neither IPv4 nor IPv6.
    #[error("not an IP address")]
    NotAnIp,
    /// It has a scope such as `%eth0`, which is valid on one machine only.
    #[error("an address with a scope (`%...`) is valid on one machine only")]
    Scope,
    /// Not a number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

/// Reads an IP address; IPv6 may be in brackets. An IPv4-mapped address is returned as IPv4.
///
/// # Errors
/// [`BadAddress`] says what is wrong with the text.
pub fn parse_ip(text: &str) -> Result<IpAddr, BadAddress> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.contains('%') {
        return Err(BadAddress::Scope);
    }
    bare.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| BadAddress::NotAnIp)
}

/// Reads a port from text, as the original client sends it.
///
/// # Errors
/// [`BadAddress::Port`].
pub fn parse_port(text: &str) -> Result<u16, BadAddress> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(BadAddress::Port)
}

/// The same address without flow label and scope. An IPv4-mapped IP becomes IPv4.
#[must_use]
pub fn unmap_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address at which a client says that it listens for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedAddress {
    /// `None` means the IP of the connection.
    pub ip: Option<IpAddr>,
    /// The port, not 0.
    pub port: u16,
}

/// The address under which a session shares: the connection's own IP and the claimed port. A connection on loopback may
/// claim any loopback IP.
#[must_use]
pub fn share_address(connection: IpAddr, claimed: ClaimedAddress) -> SocketAddr {
    let own = connection.to_canonical();
    let ip = claimed.ip.map(|ip| ip.to_canonical()).filter(|ip| own.is_loopback() && ip.is_loopback());
    let shared = SocketAddr::new(ip.unwrap_or(own), claimed.port);
    assert!(own.is_loopback() || shared.ip() == own, "{own} must not share under {shared}");
    shared
}

/// Whether `asker` may learn `address`: a loopback address is useful on the same machine only.
#[must_use]
pub fn may_reveal(asker: IpAddr, address: IpAddr) -> bool {
    asker.to_canonical().is_loopback() || !address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_in_every_written_form() {
        assert_eq!(parse_ip("10.1.2.3"), Ok(ip("10.1.2.3")));
        assert_eq!(parse_ip("[2001:db8::1]"), Ok(ip("2001:db8::1")));
        assert_eq!(parse_ip("::ffff:10.1.2.3"), Ok(ip("10.1.2.3")));
        assert_eq!(parse_ip("fe80::1%eth0"), Err(BadAddress::Scope));
        for wrong in ["", "localhost", "[10.0.0.1", "10.0.0", "10.0.0.256", "[[::1]]"] {
            assert_eq!(parse_ip(wrong), Err(BadAddress::NotAnIp), "{wrong}");
        }
        assert_eq!(parse_port("5000"), Ok(5_000));
        for wrong in ["", "0", "65536", "-1", "+80", " 80", "8o"] {
            assert_eq!(parse_port(wrong), Err(BadAddress::Port), "{wrong}");
        }
    }

    #[test]
    fn a_claimed_ip_counts_on_loopback_only() {
        let claim =
            |ip: Option<&str>| ClaimedAddress { ip: ip.map(|text| text.parse().unwrap()), port: 5_000 };
        let shares = |connection: &str, claimed: Option<&str>| {
            share_address(ip(connection), claim(claimed)).ip().to_string()
        };
        assert_eq!(shares("10.0.0.1", Some("10.0.0.2")), "10.0.0.1", "another machine's address");
        assert_eq!(shares("10.0.0.1", Some("127.0.0.1")), "10.0.0.1");
        assert_eq!(shares("10.0.0.1", None), "10.0.0.1");
        assert_eq!(shares("127.0.0.1", Some("127.0.0.2")), "127.0.0.2");
        assert_eq!(shares("::1", Some("127.0.0.2")), "127.0.0.2");
        assert_eq!(shares("127.0.0.1", Some("10.0.0.2")), "127.0.0.1");
        assert_eq!(shares("::ffff:127.0.0.1", Some("10.0.0.2")), "127.0.0.1");
    }

    #[test]
    fn loopback_is_revealed_on_loopback_only() {
        assert!(may_reveal(ip("127.0.0.1"), ip("127.0.0.9")));
        assert!(may_reveal(ip("127.0.0.1"), ip("10.0.0.1")));
        assert!(may_reveal(ip("10.0.0.1"), ip("10.0.0.2")));
        assert!(!may_reveal(ip("10.0.0.1"), ip("127.0.0.1")));
        assert!(!may_reveal(ip("10.0.0.1"), ip("::ffff:127.0.0.1")));
    }
}
