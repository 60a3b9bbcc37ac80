//! Quotes text as Go's `%q` does; InfluxDB shows database names so (`database not found: "a\nb"`).

use std::fmt::Write as _;

/// Appends `text`, quoted. Bytes that are not UTF-8 become `\xff`, unprintable characters `\u00ad`.
pub fn go_quote(out: &mut String, text: &[u8]) {
    out.push('"');
    for chunk in text.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(out, c));
        chunk.invalid().iter().for_each(|&b| push_hex(out, b));
    }
    out.push('"');
}

fn push_char(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..' ' | '\x7f' => push_hex(out, c as u8),
        c if is_printable(c) => out.push(c),
        c if (c as u32) < 0x1_0000 => {
            let _ = write!(out, "\\u{:04x}", c as u32);
        }
        c => {
            let _ = write!(out, "\\U{:08x}", c as u32);
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// As Go's `strconv.IsPrint`, except for characters newer than one of the two tables. `str::escape_debug` uses Rust's
/// table. It also escapes a combining character, but only at the start, hence the leading `a`.
fn is_printable(c: char) -> bool {
    if c == '\'' {
        return true;
    }
    let mut bytes = [b'a'; 5];
    let len = 1 + c.encode_utf8(&mut bytes[1..]).len();
    str::from_utf8(&bytes[..len]).is_ok_and(|text| text.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_go_does() {
        for (text, want) in [
            (&b""[..], r#""""#),
            (b"nope", r#""nope""#),
            (b"no\"pe\\", r#""no\"pe\\""#),
            (b"it's", r#""it's""#),
            ("a\nb\u{e9}".as_bytes(), r#""a\nbé""#),
            (b"\xff", r#""\xff""#),
            (b"a\xc3", r#""a\xc3""#),
            (b"\xe2\x80", r#""\xe2\x80""#),
            (b"\0\x1f\x7f\x07\x08\x0c\r\t\x0b", r#""\x00\x1f\x7f\a\b\f\r\t\v""#),
            ("\u{ad}\u{a0}\u{200b}\u{2028}\u{feff}".as_bytes(), r#""\u00ad\u00a0\u200b\u2028\ufeff""#),
            ("e\u{301}日本😀".as_bytes(), "\"e\u{301}日本😀\""),
            ("\u{e0001}\u{10ffff}".as_bytes(), r#""\U000e0001\U0010ffff""#),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
        ] {
            let mut out = String::new();
            go_quote(&mut out, text);
            assert_eq!(out, want);
        }
    }
}
