//! The measurement's name without escapes, as placement hashes it.

use std::borrow::Cow;

/// The name that InfluxDB stores for a measurement as written on its line: `\,` `\ ` `\=` and `\"` lose the backslash.
/// Every other backslash stays, also the first of a pair (InfluxDB 1.x, `escape.Unescape`).
pub fn unescape_measurement(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut name = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek().copied()) {
            (b'\\', Some(escaped @ (b',' | b' ' | b'=' | b'"'))) => {
                name.push(escaped);
                bytes.next();
            }
            _ => name.push(byte),
        }
    }
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_dropped_as_influxdb_drops_them() {
        for (raw, name) in [
            ("cpu", "cpu"),
            (r"my\ meas", "my meas"),
            (r"a\,b\=c\ d", "a,b=c d"),
            ("q\\\"q", "q\"q"),
            (r"a\b\n\\", r"a\b\n\\"),
            (r"a\\,b", r"a\,b"),
            (r"end\", r"end\"),
            ("监\\ 控", "监 控"),
            ("", ""),
        ] {
            assert_eq!(unescape_measurement(raw.as_bytes()), name.as_bytes(), "{raw}");
        }
        assert!(matches!(unescape_measurement(b"cpu"), Cow::Borrowed(_)));
    }
}
