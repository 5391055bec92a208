//! One message of an `upload_file` whose manifest is too long for a single message.
//!
//! Invariant: a part begins at a multiple of [`MANIFEST_ROW_PIECES`] pieces, and all parts but the last have a multiple of
//! that many, so the tracker stores each part when it arrives.

use engine::proto::manifest::FileName;
use engine::proto::units::{ChainState, Digest, PieceIndex};
use serde_json::{Map, Value, json};

use super::failure::RequestFailure;
use super::fields::RequestFields;
use super::hashes::{HashForm, HashList};
use crate::state::command::MANIFEST_ROW_PIECES;
use crate::state::id::UploadId;

/// One part of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPart {
    /// Name of the file, the same in every part.
    pub name: FileName,
    /// The client's id of the upload.
    pub upload: UploadId,
    /// Index of the part's first piece.
    pub first: PieceIndex,
    /// Digest of each piece.
    pub digests: Vec<Digest>,
    /// Chain state after each piece except the file's last; in all parts or in none.
    pub chain: Option<Vec<ChainState>>,
    /// What the last part adds; `None` in every other part.
    pub end: Option<UploadEnd>,
}

/// What the last part adds about the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadEnd {
    /// Length in bytes, if the uploader gives it.
    pub length: Option<u64>,
    /// SHA-1 of the file.
    pub whole: Digest,
}

impl UploadPart {
    /// Whether a request is one part of several.
    pub(super) fn is_part(fields: &RequestFields) -> Result<bool, RequestFailure> {
        Ok(fields.scalar("upload_id").is_some()
            || fields.flag("more")?
            || fields.optional_u32("first")?.is_some_and(|first| first != 0))
    }

    pub(super) fn read(fields: &mut RequestFields, name: FileName) -> Result<UploadPart, RequestFailure> {
        let upload = UploadId::new(fields.text("upload_id")?)
            .map_err(|bad| RequestFailure::field("upload_id", bad))?;
        let first = fields.optional_u32("first")?.unwrap_or(0);
        if !first.is_multiple_of(MANIFEST_ROW_PIECES) {
            let rule = format!("a part begins at a multiple of {MANIFEST_ROW_PIECES} pieces");
            return Err(RequestFailure::field("first", rule));
        }
        let length = fields.optional_number("file_size")?;
        let digests: Vec<Digest> = fields
            .hashes("piecewise_sha")?
            .ok_or_else(|| RequestFailure::field("piecewise_sha", "is missing"))?;
        let chain = fields.hashes("file_chain")?;
        let whole_rows = !digests.is_empty() && digests.len().is_multiple_of(MANIFEST_ROW_PIECES as usize);
        let end = match fields.flag("more")? {
            true if !whole_rows => {
                let rule = format!("all parts but the last have a multiple of {MANIFEST_ROW_PIECES} pieces");
                return Err(RequestFailure::field("piecewise_sha", rule));
            }
            true => None,
            false => {
                let whole = fields.text("fileSha")?.parse();
                let whole = whole.map_err(|_| RequestFailure::field("fileSha", "must be 40 hex digits"))?;
                Some(UploadEnd { length, whole })
            }
        };
        Ok(UploadPart { name, upload, first: PieceIndex(first), digests, chain, end })
    }

    /// Writes the arguments beside the group.
    pub(super) fn write_args(&self, args: &mut Value) {
        let row = MANIFEST_ROW_PIECES as usize;
        assert!(self.first.0.is_multiple_of(MANIFEST_ROW_PIECES), "a part begins at a row");
        assert!(
            self.end.is_some() || self.digests.len().is_multiple_of(row),
            "only the last part ends inside a row"
        );
        args["file_name"] = self.name.as_str().into();
        args["upload_id"] = self.upload.as_str().into();
        args["first"] = self.first.0.into();
        match self.end {
            None => args["more"] = true.into(),
            Some(UploadEnd { length: Some(length), .. }) => args["file_size"] = length.into(),
            Some(UploadEnd { length: None, .. }) => {}
        }
    }

    /// Writes the hashes beside `command_args`.
    pub(super) fn write_hashes(&self, object: &mut Map<String, Value>) {
        let form = HashForm::for_len(self.digests.len());
        object.insert("piecewise_sha".into(), json!(HashList { form, values: self.digests.clone() }));
        if let Some(chain) = &self.chain {
            object.insert("file_chain".into(), json!(HashList { form, values: chain.clone() }));
        }
        if let Some(end) = self.end {
            object.insert("fileSha".into(), end.whole.to_string().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Command, Request};
    use super::*;
    use crate::state::id::GroupId;

    fn part(pieces: usize, end: Option<UploadEnd>) -> UploadPart {
        UploadPart {
            name: FileName::new("big.img").unwrap(),
            upload: UploadId::new("u-1").unwrap(),
            first: PieceIndex(MANIFEST_ROW_PIECES),
            digests: vec![Digest([3; 20]); pieces],
            chain: Some(vec![ChainState([4; 20]); pieces]),
            end,
        }
    }

    #[test]
    fn a_part_is_read_as_it_was_written() {
        let end = UploadEnd { length: Some(7_000_000_000), whole: Digest([5; 20]) };
        for part in [part(MANIFEST_ROW_PIECES as usize, None), part(17, Some(end))] {
            let group = GroupId::new("g").unwrap();
            let request = Request::new(Command::UploadPart { group, part: Box::new(part), peer_key: None });
            assert_eq!(Request::parse(&request.to_json()).unwrap(), request);
        }
    }

    #[test]
    fn parts_that_do_not_fit_rows_are_refused_by_name() {
        let text = |args: Value, beside: Value| {
            let mut request = beside;
            request["command"] = "upload_file".into();
            request["command_args"] = args;
            Request::parse(request.to_string().as_bytes()).unwrap_err().failure.message
        };
        let args = |first: u32, more: bool| json!({"group_id": "g", "file_name": "f", "upload_id": "u", "first": first, "more": more});
        let hashes = json!({"piecewise_sha": ["03".repeat(20)]});
        assert!(text(args(0, true), hashes.clone()).starts_with("piecewise_sha"));
        assert!(text(args(5, false), hashes.clone()).starts_with("first"));
        assert!(text(args(MANIFEST_ROW_PIECES, false), hashes).contains("fileSha"));
        let nameless = json!({"group_id": "g", "file_name": "f", "more": true});
        assert!(text(nameless, json!({})).contains("upload_id"));
    }
}
