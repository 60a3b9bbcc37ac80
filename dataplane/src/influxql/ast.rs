//! InfluxQL statements as a tree: what routing, merging and rewriting need to know, and enough to write each statement
//! again with the same meaning.
//!
//! The language is that of InfluxDB 1.8 (1.6 reads the same). A tree holds what was *written*, with bind parameters
//! already in their places: defaults (`db` and `rp` parameters, default policies) are not filled in here.

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Select(Box<Select>),
    Explain {
        analyze: bool,
        select: Box<Select>,
    },
    ShowDatabases,
    /// `db` is what ON names.
    ShowRetentionPolicies {
        db: Option<String>,
    },
    /// The SHOWs about a database's series.
    Show(Box<Show>),
    /// What describes one server process: its shards, counters, build. `module` is what FOR names.
    ShowServer {
        what: ServerFact,
        module: Option<String>,
    },
    ShowContinuousQueries,
    ShowSubscriptions,
    CreateDatabase {
        name: String,
        options: Option<DatabaseOptions>,
    },
    DropDatabase {
        name: String,
    },
    CreateRetentionPolicy(RetentionPolicy),
    AlterRetentionPolicy(RetentionPolicy),
    DropRetentionPolicy {
        name: String,
        db: String,
    },
    Delete {
        sources: Vec<Source>,
        condition: Option<Expr>,
    },
    DropSeries {
        sources: Vec<Source>,
        condition: Option<Expr>,
    },
    DropMeasurement {
        name: String,
    },
    /// What a proxy over several servers does not do; `text` is the statement as it would be printed, passwords left
    /// out.
    Unsupported {
        what: Unsupported,
        text: String,
    },
}

/// SELECT, also as a subquery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    pub fields: Vec<Field>,
    /// In a subquery it is read and without effect.
    pub into: Option<Measurement>,
    pub sources: Vec<Source>,
    pub condition: Option<Expr>,
    /// GROUP BY: variables, `*`, regular expressions, `time(...)`.
    pub dimensions: Vec<Expr>,
    pub fill: Option<Fill>,
    pub order: Option<Order>,
    /// None and 0 both mean no limit.
    pub limit: Option<u64>,
    pub offset: Option<u64>,
    pub slimit: Option<u64>,
    pub soffset: Option<u64>,
    /// The name in `tz('...')`.
    pub tz: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub expr: Expr,
    pub alias: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Measurement(Measurement),
    Subquery(Box<Select>),
}

/// `m`, `rp.m`, `db.rp.m`, `db..m`, with a name or a regular expression last.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    pub db: Option<String>,
    /// None with a `db` is `db..m`.
    pub rp: Option<String>,
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Name {
    Text(String),
    /// Go RE2 syntax, without the slashes and with `\/` already `/`.
    Regex(String),
    /// `:MEASUREMENT`, only as the target of INTO.
    Same,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A field, a tag, `time`. More than one part is `"a"."b"`, which InfluxDB reads as the name `a.b`.
    Variable {
        parts: Vec<String>,
        of: Option<DataType>,
    },
    Wildcard(Option<FieldOrTag>),
    Regex(String),
    String(String),
    Integer(i64),
    /// Beyond `i64::MAX`.
    Unsigned(u64),
    /// With a point, as written: `1.5`, `.5`, `1.`.
    Number(String),
    /// Nanoseconds, of a literal with a unit.
    Duration(i64),
    Boolean(bool),
    /// `args` also of `time(1m, 5s)`, `now()`; `name` as written, function names are of any case.
    Call {
        name: String,
        args: Vec<Expr>,
    },
    /// `DISTINCT usage`, without parentheses.
    Distinct(String),
    Binary {
        op: Op,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// The parentheses are kept.
    Paren(Box<Expr>),
    /// A sign before something that is no literal; of a literal the sign is part of it.
    Negative(Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    And,
    Or,
    Eq,
    NotEq,
    EqRegex,
    NotEqRegex,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

/// What `::` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    Float,
    Integer,
    Unsigned,
    String,
    Boolean,
    /// `::tag`.
    Tag,
    /// `::field`: a field of whatever type.
    AnyField,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOrTag {
    Field,
    Tag,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    Null,
    None,
    Previous,
    Linear,
    /// A number as written, with its sign.
    Value(String),
}

/// ORDER BY. Without a field (`ORDER BY DESC`) InfluxDB means time too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub descending: bool,
    /// `time` or nothing; InfluxDB knows no other order.
    pub field: Option<String>,
}

/// `SHOW <what>`, with whatever clauses the kind knows; the others are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    pub what: ShowKind,
    /// ON.
    pub db: Option<String>,
    /// FROM. Only measurements, names or regular expressions.
    pub sources: Vec<Source>,
    /// WITH MEASUREMENT = name or =~ regex.
    pub with_measurement: Option<Name>,
    /// WITH KEY, of TAG VALUES and its cardinality.
    pub with_key: Option<WithKey>,
    pub condition: Option<Expr>,
    /// GROUP BY, of the cardinalities.
    pub dimensions: Vec<Expr>,
    pub order: Option<Order>,
    pub limit: Option<u64>,
    pub offset: Option<u64>,
    pub slimit: Option<u64>,
    pub soffset: Option<u64>,
}

impl Show {
    /// Without any clause.
    pub fn new(what: ShowKind) -> Self {
        Self {
            what,
            db: None,
            sources: Vec::new(),
            with_measurement: None,
            with_key: None,
            condition: None,
            dimensions: Vec::new(),
            order: None,
            limit: None,
            offset: None,
            slimit: None,
            soffset: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShowKind {
    Measurements,
    Series,
    TagKeys,
    TagValues,
    FieldKeys,
    SeriesCardinality { exact: bool },
    MeasurementCardinality { exact: bool },
    TagKeyCardinality { exact: bool },
    TagValuesCardinality { exact: bool },
    FieldKeyCardinality { exact: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub enum WithKey {
    Eq(String),
    NotEq(String),
    EqRegex(String),
    NotEqRegex(String),
    In(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerFact {
    Shards,
    ShardGroups,
    Stats,
    Diagnostics,
    Queries,
}

/// WITH of CREATE DATABASE: settings of its first policy. Durations in nanoseconds, 0 = INF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseOptions {
    pub duration: Option<i64>,
    pub replication: Option<u64>,
    pub shard_duration: Option<i64>,
    pub name: Option<String>,
}

/// CREATE and ALTER RETENTION POLICY; what CREATE demands is there. Durations as above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    pub name: String,
    pub db: String,
    pub duration: Option<i64>,
    pub replication: Option<u64>,
    pub shard_duration: Option<i64>,
    pub default: bool,
}

/// Statements that act on, or tell about, one server's own users, queries and schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsupported {
    CreateUser,
    DropUser,
    SetPassword,
    Grant,
    Revoke,
    ShowUsers,
    ShowGrants,
    CreateContinuousQuery,
    DropContinuousQuery,
    CreateSubscription,
    DropSubscription,
    KillQuery,
    DropShard,
}
