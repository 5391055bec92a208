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
mod cost;
mod download;
mod drive;
mod finish;
mod flush;
mod flushing;
mod jobs;
mod limits;
mod outbox;
mod piece_queue;
mod provider;
mod receive;
mod resume;
mod rewrite;
mod send_piece;
mod shares;
mod slots;
mod socket_options;
mod stall;
mod stream;
mod threads;
mod verify;
mod vital;
mod worker;
mod worker_state;
mod write_turn;
mod zero_copy;

pub(crate) use backend::IoKind;
pub(crate) use context::{NodeContext, NodeParts, TicketTrust};
pub(crate) use download::{ActiveDownload, OpenedFiles};
pub(crate) use drive::start_zero_pieces;
pub(crate) use jobs::{EngineWorkers, WorkerJob, WorkerMessage};
pub(crate) use limits::{DOWNLOADS_MAX, WORKER_JOBS_MAX};
pub(crate) use resume::start_check;
pub(crate) use shares::Share;
pub(crate) use socket_options::listen_on;
pub(crate) use worker::{WorkerStart, start_worker};
