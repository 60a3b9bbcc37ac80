//! A text that may hold bytes of a client or of a backend, as a part of one line of a log.

use std::borrow::Cow;

/// Escapes what ends a line, moves the cursor of a terminal or changes its colours, so that no text can pretend to be a
/// line of its own: control characters, and the line separators of Unicode.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_makes_a_line_of_its_own() {
        for (text, want) in [
            ("SELECT v FROM \"größe\"", "SELECT v FROM \"größe\""),
            ("a\n2026 ERROR b\r\n", "a\\n2026 ERROR b\\r\\n"),
            ("\u{1b}[2J\u{9b}1m\u{7f}\0", "\\u{1b}[2J\\u{9b}1m\\u{7f}\\u{0}"),
            ("a\u{85}b\u{2028}c\u{2029}d\te", "a\\u{85}b\\u{2028}c\\u{2029}d\\te"),
        ] {
            assert_eq!(one_line(text), want);
        }
    }
}
