//! The downloads of this node: begun by users, resumed after a restart, controlled, listed.

mod announcer;
mod compare;
mod control;
mod describe;
mod following;
mod recorded;
mod replaced;
mod running;
mod schedule;
mod table;

pub(super) use compare::DownloadRequest;
pub(super) use control::{DownloadControl, control_download};
pub(super) use following::follow_download;
pub(super) use table::{DownloadTable, StartOutcome};
