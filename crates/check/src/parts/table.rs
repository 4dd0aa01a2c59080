//! Tables of a report.

/// Returns a Markdown table. The first `words` columns are aligned left, the others right.
pub(super) fn table(head: &[&str], words: usize, rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let rule = (0..head.len()).map(|i| if i < words { "---" } else { "---:" }).collect();
    let mut text = line(head.to_vec()) + &line(rule);
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}
