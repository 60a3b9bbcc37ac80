//! Prints a tree as text that InfluxDB reads with the same meaning.
//!
//! Names are always quoted, except those of functions. Parentheses are added where a tree that was not parsed lacks
//! them. A tree that no text can express (a regular expression where none is allowed, an empty list of fields) never
//! comes from the parser; it prints as text that InfluxDB refuses. Carriage returns and NUL in values are printed as
//! they are: [`super::unbind`] makes parameters of these.

use std::fmt::{self, Display, Formatter, Write as _};

use super::ast::*;
use super::duration;
use super::lex::{is_name_byte, is_name_start, keyword};
use super::parse::precedence;

/// `text` as a quoted name.
pub fn name(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quote(&mut quoted, text, '"').expect("a string takes all");
    quoted
}

/// `text` as a quoted string.
pub fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quote(&mut quoted, text, '\'').expect("a string takes all");
    quoted
}

fn quote(out: &mut dyn fmt::Write, text: &str, quote: char) -> fmt::Result {
    out.write_char(quote)?;
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\\', quote]) {
        out.write_str(&rest[..at])?;
        out.write_str(match rest.as_bytes()[at] {
            b'\n' => "\\n",
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\'",
        })?;
        rest = &rest[at + 1..];
    }
    out.write_str(rest)?;
    out.write_char(quote)
}

/// A quoted name.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        quote(f, self.0, '"')
    }
}

struct QuotedString<'a>(&'a str);

impl Display for QuotedString<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        quote(f, self.0, '\'')
    }
}

/// A regular expression between slashes; slashes inside are escaped.
struct Slashed<'a>(&'a str);

impl Display for Slashed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('/')?;
        for (index, part) in self.0.split('/').enumerate() {
            f.write_str(if index > 0 { "\\/" } else { "" })?;
            f.write_str(part)?;
        }
        f.write_char('/')
    }
}

/// Items separated by commas.
struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            item.fmt(f)?;
        }
        Ok(())
    }
}

/// ` WORD value`, or nothing.
fn clause(f: &mut Formatter<'_>, word: &str, value: Option<impl Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {word} {value}"),
        None => Ok(()),
    }
}

fn list_clause<T: Display>(f: &mut Formatter<'_>, word: &str, items: &[T]) -> fmt::Result {
    clause(f, word, (!items.is_empty()).then_some(List(items)))
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(select) => select.fmt(f),
            Self::Explain { analyze, select } => {
                write!(f, "EXPLAIN {}{select}", if *analyze { "ANALYZE " } else { "" })
            }
            Self::ShowDatabases => f.write_str("SHOW DATABASES"),
            Self::ShowRetentionPolicies { db } => {
                f.write_str("SHOW RETENTION POLICIES")?;
                clause(f, "ON", db.as_deref().map(Quoted))
            }
            Self::Show(show) => show.fmt(f),
            Self::ShowServer { what, module } => {
                f.write_str(match what {
                    ServerFact::Shards => "SHOW SHARDS",
                    ServerFact::ShardGroups => "SHOW SHARD GROUPS",
                    ServerFact::Stats => "SHOW STATS",
                    ServerFact::Diagnostics => "SHOW DIAGNOSTICS",
                    ServerFact::Queries => "SHOW QUERIES",
                })?;
                clause(f, "FOR", module.as_deref().map(QuotedString))
            }
            Self::ShowContinuousQueries => f.write_str("SHOW CONTINUOUS QUERIES"),
            Self::ShowSubscriptions => f.write_str("SHOW SUBSCRIPTIONS"),
            Self::CreateDatabase { name, options } => {
                write!(f, "CREATE DATABASE {}", Quoted(name))?;
                options.as_ref().map_or(Ok(()), |options| write!(f, " WITH{options}"))
            }
            Self::DropDatabase { name } => write!(f, "DROP DATABASE {}", Quoted(name)),
            Self::CreateRetentionPolicy(policy) => write!(f, "CREATE {policy}"),
            Self::AlterRetentionPolicy(policy) => write!(f, "ALTER {policy}"),
            Self::DropRetentionPolicy { name, db } => {
                write!(f, "DROP RETENTION POLICY {} ON {}", Quoted(name), Quoted(db))
            }
            Self::Delete { sources, condition } => {
                f.write_str("DELETE")?;
                list_clause(f, "FROM", sources)?;
                clause(f, "WHERE", condition.as_ref())
            }
            Self::DropSeries { sources, condition } => {
                f.write_str("DROP SERIES")?;
                list_clause(f, "FROM", sources)?;
                clause(f, "WHERE", condition.as_ref())
            }
            Self::DropMeasurement { name } => write!(f, "DROP MEASUREMENT {}", Quoted(name)),
            Self::Unsupported { text, .. } => f.write_str(text),
        }
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT {}", List(&self.fields))?;
        clause(f, "INTO", self.into.as_ref())?;
        list_clause(f, "FROM", &self.sources)?;
        clause(f, "WHERE", self.condition.as_ref())?;
        list_clause(f, "GROUP BY", &self.dimensions)?;
        self.fill.as_ref().map_or(Ok(()), |fill| write!(f, " fill({fill})"))?;
        clause(f, "ORDER BY", self.order.as_ref())?;
        clause(f, "LIMIT", self.limit)?;
        clause(f, "OFFSET", self.offset)?;
        clause(f, "SLIMIT", self.slimit)?;
        clause(f, "SOFFSET", self.soffset)?;
        self.tz.as_deref().map_or(Ok(()), |tz| write!(f, " tz({})", QuotedString(tz)))
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)?;
        clause(f, "AS", self.alias.as_deref().map(Quoted))
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measurement(measurement) => measurement.fmt(f),
            Self::Subquery(select) => write!(f, "({select})"),
        }
    }
}

impl Display for Measurement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(db) = &self.db {
            write!(f, "{}.", Quoted(db))?;
        }
        if let Some(rp) = &self.rp {
            Quoted(rp).fmt(f)?;
        }
        if self.db.is_some() || self.rp.is_some() {
            f.write_char('.')?;
        }
        match &self.name {
            // `:MEASUREMENT` requires a point before it; an empty name means the same.
            Name::Same if self.db.is_none() && self.rp.is_none() => f.write_str("\"\""),
            name => name.fmt(f),
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Regex(pattern) => Slashed(pattern).fmt(f),
            Self::Same => f.write_str(":MEASUREMENT"),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { parts, of } => {
                for (index, part) in parts.iter().enumerate() {
                    f.write_str(if index > 0 { "." } else { "" })?;
                    Quoted(part).fmt(f)?;
                }
                of.map_or(Ok(()), |of| write!(f, "::{of}"))
            }
            Self::Wildcard(None) => f.write_char('*'),
            Self::Wildcard(Some(FieldOrTag::Field)) => f.write_str("*::field"),
            Self::Wildcard(Some(FieldOrTag::Tag)) => f.write_str("*::tag"),
            Self::Regex(pattern) => Slashed(pattern).fmt(f),
            Self::String(text) => QuotedString(text).fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Number(text) => f.write_str(text),
            Self::Duration(nanoseconds) => duration::Text(*nanoseconds).fmt(f),
            Self::Boolean(value) => value.fmt(f),
            // The keyword DISTINCT may be used as a function; its name is then in lower case.
            Self::Call { name, args } if name == "distinct" => write!(f, "distinct({})", List(args)),
            Self::Call { name, args } => call(f, name, args),
            Self::Distinct(name) => write!(f, "DISTINCT {}", Quoted(name)),
            Self::Binary { op, left, right } => {
                operand(f, left, |own| own >= precedence(*op))?;
                write!(f, " {op} ")?;
                operand(f, right, |own| own > precedence(*op))
            }
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Negative(inner) => match &**inner {
                // No keyword may follow a sign.
                Self::Call { name, args } => {
                    f.write_char('-')?;
                    call(f, name, args)
                }
                Self::Variable { .. } | Self::Paren(_) => write!(f, "-{inner}"),
                _ => write!(f, "-({inner})"),
            },
        }
    }
}

/// One side of an operator, in parentheses unless its own operator binds tightly enough.
fn operand(f: &mut Formatter<'_>, side: &Expr, binds: impl Fn(u8) -> bool) -> fmt::Result {
    match side {
        Expr::Binary { op, .. } if !binds(precedence(*op)) => write!(f, "({side})"),
        _ => side.fmt(f),
    }
}

/// A call. The name is quoted only if necessary.
fn call(f: &mut Formatter<'_>, name: &str, args: &[Expr]) -> fmt::Result {
    let bytes = name.as_bytes();
    let word = bytes.first().is_some_and(|&byte| is_name_start(byte)) && bytes.iter().all(|&byte| is_name_byte(byte));
    if word && keyword(name).is_none() { f.write_str(name) } else { Quoted(name).fmt(f) }?;
    write!(f, "({})", List(args))
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::BitAnd => "&",
            Self::BitOr => "|",
            Self::BitXor => "^",
            Self::And => "AND",
            Self::Or => "OR",
            Self::Eq => "=",
            Self::NotEq => "!=",
            Self::EqRegex => "=~",
            Self::NotEqRegex => "!~",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
        })
    }
}

impl Display for DataType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Tag => "tag",
            Self::AnyField => "field",
        })
    }
}

impl Display for Fill {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::None => "none",
            Self::Previous => "previous",
            Self::Linear => "linear",
            Self::Value(text) => text,
        })
    }
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{} ", Quoted(field))?;
        }
        f.write_str(if self.descending { "DESC" } else { "ASC" })
    }
}

impl Display for Show {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SHOW {}", self.what)?;
        clause(f, "ON", self.db.as_deref().map(Quoted))?;
        list_clause(f, "FROM", &self.sources)?;
        match &self.with_measurement {
            Some(name @ Name::Regex(_)) => write!(f, " WITH MEASUREMENT =~ {name}")?,
            Some(name) => write!(f, " WITH MEASUREMENT = {name}")?,
            None => {}
        }
        clause(f, "WITH KEY", self.with_key.as_ref())?;
        clause(f, "WHERE", self.condition.as_ref())?;
        list_clause(f, "GROUP BY", &self.dimensions)?;
        clause(f, "ORDER BY", self.order.as_ref())?;
        clause(f, "LIMIT", self.limit)?;
        clause(f, "OFFSET", self.offset)?;
        clause(f, "SLIMIT", self.slimit)?;
        clause(f, "SOFFSET", self.soffset)
    }
}

impl Display for ShowKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (what, exact) = match *self {
            Self::Measurements => return f.write_str("MEASUREMENTS"),
            Self::Series => return f.write_str("SERIES"),
            Self::TagKeys => return f.write_str("TAG KEYS"),
            Self::TagValues => return f.write_str("TAG VALUES"),
            Self::FieldKeys => return f.write_str("FIELD KEYS"),
            Self::SeriesCardinality { exact } => ("SERIES", exact),
            Self::MeasurementCardinality { exact } => ("MEASUREMENT", exact),
            Self::TagKeyCardinality { exact } => ("TAG KEY", exact),
            Self::TagValuesCardinality { exact } => ("TAG VALUES", exact),
            Self::FieldKeyCardinality { exact } => ("FIELD KEY", exact),
        };
        write!(f, "{what}{} CARDINALITY", if exact { " EXACT" } else { "" })
    }
}

impl Display for WithKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eq(key) => write!(f, "= {}", Quoted(key)),
            Self::NotEq(key) => write!(f, "!= {}", Quoted(key)),
            Self::EqRegex(pattern) => write!(f, "=~ {}", Slashed(pattern)),
            Self::NotEqRegex(pattern) => write!(f, "!~ {}", Slashed(pattern)),
            Self::In(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| Quoted(key)).collect();
                write!(f, "IN ({})", List(&keys))
            }
        }
    }
}

/// The duration of a policy in nanoseconds.
struct PolicyDuration(i64);

impl Display for PolicyDuration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("INF") } else { duration::Text(self.0).fmt(f) }
    }
}

impl Display for DatabaseOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        clause(f, "DURATION", self.duration.map(PolicyDuration))?;
        clause(f, "REPLICATION", self.replication)?;
        clause(f, "SHARD DURATION", self.shard_duration.map(PolicyDuration))?;
        clause(f, "NAME", self.name.as_deref().map(Quoted))
    }
}

impl Display for RetentionPolicy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "RETENTION POLICY {} ON {}", Quoted(&self.name), Quoted(&self.db))?;
        clause(f, "DURATION", self.duration.map(PolicyDuration))?;
        clause(f, "REPLICATION", self.replication)?;
        // A shard duration of INF is an error; 0 means the same.
        clause(f, "SHARD DURATION", self.shard_duration.map(duration::Text))?;
        f.write_str(if self.default { " DEFAULT" } else { "" })
    }
}
