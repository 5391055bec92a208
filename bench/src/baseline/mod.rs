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
mod hash_pass;
pub(crate) mod pump;

use crate::contender::{Contender, TransferTerms};

/// All of it. The pump uses as many sockets as Shoal does from so many sources; it stays out where sockets are not alike.
pub(crate) fn baseline_contenders(
    terms: &TransferTerms,
    with_sockets: bool,
) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    if with_sockets {
        all.push(Box::new(pump::pump_contender(&terms.with_own_folder("pump")?)?));
    }
    all.push(Box::new(hash_pass::HashPass::new(terms)));
    all.push(Box::new(copy::copy_contender(&terms.with_own_folder("cp")?)));
    Ok(all)
}
