//! Bind parameters: turns the JSON object `params` of a request into tokens for `$name`.
//!
//! A string, number or boolean becomes such a literal. An object with one key names the kind of token:
//! `{"identifier":"cpu"}`. A number with a point is a float, any other an int64. A value that cannot be bound is an
//! error only where it is used, as in InfluxDB. A value is always a single token; its text is never lexed.
//!
//! InfluxDB's error texts come from Go's JSON reader. For invalid JSON only the common ones are reproduced.

use std::collections::HashMap;
use std::fmt;

use serde_json::value::RawValue;

use super::duration;
use super::lex::{Kind, Word};

/// The values of a request; `default()` has none.
#[derive(Clone, Debug, Default)]
pub struct Params {
    values: HashMap<String, Value>,
}

/// Why `params` cannot be read: the full text of InfluxDB's answer 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamsError(String);

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParamsError {}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A token and its text.
    Token(Kind, String),
    /// A value of a kind that cannot be bound.
    Unfit,
}

impl Params {
    /// Reads the first JSON value of `json` and ignores what follows, as InfluxDB does. `null` means no parameters.
    pub fn from_json(json: &str) -> Result<Self, ParamsError> {
        let first = serde_json::Deserializer::from_str(json).into_iter::<&RawValue>().next();
        let raw = match first {
            None => return Err(syntax("EOF")),
            Some(Err(e)) if e.is_eof() => return Err(syntax("unexpected EOF")),
            Some(Err(e)) => return Err(syntax(e)),
            Some(Ok(raw)) => raw.get(),
        };
        let what = match raw.as_bytes().first() {
            Some(b'{') => None,
            Some(b'n') => return Ok(Self::default()),
            Some(b'[') => Some("array"),
            Some(b'"') => Some("string"),
            Some(b't' | b'f') => Some("bool"),
            _ => Some("number"),
        };
        if let Some(what) = what {
            return Err(syntax(format!(
                "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            )));
        }
        let object: HashMap<String, &RawValue> = serde_json::from_str(raw).map_err(syntax)?;
        let mut values = HashMap::with_capacity(object.len());
        for (name, raw) in object {
            values.insert(name, bind(raw.get())?);
        }
        Ok(Self { values })
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }
}

fn bind(json: &str) -> Result<Value, ParamsError> {
    Ok(match json.as_bytes().first() {
        Some(b'"') => Value::Token(Kind::String, string(json)?),
        Some(b't') => Value::Token(Kind::Key(Word::True), String::new()),
        Some(b'f') => Value::Token(Kind::Key(Word::False), String::new()),
        Some(b'-' | b'0'..=b'9') => match number(json) {
            Ok(number) => number.token(),
            Err((function, reason)) => {
                let text = format!("error parsing json value: strconv.{function}: parsing \"{json}\": {reason}");
                return Err(ParamsError(text));
            }
        },
        Some(b'{') => object(json)?,
        _ => Value::Unfit,
    })
}

/// Reads `{"kind": value}`.
fn object(json: &str) -> Result<Value, ParamsError> {
    let object: HashMap<String, &RawValue> = serde_json::from_str(json).map_err(syntax)?;
    let mut members = object.iter();
    let (Some((kind, value)), None) = (members.next(), members.next()) else { return Ok(Value::Unfit) };
    let value = value.get();
    let is_text = value.starts_with('"');
    Ok(match kind.as_str() {
        "ident" | "identifier" if is_text => Value::Token(Kind::Name, string(value)?),
        "regex" if is_text => Value::Token(Kind::Regex, string(value)?),
        "string" if is_text => Value::Token(Kind::String, string(value)?),
        "duration" if is_text => Value::Token(Kind::Duration, string(value)?),
        "int" | "integer" | "float" | "number" | "duration" => match (kind.as_str(), number(value)) {
            ("int" | "integer", Ok(number @ Number::Integer(_))) => number.token(),
            ("float" | "number", Ok(Number::Integer(value))) => Number::Float(value as f64).token(),
            ("float" | "number", Ok(number @ Number::Float(_))) => number.token(),
            ("duration", Ok(Number::Integer(value))) => Value::Token(Kind::Duration, duration::Text(value).to_string()),
            _ => Value::Unfit,
        },
        _ => Value::Unfit,
    })
}

/// Half of a surrogate pair is an error here. Go's reader replaces it.
fn string(json: &str) -> Result<String, ParamsError> {
    serde_json::from_str(json).map_err(syntax)
}

fn syntax(error: impl fmt::Display) -> ParamsError {
    ParamsError(format!("error parsing query parameters: {error}"))
}

#[derive(Clone, Copy)]
enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    fn token(self) -> Value {
        match self {
            Self::Integer(value) => Value::Token(Kind::Integer, value.to_string()),
            Self::Float(value) => {
                // The text of such a token has a point.
                let text = value.to_string();
                let point = if text.contains('.') { "" } else { "." };
                Value::Token(Kind::Number, text + point)
            }
        }
    }
}

/// Parses a number. Without a point it must be an integer, and an integer has no exponent. An error is Go's function
/// and its reason.
fn number(json: &str) -> Result<Number, (&'static str, &'static str)> {
    const RANGE: &str = "value out of range";
    if json.contains('.') {
        let value = json.parse().ok().filter(|value: &f64| value.is_finite());
        return value.map(Number::Float).ok_or(("ParseFloat", RANGE));
    }
    let digits = json.strip_prefix('-').unwrap_or(json).bytes().all(|byte| byte.is_ascii_digit());
    let reason = if digits { RANGE } else { "invalid syntax" };
    json.parse().map(Number::Integer).map_err(|_| ("ParseInt", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        let params = Params::from_json(&format!("{{\"p\": {json} }}")).unwrap();
        params.value("p").unwrap().clone()
    }

    #[test]
    fn values_become_tokens() {
        for (json, kind, text) in [
            ("\"a'\\n\"", Kind::String, "a'\n"),
            ("1", Kind::Integer, "1"),
            ("-0", Kind::Integer, "0"),
            ("-9223372036854775808", Kind::Integer, "-9223372036854775808"),
            ("1.5", Kind::Number, "1.5"),
            ("1.0", Kind::Number, "1."),
            ("1.5e3", Kind::Number, "1500."),
            ("-1.5e-7", Kind::Number, "-0.00000015"),
            ("true", Kind::Key(Word::True), ""),
            ("false", Kind::Key(Word::False), ""),
            ("{\"identifier\":\"a b\"}", Kind::Name, "a b"),
            ("{\"ident\":\"select\"}", Kind::Name, "select"),
            ("{\"regex\":\"a/b\"}", Kind::Regex, "a/b"),
            ("{\"string\":\"\"}", Kind::String, ""),
            ("{\"int\":-1}", Kind::Integer, "-1"),
            ("{\"float\":1}", Kind::Number, "1."),
            ("{\"number\":2.5}", Kind::Number, "2.5"),
            ("{\"duration\":\"1h30m\"}", Kind::Duration, "1h30m"),
            ("{\"duration\":60000000000}", Kind::Duration, "1m"),
            ("{\"duration\":-1}", Kind::Duration, "-1ns"),
        ] {
            assert_eq!(value(json), Value::Token(kind, text.into()), "{json}");
        }
    }

    #[test]
    fn what_cannot_be_bound_is_an_error_where_it_is_used() {
        for json in [
            "null",
            "[1]",
            "{}",
            "{\"string\":\"a\",\"int\":1}",
            "{\"string\":1}",
            "{\"int\":1.5}",
            "{\"int\":\"1\"}",
            "{\"float\":1e3}",
            "{\"float\":99999999999999999999}",
            "{\"duration\":1.5}",
            "{\"nosuch\":1}",
            "{\"Regex\":\"a\"}",
        ] {
            assert_eq!(value(json), Value::Unfit, "{json}");
        }
    }

    #[test]
    fn no_parameters_are_none() {
        for json in ["null", "{}", " {} trailing"] {
            assert!(Params::from_json(json).unwrap().is_empty(), "{json}");
        }
    }

    #[test]
    fn unreadable_parameters_get_influxdbs_texts() {
        let go = "Go value of type map[string]interface {}";
        for (json, text) in [
            ("{", "error parsing query parameters: unexpected EOF".into()),
            ("{\"p\":1", "error parsing query parameters: unexpected EOF".into()),
            ("  ", "error parsing query parameters: EOF".into()),
            ("[1]", format!("error parsing query parameters: json: cannot unmarshal array into {go}")),
            ("\"a\"", format!("error parsing query parameters: json: cannot unmarshal string into {go}")),
            ("1", format!("error parsing query parameters: json: cannot unmarshal number into {go}")),
            ("true", format!("error parsing query parameters: json: cannot unmarshal bool into {go}")),
            ("{\"n\":1E2}", "error parsing json value: strconv.ParseInt: parsing \"1E2\": invalid syntax".into()),
            (
                "{\"n\":1.0e999}",
                "error parsing json value: strconv.ParseFloat: parsing \"1.0e999\": value out of range".into(),
            ),
        ] {
            assert_eq!(Params::from_json(json).unwrap_err().to_string(), text, "{json}");
        }
        assert!(Params::from_json("{\"p\":\"\\ud800\"}").is_err());
        assert!(Params::from_json("{p:1}").is_err());
    }
}
