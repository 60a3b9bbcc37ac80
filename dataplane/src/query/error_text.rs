//! Gets InfluxDB's own error for a text that must not be executed: an error of ours is appended, so that InfluxDB
//! refuses the text in any case.

/// An error behind any text: a line end ends a comment and breaks an open string, and no statement begins with a
/// parenthesis.
pub const ENDING: &str = "\n;)";

/// InfluxDB's error for `text` (trimmed), from its error `said` for `text` with [`ENDING`]. None: the only error was
/// our own.
pub fn about(text: &str, said: &str) -> Option<String> {
    let lines = text.split('\n').count();
    if said.ends_with(&format!("at line {}, char 2", lines + 1)) && said.contains("found ), expected") {
        return None;
    }
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    let length = last_line.chars().count();
    // InfluxDB stopped at the start of our own line: the text ended too early.
    let end = || {
        let before = said.strip_suffix(&format!(" at line {}, char 1", lines + 1))?;
        Some(before.replacen("found ;,", "found EOF,", 1))
    };
    // Where no white space is allowed, InfluxDB reports our line end. In an error header it appears as a blank.
    let line_end = || {
        let before = said.strip_suffix(&format!(" at line {lines}, char {}", length + 1))?;
        before.contains("found  , ").then(|| before.replacen("found  , ", "found EOF, ", 1))
    };
    match end().or_else(line_end) {
        Some(found) => Some(format!("{found} at line {lines}, char {}", length + columns_to_the_end(last_line))),
        None => Some(said.to_owned()),
    }
}

/// How many columns behind the last character InfluxDB reports the end: 2 if it reads ahead there, as at the end of a
/// word, else 1 (behind a number, a string or a parenthesis).
fn columns_to_the_end(text: &str) -> usize {
    let before_word = text.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let word = &text[before_word.len()..];
    let twice = match word.as_bytes().first() {
        Some(first) => !first.is_ascii_digit(),
        None => text.ends_with(['.', '~']),
    };
    if twice { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_text_is_reported_as_by_influxdb() {
        let said = "error parsing query: found ;, expected identifier at line 2, char 1";
        let want = "error parsing query: found EOF, expected identifier at line 1, char 17";
        assert_eq!(about("CREATE DATABASE", said).as_deref(), Some(want));
        let said = "error parsing query: found x, expected FROM at line 1, char 12";
        assert_eq!(about("DELETE x", said).as_deref(), Some(said));
        let said = "error parsing query: found  , expected . at line 1, char 26";
        let want = "error parsing query: found EOF, expected . at line 1, char 27";
        assert_eq!(about("drop subscription s1 on p", said).as_deref(), Some(want));
        let ours = "error parsing query: found ), expected SELECT, DELETE, SHOW at line 2, char 2";
        assert_eq!(about("DROP SERIES FROM x", ours), None, "InfluxDB has nothing against the text itself");
    }

    /// As InfluxDB 1.6.7 counts.
    #[test]
    fn the_column_of_the_end_depends_on_what_stands_there() {
        for (text, columns) in [
            ("CREATE DATABASE", 2),
            ("create retention policy r3 on p duration 1d", 1),
            ("create retention policy r3 on p duration inf", 2),
            ("select mean(usage) into x from cpu group by time(1h)", 1),
            (r#"drop subscription s1 on "p""#, 1),
            ("delete from x where (a.", 2),
            (r#"delete from x where ("a".b"#, 2),
            ("delete from x where a =~", 2),
            ("delete from x where (a =~ /x/", 1),
            ("delete from x where a =", 1),
            ("delete from x where a = (1.5", 1),
            ("delete from x where a = ('x'", 1),
            ("delete from x where a = (h1", 2),
            ("", 1),
        ] {
            assert_eq!(columns_to_the_end(text), columns, "{text}");
        }
    }
}
