//! Writes JSON strings as Go's `encoding/json` does, and reads one back. Not a parser: the data plane writes one small
//! object and searches for one field.

use std::fmt;

/// Appends `text` in quotes: `<` `>` `&`, control bytes and U+2028/9 as `\u....`, each byte that is not UTF-8 as
/// `\ufffd`.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// The same for a value that implements Display, without a copy.
pub fn push_display(out: &mut Vec<u8>, text: impl fmt::Display) {
    struct Escaping<'a>(&'a mut Vec<u8>);
    impl fmt::Write for Escaping<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            push_escaped(self.0, text.as_bytes());
            Ok(())
        }
    }
    out.push(b'"');
    // Fails only if the Display implementation fails; then the text ends early.
    let _ = fmt::write(&mut Escaping(out), format_args!("{text}"));
    out.push(b'"');
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut plain_from = 0;
        let mut at = 0;
        while at < valid.len() {
            let escape: &[u8] = match valid[at] {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                byte @ (0..0x20 | b'<' | b'>' | b'&') => {
                    out.extend_from_slice(&valid[plain_from..at]);
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
                    at += 1;
                    plain_from = at;
                    continue;
                }
                // U+2028 and U+2029 end a line in JavaScript.
                0xe2 if matches!(valid[at..], [_, 0x80, 0xa8 | 0xa9, ..]) => {
                    out.extend_from_slice(&valid[plain_from..at]);
                    out.extend_from_slice(b"\\u202");
                    out.push(hex(valid[at + 2] & 15));
                    at += 3;
                    plain_from = at;
                    continue;
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            out.extend_from_slice(&valid[plain_from..at]);
            out.extend_from_slice(escape);
            at += 1;
            plain_from = at;
        }
        out.extend_from_slice(&valid[plain_from..]);
        chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

/// The first string that follows a name `"error"` in a small JSON body. Enough for logs and hints, not a parser. Quotes
/// inside JSON strings are escaped, so the name is not found inside a string.
pub fn error_text(body: &[u8]) -> Option<String> {
    memchr::memmem::find_iter(body, b"\"error\"").find_map(|at| {
        let rest = body[at + 7..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        Some(unescape(rest))
    })
}

/// The string that begins here, up to its closing quote or the end.
fn unescape(mut rest: &[u8]) -> String {
    let mut text = Vec::new();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let [escape, tail @ ..] = rest else { break };
                rest = tail;
                match escape {
                    b'n' => text.push(b'\n'),
                    b'r' => text.push(b'\r'),
                    b't' => text.push(b'\t'),
                    b'b' => text.push(8),
                    b'f' => text.push(12),
                    b'u' => {
                        let (c, after) = unescape_unicode(rest);
                        rest = after;
                        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    other => text.push(*other),
                }
            }
            byte => text.push(*byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The character of a `\u` escape (two escapes for a surrogate pair), and the rest.
fn unescape_unicode(rest: &[u8]) -> (char, &[u8]) {
    let unit = |digits: &[u8]| u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
    let Some((high, after)) = rest.split_at_checked(4).and_then(|(digits, after)| Some((unit(digits)?, after))) else {
        return (char::REPLACEMENT_CHARACTER, rest);
    };
    if let Some((low, after_pair)) = after
        .strip_prefix(b"\\u")
        .and_then(|after| after.split_at_checked(4))
        .and_then(|(digits, after)| Some((unit(digits)?, after)))
        && let Some(Ok(c)) = char::decode_utf16([high, low]).next()
        && c as u32 > 0xffff
    {
        return (c, after_pair);
    }
    (char::from_u32(u32::from(high)).unwrap_or(char::REPLACEMENT_CHARACTER), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        for (text, want) in [
            (&b""[..], r#""""#),
            (b"a'b", r#""a'b""#),
            (b"a\"b\\c/", r#""a\"b\\c/""#),
            (b"<a>&", r#""\u003ca\u003e\u0026""#),
            (b"\n\r\t\0\x08\x0c\x1f\x7f", "\"\\n\\r\\t\\u0000\\u0008\\u000c\\u001f\x7f\""),
            ("\u{2028}x\u{2029}\u{202a}é😀".as_bytes(), "\"\\u2028x\\u2029\u{202a}é😀\""),
            (b"a\xffb\xe2\x80", r#""a\ufffdb\ufffd\ufffd""#),
            (b"\xf0\x9f\x98", r#""\ufffd\ufffd\ufffd""#),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    #[test]
    fn what_is_displayed_is_escaped_likewise() {
        let mut out = Vec::new();
        push_display(&mut out, format_args!("{}<{}", "a\"", 'b'));
        assert_eq!(out, br#""a\"\u003cb""#);
    }

    #[test]
    fn the_error_of_a_body_is_found() {
        for (body, want) in [
            (&b"{\"error\":\"x\"}\n"[..], Some("x")),
            (b"{\n    \"error\": \"a \\\"b\\\" \\u003c\\n\"\n}", Some("a \"b\" <\n")),
            (b"{\"results\":[{\"statement_id\":0,\"error\":\"e\\u00e9\\ud83d\\ude00\"}]}", Some("eé😀")),
            (b"{\"text\":\"\\\"error\\\":\\\"no\\\"\",\"error\":\"yes\"}", Some("yes")),
            (b"{\"error\":1}", None),
            (b"{\"error\":", None),
            (b"{\"error\":\"cut", Some("cut")),
            (b"{\"error\":\"\\ud83dx\\u12\"}", Some("\u{fffd}x\u{fffd}12")),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(error_text(body).as_deref(), want, "{}", body.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_back_as_a_json_parser_reads_them(text: Vec<u8>) {
            let json = quoted(&text);
            let parsed: String = serde_json::from_str(&json).unwrap();
            let go: String =
                text.utf8_chunks().map(|c| format!("{}{}", c.valid(), "\u{fffd}".repeat(c.invalid().len()))).collect();
            assert_eq!(parsed, go);
            assert_eq!(error_text(format!("{{\"error\":{json}}}").as_bytes()), Some(go));
        }
    }
}
