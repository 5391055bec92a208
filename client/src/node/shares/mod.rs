//! The files that this node shares: uploaded, listed, served, restored after a restart, stopped.
//!
//! ```text
//!   upload ──────► listing (to the tracker)
//!      │              ▲
//!      │           restore (the recovery thread)
//!      ▼              ▼
//!     stop ─────► share (states, table, records)
//! ```

mod listing;
mod restore;
mod share;
mod stop;
mod upload;

pub(super) use restore::{
    announce_again, mark_announced, record_new_fingerprints, restore_shares, unserved_reason,
};
pub(super) use share::{ShareOrigin, ShareState, Shares};
pub(super) use stop::{
    is_served, is_serving_whole_file, remove_shares, report_stopped, stop_share, unserve_other_users,
    withdraw_changed_files,
};
pub(super) use upload::{share_download, upload_file};
