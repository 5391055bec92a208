//! The tracker's server: one mio loop that owns every socket, and a few threads for work that would block it.
//!
//! ```text
//!   event_loop    poll, accept, signals, timers
//!       │
//!     turns       how much one connection may read, start and send in a turn
//!       ├──────────────────► connections   sockets, timers, `places`, `admission` (memory budgets)
//!       ▼                         ▲
//!    requests ────────────────────┘        one request, stage by stage (`active_request`)
//!       ├──► workers: passwords (argon2id, by `password_queue`), bodies (large JSON), address_check (calls nodes back)
//!       ▼
//!    dispatch ──► replicated_state ──► replica
//!       │              └─ view_cache
//!       └─ keys, session_token, tickets, throttle
//! ```
//!
//! Arrows point from the caller to the called module; no module calls back. Invariants: the requests of one
//! connection are carried out one at a time and answered in order; only `replicated_state` proposes changes;
//! the loop's thread never blocks, except in `poll`.

mod active_request;
mod address_check;
mod admission;
mod bodies;
mod clock;
mod connection;
mod connections;
mod dispatch;
mod event_loop;
mod keys;
mod limits;
mod listener;
mod log_lines;
mod log_output;
mod password_queue;
mod passwords;
mod places;
mod replicated_state;
mod requests;
mod session_token;
mod slots;
mod throttle;
mod tickets;
mod timers;
mod turns;
mod view_cache;
mod workers;

pub use event_loop::Server;
pub use listener::{BindError, bind_listener, check_address};
pub use log_lines::LogLines;
