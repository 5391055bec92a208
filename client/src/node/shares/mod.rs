//! The files that this node shares: uploaded, listed, served, restored after a restart, stopped.
//!
//! ```text
//!   upload ──────► listing (to the tracker)
//!      │              ▲
//!      │           restore (the recovery thread)
//!      ▼              ▼
//!     stop ─────► share (table, records) ──► state
//! ```

mod fingerprints;
mod listing;
mod restore;
mod share;
mod state;
mod stop;
mod upload;

pub(super) use fingerprints::record_new_fingerprints;
pub(super) use restore::{restore_shares, unserved_reason};
pub(super) use share::{LocalShare, ShareOrigin, Shares, announce_again, mark_announced};
pub(super) use state::ShareState;
pub(super) use stop::{
    is_served, is_serving_whole_file, remove_shares, report_stopped, stop_share, unserve_other_users,
    withdraw_changed_files,
};
pub(super) use upload::{share_download, upload_file};
