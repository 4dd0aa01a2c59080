//! Merging of TOML tables.

use toml::{Table, Value};

/// Puts the entries of `over` into `base`. Tables inside tables are merged, every other value is replaced.
pub(crate) fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
