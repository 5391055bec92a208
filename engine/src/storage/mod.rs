//! Files on disk: sources, which are mapped or read, and targets, which are reserved, written and renamed.
//!
//! ```text
//!   path ──► Source ──► SourceWindow ────────► sent by the kernel    DEST ──► Destination
//!              ▲ └────► with_bytes ──────────► hashed                             │
//!   Fingerprint┘                                                                  ▼
//!                    Source ◄── reader ── Target ◄── verified pieces        NAME.<8 hex>.part
//!                   (served)                └── finish ──► NAME             NAME.<8 hex>.record ◄── ResumeJournal
//!
//!   Target, record ──► FileIdentity ──► rejects a record that belongs to another file or is a copy
//!   Target, record ──► FileState ─────► notices what another program wrote to the partial file
//!   records, memory ─► CacheEviction ─► page ranges of a long file to drop from the page cache
//!   SHA-1 values ────► Sha1ListBuilder ──► Sha1List (proto), in memory or in an unnamed file
//! ```
//!
//! Crash order of a download:
//!
//! 1. data: write a verified piece to the partial file ([`Target::write_piece`]);
//! 2. flush: [`Target::sync`];
//! 3. claim: write, flush and rename a record that lists the piece ([`ResumeJournal::write_record`]).
//!
//! A restarted download trusts the pieces in the record if nothing was written to the partial file since then.
//! After a kill or a crash it hashes everything that the record claims or notes.
//!
//! The end has the same order: flush the data, rename the file (which claims that it is complete), flush the
//! directory. See [`Target::finish`]. The record is removed after the rename; a cancelled download removes it
//! before the partial file.
//!
//! Invariants:
//! * No path is built from a peer's data: names come from the user, or are a checked [`FileName`] of one
//!   component.
//! * Files that are served are mapped read-only, or read where the system refuses to map them. Files that are
//!   written use positioned writes, never a map.
//! * A source that has changed is never served again.
//!
//! [`FileName`]: crate::proto::manifest::FileName
//! [`Target::write_piece`]: target::Target::write_piece
//! [`Target::sync`]: target::Target::sync
//! [`Target::finish`]: target::Target::finish
//! [`ResumeJournal::write_record`]: resume::ResumeJournal::write_record

pub mod cache_eviction;
pub mod destination;
pub mod error;
mod file_bytes;
mod file_identity;
pub mod file_state;
pub mod filesystem_threads;
pub mod fingerprint;
pub mod limits;
mod memory;
pub mod resume;
pub mod sha1_list;
pub mod source;
pub mod target;
