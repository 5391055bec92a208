//! What outlives the node's process: its state directory, and the records in it.
//!
//! ```text
//!   state_dir (lock, socket, key, session), records (shares, downloads) ──► private (files that are the user's alone)
//! ```

#[cfg(test)]
mod format_page;
mod private;
pub(super) mod records;
pub(crate) mod state_dir;
