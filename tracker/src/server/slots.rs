//! A map of open connections by tokens that are never reused, so that a late event or result never reaches a
//! later connection.

use std::num::NonZeroU32;

use mio::Token;
use slab::Slab;

use crate::state::leases::ClientConnectionId;

/// Names one connection: an index, and a generation that tells it from earlier connections at that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionToken {
    index: u32,
    generation: NonZeroU32,
}

impl ConnectionToken {
    /// The token in the kernel's events. Since no generation is 0, every number below 2^32 is free for other
    /// sources.
    pub(super) fn event_token(self) -> Token {
        let number = u64::from(self.generation.get()) << 32 | u64::from(self.index);
        Token(usize::try_from(number).expect("this runs on 64-bit Linux"))
    }

    /// The connection of an event; `None` for other sources.
    pub(super) fn from_event(token: Token) -> Option<ConnectionToken> {
        let number = token.0 as u64;
        let generation = NonZeroU32::new(u32::try_from(number >> 32).ok()?)?;
        let place = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        Some(ConnectionToken { index: place, generation })
    }

    /// The id that the leases use.
    pub(super) fn id(self) -> ClientConnectionId {
        ClientConnectionId(self.event_token().0 as u64)
    }
}

#[derive(Debug)]
pub(super) struct SlotMap<T> {
    slab: Slab<(NonZeroU32, T)>,
    generation: NonZeroU32,
}

impl<T> SlotMap<T> {
    pub(super) fn new() -> SlotMap<T> {
        SlotMap { slab: Slab::new(), generation: NonZeroU32::MIN }
    }

    /// Inserts the value that `make` returns for its token.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionToken) -> T) -> ConnectionToken {
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let entry = self.slab.vacant_entry();
        let place = u32::try_from(entry.key()).expect("connections are limited far below 2^32");
        let token = ConnectionToken { index: place, generation: self.generation };
        entry.insert((self.generation, make(token)));
        token
    }

    /// The value of a token, unless it was removed.
    pub(super) fn get(&self, token: ConnectionToken) -> Option<&T> {
        let (generation, value) = self.slab.get(token.index as usize)?;
        (*generation == token.generation).then_some(value)
    }

    pub(super) fn get_mut(&mut self, token: ConnectionToken) -> Option<&mut T> {
        let (generation, value) = self.slab.get_mut(token.index as usize)?;
        (*generation == token.generation).then_some(value)
    }

    pub(super) fn remove(&mut self, token: ConnectionToken) -> Option<T> {
        self.get_mut(token)?;
        Some(self.slab.remove(token.index as usize).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_with_its_value() {
        let mut slots = SlotMap::new();
        let first = slots.insert(|_| 'a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert(|_| 'b');
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
        assert_eq!(slots.remove(first), None);
        assert_eq!(ConnectionToken::from_event(second.event_token()), Some(second));
        assert_eq!(ConnectionToken::from_event(Token(3)), None);
        assert_eq!(slots.slab.len(), 1);
    }
}
