//! `tracker inspect`: prints the log and the tables as JSON lines.
//!
//! Invariants: the file is not changed. Password hashes are not printed; the cluster's keys are not in the file.

use std::io::{self, Write};
use std::path::Path;

use redb::{ReadTransaction, ReadableTable as _};
use serde_json::{Value, json};

use crate::state::tables::Table;

use super::fault::{ReplicaFault, StoreError};
use super::store::{LOG, META, ROWS, ReplicaStore};
use super::tables::table_by_number;

/// Printed in place of a secret.
const REDACTED: &str = "(redacted)";

/// Names of fields with a secret value.
const SECRET_FIELDS: [&str; 1] = ["password_hash"];

/// Prints the log and the tables of a tracker's directory. Each line names the directory under `tracker`.
///
/// # Errors
/// [`ReplicaFault`] when the log cannot be read or a line cannot be written.
pub fn print_log(dir: &Path, to: &mut impl Write) -> Result<(), ReplicaFault> {
    let store = ReplicaStore::open_overlaid(dir)?;
    let tracker = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    store.read(|view| print_view(view, &tracker, to))
}

fn print_view(view: &ReadTransaction, tracker: &str, to: &mut impl Write) -> Result<(), StoreError> {
    let mut line = |kind: &str, name: Value, mut value: Value| -> io::Result<()> {
        redact_secrets(&mut value);
        serde_json::to_writer(
            &mut *to,
            &json!({ "tracker": tracker, "kind": kind, "name": name, "value": value }),
        )?;
        to.write_all(b"\n")
    };
    for row in view.open_table(META)?.iter()? {
        let (name, value) = row?;
        line("meta", name.value().into(), serde_json::from_slice(value.value())?)?;
    }
    for row in view.open_table(LOG)?.iter()? {
        let (index, entry) = row?;
        line("entry", index.value().into(), serde_json::from_slice(entry.value())?)?;
    }
    for row in view.open_table(ROWS)?.iter()? {
        let (key, value) = row?;
        let (kind, name) = row_name(key.value());
        line(&kind, name, row_value(key.value(), value.value()))?;
    }
    Ok(())
}

/// The table of a row, and the parts of its key: text as text, anything else in hex.
fn row_name(key: &[u8]) -> (String, Value) {
    let (number, key) = key.split_first().map_or((0, key), |(number, rest)| (*number, rest));
    let table =
        table_by_number(number).map_or_else(|| format!("table {number}"), |table| format!("{table:?}"));
    let text =
        std::str::from_utf8(key).ok().filter(|text| text.chars().all(|c| c == '\0' || !c.is_control()));
    let name = match text {
        Some(text) => text.split('\0').map(Value::from).collect(),
        None => key.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    };
    (table, name)
}

/// A row's value: JSON as it is, a manifest's row as its length in bytes, anything else (an empty value) as null.
fn row_value(key: &[u8], value: &[u8]) -> Value {
    if key.first().copied().and_then(table_by_number) == Some(Table::Manifests) {
        return json!({ "bytes": value.len() });
    }
    serde_json::from_slice(value).unwrap_or(Value::Null)
}

fn redact_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if SECRET_FIELDS.contains(&name.as_str()) {
                    *field = REDACTED.into();
                } else {
                    redact_secrets(field);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact_secrets),
        _ => {}
    }
}
