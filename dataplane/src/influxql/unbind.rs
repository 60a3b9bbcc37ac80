//! Carriage returns and NUL in names and strings of a printed statement. InfluxDB takes the first for the end of a line
//! and the second for the end of the text, and knows no escape for them. As parameters (`params`) they pass.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

const BEYOND_TEXT: [char; 2] = ['\r', '\0'];

/// Words after which `/` begins a regular expression and is no division.
const BEFORE_REGEX: [&str; 3] = ["SELECT", "FROM", "BY"];

/// A statement as it can be sent, and the parameters in it; None when it needs none. `text` is as the printer writes
/// it.
pub fn unbind(text: &str) -> (Cow<'_, str>, Option<String>) {
    if !text.contains(BEYOND_TEXT) {
        return (Cow::Borrowed(text), None);
    }
    let (mut sent, mut params) = (String::with_capacity(text.len()), Map::new());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, token) = rest.split_at(at);
        sent.push_str(before);
        let quote = token.as_bytes()[0];
        let end = match quote {
            b'/' if !begins_regex(&sent) => 1,
            _ => closing(token, quote),
        };
        let (token, after) = token.split_at(end);
        rest = after;
        let kind = match quote {
            b'"' => "identifier",
            b'\'' => "string",
            _ => "regex",
        };
        if token.contains(BEYOND_TEXT) {
            let name = format!("cr{}", params.len());
            sent.push('$');
            sent.push_str(&name);
            params.insert(name, json!({ kind: plain(token, quote) }));
        } else {
            sent.push_str(token);
        }
    }
    sent.push_str(rest);
    (Cow::Owned(sent), Some(Value::Object(params).to_string()))
}

/// Whether a `/` behind `before` begins a regular expression. A division has spaces around it.
fn begins_regex(before: &str) -> bool {
    if before.ends_with('.') {
        return true;
    }
    let before = before.trim_end();
    let word = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    before.ends_with([',', '(', '~']) || BEFORE_REGEX.contains(&word)
}

/// The length of the token that begins with `quote`. In a regular expression only `/` has an escape.
fn closing(token: &str, quote: u8) -> usize {
    let bytes = token.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != b'/' || bytes.get(at + 1) == Some(&b'/') => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    token.len()
}

/// What a token means, without quotes and escapes. A regular expression keeps its escapes, but for that of `/`.
fn plain(token: &str, quote: u8) -> String {
    let inner = &token[1..token.len().max(2) - 1];
    if quote == b'/' {
        return inner.replace("\\/", "/");
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                escaped => text.extend(escaped),
            },
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_strings_and_regular_expressions_with_carriage_returns_become_parameters() {
        for (text, sent, params) in [
            (r#"SELECT "a\\b" FROM "m""#, r#"SELECT "a\\b" FROM "m""#, None),
            (
                concat!(
                    "SELECT \"f\rg\"::float, v / \"w\r\" FROM \"m\" ",
                    "WHERE t = 'a\r\\'\\n' AND u =~ /\"\\/\r\\d/; SELECT \"\r\""
                ),
                "SELECT $cr0::float, v / $cr1 FROM \"m\" WHERE t = $cr2 AND u =~ $cr3; SELECT $cr4",
                Some(json!({
                    "cr0": {"identifier": "f\rg"},
                    "cr1": {"identifier": "w\r"},
                    "cr2": {"string": "a\r'\n"},
                    "cr3": {"regex": "\"/\r\\d"},
                    "cr4": {"identifier": "\r"},
                })),
            ),
            (
                "SELECT a / b FROM /\"/ WHERE \"x\\\"\r\" = '/'",
                "SELECT a / b FROM /\"/ WHERE $cr0 = '/'",
                Some(json!({"cr0": {"identifier": "x\"\r"}})),
            ),
        ] {
            let given = unbind(text);
            assert_eq!(given.0, sent);
            assert_eq!(given.1.map(|params| serde_json::from_str::<Value>(&params).unwrap()), params, "{text:?}");
        }
    }
}
