//! Query strings and paths as Go's `net/url` reads them, as InfluxDB and influx-proxy do.
//!
//! Parts are separated by `&`. A part with a `;` or an invalid percent escape is dropped completely (Go since 1.17),
//! `+` is a blank, and of a repeated parameter the first value counts. Form bodies have the same syntax. Allocates only
//! when something is escaped.

use std::borrow::Cow;

/// The first value of `key`; None if it is missing. `key` must need no escaping.
pub fn first<'a>(query: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    parts(query).find_map(|part| {
        let value = match part.strip_prefix(key.as_bytes()) {
            Some([b'=', value @ ..]) => value,
            Some(nothing @ []) => nothing,
            // The name may be an escaped form of the key, which is rare.
            _ => {
                let (name, value) = cut(part);
                let escaped = name.iter().any(|b| matches!(b, b'%' | b'+'));
                (escaped && decode(name, true)?.as_ref() == key.as_bytes()).then_some(value)?
            }
        };
        // Only the part that is used is checked for what would invalidate it.
        if memchr::memchr(b';', part).is_some() { None } else { decode(value, true) }
    })
}

/// All parameters in the order sent, decoded.
pub fn pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    parts(query).filter(|part| !part.is_empty() && memchr::memchr(b';', part).is_none()).filter_map(|part| {
        let (name, value) = cut(part);
        Some((decode(name, true)?, decode(value, true)?))
    })
}

fn parts(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let query = rest?;
        let end = memchr::memchr(b'&', query);
        rest = end.map(|end| &query[end + 1..]);
        Some(&query[..end.unwrap_or(query.len())])
    })
}

/// Name and value; the value is empty without a `=`.
fn cut(part: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', part) {
        Some(at) => (&part[..at], &part[at + 1..]),
        None => part.split_at(part.len()),
    }
}

/// A path with its percent escapes decoded; None (400) if one is invalid. A `+` stays a `+`.
pub fn path(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    decode(raw, false)
}

/// A single name or value; None if an escape in it is invalid.
pub fn unescape(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    decode(raw, true)
}

fn decode(raw: &[u8], plus_is_blank: bool) -> Option<Cow<'_, [u8]>> {
    let escaped = |b: &u8| *b == b'%' || (plus_is_blank && *b == b'+');
    let Some(plain_len) = raw.iter().position(escaped) else {
        return Some(Cow::Borrowed(raw));
    };
    let mut decoded = Vec::with_capacity(raw.len());
    decoded.extend_from_slice(&raw[..plain_len]);
    let mut rest = &raw[plain_len..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        decoded.push(match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return None };
                rest = tail;
                let digit = |b: u8| (b as char).to_digit(16);
                (digit(*high)? << 4 | digit(*low)?) as u8
            }
            b'+' if plus_is_blank => b' ',
            byte => *byte,
        });
    }
    Some(Cow::Owned(decoded))
}

/// Writes every byte except RFC 3986's unreserved characters as `%XX`.
pub fn percent_encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_encoded_reads_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        percent_encode(&mut text, &bytes);
        assert!(text.is_ascii() && text.ends_with(b"%FE%FF"));
        assert_eq!((unescape(&text).as_deref(), path(&text).as_deref()), (Some(&bytes[..]), Some(&bytes[..])));
    }

    #[track_caller]
    fn db(query: &str, want: Option<&[u8]>) {
        assert_eq!(first(query.as_bytes(), "db").as_deref(), want, "{query}");
    }

    #[test]
    fn parameters_are_read_as_go_reads_them() {
        db("", None);
        db("db", Some(b""));
        db("db=", Some(b""));
        db("db=a", Some(b"a"));
        db("DB=a", None);
        db("db=a&db=b", Some(b"a"));
        db("x=1&&db=a=b", Some(b"a=b"));
        db("db=a+b%2fc%2Bd", Some(b"a b/c+d"));
        db("%64b=a", Some(b"a"));
        db("db=%FF", Some(b"\xff"));
        db("db=é", Some("é".as_bytes()));
        db("db=a;precision=s", None);
        db("db=a;b&db=c", Some(b"c"));
        db("db=a%3Bb", Some(b"a;b"));
        db("db=%zz&db=c", Some(b"c"));
        db("db=%4", None);
        db("db=%", None);
        db("db=a&x=%zz", Some(b"a"));
        db("d%zz=1&db=a", Some(b"a"));
    }

    #[test]
    fn nothing_is_copied_where_nothing_is_escaped() {
        assert!(matches!(first(b"u=x&db=plain", "db"), Some(Cow::Borrowed(b"plain"))));
        assert!(matches!(path(b"/write"), Some(Cow::Borrowed(b"/write"))));
    }

    #[test]
    fn a_path_keeps_its_plus_and_a_bad_escape_spoils_it() {
        assert_eq!(path(b"/a+b%20c").as_deref(), Some(&b"/a+b c"[..]));
        assert_eq!(path(b"/%w"), None);
    }
    proptest::proptest! {
        #[test]
        fn the_first_value_is_the_first_of_all_pairs(query in "((db|d%62|%64b|dbx|d|x|%|)(=[a;%+0-9=]{0,4})?&?){0,5}") {
            let all = pairs(query.as_bytes()).find(|(name, _)| name.as_ref() == b"db").map(|(_, value)| value);
            proptest::prop_assert_eq!(first(query.as_bytes(), "db"), all);
        }
    }
}
