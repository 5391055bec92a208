//! The primitives that `locks` and `shutdown` are built from. `locks_model` compiles both files a second time over the
//! primitives of a model checker.

pub(super) use std::sync::{Arc, Condvar, Mutex, PoisonError};

pub(super) use engine::lock::lock;
