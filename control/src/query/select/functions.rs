//! What type a mathematical function has, asked of a backend: it differs between versions of InfluxDB.
//!
//! `SELECT x + true FROM (SELECT ln("a"::integer) AS x ...)` over a measurement that does not exist is refused with the
//! type of `x`, before InfluxDB looks for data.

use std::cell::RefCell;

use fluxgate_dataplane::influxql::ast::{DataType, Select};
use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::routing::reach::leaves;
use fluxgate_dataplane::topology::BackendId;

use super::TryEnd;
use super::shares::ABSENT_MEASUREMENT;
use super::types::Type;
use crate::query::context::{Context, Times};

/// Asks one backend, as long as it answers.
pub struct Asker<'a> {
    context: &'a Context<'a>,
    backend: BackendId,
    /// The measurement that does not exist, in the database and policy of one that is read.
    source: String,
    failed: RefCell<Option<TryEnd>>,
}

impl<'a> Asker<'a> {
    pub fn new(context: &'a Context<'a>, backend: BackendId, select: &Select) -> Self {
        let absent = print::name(ABSENT_MEASUREMENT).to_string();
        let quoted =
            |name: &Option<String>| name.as_ref().map(|name| print::name(name).to_string()).unwrap_or_default();
        let source = match leaves(select).first() {
            Some(m) if m.db.is_some() => format!("{}.{}.{absent}", quoted(&m.db), quoted(&m.rp)),
            _ => absent,
        };
        Self { context, backend, source, failed: RefCell::default() }
    }

    /// The type of a function for arguments of these types. None: it takes none of these, or nobody has answered.
    pub fn of(&self, function: &str, types: &[DataType]) -> Type {
        let args: Vec<_> = types.iter().filter_map(|of| Some(format!("\"a\"::{}", name(*of)?))).collect();
        if args.len() < types.len() || self.failed.borrow().is_some() {
            return None;
        }
        let call = format!("{function}({})", args.join(", "));
        let key = (self.backend, call);
        if let Some(known) = self.context.shared.function_types.get(&key) {
            return known;
        }
        let text = format!("SELECT x + true FROM (SELECT {} AS x FROM {})", key.1, self.source);
        let of = match self.context.ask(self.backend, &text, Times::Nanoseconds) {
            Ok(Ok(answer)) => answer.error.as_deref().and_then(told),
            Ok(Err(unanswered)) => {
                self.failed.replace(Some(unanswered.into()));
                return None;
            }
            Err(stop) => {
                self.failed.replace(Some(stop.into()));
                return None;
            }
        };
        self.context.shared.function_types.put(key, of);
        of
    }

    /// # Errors
    /// Why a question was not answered.
    pub fn end(self) -> Result<(), TryEnd> {
        self.failed.into_inner().map_or(Ok(()), Err)
    }
}

const NAMES: [(&str, DataType); 5] = [
    ("float", DataType::Float),
    ("integer", DataType::Integer),
    ("unsigned", DataType::Unsigned),
    ("string", DataType::String),
    ("boolean", DataType::Boolean),
];

fn name(of: DataType) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == of).map(|(name, _)| *name)
}

/// The type of `x` in `type error: x::float + true: incompatible types: float and boolean`.
fn told(error: &str) -> Type {
    let (_, types) = error.strip_prefix("type error: x")?.split_once("incompatible types: ")?;
    let (of, _) = types.split_once(" and ")?;
    NAMES.iter().find(|(name, _)| *name == of).map(|(_, known)| *known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::servers;

    #[test]
    fn recorded_types_of_servers_are_read() {
        for recorded in servers("type") {
            let of = told(recorded["text"].as_str().unwrap());
            assert_eq!(of.map(|of| of.to_string()).as_deref(), recorded["type"].as_str(), "{recorded}");
        }
    }

    #[test]
    fn the_type_is_read_from_the_error() {
        let told = |rest: &str| told(&format!("type error: x::{rest}"));
        assert_eq!(told("integer + true: incompatible types: integer and boolean"), Some(DataType::Integer));
        assert_eq!(told("float + true: incompatible types: float and boolean"), Some(DataType::Float));
        assert_eq!(super::told("undefined function foo()"), None);
    }
}
