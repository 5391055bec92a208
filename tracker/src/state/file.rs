//! Files: uploads, also in parts; who becomes a seeder and who stops; removal.
//!
//! Invariants: the first manifest under a name stands, later uploads are compared with it; a listed file's manifest is
//! complete. A file is the same when all piece digests are, and what else both uploaders said.

use engine::proto::geometry::Geometry;
use engine::proto::manifest::{EMPTY_DIGEST, FileName, FileProof};

use super::acting::Acting;
use super::command::{ManifestEnd, ManifestPart};
use super::id::{FileKey, GroupId, UploadId};
use super::key::{self, Key};
use super::limits::{MANIFEST_ROW_PIECES, UPLOAD_LIFE_S};
use super::manifest;
use super::node::Holder;
use super::outcome::{ManifestFault, Outcome, Refusal};
use super::rows::{self, FileRow, UploadRow};
use super::tables::{Table, Tables};
use super::{membership, session, share};

pub(super) fn upload_part(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    upload: &UploadId,
    first: u32,
    part: &ManifestPart,
) -> Result<Outcome, Refusal> {
    let pieces = part.digests.len();
    if pieces != MANIFEST_ROW_PIECES as usize {
        return Err(ManifestFault::PartSize { pieces }.into());
    }
    if part.chain.as_ref().is_some_and(|states| states.0.len() != pieces) {
        return Err(ManifestFault::Chain.into());
    }
    let key = Key::upload(&by.actor.user, upload);
    let next = first.checked_add(MANIFEST_ROW_PIECES).ok_or(ManifestFault::PartSize { pieces })?;
    let mut row = match begun(tables, by, upload, first)? {
        Some(row) => row,
        None => UploadRow {
            manifest: restart(tables, &key),
            next: 0,
            has_chain: part.chain.is_some(),
            fold: manifest::EMPTY_FOLD,
            part_s: by.at_s,
        },
    };
    if row.has_chain != part.chain.is_some() {
        return Err(ManifestFault::Chain.into());
    }
    manifest::store(tables, row.manifest, first, part);
    row.fold = manifest::fold(row.fold, part);
    row.next = next;
    row.part_s = by.at_s;
    rows::write(tables, &key, &row);
    Ok(Outcome::PartStored { next })
}

pub(super) fn upload(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    file: &FileKey,
    end: &ManifestEnd,
    node: Holder,
) -> Result<Outcome, Refusal> {
    membership::of_member(tables, by, &file.group)?;
    let begun = match &end.upload {
        Some(upload) => begun(tables, by, upload, end.first)?,
        None if end.first == 0 => None,
        None => return Err(ManifestFault::OutOfOrder { expected: 0 }.into()),
    };
    let new = completed(by, end, begun.as_ref())?;
    let there: Option<FileRow> = rows::read(tables, &Key::file(file));
    if there.as_ref().is_some_and(|there| !same_content(there, &new)) {
        return Err(Refusal::OtherContent(file.clone()));
    }
    share::check_room(tables, file, &by.actor.user, by.node(node))?;
    let new_file = there.is_none();
    if new_file {
        list(tables, file, end, begun.is_some(), new);
    }
    if let Some(upload) = &end.upload {
        let key = Key::upload(&by.actor.user, upload);
        if new_file && begun.is_some() {
            tables.remove(Table::Uploads, &key.0);
        } else {
            forget_upload(tables, &key);
        }
    }
    let node = session::settle_node(tables, by, node);
    share::add(tables, file, &by.actor.user, node, by.actor.session);
    Ok(Outcome::Uploaded { new_file })
}

pub(super) fn complete(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    file: &FileKey,
    node: Holder,
) -> Result<Outcome, Refusal> {
    of_member(tables, by, file)?;
    share::check_room(tables, file, &by.actor.user, by.node(node))?;
    let node = session::settle_node(tables, by, node);
    share::add(tables, file, &by.actor.user, node, by.actor.session);
    Ok(Outcome::Completed)
}

pub(super) fn stop_share(
    tables: &mut dyn Tables,
    by: &Acting<'_>,
    file: &FileKey,
    node: Holder,
) -> Result<Outcome, Refusal> {
    of_member(tables, by, file)?;
    if share::remove(tables, file, &by.actor.user, by.node(node)) {
        Ok(Outcome::ShareStopped)
    } else {
        Err(Refusal::NotShared(file.clone()))
    }
}

pub(super) fn remove(tables: &mut dyn Tables, by: &Acting<'_>, file: &FileKey) -> Result<Outcome, Refusal> {
    let group = membership::of_member(tables, by, &file.group)?;
    let row = of_member(tables, by, file)?;
    if ![&row.uploader, &group.owner].contains(&&by.actor.user) {
        return Err(Refusal::NotUploader(file.clone()));
    }
    delete(tables, file);
    Ok(Outcome::FileRemoved)
}

/// Takes a file off, with its manifest and its shares.
pub(super) fn delete(tables: &mut dyn Tables, file: &FileKey) {
    if let Some(row) = rows::take::<FileRow>(tables, &Key::file(file)) {
        manifest::remove(tables, row.manifest, row.pieces);
        share::remove_all(tables, file);
    }
}

/// The names of a group's files, in order.
pub(super) fn names(tables: &dyn Tables, group: &GroupId) -> Vec<FileName> {
    let mut names = Vec::new();
    rows::visit::<FileRow>(tables, &Key::group(group).prefix(), |rest, _| names.push(key::file_name(rest)));
    names
}

/// Forgets uploads that no part has come for in time.
pub(super) fn expire_uploads(tables: &mut dyn Tables, at_s: u64) {
    let mut past = Vec::new();
    rows::visit::<UploadRow>(tables, &[], |key, row| {
        if row.is_past(at_s) {
            past.push(Key(key.to_vec()));
        }
    });
    for key in past {
        forget_upload(tables, &key);
    }
}

/// The file, if it is there and the actor is a member of its group.
fn of_member(tables: &dyn Tables, by: &Acting<'_>, file: &FileKey) -> Result<FileRow, Refusal> {
    membership::of_member(tables, by, &file.group)?;
    rows::read(tables, &Key::file(file)).ok_or_else(|| Refusal::NoSuchFile(file.clone()))
}

/// The upload that goes on at piece `first`; `None` for one that begins there, that is, at piece 0.
fn begun(
    tables: &dyn Tables,
    by: &Acting<'_>,
    upload: &UploadId,
    first: u32,
) -> Result<Option<UploadRow>, ManifestFault> {
    if first == 0 {
        return Ok(None);
    }
    let row = rows::read::<UploadRow>(tables, &Key::upload(&by.actor.user, upload));
    match row.filter(|row| !row.is_past(by.at_s)) {
        Some(row) if row.next == first => Ok(Some(row)),
        row => Err(ManifestFault::OutOfOrder { expected: row.map_or(0, |row| row.next) }),
    }
}

/// A new manifest's number, in place of an upload that may have begun under the same key.
fn restart(tables: &mut dyn Tables, key: &Key) -> u64 {
    forget_upload(tables, key);
    rows::next_manifest(tables)
}

fn forget_upload(tables: &mut dyn Tables, key: &Key) {
    if let Some(row) = rows::take::<UploadRow>(tables, key) {
        manifest::remove(tables, row.manifest, row.next);
    }
}

/// What the file would be, were it new. Its manifest's number is that of the upload in parts, if there is one.
fn completed(
    by: &Acting<'_>,
    end: &ManifestEnd,
    begun: Option<&UploadRow>,
) -> Result<FileRow, ManifestFault> {
    let part = &end.part;
    let here = part.digests.len();
    let size_fault = ManifestFault::PartSize { pieces: here };
    if here > MANIFEST_ROW_PIECES as usize || (here == 0 && end.first > 0) {
        return Err(size_fault);
    }
    let added = u32::try_from(here).map_err(|_| size_fault.clone())?;
    let pieces = end.first.checked_add(added).ok_or(size_fault)?;
    let states_fit = part.chain.as_ref().is_none_or(|states| states.0.len() == here.saturating_sub(1));
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
        // With one piece or none the chain is empty, and so known without being said.
        has_chain: part.chain.is_some() || pieces <= 1,
        manifest: begun.map_or(0, |row| row.manifest),
        fold: manifest::fold(before, part),
    })
}

/// Whether two uploads are of one content: the same pieces, and no contradiction in what either said of the whole.
fn same_content(there: &FileRow, new: &FileRow) -> bool {
    let lengths = there.length.zip(new.length).is_none_or(|(a, b)| a == b);
    let proofs = match (there.proof, new.proof) {
        (FileProof::Whole(a), FileProof::Whole(b)) => a == b,
        (FileProof::PiecesOnly(_), _) | (_, FileProof::PiecesOnly(_)) => true,
    };
    there.pieces == new.pieces && there.fold == new.fold && lengths && proofs
}

fn list(tables: &mut dyn Tables, file: &FileKey, end: &ManifestEnd, in_parts: bool, mut row: FileRow) {
    if !in_parts {
        row.manifest = rows::next_manifest(tables);
    }
    if !end.part.digests.is_empty() {
        manifest::store(tables, row.manifest, end.first, &end.part);
    }
    rows::write(tables, &Key::file(file), &row);
}

impl UploadRow {
    fn is_past(&self, at_s: u64) -> bool {
        at_s.saturating_sub(self.part_s) > UPLOAD_LIFE_S
    }
}
