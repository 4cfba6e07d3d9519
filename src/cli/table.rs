//! Plain columns for the terminal.

/// Lines with each column as wide as its widest cell; the last one is left as it is.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|r| r.get(at))
            .map(|c| c.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().enumerate().map(|(at, cell)| {
                let pad = if at + 1 < row.len() {
                    widths[at] - cell.chars().count()
                } else {
                    0
                };
                format!("{cell}{}", " ".repeat(pad))
            });
            cells.collect::<Vec<_>>().join("  ")
        })
        .collect()
}

/// A text for the terminal: control characters of recorded traffic must not reach it.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// JSON text with DEL and the C1 control characters written as `\u00XX`; they stand only in its strings.
pub(super) fn escape_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\u{7f}'..='\u{9f}') {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escape_sequences_do_not_pass() {
        let rows = [vec!["a".into(), "b".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(columns(&rows), ["a    b", "ccc  d"]);
        assert_eq!(printable("\x1b[2Jx"), "\u{fffd}[2Jx");
    }

    #[test]
    fn json_for_the_terminal_has_no_raw_control_characters_and_says_the_same() {
        let value = serde_json::json!({ "a": "\u{7f}\u{9b}2J\u{80}\u{9f}\x1b\u{a0}é" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escape_controls(&text);
        assert!(!escaped.chars().any(|c| c.is_control() && c != '\n'));
        let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read, value);
    }
}
