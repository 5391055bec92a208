//! `tracker inspect`: the log and the tables as JSON lines, for people and scripts.
//!
//! Invariants: nothing in the file is changed; what could be used to log in (password hashes) is not printed, and the keys of the cluster are
//! not in the file at all.

use std::io::{self, Write};
use std::path::Path;

use redb::{ReadTransaction, ReadableTable as _};
use serde_json::{Value, json};

use crate::state::tables::Table;

use super::cluster_key::hex;
use super::fault::{Fault, Trouble};
use super::store::{LOG, META, ROWS, Store};
use super::tables::numbered;

/// Stands in place of a secret.
const REDACTED: &str = "(redacted)";

/// Fields whose values are secret.
const SECRET_FIELDS: [&str; 1] = ["password_hash"];

/// Prints the log of a tracker's directory; each line says under `tracker` whose it is.
///
/// # Errors
/// [`Fault`] when the log cannot be read, or the lines not be written.
pub fn inspect(dir: &Path, to: &mut impl Write) -> Result<(), Fault> {
    let store = Store::open_to_look(dir)?;
    let tracker = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    store.read(|view| print(view, &tracker, to))
}

fn print(view: &ReadTransaction, tracker: &str, to: &mut impl Write) -> Result<(), Trouble> {
    let mut line = |kind: &str, name: Value, mut value: Value| -> io::Result<()> {
        redact(&mut value);
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
        let (kind, name) = named(key.value());
        line(&kind, name, shown(key.value(), value.value()))?;
    }
    Ok(())
}

/// A row's table and the parts of its key. Parts of text are shown as text, all others in hex.
fn named(key: &[u8]) -> (String, Value) {
    let (number, key) = key.split_first().map_or((0, key), |(number, rest)| (*number, rest));
    let table = numbered(number).map_or_else(|| format!("table {number}"), |table| format!("{table:?}"));
    let text =
        std::str::from_utf8(key).ok().filter(|text| text.chars().all(|c| c == '\0' || !c.is_control()));
    let name = match text {
        Some(text) => text.split('\0').map(Value::from).collect(),
        None => hex(key).into(),
    };
    (table, name)
}

/// A row's value: JSON as such, a manifest's row by its length, marks as null.
fn shown(key: &[u8], value: &[u8]) -> Value {
    if key.first().copied().and_then(numbered) == Some(Table::Manifests) {
        return json!({ "bytes": value.len() });
    }
    serde_json::from_slice(value).unwrap_or(Value::Null)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if SECRET_FIELDS.contains(&name.as_str()) {
                    *field = REDACTED.into();
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}
