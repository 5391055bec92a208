//! Names of groups and of listed files, for completion at the prompt.
//!
//! A thread of its own asks for them, so that typing never waits longer than [`limits::COMPLETION_WAIT_MS`]: an answer that
//! comes later is there at the next Tab. Names are kept for [`limits::COMPLETION_FRESH_MS`].

use std::collections::HashMap;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::lock::lock;
use tracker::api::GroupId;
use tracker::api::request::{Command, ListPage};

use crate::clock;
use crate::exit::ClientFault;
use crate::ipc::connection::NodeConnection;
use crate::ipc::protocol::NodeAnswer;
use crate::limits;

/// Which names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum NameList {
    Groups,
    /// The files of a group.
    Files(GroupId),
}

/// The names, and the thread that asks for them.
pub(super) struct RemoteNames {
    known: Arc<KnownNames>,
    requests: SyncSender<NameList>,
}

#[derive(Default)]
struct KnownNames {
    lists: Mutex<HashMap<NameList, FetchedNames>>,
    /// An answer has come.
    changed: Condvar,
}

#[derive(Clone, Debug)]
struct FetchedNames {
    names: Vec<String>,
    at: Instant,
}

impl RemoteNames {
    /// Asks with `fetch`; `None` means that there is no answer now.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        mut fetch: impl FnMut(&NameList) -> Option<Vec<String>> + Send + 'static,
    ) -> Result<RemoteNames, ClientFault> {
        let known = Arc::<KnownNames>::default();
        let shared = Arc::clone(&known);
        // One request waits while another one is answered; more are dropped.
        let (requests, receiver) = mpsc::sync_channel::<NameList>(1);
        let answer = move || {
            for list in receiver {
                let names = fetch(&list);
                let mut lists = lock(&shared.lists);
                let before = lists.get(&list).map(|fetched| fetched.names.clone());
                let names = names.or(before).unwrap_or_default();
                lists.insert(list, FetchedNames { names, at: clock::now() });
                drop(lists);
                shared.changed.notify_all();
            }
        };
        std::thread::Builder::new()
            .name("names".into())
            .spawn(answer)
            .map_err(|error| ClientFault::no_thread(&error))?;
        Ok(RemoteNames { known, requests })
    }

    /// Asks a node.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn of_node(mut connection: NodeConnection) -> Result<RemoteNames, ClientFault> {
        RemoteNames::start(move |list| {
            let command = match list {
                NameList::Groups => Command::ListGroups { page: ListPage::whole() },
                NameList::Files(group) => {
                    Command::ListFiles { group: group.clone(), page: ListPage::whole() }
                }
            };
            match connection.request(&command.into(), &mut |_| Ok(())).ok()? {
                NodeAnswer::Groups { groups } => Some(groups.into_iter().map(|row| row.group).collect()),
                NodeAnswer::Files { files, .. } => Some(files.into_iter().map(|row| row.file).collect()),
                _ => None,
            }
        })
    }

    /// The names as far as they are known. Waits a moment for those that are not known, or were asked for long ago.
    pub(super) fn names(&self, list: &NameList) -> Vec<String> {
        let asked_at = clock::now();
        let is_fresh = |fetched: &FetchedNames| {
            asked_at.saturating_duration_since(fetched.at)
                < Duration::from_millis(limits::COMPLETION_FRESH_MS)
        };
        let lists = lock(&self.known.lists);
        if let Some(fetched) = lists.get(list).filter(|fetched| is_fresh(fetched)) {
            return fetched.names.clone();
        }
        // A full queue means that an earlier request has no answer yet.
        let _ = self.requests.try_send(list.clone());
        let patience = Duration::from_millis(limits::COMPLETION_WAIT_MS);
        let is_missing = |lists: &mut HashMap<NameList, FetchedNames>| {
            lists.get(list).is_none_or(|fetched| fetched.at < asked_at)
        };
        let (lists, _) = self
            .known
            .changed
            .wait_timeout_while(lists, patience, is_missing)
            .unwrap_or_else(PoisonError::into_inner);
        lists.get(list).map(|fetched| fetched.names.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_late_are_there_the_next_time() {
        let (release, wait) = mpsc::channel::<()>();
        let names = RemoteNames::start(move |list| {
            wait.recv().ok()?;
            Some(vec![format!("{list:?}")])
        })
        .unwrap();
        assert_eq!(names.names(&NameList::Groups), Vec::<String>::new(), "there is no answer yet");
        release.send(()).unwrap();
        // The answer wakes this, or is there already; the next request is answered too.
        release.send(()).unwrap();
        let mut known = Vec::new();
        while known.is_empty() {
            known = names.names(&NameList::Groups);
        }
        assert_eq!(known, ["Groups"]);
    }

    #[test]
    fn a_failed_request_keeps_the_names_and_does_not_ask_again_at_once() {
        let mut answers = vec![None, Some(vec!["g".to_owned()])];
        let names = RemoteNames::start(move |_| answers.pop().expect("is asked twice")).unwrap();
        assert_eq!(names.names(&NameList::Groups), ["g"]);
        lock(&names.known.lists).get_mut(&NameList::Groups).unwrap().at -=
            Duration::from_millis(2 * limits::COMPLETION_FRESH_MS);
        for _again in 0..3 {
            assert_eq!(names.names(&NameList::Groups), ["g"]);
        }
    }
}
