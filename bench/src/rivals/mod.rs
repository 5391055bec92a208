//! Rivals: other programs that transfer files. They run on the same terms as Shoal, configured as their documentation
//! recommends.
//!
//! ```text
//!   start_rivals ─► Rival: version, which fails if it is absent ─► start: its servers, and its receivers' commands
//!      web        nginx with curl, with curl and openssl, with aria2
//!      rsync      its daemon
//!      aria2      BitTorrent               ┐
//!      libtorrent by its Python bindings   ├─► torrent   the .torrent file and the announces
//!      rqbit      on one thread            ┘
//!      sendme     iroh, without relays
//!   hashing    programs that only hash a file
//!   rival      what each rival provides      ports   free ports, and waiting for a server
//! ```
//!
//! Invariants: each rival has a folder of its own, which is also its home, so the user's settings and caches have no
//! effect. A rival that is missing or fails becomes a record with the reason and never ends the run.

mod aria2;
pub(crate) mod hashing;
mod libtorrent;
mod ports;
mod rival;
mod rqbit;
mod rsync;
mod sendme;
mod torrent;
mod web;

use std::time::Duration;

use crate::clock;
use crate::contender::{ProgramContender, TransferTerms};
use rival::{Rival, RivalAbsence};

/// Every rival. The first round measures them in this order.
const RIVALS: [Rival; 8] = [
    web::CURL,
    web::CURL_THEN_OPENSSL,
    web::ARIA2,
    rsync::RSYNC,
    libtorrent::LIBTORRENT,
    rqbit::RQBIT,
    aria2::ARIA2,
    sendme::SENDME,
];

/// A rival that was started, or the reason why it was not.
pub(crate) struct RivalEntry {
    /// Its name.
    pub(crate) name: &'static str,
    /// How long its programs take to start, print their versions and exit: the fixed cost of a short transfer. `None` if
    /// one is missing.
    pub(crate) start: Option<Duration>,
    /// The contender.
    pub(crate) contender: Result<ProgramContender, RivalAbsence>,
}

/// Starts every rival that is installed.
pub(crate) fn start_rivals(terms: &TransferTerms) -> Vec<RivalEntry> {
    RIVALS.iter().map(|rival| start_rival(rival, terms)).collect()
}

fn start_rival(rival: &Rival, terms: &TransferTerms) -> RivalEntry {
    let name = rival.name;
    let (took, version) = clock::time_work(rival.version);
    let start = version.is_ok().then_some(took);
    let contender = version.map_err(|why| RivalAbsence::Missing(format!("{why:#}"))).and_then(|version| {
        if let Some(why) = rival.keeps_source_mapped.filter(|_| terms.is_source_cold) {
            return Err(RivalAbsence::Missing(format!("{why}, so that no contender's round would be cold")));
        }
        let terms = terms.with_own_folder(name);
        let started = terms.and_then(|terms| (rival.start)(&format!("{name} ({version})"), &terms));
        started.map_err(|why| RivalAbsence::Failed(format!("{why:#}")))
    });
    RivalEntry { name, start, contender }
}
