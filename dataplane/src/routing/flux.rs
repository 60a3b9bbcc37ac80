//! Where the data of a Flux query lies: the buckets and measurements that its text names.
//!
//! Not a parser of Flux: it reads tokens and follows each `from(bucket: "...")` through `range` and `filter`, also when
//! it was given a name. What it cannot follow it does not guess, since one backend's part would look like the whole
//! answer. Not here: what a query does (the backend's), whether its databases are allowed (`access`).

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::FLUX_DEPTH_MAX;
use crate::placement::Place;
use crate::routing::reach::Reach;

/// What the text of a query says about its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluxReach {
    /// All databases that it names.
    pub dbs: BTreeSet<String>,
    /// The places it reads, or what is not known of them.
    pub reach: Result<Reach, FluxUnknown>,
}

/// Why the places of a query are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FluxUnknown {
    /// A source is not `from(bucket: "name")`, or there is none. `dbs` may lack databases.
    Bucket,
    /// A bucket is read without `filter(fn: (r) => r._measurement == "name")`.
    Measurement,
}

impl FluxUnknown {
    /// influx-proxy 2.5's text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Bucket => "can't get bucket",
            Self::Measurement => "can't get measurement",
        }
    }
}

/// Reads the text of a query.
pub fn reach(text: &str) -> FluxReach {
    let tokens = tokens(text);
    let mut places = BTreeSet::new();
    let mut dbs = BTreeSet::new();
    let mut unknown = None;
    // Streams that were given a name before their measurement was known, and whether a use of it has told the rest.
    let mut named: BTreeMap<&str, (String, bool)> = BTreeMap::new();
    let mut at = 0;
    let note = |unknown: &mut Option<FluxUnknown>, what| {
        if *unknown != Some(FluxUnknown::Bucket) {
            *unknown = Some(what);
        }
    };
    while at < tokens.len() {
        let is_member = at > 0 && tokens[at - 1] == Token::Op(".");
        let is_argument = tokens.get(at + 1) == Some(&Token::Op(":"));
        match &tokens[at] {
            Token::Name("from") if tokens.get(at + 1) == Some(&Token::Op("(")) => {
                let end = closing(&tokens, at + 1);
                let Some(db) = bucket(&tokens[at + 2..end]) else {
                    note(&mut unknown, FluxUnknown::Bucket);
                    at = end;
                    continue;
                };
                dbs.insert(db.clone());
                let (found, after) = filtered(&tokens, end + 1);
                let name = match at.checked_sub(2).map(|before| &tokens[before..at]) {
                    Some([Token::Name(name), Token::Op("=")]) => Some(*name),
                    _ => None,
                };
                match (found, name) {
                    (Some(found), _) => places.extend(found.iter().map(|m| Place::new(&db[..], &m[..]).owned())),
                    // Only as it is: what a named stream went through is not followed.
                    (None, Some(name)) if !continues(&tokens, after) => _ = named.insert(name, (db, false)),
                    (None, _) => note(&mut unknown, FluxUnknown::Measurement),
                }
                // What the filters name is looked at, too.
                at = end;
            }
            // Other ways to name a bucket, and functions that tell about all of them.
            Token::Name("bucket" | "bucketID") if is_argument => note(&mut unknown, FluxUnknown::Bucket),
            Token::Name("from" | "buckets" | "databases" | "select") if !is_argument => {
                note(&mut unknown, FluxUnknown::Bucket);
            }
            Token::Name(name) if !is_member && !is_argument => {
                if let Some((db, is_used)) = named.get_mut(name) {
                    *is_used = true;
                    match filtered(&tokens, at + 1).0 {
                        Some(found) => places.extend(found.iter().map(|m| Place::new(&db[..], &m[..]).owned())),
                        None => note(&mut unknown, FluxUnknown::Measurement),
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    if named.values().any(|(_, is_used)| !is_used) {
        note(&mut unknown, FluxUnknown::Measurement);
    }
    if tokens.contains(&Token::Code) {
        unknown = Some(FluxUnknown::Bucket);
    }
    if dbs.is_empty() {
        unknown = Some(FluxUnknown::Bucket);
    }
    FluxReach { dbs, reach: unknown.map_or(Ok(Reach::Places(places)), Err) }
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    Name(&'a str),
    Text(String),
    /// A string with `${...}`, in which there may be any code, or one that does not end.
    Code,
    Op(&'a str),
    /// A number, a duration, a regular expression.
    Other,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    const PAIRS: [&str; 8] = ["|>", "=>", "==", "!=", "=~", "!~", "<=", ">="];
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let run = |from: usize, is: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|byte| is(byte)).count();
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest[0] {
            byte if byte.is_ascii_whitespace() => at += 1,
            b'/' if rest.starts_with(b"//") => at = run(at, |byte| *byte != b'\n'),
            // A division follows a value, a regular expression does not.
            b'/' if !matches!(tokens.last(), Some(Token::Name(_) | Token::Other | Token::Op(")" | "]"))) => {
                at += quoted(rest, b'/').unwrap_or(rest.len());
                tokens.push(Token::Other);
            }
            b'"' => {
                let len = quoted(rest, b'"');
                tokens.push(match len.map(|len| &text[at + 1..at + len - 1]) {
                    Some(inner) if !inner.contains("${") => Token::Text(unescaped(inner)),
                    _ => Token::Code,
                });
                at += len.unwrap_or(rest.len());
            }
            byte if byte.is_ascii_digit() => {
                at = run(at, u8::is_ascii_alphanumeric);
                tokens.push(Token::Other);
            }
            byte if byte == b'_' || byte.is_ascii_alphabetic() || !byte.is_ascii() => {
                let end = run(at, |byte| *byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii());
                tokens.push(Token::Name(&text[at..end]));
                at = end;
            }
            _ => {
                let len = PAIRS.iter().find(|pair| rest.starts_with(pair.as_bytes())).map_or(1, |pair| pair.len());
                tokens.push(Token::Op(&text[at..at + len]));
                at += len;
            }
        }
    }
    tokens
}

/// Length of what begins with a quote, with the closing one. None: there is none.
fn quoted(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '\\' { chars.next() } else { None }) {
            (_, Some('n')) => out.push('\n'),
            (_, Some('r')) => out.push('\r'),
            (_, Some('t')) => out.push('\t'),
            (_, Some(other)) => out.push(other),
            (plain, None) => out.push(plain),
        }
    }
    out
}

/// The place of the bracket that closes the one at `open`, or the end.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Op("(" | "[" | "{") => depth += 1,
            Token::Op(")" | "]" | "}") => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The database of `bucket: "database/policy"` as the only argument.
fn bucket(arguments: &[Token<'_>]) -> Option<String> {
    match arguments {
        [Token::Name("bucket"), Token::Op(":"), Token::Text(name)]
        | [Token::Name("bucket"), Token::Op(":"), Token::Text(name), Token::Op(",")] => {
            let db = name.split_once('/').map_or(&name[..], |(db, _)| db);
            (!db.is_empty()).then(|| db.to_owned())
        }
        _ => None,
    }
}

fn continues(tokens: &[Token<'_>], at: usize) -> bool {
    tokens.get(at) == Some(&Token::Op("|>"))
}

/// Follows `|> range(...) |> filter(...)` from `at` on. Returns the measurements to which a filter restricts the stream
/// (None: to no certain ones), and where the next step or another statement begins.
fn filtered<'a>(tokens: &[Token<'a>], mut at: usize) -> (Option<BTreeSet<String>>, usize) {
    let mut found: Option<BTreeSet<String>> = None;
    while let [Token::Op("|>"), Token::Name(step @ ("range" | "filter")), Token::Op("("), ..] =
        tokens.get(at..).unwrap_or_default()
    {
        let end = closing(tokens, at + 2);
        if *step == "filter" && found.is_none() {
            found = predicate(&tokens[at + 3..end]).and_then(measurements);
        }
        at = end + 1;
    }
    (found, at)
}

/// The expression of `fn: (r) => ...`, the first or only argument of a filter.
fn predicate<'t, 'a>(arguments: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let [
        Token::Name("fn"),
        Token::Op(":"),
        Token::Op("("),
        Token::Name("r"),
        Token::Op(")"),
        Token::Op("=>"),
        body @ ..,
    ] = arguments
    else {
        return None;
    };
    let mut depth = 0_usize;
    let end = body.iter().position(|token| {
        match token {
            Token::Op("(" | "[" | "{") => depth += 1,
            Token::Op(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::Op(",")
    });
    Some(&body[..end.unwrap_or(body.len())])
}

/// The measurements outside which an expression is false. None: there may be any.
fn measurements(expression: &[Token<'_>]) -> Option<BTreeSet<String>> {
    // `if ... then ... else` binds less than `or` does, and `not` turns the meaning round.
    if expression.iter().any(|token| matches!(token, Token::Name("if" | "not") | Token::Op("{" | "=>"))) {
        return None;
    }
    let mut at = 0;
    let found = alternatives(expression, &mut at, 0);
    found.filter(|_| at == expression.len())
}

/// `a or b or ...`
fn alternatives(tokens: &[Token<'_>], at: &mut usize, depth: usize) -> Option<BTreeSet<String>> {
    let mut all = conditions(tokens, at, depth);
    while tokens.get(*at) == Some(&Token::Name("or")) {
        *at += 1;
        let next = conditions(tokens, at, depth);
        all = all.zip(next).map(|(mut all, next)| {
            all.extend(next);
            all
        });
    }
    all
}

/// `a and b and ...`
fn conditions(tokens: &[Token<'_>], at: &mut usize, depth: usize) -> Option<BTreeSet<String>> {
    let mut first = condition(tokens, at, depth);
    while tokens.get(*at) == Some(&Token::Name("and")) {
        *at += 1;
        let next = condition(tokens, at, depth);
        first = first.or(next);
    }
    first
}

/// A comparison, or an expression in brackets. Anything else is passed over, up to where it must end.
fn condition(tokens: &[Token<'_>], at: &mut usize, depth: usize) -> Option<BTreeSet<String>> {
    let start = *at;
    let ends = |token: Option<&Token<'_>>| matches!(token, None | Some(Token::Name("and" | "or") | Token::Op(")")));
    if tokens.get(start) == Some(&Token::Op("(")) && depth < FLUX_DEPTH_MAX {
        let end = closing(tokens, start);
        if ends(tokens.get(end + 1)) && end < tokens.len() {
            let mut inner = 0;
            let body = &tokens[start + 1..end];
            let found = alternatives(body, &mut inner, depth + 1).filter(|_| inner == body.len());
            *at = end + 1;
            return found;
        }
    }
    while !ends(tokens.get(*at)) {
        *at = if matches!(tokens[*at], Token::Op("(" | "[" | "{")) { closing(tokens, *at) + 1 } else { *at + 1 };
    }
    *at = (*at).min(tokens.len());
    let (name, value) = match &tokens[start..*at] {
        [name @ .., Token::Op("=="), Token::Text(value)] => (name, value),
        [Token::Text(value), Token::Op("=="), name @ ..] => (name, value),
        _ => return None,
    };
    let is_measurement = match name {
        [Token::Name("r"), Token::Op("."), Token::Name("_measurement")] => true,
        [Token::Name("r"), Token::Op("["), Token::Text(name), Token::Op("]")] => name == "_measurement",
        _ => false,
    };
    is_measurement.then(|| BTreeSet::from([value.clone()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Result<Vec<String>, FluxUnknown> {
        match reach(text).reach {
            Ok(Reach::Places(places)) => {
                Ok(places.iter().map(|place| format!("{}.{}", place.db, place.measurement)).collect())
            }
            Ok(other) => panic!("{other:?}"),
            Err(unknown) => Err(unknown),
        }
    }

    #[test]
    fn the_places_that_a_query_names_are_found() {
        for (text, want) in [
            (r#"from(bucket:"db1") |> range(start:-1h) |> filter(fn:(r)=>r._measurement=="cpu1")"#, &["db1.cpu1"][..]),
            (r#"from(bucket: "d/rp") |> range(start: 0) |> filter(fn: (r) => r["_measurement"] == "m")"#, &["d.m"]),
            (
                r#"from(bucket:"d")|>range(start:0)|>filter(fn:(r)=>r.a=="b")|>filter(fn:(r)=>"m"==r._measurement)"#,
                &["d.m"],
            ),
            (
                r#"from(bucket:"d") |> filter(fn: (r) => (r._measurement == "a" or r._measurement == "b") and
                   (r._field == "x" or r._field =~ /y(\/|")/)) |> mean()"#,
                &["d.a", "d.b"],
            ),
            (
                r#"a = from(bucket:"d") |> filter(fn: (r) => r._measurement == "a")
                   b = from(bucket:"e") |> filter(fn: (r) => r._measurement == "b")
                   join(tables: {a: a, b: b}, on: ["_time"])"#,
                &["d.a", "e.b"],
            ),
            (
                r#"data = from(bucket:"d") |> range(start: -1h)
                   data |> filter(fn: (r) => r._measurement == "a") |> yield(name: "a")
                   data |> filter(fn: (r) => r._measurement == "b") |> yield(name: "b")"#,
                &["d.a", "d.b"],
            ),
            (
                "// from(bucket:\"x\")\nfrom(bucket:\"d\") |> filter(fn: (r) => r._measurement == \"a \\\"b\\\"\")",
                &["d.a \"b\""],
            ),
            (
                r#"from(bucket:"d") |> filter(fn: (r) => r._measurement == "m" and r._value / 2 > 1, onEmpty: "keep")"#,
                &["d.m"],
            ),
            (r#"from(bucket:"d") |> filter(fn: (r) => (r.a + r.b) > 2 and r._measurement == "温度")"#, &["d.温度"]),
        ] {
            assert_eq!(places(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_may_read_more_than_it_names_is_not_known() {
        use FluxUnknown::{Bucket, Measurement};
        let filter = |predicate: &str| format!(r#"from(bucket:"d") |> filter(fn: (r) => {predicate})"#);
        for (text, want) in [
            (String::new(), Bucket),
            ("buckets()".into(), Bucket),
            (r#"from(bucketID:"0") |> filter(fn:(r)=>r._measurement=="m")"#.into(), Bucket),
            (r#"b = "d" from(bucket: b) |> filter(fn:(r)=>r._measurement=="m")"#.into(), Bucket),
            (r#"from(bucket: "d${x}") |> filter(fn:(r)=>r._measurement=="m")"#.into(), Bucket),
            (filter("r._measurement == \"m\"") + r#" |> to(bucket: "e")"#, Bucket),
            (filter("r._measurement == \"m\"") + r#" f = from f(bucket: "e")"#, Bucket),
            (r#"import "influxdata/influxdb/schema" schema.measurements(bucket: "d")"#.into(), Bucket),
            (r#"from(bucket:"d") |> range(start:-1h)"#.into(), Measurement),
            (filter("r._measurement == \"m\" or r.host == \"a\""), Measurement),
            (filter("r._measurement != \"m\""), Measurement),
            (filter("r._measurement =~ /m/"), Measurement),
            (filter("not r._measurement == \"m\""), Measurement),
            (filter("if r.a then true else r.b and r._measurement == \"m\""), Measurement),
            (filter("r._field == \"_measurement\""), Measurement),
            (filter("r._measurement == \"m\" and contains(value: r.a, set: from(bucket: \"e\"))"), Measurement),
            (filter("r._measurement == \"a${b}\""), Bucket),
            (filter("r._measurement == \"m\" and r.a == \"${from(bucket: \"e\")}\""), Bucket),
            (filter("r._measurement == \"m\" == false"), Measurement),
            (filter("(r._measurement == \"m\") == false"), Measurement),
            (
                r#"from(bucket:"d") |> map(fn:(r)=>({r with _measurement: "m"}))
                   |> filter(fn:(r)=>r._measurement=="m")"#
                    .into(),
                Measurement,
            ),
            (filter("r._measurement == \"m\"") + r#" x = from(bucket:"d") |> range(start: 0)"#, Measurement),
            (r#"x = from(bucket:"d") x |> filter(fn:(r)=>r._measurement=="m") x |> count()"#.into(), Measurement),
            (r#"x = from(bucket:"d") |> count() x |> filter(fn:(r)=>r._measurement=="m")"#.into(), Measurement),
            ("from(bucket:\"d\") |> filter(fn: (r) => r._measurement == \"温".into(), Bucket),
        ] {
            assert_eq!(places(&text), Err(want), "{text}");
        }
        let deep = filter(&format!("{}r._measurement == \"m\"{}", "(".repeat(100_000), ")".repeat(100_000)));
        assert_eq!(places(&deep), Err(Measurement), "no deep recursion");
    }

    #[test]
    fn all_databases_are_known_unless_a_bucket_is_not() {
        let both = reach(r#"from(bucket:"a") |> range(start:0) from(bucket:"b/rp")"#);
        assert_eq!(both.dbs, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(both.reach, Err(FluxUnknown::Measurement));
    }
}
