//! Threads, rings and sockets: what the pure protocol decides is carried out here.
//!
//! ```text
//!   worker (thread, ring) ──► provider   a connection that serves      ──► sending ──► stream ──► io_uring or epoll; zero_copy ──► side ring (mem)
//!        │    ▲               consumer   a connection that fetches     ──► receive ┘
//!        │    │ jobs          verify     proves and writes what landed ──► download ──► Transfer (proto)
//!        │    └────────────── drive      looks after one download      ──────┘   └───► Target (storage)
//!        │                     finish        proves the whole, names the file; own threads
//!        │                     flush, resume, rewrite: what is durable and recorded; own threads ──► Ledger (storage)
//!        └── local: this worker's connections      context: what all workers share (shares, buffers, clock, keys)
//! ```
//!
//! Every task is spawned by `vital`: one that panics ends the program, since its worker would be crippled without it. So does
//! every thread that works for downloads.
//! A worker receives, verifies and writes on one thread: no piece is handed from thread to thread. Only a download's
//! state and the shares are behind locks, and each is held for microseconds.

mod backend;
mod buffers;
mod clock;
mod consumer;
mod context;
mod download;
mod drive;
mod finish;
mod flush;
mod flushing;
mod jobs;
mod landed;
mod limits;
mod local;
mod outbox;
mod places;
mod provider;
mod pulse;
mod receive;
mod resume;
mod rewrite;
mod sending;
mod shares;
mod spent;
mod stream;
mod threads;
mod tune;
mod turn;
mod verify;
mod vital;
mod worker;
mod zero_copy;

pub(crate) use backend::IoKind;
pub(crate) use context::{Context, Parts, Trust};
pub(crate) use download::{DownloadState, Opened};
pub(crate) use drive::start_holes;
pub(crate) use jobs::{Job, Told, Workers};
pub(crate) use limits::{DOWNLOADS_MAX, JOBS_MAX};
pub(crate) use resume::start_check;
pub(crate) use shares::Share;
pub(crate) use tune::listen;
pub(crate) use worker::{Start, start};
