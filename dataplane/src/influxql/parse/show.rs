//! Parses all SHOW statements.

use super::{Parser, Result, expected};
use crate::influxql::ast::{Op, ServerFact, Show, ShowKind, Statement, Unsupported, WithKey};
use crate::influxql::lex::{Kind, Word};
use crate::influxql::print::name;

impl Parser<'_> {
    /// What follows SHOW.
    pub(super) fn show(&mut self) -> Result<Statement> {
        let token = self.next();
        let Kind::Key(key) = token.kind else { return Err(expected(&token, SHOWN)) };
        match key {
            Word::Databases => Ok(Statement::ShowDatabases),
            Word::Measurements => self.show_measurements(),
            Word::Measurement => {
                let exact = self.cardinality()?;
                self.show_cardinality(ShowKind::MeasurementCardinality { exact })
            }
            Word::Series => self.show_series(),
            Word::Tag => self.show_tag(),
            Word::Field => self.show_field(),
            Word::Retention => {
                self.expect_key(Word::Policies, "POLICIES")?;
                Ok(Statement::ShowRetentionPolicies { db: self.on()? })
            }
            Word::Continuous => {
                self.expect_key(Word::Queries, "QUERIES")?;
                Ok(Statement::ShowContinuousQueries)
            }
            Word::Subscriptions => Ok(Statement::ShowSubscriptions),
            Word::Shard => {
                self.expect_key(Word::Groups, "GROUPS")?;
                Ok(server(ServerFact::ShardGroups, None))
            }
            Word::Shards => Ok(server(ServerFact::Shards, None)),
            Word::Queries => Ok(server(ServerFact::Queries, None)),
            Word::Stats => Ok(server(ServerFact::Stats, self.module()?)),
            Word::Diagnostics => Ok(server(ServerFact::Diagnostics, self.module()?)),
            Word::Users => Ok(Statement::Unsupported { what: Unsupported::ShowUsers, text: "SHOW USERS".into() }),
            Word::Grants => {
                self.expect_key(Word::For, "FOR")?;
                let text = format!("SHOW GRANTS FOR {}", name(&self.name()?));
                Ok(Statement::Unsupported { what: Unsupported::ShowGrants, text })
            }
            _ => Err(expected(&token, SHOWN)),
        }
    }

    fn show_measurements(&mut self) -> Result<Statement> {
        let mut show = Show::new(ShowKind::Measurements);
        show.db = self.on()?;
        if self.accept_key(Word::With) {
            self.expect_key(Word::Measurement, "MEASUREMENT")?;
            let token = self.next();
            // The next token decides between name and regular expression, whatever the operator is.
            match token.kind {
                Kind::Op(Op::Eq | Op::EqRegex) => show.with_measurement = Some(self.name_or_regex()?),
                _ => return Err(expected(&token, "=, =~")),
            }
        }
        self.show_tail(&mut show)?;
        Ok(Statement::Show(Box::new(show)))
    }

    fn show_series(&mut self) -> Result<Statement> {
        let exact = self.accept_key(Word::Exact);
        if self.accept_key(Word::Cardinality) {
            return self.show_cardinality(ShowKind::SeriesCardinality { exact });
        }
        // InfluxDB ignores an EXACT without CARDINALITY.
        let mut show = Show::new(ShowKind::Series);
        show.db = self.on()?;
        self.from(&mut show)?;
        self.show_tail(&mut show)?;
        Ok(Statement::Show(Box::new(show)))
    }

    fn show_tag(&mut self) -> Result<Statement> {
        let token = self.next();
        match token.kind {
            Kind::Key(Word::Key) => {
                let exact = self.cardinality()?;
                self.show_cardinality(ShowKind::TagKeyCardinality { exact })
            }
            Kind::Key(Word::Keys) => {
                let mut show = Show::new(ShowKind::TagKeys);
                show.db = self.on()?;
                self.from(&mut show)?;
                self.show_tail(&mut show)?;
                show.slimit = self.count(Word::Slimit)?;
                show.soffset = self.count(Word::Soffset)?;
                Ok(Statement::Show(Box::new(show)))
            }
            Kind::Key(Word::Values) => {
                let exact = self.accept_key(Word::Exact);
                if exact {
                    self.expect_key(Word::Cardinality, "CARDINALITY")?;
                }
                if exact || self.accept_key(Word::Cardinality) {
                    return self.show_cardinality(ShowKind::TagValuesCardinality { exact });
                }
                let mut show = Show::new(ShowKind::TagValues);
                show.db = self.on()?;
                self.from(&mut show)?;
                show.with_key = Some(self.with_key()?);
                self.show_tail(&mut show)?;
                Ok(Statement::Show(Box::new(show)))
            }
            _ => Err(expected(&token, "KEY, KEYS, VALUES")),
        }
    }

    fn show_field(&mut self) -> Result<Statement> {
        let token = self.next();
        match token.kind {
            Kind::Key(Word::Key) => {
                let exact = self.cardinality()?;
                self.show_cardinality(ShowKind::FieldKeyCardinality { exact })
            }
            Kind::Key(Word::Keys) => {
                let mut show = Show::new(ShowKind::FieldKeys);
                show.db = self.on()?;
                self.from(&mut show)?;
                show.order = self.order()?;
                show.limit = self.count(Word::Limit)?;
                show.offset = self.count(Word::Offset)?;
                Ok(Statement::Show(Box::new(show)))
            }
            _ => Err(expected(&token, "KEY, KEYS")),
        }
    }

    /// `[EXACT] CARDINALITY`. Returns whether EXACT is there.
    fn cardinality(&mut self) -> Result<bool> {
        let exact = self.accept_key(Word::Exact);
        self.expect_key(Word::Cardinality, "EXACT, CARDINALITY")?;
        Ok(exact)
    }

    /// What follows CARDINALITY.
    fn show_cardinality(&mut self, what: ShowKind) -> Result<Statement> {
        let mut show = Show::new(what);
        show.db = self.on()?;
        self.from(&mut show)?;
        if matches!(what, ShowKind::TagValuesCardinality { .. }) {
            show.with_key = Some(self.with_key()?);
        }
        show.condition = self.condition()?;
        show.dimensions = self.dimensions()?;
        show.limit = self.count(Word::Limit)?;
        show.offset = self.count(Word::Offset)?;
        Ok(Statement::Show(Box::new(show)))
    }

    fn from(&mut self, show: &mut Show) -> Result<()> {
        if self.accept_key(Word::From) {
            show.sources = self.sources(false)?;
        }
        Ok(())
    }

    fn show_tail(&mut self, show: &mut Show) -> Result<()> {
        show.condition = self.condition()?;
        show.order = self.order()?;
        show.limit = self.count(Word::Limit)?;
        show.offset = self.count(Word::Offset)?;
        Ok(())
    }

    /// `WITH KEY ...`.
    fn with_key(&mut self) -> Result<WithKey> {
        self.expect_key(Word::With, "WITH")?;
        self.expect_key(Word::Key, "KEY")?;
        let token = self.next();
        match token.kind {
            Kind::Key(Word::In) => {
                self.expect(Kind::Open, "(")?;
                let keys = self.names()?;
                self.expect(Kind::Close, ")")?;
                Ok(WithKey::In(keys))
            }
            Kind::Op(Op::Eq) => Ok(WithKey::Eq(self.name()?)),
            Kind::Op(Op::NotEq) => Ok(WithKey::NotEq(self.name()?)),
            Kind::Op(op @ (Op::EqRegex | Op::NotEqRegex)) => match self.regex()? {
                Some(regex) if op == Op::EqRegex => Ok(WithKey::EqRegex(regex)),
                Some(regex) => Ok(WithKey::NotEqRegex(regex)),
                None => Err(expected(&self.next(), "regex")),
            },
            _ => Err(expected(&token, "IN, =, =~")),
        }
    }

    /// `[ON name]`.
    fn on(&mut self) -> Result<Option<String>> {
        // An empty name counts as none.
        if self.accept_key(Word::On) { Ok(super::non_empty(self.name()?)) } else { Ok(None) }
    }

    /// `[FOR 'name']`.
    fn module(&mut self) -> Result<Option<String>> {
        if self.accept_key(Word::For) { Ok(super::non_empty(self.string()?)) } else { Ok(None) }
    }
}

const SHOWN: &str = "CONTINUOUS, DATABASES, DIAGNOSTICS, FIELD, GRANTS, MEASUREMENT, MEASUREMENTS, QUERIES, RETENTION, \
                     SERIES, SHARD, SHARDS, STATS, SUBSCRIPTIONS, TAG, USERS";

fn server(what: ServerFact, module: Option<String>) -> Statement {
    Statement::ShowServer { what, module }
}
