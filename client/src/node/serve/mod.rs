//! Serves front ends: [`socket`] accepts them and reads their requests, [`requests`] handles each request.

pub(crate) mod requests;
pub(crate) mod socket;
