//! Finds free ports for programs that cannot choose their own, and waits until such a program listens.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use anyhow::bail;

use crate::clock;
use crate::contender::TransferTerms;
use crate::limits::RIVAL_READY_TIMEOUT;
use crate::topology::spawned::SpawnedProgram;

/// A port that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Distinct ports that were free a moment ago.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All listeners stay open until every port is known, so no port is returned twice.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<std::io::Result<_>>()?)
}

/// Starts a server and waits until it listens.
pub(super) fn start_server(
    name: &str,
    command: &Command,
    terms: &TransferTerms,
    port: u16,
) -> anyhow::Result<SpawnedProgram> {
    let mut server = SpawnedProgram::start(&format!("{name}-{port}"), command, &terms.folder)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut has_ended = false;
    let is_in_time = clock::wait_until(RIVAL_READY_TIMEOUT, || {
        has_ended = server.has_ended();
        has_ended || TcpStream::connect(address).is_ok()
    });
    if has_ended || !is_in_time {
        bail!("{name} does not listen on port {port}{}", server.failure_output());
    }
    Ok(server)
}
