//! Files: uploads (also in parts), seeders that come and go, removal.
//!
//! Invariants: the first manifest under a name stays, and later uploads are compared with it. The manifest of a listed file
//! is complete. Two uploads are the same file when their piece digests are equal and nothing else that both gave differs.

use engine::proto::geometry::Geometry;
use engine::proto::manifest::{EMPTY_DIGEST, FileName, FileProof};
use engine::proto::units::Digest;

use super::access::VerifiedActor;
use super::command::{ManifestEnd, ManifestPart};
use super::id::{GroupFile, GroupId, UploadId, UserId};
use super::limits::{MANIFEST_ROW_PIECES, UNFINISHED_PIECES, UNFINISHED_PIECES_PER_USER, UPLOAD_LIFE_S};
use super::manifest;
use super::node::NodeEndpoint;
use super::outcome::{ApplyResult, CommandOutcome, CommandRefusal, ManifestFault};
use super::row_key::{self, RowKey};
use super::rows::{self, FileRow, UploadRow};
use super::tables::{Table, Tables};
use super::{access, session, share};

pub(super) fn upload_part(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    upload: &UploadId,
    first: u32,
    part: &ManifestPart,
) -> ApplyResult {
    let pieces = part.digests.len();
    if pieces != MANIFEST_ROW_PIECES as usize {
        return Err(ManifestFault::PartSize { pieces }.into());
    }
    if part.chain.as_ref().is_some_and(|states| states.0.len() != pieces) {
        return Err(ManifestFault::Chain.into());
    }
    let key = RowKey::upload(&by.actor.user, upload);
    let next = first.checked_add(MANIFEST_ROW_PIECES).ok_or(ManifestFault::PartSize { pieces })?;
    let mut row = match begun_upload(tables, by, upload, first)? {
        Some(row) => row,
        None => UploadRow {
            manifest: restart_upload(tables, &key),
            next: 0,
            has_chain: part.chain.is_some(),
            fold: manifest::EMPTY_FOLD,
            part_s: by.at_s,
        },
    };
    if row.has_chain != part.chain.is_some() {
        return Err(ManifestFault::Chain.into());
    }
    if !has_room_for_part(tables, &by.actor.user) {
        return Err(CommandRefusal::TooManyParts);
    }
    manifest::store_part(tables, row.manifest, first, part);
    row.fold = manifest::fold_part(row.fold, part);
    row.next = next;
    row.part_s = by.at_s;
    rows::write_row(tables, &key, &row);
    Ok(CommandOutcome::PartStored { next })
}

pub(super) fn upload_file(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    file: &GroupFile,
    end: &ManifestEnd,
    node: NodeEndpoint,
) -> ApplyResult {
    access::group_of_member(tables, by, &file.group)?;
    let begun = match &end.upload {
        Some(upload) => begun_upload(tables, by, upload, end.first)?,
        None if end.first == 0 => None,
        None => return Err(ManifestFault::OutOfOrder { expected: 0 }.into()),
    };
    assert_eq!(begun.is_some(), end.first > 0, "a part after the first continues an upload");
    let new = completed_file(by, end, begun.as_ref())?;
    let listed: Option<FileRow> = rows::read_row(tables, &RowKey::file(file));
    if listed.as_ref().is_some_and(|listed| !same_content(listed, &new)) {
        return Err(CommandRefusal::OtherContent(file.clone()));
    }
    share::check_share_limit(tables, file, &by.actor.user, by.node(node), by.actor.session)?;
    let new_file = listed.is_none();
    if new_file {
        list_file(tables, file, end, begun.is_some(), new);
    }
    if let Some(upload) = &end.upload {
        let key = RowKey::upload(&by.actor.user, upload);
        if new_file && begun.is_some() {
            tables.remove(Table::Uploads, &key.0);
        } else {
            forget_upload(tables, &key);
        }
    }
    let node = session::record_node(tables, by, node);
    share::add_share(tables, file, &by.actor.user, node, by.actor.session);
    Ok(CommandOutcome::Uploaded { new_file })
}

pub(super) fn complete_file(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    file: &GroupFile,
    node: NodeEndpoint,
    content: Option<Digest>,
) -> ApplyResult {
    file_with_content(tables, by, file, content)?;
    share::check_share_limit(tables, file, &by.actor.user, by.node(node), by.actor.session)?;
    let node = session::record_node(tables, by, node);
    share::add_share(tables, file, &by.actor.user, node, by.actor.session);
    Ok(CommandOutcome::Completed)
}

pub(super) fn stop_share(
    tables: &mut dyn Tables,
    by: &VerifiedActor<'_>,
    file: &GroupFile,
    node: NodeEndpoint,
    content: Option<Digest>,
) -> ApplyResult {
    file_with_content(tables, by, file, content)?;
    if share::remove_share(tables, file, &by.actor.user, by.node(node), by.actor.session) {
        Ok(CommandOutcome::ShareStopped)
    } else {
        Err(CommandRefusal::NotShared(file.clone()))
    }
}

pub(super) fn remove_file(tables: &mut dyn Tables, by: &VerifiedActor<'_>, file: &GroupFile) -> ApplyResult {
    let group = access::group_of_member(tables, by, &file.group)?;
    let row = file_of_member(tables, by, file)?;
    if ![&row.uploader, &group.owner].contains(&&by.actor.user) {
        return Err(CommandRefusal::NotUploader(file.clone()));
    }
    delete_file(tables, file);
    Ok(CommandOutcome::FileRemoved)
}

/// Whether one more part may be stored, for this user and for all. The upload that is counted may be one that this part
/// restarts. The rows are few: each stands for [`MANIFEST_ROW_PIECES`] pieces at least.
fn has_room_for_part(tables: &dyn Tables, user: &UserId) -> bool {
    let (own_prefix, mut own, mut all) = (RowKey::user(user).prefix(), 0, 0);
    rows::visit_rows::<UploadRow>(tables, &[], |key, row| {
        all += u64::from(row.next);
        own += if key.starts_with(&own_prefix) { u64::from(row.next) } else { 0 };
    });
    let more = u64::from(MANIFEST_ROW_PIECES);
    own + more <= UNFINISHED_PIECES_PER_USER && all + more <= UNFINISHED_PIECES
}

/// Removes a file with its manifest and its shares.
pub(super) fn delete_file(tables: &mut dyn Tables, file: &GroupFile) {
    if let Some(row) = rows::take_row::<FileRow>(tables, &RowKey::file(file)) {
        manifest::remove_rows(tables, row.manifest, row.pieces);
        share::remove_file_shares(tables, file);
    }
}

/// Names of a group's files, in order.
pub(super) fn file_names(tables: &dyn Tables, group: &GroupId) -> Vec<FileName> {
    let mut names = Vec::new();
    rows::visit_rows::<FileRow>(tables, &RowKey::group(group).prefix(), |rest, _| {
        names.push(row_key::file_name(rest));
    });
    names
}

/// Removes uploads whose last part is too old.
pub(super) fn expire_uploads(tables: &mut dyn Tables, at_s: u64) {
    let mut past = Vec::new();
    rows::visit_rows::<UploadRow>(tables, &[], |key, row| {
        if row.is_past(at_s) {
            past.push(RowKey(key.to_vec()));
        }
    });
    for key in past {
        forget_upload(tables, &key);
    }
}

/// The file, if it exists and the actor is a member of its group.
fn file_of_member(
    tables: &dyn Tables,
    by: &VerifiedActor<'_>,
    file: &GroupFile,
) -> Result<FileRow, CommandRefusal> {
    access::group_of_member(tables, by, &file.group)?;
    rows::read_row(tables, &RowKey::file(file)).ok_or_else(|| CommandRefusal::NoSuchFile(file.clone()))
}

/// Refuses a command about a file that does not exist, or that has other content than the command means.
fn file_with_content(
    tables: &dyn Tables,
    by: &VerifiedActor<'_>,
    file: &GroupFile,
    content: Option<Digest>,
) -> Result<(), CommandRefusal> {
    let listed = file_of_member(tables, by, file)?;
    match content {
        Some(content) if content != listed.proof.id() => Err(CommandRefusal::ContentReplaced(file.clone())),
        _ => Ok(()),
    }
}

/// The upload that continues at piece `first`; `None` for one that begins, at piece 0.
fn begun_upload(
    tables: &dyn Tables,
    by: &VerifiedActor<'_>,
    upload: &UploadId,
    first: u32,
) -> Result<Option<UploadRow>, ManifestFault> {
    if first == 0 {
        return Ok(None);
    }
    let row = rows::read_row::<UploadRow>(tables, &RowKey::upload(&by.actor.user, upload));
    match row.filter(|row| !row.is_past(by.at_s)) {
        Some(row) if row.next == first => Ok(Some(row)),
        row => Err(ManifestFault::OutOfOrder { expected: row.map_or(0, |row| row.next) }),
    }
}

/// The number of a new manifest, replacing an upload that may exist under the same key.
fn restart_upload(tables: &mut dyn Tables, key: &RowKey) -> u64 {
    forget_upload(tables, key);
    rows::next_manifest(tables)
}

fn forget_upload(tables: &mut dyn Tables, key: &RowKey) {
    if let Some(row) = rows::take_row::<UploadRow>(tables, key) {
        manifest::remove_rows(tables, row.manifest, row.next);
    }
}

/// The row of the uploaded file, if it is new. Its manifest has the number of the upload in parts, if there is one.
fn completed_file(
    by: &VerifiedActor<'_>,
    end: &ManifestEnd,
    begun: Option<&UploadRow>,
) -> Result<FileRow, ManifestFault> {
    let part = &end.part;
    let count = part.digests.len();
    let size_fault = ManifestFault::PartSize { pieces: count };
    if count > MANIFEST_ROW_PIECES as usize || (count == 0 && end.first > 0) {
        return Err(size_fault);
    }
    let added = u32::try_from(count).map_err(|_| size_fault.clone())?;
    let pieces = end.first.checked_add(added).ok_or(size_fault)?;
    let states_fit = part.chain.as_ref().is_none_or(|states| states.0.len() == count.saturating_sub(1));
    let all_or_none = begun.is_none_or(|row| row.has_chain == part.chain.is_some());
    if !states_fit || !all_or_none {
        return Err(ManifestFault::Chain);
    }
    if let Some(length) = end.length
        && Geometry::new(length).map_or(true, |geometry| geometry.pieces().0 != pieces)
    {
        return Err(ManifestFault::Length { length, pieces });
    }
    if pieces == 0 && end.proof != FileProof::Whole(EMPTY_DIGEST) {
        return Err(ManifestFault::Empty);
    }
    let before = begun.map_or(manifest::EMPTY_FOLD, |row| row.fold);
    Ok(FileRow {
        uploader: by.actor.user.clone(),
        uploaded_s: by.at_s,
        length: if pieces == 0 { Some(0) } else { end.length },
        pieces,
        proof: end.proof,
        // With one piece or none the chain is empty, and so known.
        has_chain: part.chain.is_some() || pieces <= 1,
        manifest: begun.map_or(0, |row| row.manifest),
        fold: manifest::fold_part(before, part),
    })
}

/// Whether two uploads have one content: the same pieces, and no contradiction in what both gave of the whole.
fn same_content(listed: &FileRow, new: &FileRow) -> bool {
    let lengths = listed.length.zip(new.length).is_none_or(|(a, b)| a == b);
    let proofs = match (listed.proof, new.proof) {
        (FileProof::Whole(a), FileProof::Whole(b)) => a == b,
        (FileProof::PiecesOnly(_), _) | (_, FileProof::PiecesOnly(_)) => true,
    };
    listed.pieces == new.pieces && listed.fold == new.fold && lengths && proofs
}

fn list_file(tables: &mut dyn Tables, file: &GroupFile, end: &ManifestEnd, in_parts: bool, mut row: FileRow) {
    if !in_parts {
        row.manifest = rows::next_manifest(tables);
    }
    if !end.part.digests.is_empty() {
        manifest::store_part(tables, row.manifest, end.first, &end.part);
    }
    rows::write_row(tables, &RowKey::file(file), &row);
}

impl UploadRow {
    /// When it is removed if no further part comes, in seconds since the Unix epoch.
    pub(super) fn expires_s(&self) -> u64 {
        self.part_s.saturating_add(UPLOAD_LIFE_S + 1)
    }

    fn is_past(&self, at_s: u64) -> bool {
        at_s >= self.expires_s()
    }
}
