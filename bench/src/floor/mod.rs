//! The floor: what the same machine takes for less than Shoal does, measured in the same rounds.
//!
//! ```text
//!   contenders ─┬─► pump   the same sockets, pieces and positioned writes; no protocol, no proof
//!               ├─► pass   one stream of SHA-1 over the file, by the best code there is for one
//!               └─► copy   `cp`
//! ```
//!
//! Ratios to these say how much of what is possible is reached.

mod copy;
mod pass;
pub(crate) mod pump;

use crate::contender::{Contender, Terms};

/// All of it. The pump uses as many sockets as Shoal does from so many sources; it stays out where sockets are not alike.
pub(crate) fn contenders(terms: &Terms, with_sockets: bool) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    if with_sockets {
        all.push(Box::new(pump::contender(&terms.apart("pump")?)?));
    }
    all.push(Box::new(pass::Pass::new(terms)));
    all.push(Box::new(copy::contender(&terms.apart("cp")?)));
    Ok(all)
}
