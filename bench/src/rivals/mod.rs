//! The field: other programs that move files, on the same terms, each with what its documentation recommends.
//!
//! ```text
//!   contenders ─► Rival: version (or why it is not here) ─► contender (servers started, commands to fetch)
//!      web        nginx with curl, with curl and openssl, with aria2
//!      rsync      its daemon
//!      aria2      BitTorrent          ┐
//!      libtorrent by its Python form  ├─► torrent   the .torrent file, and who says who has it
//!      rqbit      on one thread       ┘
//!      sendme     iroh, without relays
//!   hashing: programs that hash a file and move nothing
//!   rival   what each of them is     ports   free ones, and whether somebody listens
//! ```
//!
//! Invariants: each has a folder of its own, which is its home too, so that nobody's settings or caches count; a rival that
//! is missing or fails is a record with the reason, never the end of a run.

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
use crate::contender::{Contender, TransferTerms};
use rival::{Rival, RivalAbsence};

/// One rival.
pub(crate) struct RivalEntry {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its programs took to start, say their versions and end: the part of a short transfer that moves nothing.
    pub(crate) start: Option<Duration>,
    /// Ready to take part, or why it does not.
    pub(crate) contender: Result<Box<dyn Contender>, RivalAbsence>,
}

/// The whole field.
pub(crate) fn start_rivals(terms: &TransferTerms) -> Vec<RivalEntry> {
    let field: [Box<dyn Rival>; 8] = [
        Box::new(web::NginxCurl),
        Box::new(web::NginxCurlOpenssl),
        Box::new(web::NginxAria2),
        Box::new(rsync::RsyncRival),
        Box::new(libtorrent::LibtorrentRival),
        Box::new(rqbit::RqbitRival),
        Box::new(aria2::Aria2Rival),
        Box::new(sendme::SendmeRival),
    ];
    field.iter().map(|rival| start_rival(rival.as_ref(), terms)).collect()
}

fn start_rival(rival: &dyn Rival, terms: &TransferTerms) -> RivalEntry {
    let name = rival.name();
    let (took, version) = clock::time_work(|| rival.version());
    let start = version.is_ok().then_some(took);
    let contender = version.map_err(|why| RivalAbsence::Missing(format!("{why:#}"))).and_then(|version| {
        if let Some(why) = rival.keeps_source_mapped().filter(|_| terms.cold) {
            return Err(RivalAbsence::Missing(format!("{why}: nobody's round would be cold")));
        }
        let of_its_own = terms.with_own_folder(name);
        let entered =
            of_its_own.and_then(|terms| rival.start_contender(&format!("{name} ({version})"), &terms));
        entered.map_err(|why| RivalAbsence::Failed(format!("{why:#}")))
    });
    RivalEntry { name, start, contender }
}
