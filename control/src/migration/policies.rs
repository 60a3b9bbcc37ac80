//! Gives the target the source's database and all its policies: duration, shard duration, and which one is the default.
//!
//! Policies that only the target has stay: dropping one would drop its points.

use super::side::CopySide;
use crate::influx::catalog;
use crate::influx::client::CallFailure;
use crate::influx::policy::{self, Policy, create_policy, settings};
use fluxgate_dataplane::influxql::print;

/// Makes the policies equal, and returns them.
///
/// # Errors
/// Names the side at fault; also when the target still differs afterwards.
pub fn ensure(source: &CopySide, target: &CopySide, db: &str) -> Result<Vec<Policy>, PolicyFailure> {
    let model = catalog::database(&source.client, db).map_err(PolicyFailure::Source)?;
    let model =
        model.ok_or_else(|| PolicyFailure::Source(CallFailure::Refused(format!("database not found: {db}"))))?;
    let there = catalog::database(&target.client, db).map_err(PolicyFailure::Target)?;
    for statement in statements(there.as_deref(), &model, db) {
        policy::run(&target.client, &statement).map_err(PolicyFailure::Target)?;
        log::info!("{}: {statement}", target.name);
    }
    let there = catalog::database(&target.client, db).map_err(PolicyFailure::Target)?.unwrap_or_default();
    if let Some(policy) = model.iter().find(|policy| !there.contains(policy)) {
        let text = format!("retention policy {} of {db} differs from the one at {}", policy.name, source.name);
        return Err(PolicyFailure::Target(CallFailure::Refused(text)));
    }
    Ok(model)
}

/// The side that could not be asked or did not obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyFailure {
    Source(CallFailure),
    Target(CallFailure),
}

fn statements(there: Option<&[Policy]>, model: &[Policy], db: &str) -> Vec<String> {
    let Some(there) = there else { return policy::statements(None, model, db, "") };
    let mut statements = Vec::new();
    for policy in model {
        match there.iter().find(|other| other.name == policy.name) {
            None => statements.push(create_policy(policy, db)),
            Some(other) if other == policy => {}
            Some(other) => {
                let (name, db) = (print::name(&policy.name), print::name(db));
                let same = other.duration == policy.duration && other.shard_duration == policy.shard_duration;
                let default = if policy.default { " DEFAULT" } else { "" };
                // Both durations in one statement: a single new one may contradict the other old one.
                let settings = settings(policy);
                match same {
                    false => statements.push(format!("ALTER RETENTION POLICY {name} ON {db} {settings}{default}")),
                    // A policy stops being the default when another one becomes it.
                    true if policy.default => {
                        statements.push(format!("ALTER RETENTION POLICY {name} ON {db} DEFAULT"));
                    }
                    true => {}
                }
            }
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, duration: &str, default: bool) -> Policy {
        Policy { name: name.into(), duration: duration.into(), shard_duration: "24h0m0s".into(), default }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let model = [policy("a", "0s", true), policy("b", "48h0m0s", false)];
        let cases: [(&[Policy], &[&str]); 4] = [
            (&model, &[]),
            (
                &[policy("b", "0s", true)],
                &[
                    r#"CREATE RETENTION POLICY "a" ON "d" DURATION 0s REPLICATION 1 SHARD DURATION 24h0m0s DEFAULT"#,
                    r#"ALTER RETENTION POLICY "b" ON "d" DURATION 48h0m0s REPLICATION 1 SHARD DURATION 24h0m0s"#,
                ],
            ),
            (
                &[policy("a", "0s", false), policy("b", "48h0m0s", true)],
                &[r#"ALTER RETENTION POLICY "a" ON "d" DEFAULT"#],
            ),
            (
                &[policy("a", "1h0m0s", false), policy("b", "48h0m0s", false), policy("c", "0s", true)],
                &[r#"ALTER RETENTION POLICY "a" ON "d" DURATION 0s REPLICATION 1 SHARD DURATION 24h0m0s DEFAULT"#],
            ),
        ];
        for (there, want) in cases {
            assert_eq!(statements(Some(there), &model, "d"), want);
        }
        assert!(statements(None, &model, "d")[0].starts_with(r#"CREATE DATABASE "d" WITH DURATION 0s"#));
    }
}
