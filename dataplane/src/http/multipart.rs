//! `multipart/form-data` bodies (RFC 7578), read as tolerantly as by Go's `mime/multipart`, which InfluxDB uses.
//!
//! Pure. As in Go, a body without its closing boundary, or with a part whose head is unreadable, is not a form. Lines
//! may end in LF alone if the first boundary does. A preamble, an epilogue, and parts without a name are skipped. Not
//! here: which of two values counts (`query::request`); transfer encodings of parts, which RFC 7578 forbids.

use memchr::memmem;

/// One part with a name. Its data is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormPart<'a> {
    pub name: Vec<u8>,
    /// The part has a file name.
    pub is_file: bool,
    pub data: &'a [u8],
}

/// A field value with parameters, as in `Content-Type`: the text before the first `;`, in lower case, and the
/// parameters, with names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormValue {
    pub main: Vec<u8>,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl FormValue {
    pub fn new(text: &[u8]) -> Self {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        let main = text[..end].trim_ascii().to_ascii_lowercase();
        let (mut parameters, mut rest) = (Vec::new(), &text[end..]);
        while let [b';', tail @ ..] = rest {
            let Some((name, value)) = split_once(tail, b'=') else { break };
            let (value, after) = token_or_quoted(value.trim_ascii_start());
            parameters.push((name.trim_ascii().to_ascii_lowercase(), value));
            rest = after.trim_ascii_start();
        }
        Self { main, parameters }
    }

    /// `name` must be in lower case.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| &value[..])
    }
}

/// The parts of a body; None if it is not a form.
pub fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Option<Vec<FormPart<'a>>> {
    if boundary.is_empty() {
        return None;
    }
    let dashed = [b"--", boundary].concat();
    let (mut rest, line_end) = first_part(body, &dashed)?;
    let delimiter = [line_end, &dashed].concat();
    let mut parts = Vec::new();
    while let Some(after) = rest {
        let (head, after) = part_head(after)?;
        let (data, next) = cut_at_delimiter(after, &dashed, &delimiter)?;
        rest = next;
        let disposition = head.unwrap_or_else(|| FormValue::new(b""));
        let name = disposition.parameter("name").unwrap_or_default();
        if disposition.main == b"form-data" && !name.is_empty() {
            parts.push(FormPart { name: name.to_vec(), is_file: disposition.parameter("filename").is_some(), data });
        }
    }
    Some(parts)
}

/// The bytes after a boundary; None = it was the last one.
type After<'a> = Option<&'a [u8]>;

/// Skips lines up to the first boundary; also returns the form's line end.
fn first_part<'a>(body: &'a [u8], dashed: &[u8]) -> Option<(After<'a>, &'static [u8])> {
    let mut rest = body;
    loop {
        if let Some(after) = rest.strip_prefix(dashed)
            && let Some(next) = after_boundary(after)
        {
            let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
            let crlf = next.is_none() || line.ends_with(b"\r");
            return Some((next, if crlf { b"\r\n" } else { b"\n" }));
        }
        rest = &rest[memchr::memchr(b'\n', rest)? + 1..];
    }
}

/// A boundary must be followed by `--`, or by blanks and a line end. None = this is data that looks like a boundary.
fn after_boundary(after: &[u8]) -> Option<After<'_>> {
    if after.starts_with(b"--") {
        return Some(None);
    }
    let blanks = after.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let after = &after[blanks..];
    after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")).map(Some)
}

/// Reads the fields of a part. Returns its Content-Disposition and the bytes after the empty line.
fn part_head(mut rest: &[u8]) -> Option<(Option<FormValue>, &[u8])> {
    let mut disposition = None;
    loop {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Some((disposition, rest));
        }
        let (name, value) = split_once(line, b':')?;
        if name.eq_ignore_ascii_case(b"content-disposition") && disposition.is_none() {
            disposition = Some(FormValue::new(value));
        }
    }
}

fn cut_at_delimiter<'a>(body: &'a [u8], dashed: &[u8], delimiter: &[u8]) -> Option<(&'a [u8], After<'a>)> {
    // A part without data needs no line end of its own before the boundary.
    if let Some(next) = body.strip_prefix(dashed).and_then(after_boundary) {
        return Some((&body[..0], next));
    }
    memmem::find_iter(body, delimiter)
        .find_map(|at| Some((&body[..at], after_boundary(&body[at + delimiter.len()..])?)))
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = memchr::memchr(at, text)?;
    Some((&text[..index], &text[index + 1..]))
}

/// A parameter's value without quotes, and the rest.
fn token_or_quoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    loop {
        match rest {
            [] => return (value, rest),
            [b'"', after @ ..] => return (value, after),
            // Browsers send file names with backslashes in them, so only escaped quotes and backslashes are unescaped.
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] | [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str) -> Option<Vec<(String, bool, String)>> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some(parts(body.as_bytes(), b"B")?.iter().map(|p| (text(&p.name), p.is_file, text(p.data))).collect())
    }

    #[test]
    fn bodies_are_read_as_go_reads_them() {
        let field = |name: &str, value: &str| (name.to_owned(), false, value.to_owned());
        let file = |name: &str, value: &str| (name.to_owned(), true, value.to_owned());
        let q = "Content-Disposition: form-data; name=\"q\"";
        for (body, want) in [
            (format!("--B\r\n{q}\r\n\r\nx\r\n--B--\r\n"), Some(vec![field("q", "x")])),
            (format!("--B\r\n{q}\r\n\r\nx\r\n--B--"), Some(vec![field("q", "x")])),
            (format!("--B\n{q}\n\nx\n--B--\n"), Some(vec![field("q", "x")])),
            (format!("pre\r\n--B\r\n{q}\r\n\r\nx\r\n--B--\r\nafter"), Some(vec![field("q", "x")])),
            (
                format!("--B \t\r\n{q}\r\n\r\nx\r\n--B \r\n{q}\r\n\r\ny\r\n--B--"),
                Some(vec![field("q", "x"), field("q", "y")]),
            ),
            (format!("--B\r\n{q}; filename=\"a;b\\\"c\"\r\n\r\nx\r\n--B--"), Some(vec![file("q", "x")])),
            (format!("--B\r\n{q}; filename=\"\"\r\n\r\nx\r\n--B--"), Some(vec![file("q", "x")])),
            (
                format!("--B\r\n{q}\r\n\r\na\r\n--Bx\r\n-- B\r\nc\r\n--B--"),
                Some(vec![field("q", "a\r\n--Bx\r\n-- B\r\nc")]),
            ),
            (format!("--B\r\n{q}\r\n\r\n--B--"), Some(vec![field("q", "")])),
            (format!("--B\r\n{q}\r\n\r\n\r\n--B--"), Some(vec![field("q", "")])),
            (
                "--B\r\ncontent-disposition: Form-Data; NAME=q ; x=y\r\ncontent-type: text/plain\r\n\r\nx\r\n--B--"
                    .into(),
                Some(vec![field("q", "x")]),
            ),
            ("--B\r\nContent-Disposition: attachment; name=\"q\"\r\n\r\nx\r\n--B--".into(), Some(vec![])),
            ("--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--".into(), Some(vec![])),
            ("--B\r\n\r\nx\r\n--B--".into(), Some(vec![])),
            ("--B--\r\n".into(), Some(vec![])),
            (format!("--B\r\n{q}\r\n\r\nx\r\n"), None),
            (format!("--B\r\n{q}\r\n\r\nx"), None),
            (format!("--B\r\n{q}"), None),
            ("--B\r\nno field\r\n\r\nx\r\n--B--".into(), None),
            ("--C\r\n\r\nx\r\n--C--".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(form(&body), want, "{body:?}");
        }
        assert_eq!(parts(b"--\r\n\r\nx\r\n----", b""), None, "no boundary");
    }

    #[test]
    fn parameters_are_found_in_any_case_quoted_or_not() {
        for (text, main, boundary) in [
            ("multipart/form-data; boundary=B", "multipart/form-data", Some("B")),
            ("Multipart/Form-Data;Boundary=\"a b\"; charset=utf-8", "multipart/form-data", Some("a b")),
            ("x; charset=\"a;boundary=b\";boundary = c", "x", Some("c")),
            ("application/x-www-form-urlencoded;", "application/x-www-form-urlencoded", None),
            ("application/x-www-form-urlencoded; charset", "application/x-www-form-urlencoded", None),
            ("", "", None),
        ] {
            let value = FormValue::new(text.as_bytes());
            assert_eq!(value.main, main.as_bytes(), "{text}");
            assert_eq!(value.parameter("boundary"), boundary.map(str::as_bytes), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic_and_parts_lie_in_the_body(
            body in concat!(
                "(--B|--|\r\n|\n|[a-z:;=\" ]{0,6}|form-data|",
                "content-disposition: form-data; name=q){0,12}",
            )
        ) {
            for part in parts(body.as_bytes(), b"B").unwrap_or_default() {
                let mut windows = body.as_bytes().windows(part.data.len().max(1));
                proptest::prop_assert!(windows.any(|w| part.data.is_empty() || w == part.data));
            }
        }
    }
}
