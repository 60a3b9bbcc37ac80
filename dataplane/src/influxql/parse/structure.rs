//! Parses changes of databases and policies and the removal of data: CREATE, ALTER, DROP, DELETE.

use super::{ErrorKind, Parser, Result, error, expected};
use crate::influxql::ast::{DatabaseOptions, Expr, RetentionPolicy, Source, Statement};
use crate::influxql::lex::{Kind, Word};

impl Parser<'_> {
    /// What follows CREATE.
    pub(super) fn create(&mut self) -> Result<Statement> {
        let token = self.next();
        match token.kind {
            Kind::Key(Word::Database) => self.create_database(),
            Kind::Key(Word::Retention) => self.create_policy(),
            Kind::Key(Word::Continuous) => self.create_continuous_query(),
            Kind::Key(Word::User) => self.create_user(),
            Kind::Key(Word::Subscription) => self.create_subscription(),
            _ => Err(expected(&token, "CONTINUOUS, DATABASE, USER, RETENTION, SUBSCRIPTION")),
        }
    }

    fn create_database(&mut self) -> Result<Statement> {
        let name = self.name()?;
        if !self.accept_key(Word::With) {
            return Ok(Statement::CreateDatabase { name, options: None });
        }
        let mut options = DatabaseOptions::default();
        if self.accept_key(Word::Duration) {
            options.duration = Some(self.duration_or_inf()?);
        }
        if self.accept_key(Word::Replication) {
            options.replication = Some(self.replication()?);
        }
        if self.accept_key(Word::Shard) {
            self.expect_key(Word::Duration, "DURATION")?;
            options.shard_duration = Some(self.duration_or_inf()?);
        }
        if self.accept_key(Word::Name) {
            options.name = Some(self.name()?);
        }
        if options == DatabaseOptions::default() {
            return Err(expected(&self.next(), "DURATION, NAME, REPLICATION, SHARD"));
        }
        Ok(Statement::CreateDatabase { name, options: Some(options) })
    }

    fn create_policy(&mut self) -> Result<Statement> {
        self.expect_key(Word::Policy, "POLICY")?;
        let name = self.name()?;
        self.expect_key(Word::On, "ON")?;
        let db = self.name()?;
        self.expect_key(Word::Duration, "DURATION")?;
        let duration = Some(self.duration_or_inf()?);
        self.expect_key(Word::Replication, "REPLICATION")?;
        let replication = Some(self.replication()?);
        let shard_duration = if self.accept_key(Word::Shard) { Some(self.shard_duration()?) } else { None };
        let default = self.accept_key(Word::Default);
        let policy = RetentionPolicy { name, db, duration, replication, shard_duration, default };
        Ok(Statement::CreateRetentionPolicy(policy))
    }

    /// What follows ALTER.
    pub(super) fn alter(&mut self) -> Result<Statement> {
        self.expect_key(Word::Retention, "RETENTION")?;
        self.expect_key(Word::Policy, "POLICY")?;
        // The only place where a keyword can be a name.
        let name = if self.accept_key(Word::Default) { "default".into() } else { self.name()? };
        self.expect_key(Word::On, "ON")?;
        let db = self.name()?;
        let mut policy =
            RetentionPolicy { name, db, duration: None, replication: None, shard_duration: None, default: false };
        let mut options = 0;
        loop {
            let token = self.next();
            let Kind::Key(key) = token.kind else {
                self.put_back();
                break;
            };
            let repeated = match key {
                Word::Duration => policy.duration.replace(self.duration_or_inf()?).is_some(),
                Word::Replication => policy.replication.replace(self.replication()?).is_some(),
                Word::Shard => policy.shard_duration.replace(self.shard_duration()?).is_some(),
                Word::Default => std::mem::replace(&mut policy.default, true),
                _ => {
                    self.put_back();
                    break;
                }
            };
            if repeated {
                return Err(error(token.at, ErrorKind::Refused("found duplicate option")));
            }
            options += 1;
        }
        if options == 0 {
            return Err(expected(&self.next(), "DURATION, REPLICATION, SHARD, DEFAULT"));
        }
        Ok(Statement::AlterRetentionPolicy(policy))
    }

    /// What follows SHARD. INF is not allowed for policies.
    fn shard_duration(&mut self) -> Result<i64> {
        self.expect_key(Word::Duration, "DURATION")?;
        self.duration()
    }

    /// What follows DROP.
    pub(super) fn drop(&mut self) -> Result<Statement> {
        let token = self.next();
        match token.kind {
            Kind::Key(Word::Database) => Ok(Statement::DropDatabase { name: self.name()? }),
            Kind::Key(Word::Measurement) => Ok(Statement::DropMeasurement { name: self.name()? }),
            Kind::Key(Word::Series) => {
                let (sources, condition) = self.removed()?;
                Ok(Statement::DropSeries { sources, condition })
            }
            Kind::Key(Word::Retention) => {
                self.expect_key(Word::Policy, "POLICY")?;
                let name = self.name()?;
                self.expect_key(Word::On, "ON")?;
                Ok(Statement::DropRetentionPolicy { name, db: self.name()? })
            }
            Kind::Key(Word::Continuous) => self.drop_continuous_query(),
            Kind::Key(Word::Shard) => self.drop_shard(),
            Kind::Key(Word::Subscription) => self.drop_subscription(),
            Kind::Key(Word::User) => self.drop_user(),
            _ => {
                let what = "CONTINUOUS, DATABASE, MEASUREMENT, RETENTION, SERIES, SHARD, SUBSCRIPTION, USER";
                Err(expected(&token, what))
            }
        }
    }

    /// What follows DELETE.
    pub(super) fn delete(&mut self) -> Result<Statement> {
        let (sources, condition) = self.removed()?;
        Ok(Statement::Delete { sources, condition })
    }

    /// `[FROM ...] [WHERE ...]`, at least one of them.
    fn removed(&mut self) -> Result<(Vec<Source>, Option<Expr>)> {
        let token = self.next();
        let mut sources = Vec::new();
        if token.kind == Kind::Key(Word::From) {
            sources = self.sources(false)?;
            let placed = |source: &Source| match source {
                Source::Measurement(measurement) => measurement.db.is_some() || measurement.rp.is_some(),
                Source::Subquery(_) => true,
            };
            if sources.iter().any(placed) {
                return Err(error(token.at, ErrorKind::Refused("database and retention policy not supported")));
            }
        } else {
            self.put_back();
        }
        let condition = self.condition()?;
        if sources.is_empty() && condition.is_none() {
            return Err(expected(&token, "FROM, WHERE"));
        }
        Ok((sources, condition))
    }
}
