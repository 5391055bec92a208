//! The pump: a bare transfer over as many sockets as Shoal opens. Senders send pieces from the mapped file; the
//! receiver writes them at their offsets. No protocol, no verification, no resume; one blocking thread per socket.
//!
//! ```text
//!   bench pump-send FILE              prints `pump listening on IP:PORT`; serves until it is killed
//!   bench pump-receive --from … DEST  connects, requests pieces (first, step), writes them, exits
//! ```

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use engine::mem::send::send_vectored;
use engine::mem::window::SendPart;
use engine::proto::limits::connections_each;
use engine::proto::units::PIECE_BYTES;
use engine::storage::source::Source;
use rustix::fs::{FallocateFlags, fallocate};

use crate::cli::{PumpReceiveArgs, PumpSendArgs};
use crate::clock;
use crate::contender::{FetchSteps, ProgramContender, TRANSFER_TIME_PREFIX, TransferTerms};
use crate::topology::spawned::SpawnedProgram;
use crate::topology::test_file::is_in_memory;

/// A receiver's request on each socket: its first piece, then the step to the next one; both little-endian `u64`.
const RANGE_REQUEST_BYTES: usize = 16;

/// A contender whose senders are processes of their own, as Shoal's seeders are.
pub(super) fn pump_contender(terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let own = std::env::current_exe().context("cannot find the harness's own program")?;
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for number in 0..terms.seeders {
        let mut command = Command::new(&own);
        command.arg("pump-send").arg(&terms.file.path);
        let name = format!("pump-{}-{number}", terms.seeders);
        let (server, address) =
            SpawnedProgram::start_ready(&name, &command, &terms.folder, "pump listening on ")?;
        servers.push(server);
        addresses.push(address);
    }
    let bytes = terms.file.bytes;
    let each = connections_each(terms.seeders);
    let steps = move |_: usize, into: &Path| {
        let copy = into.join("pumped");
        let mut command = Command::new(&own);
        command.arg("pump-receive").arg("--from").arg(addresses.join(","));
        command.args(["--each", &each.to_string(), "--bytes", &bytes.to_string()]).arg(&copy);
        FetchSteps { commands: vec![command], copy: Some(copy) }
    };
    Ok(ProgramContender::new("pump", terms, servers, steps).into_reference())
}

/// Runs `bench pump-send`.
pub(crate) fn run_sender(args: &PumpSendArgs) -> anyhow::Result<()> {
    // Each connection maps the file anew. Between rounds it is not mapped, so it can be dropped from the page cache.
    let file = Arc::new(args.file.clone());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("pump listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        let (socket, file) = (socket?, Arc::clone(&file));
        // The number of threads is bounded by the receivers' sockets; all clients are the harness's own.
        std::thread::Builder::new().spawn(move || {
            // An error ends this connection only: the receiver reports it.
            let _ = serve_pieces(socket, &file);
        })?;
    }
    Ok(())
}

fn serve_pieces(mut socket: TcpStream, file: &Path) -> anyhow::Result<()> {
    let source = Source::open(file)?;
    socket.set_nodelay(true)?;
    let mut range_request = [0; RANGE_REQUEST_BYTES];
    socket.read_exact(&mut range_request)?;
    let (first, step) = range_request.split_at(RANGE_REQUEST_BYTES / 2);
    let (first, step) = (u64::from_le_bytes(first.try_into()?), u64::from_le_bytes(step.try_into()?));
    for range in piece_ranges(source.length(), first, step) {
        let mut parts = vec![source.window(range).into_part()?];
        while !parts.is_empty() {
            let sent = send_vectored(socket.as_fd(), &parts)?;
            SendPart::advance(&mut parts, sent);
        }
    }
    Ok(())
}

/// The byte ranges of every `step`th piece, starting at `first`.
fn piece_ranges(bytes: u64, first: u64, step: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let piece = u64::from(PIECE_BYTES);
    let count = bytes.div_ceil(piece);
    let wanted = (first..count).step_by(usize::try_from(step.max(1)).unwrap_or(usize::MAX));
    wanted.map(move |index| index * piece..((index + 1) * piece).min(bytes))
}

/// Runs `bench pump-receive`.
pub(crate) fn run_receiver(args: &PumpReceiveArgs) -> anyhow::Result<()> {
    let began = clock::now();
    let file = File::create(&args.destination)?;
    reserve_space(&file, args.bytes)?;
    let sockets: Vec<SocketAddr> = (0..args.each).flat_map(|_| args.from.iter().copied()).collect();
    let step = sockets.len() as u64;
    std::thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .iter()
            .zip(0..)
            .map(|(address, first)| {
                scope.spawn({
                    let file = &file;
                    move || fetch_pieces(file, args.bytes, *address, first, step)
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a receiving thread panicked"),
            }
        }
        println!("{TRANSFER_TIME_PREFIX}{}", (clock::now() - began).as_secs_f64());
        Ok(())
    })
}

/// Preallocates the file as Shoal does. On tmpfs preallocation writes zeros, so only the length is set; the free space
/// was checked at the start of the run.
fn reserve_space(file: &File, bytes: u64) -> anyhow::Result<()> {
    let reserved =
        bytes > 0 && !is_in_memory(file) && fallocate(file, FallocateFlags::empty(), 0, bytes).is_ok();
    if !reserved {
        file.set_len(bytes)?;
    }
    Ok(())
}

fn fetch_pieces(file: &File, bytes: u64, address: SocketAddr, first: u64, step: u64) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.write_all(&[first.to_le_bytes(), step.to_le_bytes()].concat())?;
    let mut buffer = vec![0; PIECE_BYTES as usize];
    for range in piece_ranges(bytes, first, step) {
        let piece = &mut buffer[..usize::try_from(range.end - range.start)?];
        socket.read_exact(piece)?;
        file.write_all_at(piece, range.start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn space_is_reserved_on_a_disk_but_not_on_tmpfs() {
        for place in ["/dev/shm", "."] {
            let Ok(file) = tempfile::tempfile_in(place) else { continue };
            reserve_space(&file, 1 << 20).unwrap();
            let found = file.metadata().unwrap();
            assert_eq!(found.len(), 1 << 20, "{place}");
            if is_in_memory(&file) {
                assert_eq!(found.blocks(), 0, "{place} was filled with zeros");
            }
        }
        reserve_space(&tempfile::tempfile().unwrap(), 0).unwrap();
    }

    #[test]
    fn the_sockets_cover_every_piece_once() {
        let piece = u64::from(PIECE_BYTES);
        let bytes = 5 * piece + 7;
        let mut all: Vec<_> = (0..4).flat_map(|first| piece_ranges(bytes, first, 4)).collect();
        all.sort_by_key(|range| range.start);
        assert_eq!(all.len(), 6);
        assert_eq!(all.first().unwrap().start, 0);
        assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(all.last().unwrap().end, bytes);
        assert_eq!(piece_ranges(0, 0, 4).count(), 0);
    }
}
