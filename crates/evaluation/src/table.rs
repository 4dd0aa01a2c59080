//! Tables that are legible as plain text and valid Markdown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

/// Formats a table. The columns from `first_number` on are aligned to the right.
pub(crate) fn markdown<S: AsRef<str>>(
    head: &[S],
    first_number: usize,
    rows: &[Vec<String>],
) -> String {
    let escaped = |cell: &str| cell.replace('|', "\\|");
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(head.iter().map(|cell| escaped(cell.as_ref())));
    table.add_rows(rows.iter().map(|row| row.iter().map(|cell| escaped(cell))));
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_and_bars_are_escaped() {
        let rows = [vec!["a|b".into(), "1.5".into()], vec!["c".into(), "12.25".into()]];
        let expected = "\
            | name |  loss |\n\
            |------|-------|\n\
            | a\\|b |   1.5 |\n\
            | c    | 12.25 |\n";
        assert_eq!(markdown(&["name", "loss"], 1, &rows), expected);
    }
}
