//! Tables in memory, for tests.
//!
//! Invariant: equal contents are equal values, so two state machines can be compared.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::tables::{Table, Tables, Visit};

/// Every table as an ordered map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryTables {
    rows: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Tables for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.get(&table)?.get(key).cloned()
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.rows.entry(table).or_default().insert(key.to_vec(), value.to_vec());
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        let Some(rows) = self.rows.get_mut(&table) else { return false };
        let was = rows.remove(key).is_some();
        if rows.is_empty() {
            self.rows.remove(&table);
        }
        was
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visit<'_>) {
        let Some(rows) = self.rows.get(&table) else { return };
        for (key, value) in rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if visit(key, value).is_break() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn a_scan_goes_in_order_from_its_start_to_its_break() {
        let mut tables = MemoryTables::default();
        for key in [&b"b"[..], b"a", b"c\0", b"c", b"d"] {
            tables.put(Table::Users, key, key);
        }
        tables.put(Table::Groups, b"bb", b"");
        let mut seen = Vec::new();
        tables.scan(Table::Users, b"b", &mut |key, _| {
            seen.push(key.to_vec());
            if key == b"c\0" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, [&b"b"[..], b"c", b"c\0"]);
    }

    #[test]
    fn what_was_removed_leaves_no_trace() {
        let mut tables = MemoryTables::default();
        tables.put(Table::Users, b"a", b"1");
        assert!(tables.remove(Table::Users, b"a"));
        assert!(!tables.remove(Table::Users, b"a"));
        assert_eq!(tables, MemoryTables::default());
    }
}
