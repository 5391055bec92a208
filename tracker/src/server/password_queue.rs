//! Passwords that wait for a thread, in turns: first of the classes, and within a class of the address blocks.
//!
//! Invariants: a class that is full refuses the block that has the most there, never one that has less; no class and no
//! block waits for more than one turn of each other one.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::limits::PASSWORDS_WAITING;
use super::slots::ConnectionToken;

/// Whose password it is. Each class has its own places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PasswordClass {
    /// A user who has logged in at this address before.
    KnownLogin,
    /// Any other login.
    Login,
    /// An account that is to be created.
    NewAccount,
}

/// A queue of jobs.
#[derive(Debug)]
pub(super) struct PasswordQueue<J> {
    /// The class that waits for the longest time comes first.
    classes: [(PasswordClass, ClassQueue<J>); 3],
}

impl<J> PasswordQueue<J> {
    pub(super) fn new() -> PasswordQueue<J> {
        let classes = [PasswordClass::KnownLogin, PasswordClass::Login, PasswordClass::NewAccount];
        PasswordQueue { classes: classes.map(|class| (class, ClassQueue::new())) }
    }

    /// Adds a job. Gives the connection whose job has no place then; it may be the new one.
    pub(super) fn push(
        &mut self,
        class: PasswordClass,
        block: IpAddr,
        token: ConnectionToken,
        job: J,
    ) -> Option<ConnectionToken> {
        let (_, queue) = self.classes.iter_mut().find(|(other, _)| *other == class)?;
        queue.push(block, token, job)
    }

    /// Takes out the next job.
    pub(super) fn pop(&mut self) -> Option<(ConnectionToken, J)> {
        let index = self.classes.iter().position(|(_, queue)| queue.jobs > 0)?;
        let job = self.classes[index].1.pop();
        // This class is last from now on.
        self.classes[index..].rotate_left(1);
        job
    }

    /// Drops the job of a closed connection.
    pub(super) fn forget(&mut self, token: ConnectionToken) {
        self.classes.iter_mut().for_each(|(_, queue)| queue.forget(token));
    }
}

#[derive(Debug)]
struct ClassQueue<J> {
    blocks: BTreeMap<IpAddr, VecDeque<(ConnectionToken, J)>>,
    /// The blocks in the order of their turns.
    turns: VecDeque<IpAddr>,
    jobs: usize,
}

impl<J> ClassQueue<J> {
    fn new() -> ClassQueue<J> {
        ClassQueue { blocks: BTreeMap::new(), turns: VecDeque::new(), jobs: 0 }
    }

    fn push(&mut self, block: IpAddr, token: ConnectionToken, job: J) -> Option<ConnectionToken> {
        let own = self.blocks.get(&block).map_or(0, VecDeque::len);
        let mut displaced = None;
        if self.jobs >= PASSWORDS_WAITING {
            let (largest, jobs) = self.blocks.iter_mut().max_by_key(|(_, jobs)| jobs.len())?;
            if jobs.len() <= own + 1 {
                return Some(token);
            }
            let largest = *largest;
            displaced = jobs.pop_back().map(|(last, _)| last);
            self.jobs -= 1;
            self.drop_if_empty(largest);
        }
        if own == 0 {
            self.turns.push_back(block);
        }
        self.blocks.entry(block).or_default().push_back((token, job));
        self.jobs += 1;
        displaced
    }

    fn pop(&mut self) -> Option<(ConnectionToken, J)> {
        let block = *self.turns.front()?;
        let job = self.blocks.get_mut(&block)?.pop_front();
        self.jobs -= 1;
        self.turns.rotate_left(1);
        self.drop_if_empty(block);
        job
    }

    fn forget(&mut self, token: ConnectionToken) {
        let found = self.blocks.iter_mut().find_map(|(block, jobs)| {
            let index = jobs.iter().position(|(other, _)| *other == token)?;
            jobs.remove(index);
            Some(*block)
        });
        if let Some(block) = found {
            self.jobs -= 1;
            self.drop_if_empty(block);
        }
    }

    fn drop_if_empty(&mut self, block: IpAddr) {
        if self.blocks.get(&block).is_some_and(VecDeque::is_empty) {
            self.blocks.remove(&block);
            self.turns.retain(|other| *other != block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::SlotMap;
    use super::*;

    struct QueueScenario {
        queue: PasswordQueue<()>,
        slots: SlotMap<(u8, PasswordClass)>,
    }

    impl QueueScenario {
        fn new() -> QueueScenario {
            QueueScenario { queue: PasswordQueue::new(), slots: SlotMap::new() }
        }

        /// Adds a job from a host; gives the hosts of it and of the job that has no place.
        fn push(&mut self, host: u8, class: PasswordClass) -> (ConnectionToken, Option<u8>) {
            let token = self.slots.insert(|_| (host, class));
            let refused = self.queue.push(class, IpAddr::from([10, 0, 0, host]), token, ());
            (
                token,
                refused
                    .map(|refused| if refused == token { host } else { self.slots.get(refused).unwrap().0 }),
            )
        }

        fn pop(&mut self) -> Option<(u8, PasswordClass)> {
            self.queue.pop().map(|(token, ())| *self.slots.get(token).unwrap())
        }
    }

    #[test]
    fn new_accounts_leave_logins_their_places_and_turns() {
        let mut waiting = QueueScenario::new();
        for index in 0..200 {
            waiting.push(index % 16, PasswordClass::NewAccount);
        }
        assert_eq!(waiting.push(100, PasswordClass::Login).1, None);
        assert_eq!(waiting.push(101, PasswordClass::KnownLogin).1, None);
        let first: Vec<_> = (0..3).map(|_| waiting.pop().unwrap().1).collect();
        assert_eq!(first, [PasswordClass::KnownLogin, PasswordClass::Login, PasswordClass::NewAccount]);
        assert_eq!((0..).map_while(|_| waiting.pop()).count(), PASSWORDS_WAITING - 1);
    }

    #[test]
    fn a_crowded_address_makes_room_for_others() {
        let mut waiting = QueueScenario::new();
        let refused =
            (0..2 * PASSWORDS_WAITING).filter(|_| waiting.push(1, PasswordClass::Login).1 == Some(1));
        assert_eq!(refused.count(), PASSWORDS_WAITING, "it may use all places");
        assert_eq!(waiting.push(2, PasswordClass::Login).1, Some(1), "until another address needs one");
        let hosts: Vec<u8> = (0..3).map(|_| waiting.pop().unwrap().0).collect();
        assert_eq!(hosts, [1, 2, 1], "addresses take turns");
        for host in 3..=40 {
            waiting.push(host, PasswordClass::Login);
            waiting.push(host, PasswordClass::Login);
        }
        assert_eq!(waiting.push(99, PasswordClass::Login).1.filter(|host| *host == 99), None);
    }

    #[test]
    fn a_closed_connection_waits_no_longer() {
        let mut waiting = QueueScenario::new();
        let (first, _) = waiting.push(1, PasswordClass::Login);
        waiting.push(2, PasswordClass::Login);
        waiting.queue.forget(first);
        waiting.queue.forget(first);
        assert_eq!((waiting.pop().map(|(host, _)| host), waiting.pop()), (Some(2), None));
    }
}
