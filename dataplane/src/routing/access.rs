//! Checks whether statements are allowed: `db_list` must cover every database they name, and what this proxy cannot do
//! is refused with a hint. One refused statement refuses the whole request before any has run.

use std::collections::BTreeSet;

use crate::influxql::ast::{Select, Source, Statement, Unsupported};
use crate::routing::reach::leaves;

/// Why a query is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

impl Refusal {
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

/// Checks all statements of a request. `default_db` is the parameter `db`, empty if there is none. `allowed` says
/// whether a database may be used.
///
/// # Errors
/// 400: influx-proxy's text, and for an unsupported statement a hint what to do instead.
pub fn check(statements: &[Statement], default_db: &str, allowed: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    for statement in statements {
        if let Statement::Unsupported { what, .. } = statement {
            return Err(Refusal::new(400, format!("query forbidden: {}", why(*what))));
        }
    }
    // Sorted, so that the same request always names the same database.
    match databases(statements, default_db).into_iter().find(|db| !allowed(db)) {
        Some(db) => Err(Refusal::new(400, format!("database forbidden: {db}"))),
        None => Ok(()),
    }
}

/// All databases that statements name, also where InfluxDB ignores them, and the one they need not name.
pub fn databases<'a>(statements: impl IntoIterator<Item = &'a Statement>, default_db: &'a str) -> BTreeSet<&'a str> {
    let named = statements.into_iter().flat_map(named_by).chain([default_db]);
    named.filter(|db| !db.is_empty()).collect()
}

fn named_by(statement: &Statement) -> Vec<&str> {
    match statement {
        Statement::Select(select) | Statement::Explain { select, .. } => of_select(select),
        Statement::ShowRetentionPolicies { db } => db.iter().map(String::as_str).collect(),
        Statement::Show(show) => {
            let sources = of_sources(&show.sources);
            show.db.iter().map(String::as_str).chain(sources).collect()
        }
        Statement::CreateDatabase { name, .. } | Statement::DropDatabase { name } => vec![name],
        Statement::CreateRetentionPolicy(policy) | Statement::AlterRetentionPolicy(policy) => vec![&policy.db],
        Statement::DropRetentionPolicy { db, .. } => vec![db],
        Statement::Delete { sources, .. } | Statement::DropSeries { sources, .. } => of_sources(sources),
        Statement::ShowDatabases
        | Statement::ShowServer { .. }
        | Statement::ShowContinuousQueries
        | Statement::ShowSubscriptions
        | Statement::DropMeasurement { .. }
        | Statement::Unsupported { .. } => Vec::new(),
    }
}

fn of_select(select: &Select) -> Vec<&str> {
    let target = select.into.as_ref();
    leaves(select).into_iter().chain(target).filter_map(|measurement| measurement.db.as_deref()).collect()
}

fn of_sources(sources: &[Source]) -> Vec<&str> {
    let mut named = Vec::new();
    for source in sources {
        match source {
            Source::Measurement(measurement) => named.extend(measurement.db.as_deref()),
            Source::Subquery(select) => named.extend(of_select(select)),
        }
    }
    named
}

fn why(what: Unsupported) -> &'static str {
    match what {
        Unsupported::CreateUser => "CREATE USER: users belong to each server; create them at every backend",
        Unsupported::DropUser => "DROP USER: users belong to each server; drop them at every backend",
        Unsupported::SetPassword => "SET PASSWORD: passwords belong to each server; set them at every backend",
        Unsupported::Grant => "GRANT: rights belong to each server; grant them at every backend",
        Unsupported::Revoke => "REVOKE: rights belong to each server; revoke them at every backend",
        Unsupported::ShowUsers => "SHOW USERS: users belong to each server; ask the backends",
        Unsupported::ShowGrants => "SHOW GRANTS: rights belong to each server; ask the backends",
        Unsupported::CreateContinuousQuery => {
            "CREATE CONTINUOUS QUERY: it would write to one server only; \
             run SELECT INTO through the proxy on a schedule"
        }
        Unsupported::DropContinuousQuery => {
            "DROP CONTINUOUS QUERY: continuous queries belong to each server; drop them at the backends"
        }
        Unsupported::CreateSubscription => {
            "CREATE SUBSCRIPTION: it would see one server's part of the data; create it at every backend of one circle"
        }
        Unsupported::DropSubscription => {
            "DROP SUBSCRIPTION: subscriptions belong to each server; drop them at the backends"
        }
        Unsupported::KillQuery => {
            "KILL QUERY: query ids belong to each server; kill it at the backend, or close the client's connection"
        }
        Unsupported::DropShard => "DROP SHARD: shard ids belong to each server; drop them at the backends",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influxql::ast::{DatabaseOptions, Measurement, Name, RetentionPolicy, Show, ShowKind};

    fn from(db: Option<&str>) -> Source {
        Source::Measurement(measurement(db))
    }

    fn measurement(db: Option<&str>) -> Measurement {
        Measurement { db: db.map(Into::into), rp: None, name: Name::Text("m".into()) }
    }

    fn select(sources: Vec<Source>, into: Option<Measurement>) -> Select {
        Select { sources, into, ..Select::default() }
    }

    fn show(db: Option<&str>, sources: Vec<Source>) -> Statement {
        let db = db.map(Into::into);
        Statement::Show(Box::new(Show { db, sources, ..Show::new(ShowKind::TagKeys) }))
    }

    fn policy(db: &str) -> RetentionPolicy {
        let (name, db) = ("p".into(), db.into());
        RetentionPolicy { name, db, duration: None, replication: None, shard_duration: None, default: false }
    }

    #[test]
    fn every_database_a_statement_names_is_checked() {
        let nested = select(vec![Source::Subquery(Box::new(select(vec![from(Some("no"))], None)))], None);
        let no = || "no".to_owned();
        for statement in [
            Statement::Select(Box::new(select(vec![from(None), from(Some("no"))], None))),
            Statement::Select(Box::new(nested.clone())),
            Statement::Select(Box::new(select(vec![from(None)], Some(measurement(Some("no")))))),
            Statement::Explain { analyze: false, select: Box::new(nested) },
            Statement::ShowRetentionPolicies { db: Some(no()) },
            show(Some("no"), Vec::new()),
            show(None, vec![from(Some("no"))]),
            Statement::CreateDatabase { name: no(), options: Some(DatabaseOptions::default()) },
            Statement::DropDatabase { name: no() },
            Statement::CreateRetentionPolicy(policy("no")),
            Statement::AlterRetentionPolicy(policy("no")),
            Statement::DropRetentionPolicy { name: "p".into(), db: no() },
            Statement::Delete { sources: vec![from(Some("no"))], condition: None },
        ] {
            let allowed = |db: &str| db != "no";
            let refusal = check(&[Statement::ShowDatabases, statement.clone()], "yes", allowed).unwrap_err();
            assert_eq!((refusal.status, &refusal.text[..]), (400, "database forbidden: no"), "{statement:?}");
            assert_eq!(check(std::slice::from_ref(&statement), "yes", |_| true), Ok(()), "{statement:?}");
        }
        assert!(check(&[Statement::ShowDatabases], "no", |db| db == "yes").is_err(), "the default database");
        assert_eq!(check(&[Statement::ShowDatabases], "", |_| false), Ok(()));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_the_others_and_says_why() {
        let unsupported = Statement::Unsupported { what: Unsupported::SetPassword, text: "SET PASSWORD".into() };
        let refusal = check(&[Statement::ShowDatabases, unsupported], "", |_| true).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(refusal.text.starts_with("query forbidden: SET PASSWORD: "), "{}", refusal.text);
    }
}
