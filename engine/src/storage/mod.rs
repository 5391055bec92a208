//! Files: sources that are mapped and read, targets that are reserved, written and renamed.
//!
//! ```text
//!   path ──► Source ──► Window (mem) ──► sent by the kernel       DEST ──► Destination
//!              ▲ └────► with_bytes ────► hashed                                │
//!   Fingerprint┘                                                               ▼
//!                    Source ◄── reader ── Target ◄── verified pieces     NAME.<8 hex>.part
//!                   (served on)              └── finish ──► NAME             NAME.<8 hex>.record ◄── Ledger
//!
//!   Target, record ──► Origin ──► whether it is the file that a record was written for, or a copy
//!   records, memory ──► Behind ──► which pages of a long file leave the page cache
//!   hashes ──► Gatherer ──► Hashes (proto): in memory, or in a mapped file without a name
//! ```
//!
//! A download is durable in this order, so that a crash at any point loses time and never lies:
//!
//! 1. data: a verified piece is written to the partial file ([`Target::write_piece`]);
//! 2. flush: [`Target::sync`];
//! 3. claim: only then does the record say that the piece is there ([`ResumeJournal::write_record`]); it is flushed and renamed into
//!    the place of the last one. A restarted download trusts it; what was written since it trusts too as long as the page
//!    cache is the same, after a kill, and hashes otherwise, after a crash of the machine.
//!
//! The end has the same order: flush the data, rename (the claim that the file is whole), flush the directory. See
//! [`Target::finish_download`]. The record goes after that; at a cancel it goes before the partial file.
//!
//! Invariants:
//! * Nothing of a peer's makes a path: names come from the user, or are a checked [`FileName`], one component.
//! * What is served is mapped for reading; what is written is written by positioned writes, never through a map.
//! * A source that has changed is never served again.
//!
//! [`FileName`]: crate::proto::manifest::FileName
//! [`Target::write_piece`]: target::Target::write_piece
//! [`Target::sync`]: target::Target::sync
//! [`Target::finish_download`]: target::Target::finish
//! [`ResumeJournal::write_record`]: resume::Ledger::record

pub mod cache_eviction;
pub mod destination;
pub mod error;
mod file_identity;
pub mod fingerprint;
pub mod limits;
mod memory;
pub mod prefault;
pub mod resume;
pub mod sha1_list;
pub mod source;
pub mod target;
