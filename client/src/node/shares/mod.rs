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

pub(super) use restore::{mark_announced, restore_shares, unserved_reason};
pub(super) use share::{ShareOrigin, ShareState, Shares};
pub(super) use stop::{
    drop_shares, is_served, is_serving_whole_file, report_stopped, set_active_user, stop_share,
    withdraw_changed_files,
};
pub(super) use upload::{share_download, upload_file};
