//! Threads, rings and sockets: carries out what the pure protocol decides.
//!
//! ```text
//!   worker (thread, ring) ─► provider   a connection that serves   ─► send_piece ─► stream ─► io_uring or epoll
//!        │    ▲              consumer   a connection that fetches  ─► receive ─────►   └────► zero_copy ─► side ring (mem)
//!        │    │ jobs         verify     hashes and writes pieces   ─► download ─► Transfer (proto)
//!        │    └───────────── drive      a download's own task      ─────┘  └────► Target, ResumeJournal (storage)
//!        │                    finish        last steps of a download      ┐
//!        │                    checks        the partial file, zero pieces ├ threads of their own
//!        │                    flush, rewrite   durability, records        ┘
//!        │                    share_verify  watches shared files, hashes doubted ones again
//!        └─ worker_state: one worker's connections       context: what all workers share       places: of consumers
//! ```
//!
//! A worker receives, verifies and writes on one thread, so no piece moves between threads. State that workers share
//! (downloads, shares, rate limits, ticket trust, queues) is behind locks; that of a download is held for microseconds.
//! A panic of a task or thread aborts the program ([`crate::abort`]).

mod backend;
mod buffers;
mod checks;
mod clock;
mod consumer;
mod context;
mod download;
mod drive;
mod finish;
mod flush;
mod jobs;
mod limits;
mod piece_queue;
mod places;
mod provider;
mod rate_limiter;
mod receive;
mod rewrite;
mod send_piece;
mod share_file;
mod share_table;
mod share_verify;
mod share_watch;
mod shares;
mod slots;
mod socket_options;
mod stall;
mod stream;
mod threads;
mod verify;
mod worker;
mod worker_state;
mod zero_copy;

pub(crate) use backend::IoKind;
pub(crate) use checks::{CheckCause, start_check, start_zero_pieces};
pub(crate) use clock::EngineClock;
pub(crate) use context::NodeContext;
pub(crate) use download::{ActiveDownload, open_files};
pub(crate) use flush::start_last_record;
pub(crate) use jobs::{EngineWorkers, WorkerJob, WorkerMessage};
pub(crate) use limits::{DOWNLOADS_MAX, WORKER_JOBS_MAX};
pub(crate) use share_file::{ServedSource, ShareFile, WholeFile, no_answer_error};
pub(crate) use share_verify::start_watch;
pub(crate) use shares::Share;
pub(crate) use socket_options::listen_on;
pub(crate) use worker::{WorkerStart, start_worker};
