//! Retention policies: their settings, and the statements that create or change one.
//!
//! Not here: which policies a backend has (`catalog`) and should have (`event_loop/create`, `migration/policies`).

use fluxgate_dataplane::influxql::print;

use crate::influx::client::{CallFailure, Client};
use crate::limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// As InfluxDB prints it, `168h0m0s`; `0s` = for ever.
    pub duration: String,
    pub shard_duration: String,
    pub default: bool,
}

/// True when points for `rp` (empty = the default) have their policy.
pub fn has(policies: &[Policy], rp: &str) -> bool {
    policies.iter().any(|policy| if rp.is_empty() { policy.default } else { policy.name == rp })
}

/// The statements that give a backend `rp` of `model`, from `there` (None = it lacks the database). A new database gets
/// all policies of the model; an existing one gets only the missing policy.
pub fn statements(there: Option<&[Policy]>, model: &[Policy], db: &str, rp: &str) -> Vec<String> {
    let Some(there) = there else {
        let (defaults, rest): (Vec<&Policy>, Vec<&Policy>) = model.iter().partition(|policy| policy.default);
        let database = match defaults.first() {
            Some(policy) => format!(
                "CREATE DATABASE {} WITH {} NAME {}",
                print::name(db),
                settings(policy),
                print::name(&policy.name)
            ),
            // Without a default policy in the model, the new database keeps the server's own.
            None => format!("CREATE DATABASE {}", print::name(db)),
        };
        return std::iter::once(database).chain(rest.into_iter().map(|policy| create_policy(policy, db))).collect();
    };
    let wanted = model.iter().find(|policy| if rp.is_empty() { policy.default } else { policy.name == rp });
    let Some(wanted) = wanted else { return Vec::new() };
    if there.iter().any(|policy| policy.name == wanted.name) {
        return vec![format!("ALTER RETENTION POLICY {} ON {} DEFAULT", print::name(&wanted.name), print::name(db))];
    }
    vec![create_policy(wanted, db)]
}

/// The statement that creates `policy` in `db`.
pub fn create_policy(policy: &Policy, db: &str) -> String {
    let default = if policy.default { " DEFAULT" } else { "" };
    let (name, db) = (print::name(&policy.name), print::name(db));
    format!("CREATE RETENTION POLICY {name} ON {db} {}{default}", settings(policy))
}

/// InfluxDB accepts durations in the form in which it prints them; 0s = for ever.
pub fn settings(policy: &Policy) -> String {
    format!("DURATION {} REPLICATION 1 SHARD DURATION {}", policy.duration, policy.shard_duration)
}

/// Runs one statement that creates or changes something.
///
/// # Errors
/// Also for the statement's own error.
pub fn run(target: &Client, statement: &str) -> Result<(), CallFailure> {
    target.statement_in("", statement, limits::CREATE_TIMEOUT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, duration: &str, default: bool) -> Policy {
        Policy { name: name.into(), duration: duration.into(), shard_duration: "24h0m0s".into(), default }
    }

    #[test]
    fn only_what_is_missing_is_created() {
        let model = [policy("autogen", "0s", true), policy("two weeks", "336h0m0s", false)];
        let other = [policy("other", "1h0m0s", false)];
        let demoted = [policy("autogen", "0s", false)];
        let create_other = concat!(
            r#"CREATE RETENTION POLICY "two weeks" ON "d" "#,
            "DURATION 336h0m0s REPLICATION 1 SHARD DURATION 24h0m0s"
        );
        let create_default = concat!(
            r#"CREATE RETENTION POLICY "autogen" ON "d" "#,
            "DURATION 0s REPLICATION 1 SHARD DURATION 24h0m0s DEFAULT"
        );
        let create_database =
            r#"CREATE DATABASE "d" WITH DURATION 0s REPLICATION 1 SHARD DURATION 24h0m0s NAME "autogen""#;
        for (there, rp, want) in [
            (None, "", vec![create_database, create_other]),
            (Some(&other[..]), "two weeks", vec![create_other]),
            (Some(&other[..]), "", vec![create_default]),
            (Some(&demoted[..]), "", vec![r#"ALTER RETENTION POLICY "autogen" ON "d" DEFAULT"#]),
        ] {
            assert_eq!(statements(there, &model, "d", rp), want, "{there:?} {rp:?}");
        }
        assert_eq!(statements(None, &other, "d", "other")[0], r#"CREATE DATABASE "d""#);
    }
}
