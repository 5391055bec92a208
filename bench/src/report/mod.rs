//! What was measured, for people: tables and bars of characters on a terminal, a page with pictures in a folder.
//!
//! ```text
//!   conclude ─┬─► text, plot   one run, for a terminal
//!             └─► page         all runs of a folder
//!                  ├─► bars     one metric, with its spread
//!                  ├─► curves   latencies by percentile, values over time
//!                  └─► scales   curves over numbers of leechers and of seeders
//!   palette: colours     limits: sizes
//! ```
//!
//! Invariant: every number stands beside its spread, and the machine beside them all; wins and losses look alike.

mod bars;
mod curves;
mod limits;
mod page;
mod palette;
mod plot;
mod scales;
mod text;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::Context as _;

use crate::host::Host;
use crate::results::folder;
use crate::results::record::{Measured, Record};
use crate::results::sink::Sink;

/// Ends a run: prints it, unless JSON was wanted, and draws the page of its folder.
pub(crate) fn conclude(sink: Sink) -> anyhow::Result<()> {
    let ended = sink.end()?;
    if !ended.wanted.json {
        print!("{}", text::run(&ended.kept));
        if io::stdout().is_terminal() {
            let results: Vec<&Measured> = ended.kept.records.iter().filter_map(as_result).collect();
            print!("{}", plot::draw(&results));
        }
    }
    ended.wanted.folder.as_deref().map_or(Ok(()), draw_page)
}

fn as_result(record: &Record) -> Option<&Measured> {
    if let Record::Result(result) = record { Some(result) } else { None }
}

/// The machine alone: one JSON object, or lines for people.
pub(crate) fn print_host_alone(host: &Host, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(host)?);
    } else {
        print!("{}", text::host(host));
    }
    Ok(())
}

/// Draws the page of all runs of a folder.
pub(crate) fn draw_page(kept_in: &Path) -> anyhow::Result<()> {
    let path = folder::report(kept_in);
    let page = page::draw(&folder::read(kept_in)?)?;
    fs::write(&path, page).with_context(|| format!("{} could not be written", path.display()))?;
    eprintln!("bench: all runs of {} are drawn in {}", kept_in.display(), path.display());
    Ok(())
}

#[cfg(test)]
mod tests;
