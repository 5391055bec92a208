//! A download that is on record and does not run: it waits for a tracker or a disk, for its user, or for good.

use engine::storage::destination::{Destination, partial_name};
use engine::storage::resume::forget_orphan;
use rustix::fs::{FlockOperation, flock};

use super::core::engine_key;
use super::records::{RecordId, Wanted};
use super::view;
use crate::exit::{Exit, Fault};
use crate::front::rows::{State, Transfer};

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Dormant {
    /// Its record's name.
    pub(super) id: RecordId,
    /// Its record.
    pub(super) wanted: Wanted,
    /// What it waits for, once that was found out.
    pub(super) waits_for: Option<Fault>,
}

impl Dormant {
    /// As it stands, while `user` is logged in.
    pub(super) fn transfer(&self, user: Option<&str>) -> Transfer {
        let Wanted { key, destination, total_bytes, .. } = &self.wanted;
        view::still(&engine_key(key), destination.clone(), *total_bytes, self.standing(user))
    }

    fn standing(&self, user: Option<&str>) -> (State, Option<Fault>) {
        let wanted = &self.wanted;
        if let Some(failed) = &wanted.failed {
            return (State::Failed, Some(failed.clone()));
        }
        if wanted.paused {
            return (State::Paused, None);
        }
        if user != Some(wanted.user.as_str()) {
            return (State::Paused, Some(not_here(&wanted.user)));
        }
        let waits_for = self.waits_for.clone();
        let starts = || {
            Fault::new(Exit::NoProgress, "it goes on when this node stays: `client serve`, or the prompt")
                .fix("`client serve`")
        };
        (State::Waiting, Some(waits_for.unwrap_or_else(starts)))
    }

    /// Whether it could go on while `user` is logged in.
    pub(super) fn can_go_on(&self, user: &str) -> bool {
        self.wanted.user == user && !self.wanted.paused && self.wanted.failed.is_none()
    }

    /// Removes its partial file and the engine's record of that.
    ///
    /// # Errors
    /// A storage fault; or another process is writing the file.
    pub(super) fn discard(&self) -> Result<(), Fault> {
        let wanted = &self.wanted;
        let place = Destination::resolve(&wanted.destination, &wanted.key.name)?;
        let group = wanted.key.group.as_str();
        let partial = place.path().with_file_name(partial_name(place.name(), group, wanted.content));
        match std::fs::File::open(&partial) {
            Ok(file) => {
                flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
                    let message = format!("{} is being written by another process", partial.display());
                    Fault::new(Exit::LocalIo, message).fix("cancel the download there")
                })?;
                std::fs::remove_file(&partial).map_err(|error| Fault::io("remove", &partial, &error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::io("open", &partial, &error)),
        }
        Ok(forget_orphan(&place, group, wanted.content)?)
    }
}

/// That a download waits for its user.
pub(super) fn not_here(user: &str) -> Fault {
    Fault::new(Exit::NoProgress, format!("it belongs to {user}, who is not logged in here"))
        .fix(format!("`login {user}`"))
}
