//! Formats tables and values as text.

use comfy_table::{CellAlignment, Table, presets};

/// Returns a table without borders. The first `words` columns are aligned left, the others right.
pub fn table(head: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec()).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if i >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Formats a value with at least three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Formats bytes as MB or GB.
pub fn size(bytes: f64) -> String {
    if bytes >= 1e9 {
        format!("{} GB", number(bytes / 1e9))
    } else {
        format!("{} MB", number(bytes / 1e6))
    }
}
