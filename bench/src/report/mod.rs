//! Reports of results: tables and text plots on a terminal, and `report.html` with charts in the folder of the results.
//!
//! ```text
//!   finish_run ─┬─► text, text_plot   one run, for a terminal
//!               └─► page              all runs of a folder
//!                    ├─► bars      one metric, with its spread
//!                    ├─► curves    latencies by percentile, values over time
//!                    └─► scaling   curves over numbers of leechers and of seeders
//!   palette: colours
//! ```
//!
//! Invariant: every value is shown with its spread, and every run with its machine. Charts do not
//! highlight wins or hide losses.

mod bars;
mod curves;
mod page;
mod palette;
mod scaling;
mod text;
mod text_plot;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

use crate::host::HostDescription;
use crate::results::folder;
use crate::results::record::{BenchRecord, ResultRecord};
use crate::results::sink::RecordSink;

/// Ends a run: updates the page of its folder, if it has one, and prints the run's tables unless JSON was requested.
pub(crate) fn finish_run(sink: RecordSink) -> anyhow::Result<()> {
    let ended = sink.finish()?;
    // The page comes first: writing to a closed standard output may fail.
    ended.output.folder.as_deref().map_or(Ok(()), draw_page)?;
    if ended.output.json {
        return Ok(());
    }
    print_text(&text::format_run(&ended.stored))?;
    if io::stdout().is_terminal() {
        let results: Vec<&ResultRecord> =
            ended.stored.records.iter().filter_map(BenchRecord::as_result).collect();
        print_text(&text_plot::draw_plots(&results))?;
    }
    Ok(())
}

/// Writes to standard output. A closed pipe is not an error.
fn print_text(text: &str) -> anyhow::Result<()> {
    let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    match written {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => {
            Err(fault).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a description of the machine, as JSON or as text.
pub(crate) fn print_host_alone(host: &HostDescription, json: bool) -> anyhow::Result<()> {
    if json {
        print_text(&format!("{}\n", serde_json::to_string(host)?))
    } else {
        print_text(&text::format_host(host))
    }
}

/// Writes `report.html` about all runs that are kept in a folder.
pub(crate) fn draw_page(results_folder: &Path) -> anyhow::Result<()> {
    let path = folder::report_path(results_folder);
    let page = page::render_page(&folder::read_runs(results_folder)?)?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("bench: wrote a report of all runs in {} to {}", results_folder.display(), path.display());
    Ok(())
}

#[cfg(test)]
mod tests;
