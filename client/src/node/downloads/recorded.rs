//! A download that is on record and does not run: it waits for a tracker or a disk, for its user, or for good.

use engine::storage::destination::{Destination, partial_name};
use engine::storage::resume::remove_orphaned_record;
use rustix::fs::{FlockOperation, flock};

use crate::exit::{ClientFault, ExitCause};
use crate::ipc::rows::{TransferRow, TransferState};
use crate::node::core::to_engine_key;
use crate::node::disk::records::{DownloadRecord, RecordId};
use crate::node::rows;

/// One of them.
#[derive(Clone, Debug)]
pub(in crate::node) struct RecordedDownload {
    /// Its record's name.
    pub(in crate::node) id: RecordId,
    /// Its record.
    pub(in crate::node) wanted: DownloadRecord,
    /// What it waits for, once that was found out.
    pub(in crate::node) waiting_for: Option<ClientFault>,
}

impl RecordedDownload {
    /// As it stands, while `user` is logged in.
    pub(in crate::node) fn row(&self, user: Option<&str>) -> TransferRow {
        let DownloadRecord { key, destination, total_bytes, .. } = &self.wanted;
        rows::idle_transfer_row(&to_engine_key(key), destination.clone(), *total_bytes, self.state(user))
    }

    fn state(&self, user: Option<&str>) -> (TransferState, Option<ClientFault>) {
        let wanted = &self.wanted;
        if let Some(failed) = &wanted.failed {
            return (TransferState::Failed, Some(failed.clone()));
        }
        if wanted.paused {
            return (TransferState::Paused, None);
        }
        if user != Some(wanted.user.as_str()) {
            return (TransferState::Paused, Some(user_absent_fault(&wanted.user)));
        }
        let waits_for = self.waiting_for.clone();
        let starts = || {
            ClientFault::new(
                ExitCause::NoProgress,
                "it goes on when this node stays: `client serve`, or the prompt",
            )
            .fix("`client serve`")
        };
        (TransferState::Waiting, Some(waits_for.unwrap_or_else(starts)))
    }

    /// Whether it could go on while `user` is logged in.
    pub(in crate::node) fn can_resume(&self, user: &str) -> bool {
        self.wanted.user == user && !self.wanted.paused && self.wanted.failed.is_none()
    }

    /// Removes its partial file and the engine's record of that.
    ///
    /// # Errors
    /// A storage fault; or another process is writing the file.
    pub(in crate::node) fn remove_partial_file(&self) -> Result<(), ClientFault> {
        let wanted = &self.wanted;
        let place = Destination::resolve(&wanted.destination, &wanted.key.name)?;
        let group = wanted.key.group.as_str();
        let partial = place.path().with_file_name(partial_name(place.name(), group, wanted.content));
        match std::fs::File::open(&partial) {
            Ok(file) => {
                flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
                    let message = format!("{} is being written by another process", partial.display());
                    ClientFault::new(ExitCause::LocalIo, message).fix("cancel the download there")
                })?;
                std::fs::remove_file(&partial)
                    .map_err(|error| ClientFault::io("remove", &partial, &error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ClientFault::io("open", &partial, &error)),
        }
        Ok(remove_orphaned_record(&place, group, wanted.content)?)
    }
}

/// That a download waits for its user.
pub(in crate::node) fn user_absent_fault(user: &str) -> ClientFault {
    ClientFault::new(ExitCause::NoProgress, format!("it belongs to {user}, who is not logged in here"))
        .fix(format!("`login {user}`"))
}
