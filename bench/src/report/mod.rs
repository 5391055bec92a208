//! What was measured, for people: a table and a plot of characters on a terminal, a page with pictures in a folder.
//!
//! ```text
//!   conclude ─► text   tables of one run, for a terminal
//! ```
//!
//! Invariant: every number stands beside its spread, and the machine beside them all; wins and losses look alike.

mod text;

use crate::host::Host;
use crate::results::sink::Sink;

/// Ends a run: prints it, unless JSON was wanted.
pub(crate) fn conclude(sink: Sink) -> anyhow::Result<()> {
    let ended = sink.end()?;
    if !ended.wanted.json {
        print!("{}", text::run(&ended.kept));
    }
    Ok(())
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
