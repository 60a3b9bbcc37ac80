//! Whether two answers are the same.
//!
//! Status, kind and error header must be equal. JSON is compared as JSON, with its order, and numbers digit by digit;
//! chunked answers line by line; everything else (pretty JSON, CSV, msgpack) byte for byte.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::ask::ComparedAnswer;

/// JSON in which a number is its text: `1` is not `1.0`, and nothing is lost beyond 2^53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// A number, `true`, `false` or `null`, as written.
    Plain(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    fn from_raw(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        Some(match text.as_bytes().first()? {
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::List(items.into_iter().map(Self::from_raw).collect::<Option<_>>()?)
            }
            b'{' => {
                let items: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
                let entry = |(key, raw)| Some((key, Self::from_raw(raw)?));
                Self::Object(items.into_iter().map(entry).collect::<Option<_>>()?)
            }
            _ => Self::Plain(text.to_owned()),
        })
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(map) => map.get(key),
            _ => None,
        }
    }

    pub fn list(&self, key: &str) -> &[Json] {
        self.get(key).map_or(&[], Self::items)
    }

    /// What is in a list.
    pub fn items(&self) -> &[Json] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Self::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// How the body of a request's answers is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// The same, with the series of a result in any order.
    AnyOrder,
    /// The same, with the rows of a series in any order too.
    AnyRows,
    /// One JSON document per line.
    Lines,
    /// Everything as encoded, but the order of keys, which is by chance on one server too.
    Msgpack,
    Bytes,
}

/// The JSON documents of a body, one after the other; `None` if it is not JSON.
pub fn documents(body: &[u8]) -> Option<Vec<Json>> {
    let values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    values.map(|raw| Json::from_raw(raw.ok()?)).collect()
}

/// Reads one msgpack value off the front: strings and containers as they are, all else by its bytes.
fn msgpack(body: &mut &[u8]) -> Option<Json> {
    let whole = *body;
    let mut take = |count: usize| {
        let (head, rest) = body.split_at_checked(count)?;
        *body = rest;
        Some(head)
    };
    let kind = take(1)?[0];
    // How many bytes of a length follow, and what for containers it says by itself.
    let (length_bytes, own) = match kind {
        0x80..=0x9f => (0, usize::from(kind & 0x0f)),
        0xa0..=0xbf => (0, usize::from(kind & 0x1f)),
        0xc4 | 0xc7 | 0xd9 => (1, 0),
        0xc5 | 0xc8 | 0xda | 0xdc | 0xde => (2, 0),
        0xc6 | 0xc9 | 0xdb | 0xdd | 0xdf => (4, 0),
        0xcc | 0xd0 => (0, 1),
        0xcd | 0xd1 => (0, 2),
        0xca | 0xce | 0xd2 => (0, 4),
        0xcb | 0xcf | 0xd3 => (0, 8),
        0xd4..=0xd8 => (0, 1 + (1 << (kind - 0xd4))),
        _ => (0, 0),
    };
    let length = take(length_bytes)?.iter().fold(own, |length, byte| length << 8 | usize::from(*byte));
    match kind {
        0x80..=0x8f | 0xde | 0xdf => {
            let entry = |_| match (msgpack(body)?, msgpack(body)?) {
                (Json::Text(key), value) => Some((key, value)),
                _ => None,
            };
            (0..length).map(entry).collect::<Option<_>>().map(Json::Object)
        }
        0x90..=0x9f | 0xdc | 0xdd => (0..length).map(|_| msgpack(body)).collect::<Option<_>>().map(Json::List),
        0xa0..=0xbf | 0xd9..=0xdb => String::from_utf8(take(length)?.to_vec()).ok().map(Json::Text),
        _ => {
            // An extension's length does not count its type.
            take(length + usize::from(matches!(kind, 0xc7..=0xc9)))?;
            let len = whole.len() - body.len();
            Some(Json::Plain(whole[..len].escape_ascii().to_string()))
        }
    }
}

/// The msgpack values of a body, one after the other.
fn msgpack_documents(mut body: &[u8]) -> Option<Vec<Json>> {
    std::iter::from_fn(|| (!body.is_empty()).then(|| msgpack(&mut body))).collect()
}

/// The same with the series of each result, and their rows if wished, in one order.
fn in_order(mut documents: Vec<Json>, rows_too: bool) -> Vec<Json> {
    for document in &mut documents {
        let Json::Object(document) = document else { continue };
        let Some(Json::List(results)) = document.get_mut("results") else { continue };
        for result in results {
            let Json::Object(result) = result else { continue };
            let Some(Json::List(series)) = result.get_mut("series") else { continue };
            for one in series.iter_mut().filter(|_| rows_too) {
                let Json::Object(one) = one else { continue };
                if let Some(Json::List(rows)) = one.get_mut("values") {
                    rows.sort_by_key(|row| format!("{row:?}"));
                }
            }
            series.sort_by_key(|series| format!("{series:?}"));
        }
    }
    documents
}

/// What differs first, or `None`.
pub fn difference(form: Form, oracle: &ComparedAnswer, cluster: &ComparedAnswer) -> Option<String> {
    if oracle == cluster {
        return None;
    }
    if oracle.status != cluster.status {
        return Some(format!("status {}, not {}", cluster.status, oracle.status));
    }
    if oracle.content_type != cluster.content_type {
        return Some(format!("Content-Type {:?}, not {:?}", cluster.content_type, oracle.content_type));
    }
    if oracle.headers != cluster.headers {
        return Some(format!("headers {:?}, not {:?}", cluster.headers, oracle.headers));
    }
    let at = oracle.body.iter().zip(&cluster.body).position(|(a, b)| a != b);
    let at = at.unwrap_or(oracle.body.len().min(cluster.body.len()));
    let around = |body: &[u8]| {
        let (start, end) = (at.saturating_sub(60).min(body.len()), (at + 100).min(body.len()));
        String::from_utf8_lossy(&body[start..end]).into_owned()
    };
    let differs = || Some(format!("byte {at}: {:?}, not {:?}", around(&cluster.body), around(&oracle.body)));
    let lines = |body: &[u8]| body.split(|byte| *byte == b'\n').count();
    match form {
        Form::Bytes => differs(),
        Form::Lines if lines(&oracle.body) != lines(&cluster.body) => {
            Some(format!("{} lines, not {}; {}", lines(&cluster.body), lines(&oracle.body), differs()?))
        }
        Form::Json | Form::Lines | Form::AnyOrder | Form::AnyRows | Form::Msgpack => {
            let read = |body| match form {
                Form::Msgpack => msgpack_documents(body),
                Form::AnyOrder => documents(body).map(|documents| in_order(documents, false)),
                Form::AnyRows => documents(body).map(|documents| in_order(documents, true)),
                _ => documents(body),
            };
            match (read(&oracle.body), read(&cluster.body)) {
                (Some(a), Some(b)) if a == b => None,
                _ => differs(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> ComparedAnswer {
        ComparedAnswer { status: 200, content_type: "application/json".into(), headers: Vec::new(), body: body.into() }
    }

    /// Checks the check: it finds what a merge could get wrong.
    #[test]
    fn the_comparison_sees_what_matters() {
        const ROWS: &str = concat!(
            r#"{"results":[{"statement_id":0,"series":[{"name":"m","columns":["time","v"],"#,
            r#""values":[[1,1.0],[2,"<"]]}]}]}"#
        );
        let same = |form, body: &str| difference(form, &answer(ROWS), &answer(body)).is_none();
        for form in [Form::Json, Form::Lines, Form::Bytes] {
            assert!(same(form, ROWS));
            for (from, to) in [
                ("1.0", "1"),
                ("[1,1.0],[2,\"<\"]", "[2,\"<\"],[1,1.0]"),
                ("\"<\"", "\"lt\""),
                ("\"<\"", "null"),
                (",[2,\"<\"]", ""),
                ("\"name\":\"m\",", ""),
                ("\"name\":\"m\"", "\"name\":\"m\",\"partial\":true"),
                ("\"time\",\"v\"", "\"v\",\"time\""),
                ("\"statement_id\":0", "\"statement_id\":1"),
                ("}]}]}", "}]}]"),
            ] {
                assert!(ROWS.contains(from));
                assert!(!same(form, &ROWS.replacen(from, to, 1)), "{form:?} {to}");
            }
        }
        let other = ROWS.replace("\"<\"", "\"\\u003c\"").replace(":[", ": [");
        assert!(same(Form::Json, &other) && !same(Form::Bytes, &other));
        let two = format!("{ROWS}\n{ROWS}\n");
        assert!(difference(Form::Lines, &answer(&two), &answer(&two)).is_none());
        assert!(difference(Form::Lines, &answer(&two), &answer(&format!("{ROWS}\n"))).is_some());
        for wrong in [
            ComparedAnswer { status: 400, ..answer(ROWS) },
            ComparedAnswer { content_type: "text/csv".into(), ..answer(ROWS) },
            ComparedAnswer { headers: vec![("Allow", "GET".into())], ..answer(ROWS) },
        ] {
            assert!(difference(Form::Json, &answer(ROWS), &wrong).is_some());
        }
        let (ab, ba) =
            (r#"{"results":[{"series":[{"a":1},{"b":2}]}]}"#, r#"{"results":[{"series":[{"b":2},{"a":1}]}]}"#);
        assert!(difference(Form::AnyOrder, &answer(ab), &answer(ba)).is_none());
        assert!(difference(Form::Json, &answer(ab), &answer(ba)).is_some());
        assert!(difference(Form::AnyOrder, &answer(ab), &answer(&ba.replace('2', "3"))).is_some());
        let packed = |bytes: &[u8]| ComparedAnswer { body: bytes.to_vec(), ..answer("") };
        // {"a": 1, "b": [nil, 258, "x", a time]} and changes of it.
        let map = b"\x82\xa1a\x01\xa1b\x94\xc0\xcd\x01\x02\xa1x\xc7\x0c\x05aaaabbbbcccc";
        let swapped = b"\x82\xa1b\x94\xc0\xcd\x01\x02\xa1x\xc7\x0c\x05aaaabbbbcccc\xa1a\x01";
        let same = |other: &[u8]| difference(Form::Msgpack, &packed(map), &packed(other)).is_none();
        assert!(same(map) && same(swapped));
        for at in 0..swapped.len() {
            let mut other = *swapped;
            other[at] ^= 1;
            assert!(!same(&other) && !same(&swapped[..at]), "{at}");
        }
        let big = |n: &str| answer(&format!("{{\"n\":{n}}}"));
        assert!(difference(Form::Json, &big("9007199254740993"), &big("9007199254740992")).is_some());
    }
}
