//! InfluxQL statements as a tree: all that routing, merging and rewriting need, and enough to print each statement with
//! the same meaning.
//!
//! The language is that of InfluxDB 1.8 (1.6 parses the same). A tree has what was *written*, with bind parameters
//! replaced by their values. Defaults (the parameters `db` and `rp`, default policies) are not filled in.

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Select(Box<Select>),
    Explain {
        analyze: bool,
        select: Box<Select>,
    },
    ShowDatabases,
    /// `db`: the name after ON.
    ShowRetentionPolicies {
        db: Option<String>,
    },
    /// SHOW statements about the series of a database.
    Show(Box<Show>),
    /// Facts about one server process: its shards, counters, build. `module`: the name after FOR.
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
    /// A statement that this proxy does not support. `text` is the printed statement without passwords.
    Unsupported {
        what: Unsupported,
        text: String,
    },
}

/// A SELECT, also as a subquery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    pub fields: Vec<Field>,
    /// In a subquery it is parsed but has no effect.
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

/// `m`, `rp.m`, `db.rp.m` or `db..m`; the last part is a name or a regular expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    pub db: Option<String>,
    /// None with a `db`: `db..m`.
    pub rp: Option<String>,
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Name {
    Text(String),
    /// Go RE2 syntax, without the slashes; `\/` has become `/`.
    Regex(String),
    /// `:MEASUREMENT`, only as the target of INTO.
    Same,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A field, a tag or `time`. Several parts are `"a"."b"`, which InfluxDB reads as the name `a.b`.
    Variable {
        parts: Vec<String>,
        of: Option<DataType>,
    },
    Wildcard(Option<FieldOrTag>),
    Regex(String),
    String(String),
    Integer(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    /// With a point, as written: `1.5`, `.5`, `1.`.
    Number(String),
    /// In nanoseconds, from a literal with a unit.
    Duration(i64),
    Boolean(bool),
    /// Also `time(1m, 5s)` and `now()`. `name` is as written; the case of function names does not matter.
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
    /// Parentheses as written.
    Paren(Box<Expr>),
    /// A minus before an operand that is not a literal. The sign of a literal is part of the literal.
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

/// The type after `::`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    Float,
    Integer,
    Unsigned,
    String,
    Boolean,
    /// `::tag`.
    Tag,
    /// `::field`: a field of any type.
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

/// ORDER BY. Without a field (`ORDER BY DESC`) InfluxDB orders by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub descending: bool,
    /// `time` or None; InfluxDB has no other order.
    pub field: Option<String>,
}

/// `SHOW <what>` with its clauses. Clauses that this kind does not have are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Show {
    pub what: ShowKind,
    /// ON name.
    pub db: Option<String>,
    /// FROM: measurements only, by name or regular expression.
    pub sources: Vec<Source>,
    /// WITH MEASUREMENT = name, or =~ regex.
    pub with_measurement: Option<Name>,
    /// WITH KEY, for TAG VALUES and its cardinality.
    pub with_key: Option<WithKey>,
    pub condition: Option<Expr>,
    /// GROUP BY, for cardinalities.
    pub dimensions: Vec<Expr>,
    pub order: Option<Order>,
    pub limit: Option<u64>,
    pub offset: Option<u64>,
    pub slimit: Option<u64>,
    pub soffset: Option<u64>,
}

impl Show {
    /// A SHOW without clauses.
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

/// WITH of CREATE DATABASE: settings of its first policy. Durations are in nanoseconds, 0 = INF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseOptions {
    pub duration: Option<i64>,
    pub replication: Option<u64>,
    pub shard_duration: Option<i64>,
    pub name: Option<String>,
}

/// CREATE and ALTER RETENTION POLICY. CREATE has all clauses that it requires. Durations as above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    pub name: String,
    pub db: String,
    pub duration: Option<i64>,
    pub replication: Option<u64>,
    pub shard_duration: Option<i64>,
    pub default: bool,
}

/// Statements about one server's own users, queries and schedules.
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
