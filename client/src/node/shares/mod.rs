//! The files that this node serves: uploaded, restored after a restart, stopped.

mod listing;
mod restore;
mod upload;

pub(super) use restore::{refusal_message, restore_shares};
pub(super) use upload::*;
