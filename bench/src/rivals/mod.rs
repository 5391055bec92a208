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
//! Invariant: a rival that is missing or fails is a record with the reason, never the end of a run.

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

use crate::contender::{Contender, Terms};
use rival::{Absent, Rival};

/// One rival, ready to take part, or why it does not.
pub(crate) type Entry = (&'static str, Result<Box<dyn Contender>, Absent>);

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
    field.iter().map(|rival| (rival.name(), enter(rival.as_ref(), terms))).collect()
}

fn enter(rival: &dyn Rival, terms: &Terms) -> Result<Box<dyn Contender>, Absent> {
    let version = rival.version().map_err(|why| Absent::Missing(format!("{why:#}")))?;
    let kind = format!("{} ({version})", rival.name());
    rival.contender(&kind, terms).map_err(|why| Absent::Failed(format!("{why:#}")))
}
