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
use crate::contender::{Contender, Terms};
use rival::{Absent, Rival};

/// One rival.
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its programs took to start, say their versions and end: the part of a short transfer that moves nothing.
    pub(crate) start: Option<Duration>,
    /// Ready to take part, or why it does not.
    pub(crate) contender: Result<Box<dyn Contender>, Absent>,
}

/// The whole field.
pub(crate) fn contenders(terms: &Terms) -> Vec<Entry> {
    let field: [Box<dyn Rival>; 8] = [
        Box::new(web::Curl),
        Box::new(web::CurlThenOpenssl),
        Box::new(web::Aria2),
        Box::new(rsync::Rsync),
        Box::new(libtorrent::Libtorrent),
        Box::new(rqbit::Rqbit),
        Box::new(aria2::Aria2),
        Box::new(sendme::Sendme),
    ];
    field.iter().map(|rival| enter(rival.as_ref(), terms)).collect()
}

fn enter(rival: &dyn Rival, terms: &Terms) -> Entry {
    let name = rival.name();
    let (took, version) = clock::timed(|| rival.version());
    let start = version.is_ok().then_some(took);
    let contender = version.map_err(|why| Absent::Missing(format!("{why:#}"))).and_then(|version| {
        if let Some(why) = rival.keeps_mapped().filter(|_| terms.cold) {
            return Err(Absent::Missing(format!("{why}: nobody's round would be cold")));
        }
        let of_its_own = terms.apart(name);
        let entered = of_its_own.and_then(|terms| rival.contender(&format!("{name} ({version})"), &terms));
        entered.map_err(|why| Absent::Failed(format!("{why:#}")))
    });
    Entry { name, start, contender }
}
