//! The tracker's server: one mio loop that owns every socket, and a few threads for what would hold it up.
//!
//! ```text
//!   listener ─► event_loop ◄─ signals, timers, terminal
//!                  │  ▲
//!            turns ▼  │ results                 keys, tickets, session_token, throttle
//!        connection ─► steps ─► dispatch ─► proposals ─► replica
//!     (work; slots; budget)      │             known     (the seam where replication stands)
//!                        └─► workers: passwords (argon2id), bodies (large JSON)
//!
//!   clock: the only one     limits: every number
//! ```
//!
//! Invariants: requests of one connection are carried out one at a time and answered in order; only `proposals` changes
//! state; nothing on the loop's thread blocks.

mod admission;
mod bodies;
mod clock;
mod connection;
mod dispatch;
mod event_loop;
mod keys;
mod limits;
mod listener;
mod passwords;
mod replicated_state;
mod requests;
mod session_token;
mod slots;
mod throttle;
mod tickets;
mod timers;
mod turns;
mod view_cache;
mod work;
mod workers;

pub use event_loop::Server;
pub use listener::{BindError, bind_listener, check_address};
