//! Lists: list_groups, list_files, list_requests. Each is read page by page, with turns of other connections
//! in between. The state may change between pages; an entry that exists all the time is listed once.
//!
//! Invariants: a page reads about [`LIST_PAGE_ROWS`] rows, and starts after the last entry that was built. An answer has
//! at most [`LIST_MAX_ENTRIES`] entries; a longer list is refused, and never cut off.

use engine::proto::manifest::{FileName, FileProof};

use crate::api::answers::{CommandAnswer, FileEntry, FilesAnswer, GroupEntry, GroupsAnswer, RequestsAnswer};
use crate::api::failure::{FailureCode, RequestFailure};
use crate::api::limits::LIST_MAX_ENTRIES;
use crate::api::request::ListPage;
use crate::state::id::{GroupFile, GroupId, UserId};
use crate::state::outcome::CommandRefusal;
use crate::state::queries::{FileView, GroupView};

use super::super::clock::ClockReading;
use super::super::limits::{LIST_BATCH_FILES, LIST_PAGE_ROWS};
use super::replies;
use super::service::{RequestContext, RequestStep, Service, StepResult};

/// Entries that are read for one answer at most. One more than an answer may have shows that the list is too long.
fn wanted_entries(count: Option<u32>) -> usize {
    count.unwrap_or(u32::MAX).min(LIST_MAX_ENTRIES + 1) as usize
}

/// Rows to read for the next page of a list of which some entries are built.
fn next_rows(count: Option<u32>, built: usize) -> usize {
    wanted_entries(count).saturating_sub(built).min(LIST_PAGE_ROWS)
}

/// Refuses an answer that became too long.
fn check_length(built: usize) -> Result<(), RequestFailure> {
    if built <= LIST_MAX_ENTRIES as usize {
        return Ok(());
    }
    let message = format!("the list has more than {LIST_MAX_ENTRIES} entries");
    let fix = format!("ask for parts of it, with `count` up to {LIST_MAX_ENTRIES} and `after`");
    Err(RequestFailure::new(FailureCode::TooLarge, message).with_fix(fix))
}

impl Service {
    /// Adds a page to a list of groups.
    pub(super) fn list_groups(
        &self,
        context: RequestContext,
        page: ListPage<GroupId>,
        mut built: Vec<GroupEntry>,
    ) -> StepResult {
        let after = built.last().map(|last| &last.group_id).or(page.after.as_ref());
        let rows = next_rows(page.count, built.len());
        let views = self.state.queries().groups(&context.actor.user, after, rows);
        let ended = views.len() < LIST_PAGE_ROWS;
        built.extend(views.into_iter().map(group_entry));
        check_length(built.len())?;
        if !ended {
            return RequestStep::continue_list(move |service, _, (), _| {
                service.list_groups(context, page, built)
            });
        }
        let groups_list = built.iter().map(|entry| entry.group_id.clone()).collect();
        let message = replies::count_noun(built.len(), "group");
        let answer = CommandAnswer::Groups(GroupsAnswer { groups_list, groups: built });
        RequestStep::answer(replies::success_with(message, answer))
    }

    /// Adds a page to a list of users who ask to join a group.
    pub(super) fn list_requests(
        &mut self,
        context: RequestContext,
        group: GroupId,
        asked: ListPage<UserId>,
        mut built: Vec<UserId>,
    ) -> StepResult {
        self.require_member(&context, &group)?;
        let queries = self.state.queries();
        let view = queries.group(&group, &context.actor.user).ok_or_else(|| replies::no_group(&group))?;
        if view.owner != context.actor.user {
            return Err(CommandRefusal::NotOwner(group).into());
        }
        let after = built.last().or(asked.after.as_ref());
        let page = queries.requests(&group, after, next_rows(asked.count, built.len()));
        let ended = page.len() < LIST_PAGE_ROWS;
        built.extend(page);
        check_length(built.len())?;
        if !ended {
            return RequestStep::continue_list(move |service, _, (), _| {
                service.list_requests(context, group, asked, built)
            });
        }
        let ask = if built.len() == 1 { "asks" } else { "ask" };
        let message = format!("{} {ask} to join group {group}", replies::count_noun(built.len(), "user"));
        let answer = CommandAnswer::Requests(RequestsAnswer { pending_list: built });
        RequestStep::answer(replies::success_with(message, answer))
    }

    /// Adds a page to a list of a group's files.
    pub(super) fn list_files(
        &mut self,
        context: RequestContext,
        group: GroupId,
        page: ListPage<FileName>,
        mut built: Vec<FileEntry>,
        now: ClockReading,
    ) -> StepResult {
        self.require_member(&context, &group)?;
        let is_last = self.append_files(&group, &page, &mut built, now);
        check_length(built.len())?;
        if !is_last {
            return RequestStep::continue_list(move |service, _, (), now| {
                service.list_files(context, group, page, built, now)
            });
        }
        let files_list = built.iter().map(|entry| entry.file_name.clone()).collect();
        let message = format!("{} in group {}", replies::count_noun(built.len(), "file"), group);
        let answer = CommandAnswer::Files(FilesAnswer { files_list, files: built });
        RequestStep::answer(replies::success_with(message, answer))
    }

    /// Appends a page of files and returns whether it was the last. Seeders and leechers also
    /// count as rows of the page.
    fn append_files(
        &self,
        group: &GroupId,
        page: &ListPage<FileName>,
        built: &mut Vec<FileEntry>,
        now: ClockReading,
    ) -> bool {
        let queries = self.state.queries();
        let mut rows = 0;
        loop {
            let batch = next_rows(page.count, built.len()).min(LIST_BATCH_FILES);
            if batch == 0 {
                return true;
            }
            let after = built.last().map(|last| &last.file_name).or(page.after.as_ref());
            let views = queries.files(group, after, batch);
            let found = views.len();
            for view in views {
                if rows >= LIST_PAGE_ROWS {
                    return false;
                }
                let file = GroupFile { group: group.clone(), name: view.name.clone() };
                let seeders = queries.seeders(&file);
                rows += 1 + seeders.len() + self.state.leases.leecher_count(&file);
                let counts = self.state.leases.count_online(&file, &seeders, now.ms);
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
