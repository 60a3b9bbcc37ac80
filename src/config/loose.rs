//! What influx-proxy takes although it is not what it asks for: keys in any case, quoted numbers, a text for a list.
//!
//! influx-proxy 2.5 converts such values; 2.4 reads keys in any case and takes the last of two equal keys. Both
//! conversions are done here, on the tree, and each one is a warning: so a file starts that has always started, and the
//! file says what to write instead. A warning never repeats a value. What influx-proxy does not take either is left for
//! `file::check`, which words the error.

use serde_json::{Map, Value};

use super::document::{FileFormat, KeyStep, path_text};
use super::file::{File, KeyDoc, Kind, found, wanted};
use super::problem::{Problem, problem};

/// Makes `tree` what it is taken for, and tells of each change.
///
/// # Errors
/// When a key is there twice, in different case and with different values: the two versions take different ones.
pub(super) fn accept(tree: &mut Value, twice: &[Vec<KeyStep>], format: FileFormat) -> Result<Vec<Problem>, Problem> {
    let again = |path: &Vec<KeyStep>| {
        let what = format!("{} is there twice; the last one counts, as for influx-proxy", path_text(path));
        problem(path.clone(), what)
    };
    let mut loose = Loose { path: Vec::new(), warnings: twice.iter().map(again).collect(), format };
    if let Value::Object(map) = tree {
        loose.table(map, File::KEYS)?;
    }
    Ok(loose.warnings)
}

struct Loose {
    /// The value that is looked at.
    path: Vec<KeyStep>,
    warnings: Vec<Problem>,
    format: FileFormat,
}

impl Loose {
    fn warn(&mut self, what: String) {
        self.warnings.push(problem(self.path.clone(), format!("{} {what}", path_text(&self.path))));
    }

    fn table(&mut self, map: &mut Map<String, Value>, keys: &'static [KeyDoc]) -> Result<(), Problem> {
        self.names(map, keys)?;
        for (name, value) in map {
            let Some(known) = keys.iter().find(|known| known.name == name) else { continue };
            self.below(KeyStep::Key(name.clone()), |loose| loose.value(value, known.kind))?;
        }
        Ok(())
    }

    fn below<T>(&mut self, step: KeyStep, look: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = look(self);
        self.path.pop();
        result
    }

    /// Writes known keys in lower case.
    fn names(&mut self, map: &mut Map<String, Value>, keys: &[KeyDoc]) -> Result<(), Problem> {
        let known = |name: &str| keys.iter().find(|known| known.name.eq_ignore_ascii_case(name));
        if map.keys().all(|name| known(name).is_none_or(|known| known.name == name)) {
            return Ok(());
        }
        for (name, value) in std::mem::take(map) {
            let plain = known(&name).map_or(&name[..], |known| known.name);
            if plain != name {
                self.below(KeyStep::Key(name.clone()), |loose| {
                    loose.warn(format!("is taken as {plain}: influx-proxy reads keys in any case"))
                });
            }
            if map.insert(plain.to_owned(), value.clone()).is_some_and(|other| other != value) {
                self.path.push(KeyStep::Key(plain.to_owned()));
                let name = path_text(&self.path);
                let what = format!("{name} is there twice, in upper and lower case, with two values; remove one");
                return Err(problem(self.path.clone(), what));
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Value, kind: Kind) -> Result<(), Problem> {
        match (kind, &mut *value) {
            (_, Value::Null) => return Ok(()),
            (Kind::Table(keys), Value::Object(map)) => return self.table(map, keys),
            (Kind::Tables(keys), Value::Array(items)) => return self.each(items, Kind::Table(keys)),
            (Kind::Texts, Value::Array(items)) => return self.each(items, Kind::Text),
            (Kind::Texts, Value::String(names)) => {
                let list: Vec<_> = names.split(',').filter(|_| !names.is_empty()).map(Value::from).collect();
                self.warn(format!("is text; it is split at its commas, as by influx-proxy 2.5, into {}", list.len()));
                *value = Value::Array(list);
                return Ok(());
            }
            (Kind::Tables(_), Value::Object(_)) | (Kind::Texts, Value::Number(_) | Value::Bool(_)) => {
                self.warn("is no list; it is taken as a list of one, as by influx-proxy 2.5".to_owned());
                *value = Value::Array(vec![value.take()]);
                return self.value(value, kind);
            }
            _ => {}
        }
        let taken = match kind {
            Kind::Text => as_text(value, self.format),
            Kind::Whole => as_whole(value),
            Kind::Flag => as_flag(value),
            Kind::Table(_) => value.as_array().is_some_and(Vec::is_empty).then(|| Value::Object(Map::new())),
            _ => None,
        };
        if let Some(taken) = taken {
            // The number of a version, in fluxgate's own key, is as good as its text.
            if self.path != [KeyStep::Key("influx_proxy".to_owned())] {
                self.warn(format!("is {}; it is taken as {}, as by influx-proxy 2.5", found(value), wanted(kind)));
            }
            *value = taken;
        }
        Ok(())
    }

    fn each(&mut self, items: &mut [Value], kind: Kind) -> Result<(), Problem> {
        for (index, item) in items.iter_mut().enumerate() {
            self.below(KeyStep::Item(index), |loose| {
                // It stays: a `db_list` without it could be empty, and allow all.
                if let (Kind::Text, Value::Null) = (kind, &*item) {
                    *item = Value::String(String::new());
                }
                loose.value(item, kind)
            })?;
        }
        Ok(())
    }
}

/// Numbers in JSON are floating-point numbers for influx-proxy.
fn as_text(value: &Value, format: FileFormat) -> Option<Value> {
    match value {
        Value::Bool(flag) => Some(if *flag { "1" } else { "0" }.into()),
        Value::Number(number) if format == FileFormat::Json => Some(number.as_f64()?.to_string().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// Text in decimal only: what begins with 0 is octal for influx-proxy, which nobody means.
fn as_whole(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(flag) => Some(i64::from(*flag).into()),
        // Its fraction is dropped.
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().filter(|number| number.abs() < 1e15)?;
            Some((number as i64).into())
        }
        Value::String(text) if text.is_empty() => Some(0.into()),
        Value::String(text) => {
            let digits = text.trim_start_matches(['-', '+']);
            let number = text.parse::<i64>().ok().filter(|_| digits == "0" || !digits.starts_with('0'))?;
            Some(number.into())
        }
        _ => None,
    }
}

fn as_flag(value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) => Some((number.as_f64()? != 0.0).into()),
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true.into()),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false.into()),
            _ => None,
        },
        _ => None,
    }
}
