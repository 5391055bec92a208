//! Where a log lives, as far as whoever runs it needs to know: how to open it, to look at it, and how much room is left.

use std::path::PathBuf;

use super::fault::Fault;
use super::space;
use super::store::Store;

/// The place of a log. Tests put one on storages that fail.
pub trait Home: Send + 'static {
    /// Opens the log.
    ///
    /// # Errors
    /// [`Fault`].
    fn open(&mut self) -> Result<Store, Fault>;

    /// Opens it so that nothing of it is changed: what is written stays in memory.
    ///
    /// # Errors
    /// [`Fault`].
    fn look(&mut self) -> Result<Store, Fault>;

    /// Free space there, in bytes; `None` where nobody can say.
    fn free_bytes(&self) -> Option<u64>;

    /// Its name, for messages.
    fn name(&self) -> String;
}

/// A directory.
#[derive(Clone, Debug)]
pub struct Directory(pub PathBuf);

impl Home for Directory {
    fn open(&mut self) -> Result<Store, Fault> {
        Store::open(&self.0)
    }

    fn look(&mut self) -> Result<Store, Fault> {
        Store::open_to_look(&self.0)
    }

    fn free_bytes(&self) -> Option<u64> {
        space::free_bytes(&self.0).ok()
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}
