//! Lists: list_groups, list_files, list_requests. Each is read page by page, with others' turns in between, so one that takes
//! several pages is of as many moments; what was there all the time is in it once.
//!
//! Invariant: a page reads about [`LIST_PAGE_ROWS`] rows, and begins behind the last entry that was built.

use engine::proto::manifest::{FileName, FileProof};

use crate::api::answers::{CommandAnswer, FileEntry, FilesAnswer, GroupEntry, GroupsAnswer, RequestsAnswer};
use crate::state::id::{GroupFile, GroupId, UserId};
use crate::state::outcome::CommandRefusal;
use crate::state::queries::{FileView, GroupView};

use super::super::clock::ClockReading;
use super::super::limits::{LIST_BATCH_FILES, LIST_ENTRY_BYTES, LIST_PAGE_ROWS};
use super::replies;
use super::service::{RequestContext, RequestStep, Service};

/// What a list_files asks for.
pub(super) struct FileListQuery {
    pub(super) group: GroupId,
    /// The file behind which the list begins.
    pub(super) after: Option<FileName>,
    /// How many files it has, at most.
    pub(super) count: usize,
}

impl Service {
    /// Goes on with a list of groups of which this much is `built`.
    pub(super) fn list_groups(&self, asked: RequestContext, mut built: Vec<GroupEntry>) -> RequestStep {
        let after = built.last().map(|last| &last.group_id);
        let views = self.state.queries().groups(&asked.actor.user, after, LIST_PAGE_ROWS);
        let ended = views.len() < LIST_PAGE_ROWS;
        built.extend(views.into_iter().map(group_entry));
        if !ended {
            let bytes = built.len() * LIST_ENTRY_BYTES;
            return RequestStep::ContinueList(
                bytes,
                Box::new(move |service, _, (), _| service.list_groups(asked, built)),
            );
        }
        let groups_list = built.iter().map(|entry| entry.group_id.clone()).collect();
        let message = replies::count_noun(built.len(), "group");
        RequestStep::answer(replies::success_with(
            message,
            CommandAnswer::Groups(GroupsAnswer { groups_list, groups: built }),
        ))
    }

    /// Goes on with a list of who asks to join a group.
    pub(super) fn list_requests(
        &mut self,
        asked: RequestContext,
        group: GroupId,
        mut built: Vec<UserId>,
    ) -> RequestStep {
        if let Err(failure) = self.require_member(&asked, &group) {
            return RequestStep::answer(Err(failure));
        }
        let queries = self.state.queries();
        match queries.group(&group, &asked.actor.user) {
            None => return RequestStep::answer(Err(replies::no_group(&group))),
            Some(view) if view.owner != asked.actor.user => {
                return RequestStep::answer(Err(replies::refusal_failure(&CommandRefusal::NotOwner(group))));
            }
            Some(_) => {}
        }
        let page = queries.requests(&group, built.last(), LIST_PAGE_ROWS);
        let ended = page.len() < LIST_PAGE_ROWS;
        built.extend(page);
        if !ended {
            let bytes = built.len() * LIST_ENTRY_BYTES;
            let next = Box::new(move |service: &mut Service, _: &mut _, (), _| {
                service.list_requests(asked, group, built)
            });
            return RequestStep::ContinueList(bytes, next);
        }
        let ask = if built.len() == 1 { "asks" } else { "ask" };
        let message = format!("{} {ask} to join group {group}", built.len());
        RequestStep::answer(replies::success_with(
            message,
            CommandAnswer::Requests(RequestsAnswer { pending_list: built }),
        ))
    }

    /// Goes on with a list of a group's files.
    pub(super) fn list_files(
        &mut self,
        asked: RequestContext,
        wanted: FileListQuery,
        mut built: Vec<FileEntry>,
        now: ClockReading,
    ) -> RequestStep {
        if let Err(failure) = self.require_member(&asked, &wanted.group) {
            return RequestStep::answer(Err(failure));
        }
        if !self.append_files(&wanted, &mut built, now) {
            let bytes = built.len() * LIST_ENTRY_BYTES;
            let next = Box::new(move |service: &mut Service, _: &mut _, (), now| {
                service.list_files(asked, wanted, built, now)
            });
            return RequestStep::ContinueList(bytes, next);
        }
        let files_list = built.iter().map(|entry| entry.file_name.clone()).collect();
        let message = format!("{} in group {}", replies::count_noun(built.len(), "file"), wanted.group);
        RequestStep::answer(replies::success_with(
            message,
            CommandAnswer::Files(FilesAnswer { files_list, files: built }),
        ))
    }

    /// Appends a page of files; whether those were the last. Those who have a file are rows too.
    fn append_files(&self, wanted: &FileListQuery, built: &mut Vec<FileEntry>, now: ClockReading) -> bool {
        let queries = self.state.queries();
        let mut rows = 0;
        loop {
            let batch = wanted.count.saturating_sub(built.len()).min(LIST_BATCH_FILES);
            if batch == 0 {
                return true;
            }
            let after = built.last().map(|last| &last.file_name).or(wanted.after.as_ref());
            let views = queries.files(&wanted.group, after, batch);
            let found = views.len();
            for view in views {
                if rows >= LIST_PAGE_ROWS {
                    return false;
                }
                let file = GroupFile { group: wanted.group.clone(), name: view.name.clone() };
                let holders = queries.seeders(&file);
                rows += 1 + holders.len() + self.state.leases.leecher_count(&file);
                let counts = self.state.leases.count_online(&file, &holders, now.ms);
                built.push(file_entry(view, counts.seeders as u64, counts.leechers as u64));
            }
            if found < batch {
                return true;
            }
        }
    }
}

fn group_entry(view: GroupView) -> GroupEntry {
    GroupEntry {
        group_id: view.group,
        owner: view.owner,
        policy: view.policy,
        members: view.members,
        is_member: view.is_member,
    }
}

fn file_entry(view: FileView, seeders: u64, leechers: u64) -> FileEntry {
    FileEntry {
        file_name: view.name,
        file_size: view.length,
        file_sha: view.proof.id(),
        pieces_only: matches!(view.proof, FileProof::PiecesOnly(_)),
        seeders,
        leechers,
    }
}
