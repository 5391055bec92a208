//! Ports for programs that cannot choose one themselves, and waiting until somebody listens there.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::clock;
use crate::contender::TransferTerms;
use crate::topology::spawned::SpawnedProgram;

/// A program has this long until it listens.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A port that nobody had just now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Several of those, no two alike.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until all are known.
    let held = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(|one| Ok(one.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

/// Starts a program that serves, and waits until it listens.
pub(super) fn start_server(
    name: &str,
    command: &Command,
    terms: &TransferTerms,
    port: u16,
) -> anyhow::Result<SpawnedProgram> {
    let mut server = SpawnedProgram::start(&format!("{name}-{port}"), command, &terms.place)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut over = false;
    let there = clock::wait_until(READY_TIMEOUT, || {
        over = server.has_ended();
        over || TcpStream::connect(address).is_ok()
    });
    if over || !there {
        bail!("{name} does not listen on port {port}{}", server.failure_output());
    }
    Ok(server)
}
