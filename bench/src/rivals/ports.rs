//! Ports for programs that cannot choose one themselves, and waiting until somebody listens there.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::clock;
use crate::contender::Terms;
use crate::topology::spawned::Spawned;

/// A program has this long until it listens.
const READY: Duration = Duration::from_secs(20);

/// A port that nobody had just now.
pub(super) fn free() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Several of those, no two alike.
pub(super) fn several(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until all are known.
    let held = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(|one| Ok(one.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

/// Starts a program that serves, and waits until it listens.
pub(super) fn serve(name: &str, command: &Command, terms: &Terms, port: u16) -> anyhow::Result<Spawned> {
    let mut server = Spawned::start(&format!("{name}-{port}"), command, &terms.place)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut over = false;
    let there = clock::within(READY, || {
        over = server.has_ended();
        over || TcpStream::connect(address).is_ok()
    });
    if over || !there {
        bail!("{name} does not listen on port {port}{}", server.last_words());
    }
    Ok(server)
}
