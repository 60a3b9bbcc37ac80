//! Parses a text into a tree, and finds the line of a key in the text.
//!
//! All three parsers are driven through serde, and serde's errors carry the place where they arose. So the line of a
//! key is found by reading the text once more with a visitor that follows the path and gives up exactly there: one
//! finder for three formats, used only when there is something to report.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    Json,
    Toml,
    Yaml,
}

impl FileFormat {
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Self::Toml,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Toml => "TOML",
            Self::Yaml => "YAML",
        }
    }
}

/// One step down the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyStep {
    Key(String),
    Item(usize),
}

/// A path as an operator reads it, e.g. `circles[0].backends[1].url`.
pub(super) fn path_text(path: &[KeyStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            KeyStep::Key(key) if text.is_empty() => text.push_str(key),
            KeyStep::Key(key) => text.extend([".", key]),
            KeyStep::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Why a text cannot be parsed.
#[derive(Debug)]
pub(super) struct ParseError {
    pub line: Option<usize>,
    pub what: String,
}

/// Parses a whole document. The paths are those of keys that are there twice: in JSON the last one counts, as for
/// influx-proxy; in YAML and TOML it is an error, as for influx-proxy.
pub(super) fn parse(text: &str, format: FileFormat) -> Result<(Value, Vec<Vec<KeyStep>>), ParseError> {
    let repeated = Repeated { allowed: format == FileFormat::Json, ..Repeated::default() };
    let tree = drive(text, format, Tree { repeated: &repeated });
    let twice = repeated.twice.into_inner();
    tree.map(|tree| (tree, twice)).map_err(|(line, message)| {
        let what = match repeated.refused.take() {
            Some(key) => format!("{key} is there twice"),
            None => format!("this is not {}: {message}", format.name()),
        };
        ParseError { line, what }
    })
}

/// The line (from 1) of the last step of `path`: that of a key (in any case), of a value in a list, or of the first key
/// of a table in a list (in TOML, of its header). None for the whole document or a path that is not there.
pub(super) fn line_of(text: &str, format: FileFormat, path: &[KeyStep]) -> Option<usize> {
    if path.is_empty() {
        return None;
    }
    drive(text, format, Find(path)).err().and_then(|(line, _)| line)
}

/// Feeds the text to `seed`. An error is its line and the parser's words, without any excerpt of the text.
fn drive<'de, S: DeserializeSeed<'de>>(
    text: &'de str,
    format: FileFormat,
    seed: S,
) -> Result<S::Value, (Option<usize>, String)> {
    match format {
        FileFormat::Json => {
            let mut json = serde_json::Deserializer::from_str(text);
            let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
            value.map_err(|e| (Some(e.line()), e.to_string()))
        }
        FileFormat::Toml => {
            let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
            let value = toml::Deserializer::parse(text).and_then(|toml| seed.deserialize(toml));
            value.map_err(|e| (e.span().map(|span| line(span.start)), e.message().to_owned()))
        }
        FileFormat::Yaml => {
            let value = seed.deserialize(serde_yaml_ng::Deserializer::from_str(text));
            value.map_err(|e| (e.location().map(|place| place.line()), e.to_string()))
        }
    }
}

/// Keys that are there more than once.
#[derive(Default)]
struct Repeated {
    /// They are listed in `twice`, and the last one counts. Otherwise the first of them ends the parse.
    allowed: bool,
    /// Where the parser is.
    path: RefCell<Vec<KeyStep>>,
    twice: RefCell<Vec<Vec<KeyStep>>>,
    refused: RefCell<Option<String>>,
}

/// Builds the tree.
#[derive(Clone, Copy)]
struct Tree<'a> {
    repeated: &'a Repeated,
}

impl Tree<'_> {
    /// Reads what lies one step further down.
    fn below<T>(self, step: KeyStep, read: impl FnOnce(Self) -> T) -> T {
        self.repeated.path.borrow_mut().push(step);
        let value = read(self);
        self.repeated.path.borrow_mut().pop();
        value
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, a list, text, a number, true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = self.below(KeyStep::Item(list.len()), |tree| items.next_element_seed(tree))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(NewKey { map: &map, repeated: self.repeated })? {
            let value = self.below(KeyStep::Key(key.clone()), |tree| entries.next_value_seed(tree))?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key, and whether it is in `map` already. Where that is an error it fails inside the key, so that the error has the
/// key's line.
struct NewKey<'a> {
    map: &'a Map<String, Value>,
    repeated: &'a Repeated,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if self.map.contains_key(key) {
            if !self.repeated.allowed {
                self.repeated.refused.replace(Some(key.to_owned()));
                return Err(E::custom("twice"));
            }
            let mut path = self.repeated.path.borrow().clone();
            path.push(KeyStep::Key(key.to_owned()));
            self.repeated.twice.borrow_mut().push(path);
        }
        Ok(key.to_owned())
    }
}

/// Follows a path and fails at its end; a path that is not there is read through without an error.
struct Find<'a>(&'a [KeyStep]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a key")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((KeyStep::Item(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*wanted {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Find(rest))?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((KeyStep::Key(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        while let Some(found) = entries.next_key_seed(WantedKey { wanted, last: rest.is_empty() })? {
            if found {
                entries.next_value_seed(Find(rest))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Tells whether a key is the one wanted; fails inside it when it is the end of the path.
struct WantedKey<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for WantedKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for WantedKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match key.eq_ignore_ascii_case(self.wanted) {
            true if self.last => Err(E::custom("here")),
            found => Ok(found),
        }
    }
}
