//! Statements that change structure or remove data. They run on every backend of every circle, or on none as far as
//! that can be known in advance.
//!
//! 1. Every backend must answer; otherwise nothing is changed. A CREATE may do without backends that had what it
//!    creates when they listed their databases last: it changes nothing there.
//! 2. A statement that removes data waits until all earlier points of its database have been delivered and that is on
//!    disk, and no newer point is delivered meanwhile. So every backend has the same order: older points, the change,
//!    newer points. Nothing is removed while a migration moves data: data that it has read but not yet written would
//!    come back.
//! 3. A DELETE or DROP SERIES with a condition is tried first at a time that no point can have. If a backend refuses
//!    it, nothing is removed anywhere.
//! 4. The statement goes to all backends at once. It is idempotent: when only some have run it, the client repeats it.
//! 5. Workers know the new databases and policies before the client has its answer.

use std::sync::atomic::Ordering::SeqCst;

use fluxgate_dataplane::influxql::ast::{Expr, Op, Source, Statement};
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times, Unanswered};
use super::errors::is_missing;
use super::select::now::{replace_now, time_part, without_time};
use super::workers::{Hold, Undrained};
use crate::influx::answer::{Answer, Message};
use crate::influx::policy::Policy;
use crate::influx::reader::Call;
use crate::limits;

/// # Errors
/// 503 while a backend is down or too far behind, when a worker cannot save how far it is, and for removals during a
/// migration. Nothing has been changed then.
pub fn run(context: &Context<'_>, statement: &Statement) -> Result<Answer, Stop> {
    let workers = &context.shared.workers;
    let Some(_alone) = workers.alone(context.time_left()?) else {
        return Err(unchanged("another change of structure is under way"));
    };
    let _removal = removes(statement).then(|| Removal::begin(&context.shared.stats)).transpose()?;
    let all = answering(context, statement)?;
    let hold = if removes(statement) { Some(hold(context, statement)?) } else { None };
    let statement = &with_now(statement, context.now_ns());
    if let Some(refusal) = refusal(context, statement, &all)? {
        return Ok(refusal);
    }
    let text = statement.to_string();
    let questions = all.iter().map(|&backend| (backend, text.clone())).collect();
    let is_of_data = matches!(
        statement,
        Statement::Delete { .. } | Statement::DropSeries { .. } | Statement::DropMeasurement { .. }
    );
    if !is_of_data {
        all.iter().for_each(|&backend| context.shared.list(backend, None));
    }
    // Same method as the client's: InfluxDB adds a warning when a GET changes something.
    let by_get = context.request.is_get;
    let answers = context.ask_each_as(questions, Times::Nanoseconds, &|call| Call { by_get, ..call });
    drop(hold);
    if !is_of_data && workers.refresh_catalog(limits::ROUND_DEADLINE * 2).is_none() {
        log::warn!("{statement}: the catalog was not refreshed in time");
    }
    let results = answers?.into_iter().zip(&all).map(|(answer, &backend)| {
        let result = match answer {
            Ok(Answer { error: None, messages, .. }) => BackendOutcome::Yes(messages),
            Ok(Answer { error: Some(error), .. }) => BackendOutcome::Refused(error),
            Err(unanswered) => BackendOutcome::Unknown(unanswered.why),
        };
        (context.name(backend), result)
    });
    Ok(together(removes(statement), &results.collect::<Vec<_>>()))
}

/// The error with which a backend refuses to remove data, for a reason that lies in its data: a name in WHERE is a
/// field there. One InfluxDB may have removed a part by then. Here nobody has: each backend first removes what matches
/// at a time that no point can have, which makes it read the condition, and finds nothing.
///
/// # Errors
/// 503 when one does not answer.
fn refusal(context: &Context<'_>, statement: &Statement, all: &[BackendId]) -> Result<Option<Answer>, Stop> {
    let Some(probe) = removing_nothing(statement) else { return Ok(None) };
    let questions = all.iter().map(|&backend| (backend, probe.to_string())).collect();
    for answer in context.ask_each(questions, Times::Nanoseconds)? {
        match answer {
            Ok(Answer { error: Some(error), .. }) if !is_missing(&error) => return Ok(Some(Answer::failed(error))),
            Ok(_) => {}
            Err(Unanswered { backend, why }) => {
                return Err(unchanged(&format!("{} does not answer ({why})", context.name(backend))));
            }
        }
    }
    Ok(None)
}

/// The same removal at a time that no point can have. None: its condition tells only times, so that no data decides
/// whether it is refused; also for what InfluxDB refuses in any case.
fn removing_nothing(statement: &Statement) -> Option<Statement> {
    let (sources, condition) = match statement {
        Statement::Delete { sources, condition: Some(condition) } => (sources, condition),
        Statement::DropSeries { sources, condition: Some(condition) } if time_part(condition).is_none() => {
            (sources, condition)
        }
        _ => return None,
    };
    let time = Expr::Variable { parts: vec!["time".to_owned()], of: None };
    let never = Expr::Binary { op: Op::Eq, left: Box::new(time), right: Box::new(Expr::Integer(NEVER_NS)) };
    let rest = Expr::Paren(Box::new(without_time(condition)?));
    let condition = Some(Expr::Binary { op: Op::And, left: Box::new(rest), right: Box::new(never) });
    Some(Statement::Delete { sources: sources.clone(), condition })
}

/// InfluxDB knows this time, but takes no point before the next nanosecond.
const NEVER_NS: i64 = i64::MIN + 1;

/// While it lives, no migration begins to copy.
struct Removal<'a>(&'a Stats);

impl<'a> Removal<'a> {
    /// # Errors
    /// 503 while a migration is under way.
    fn begin(stats: &'a Stats) -> Result<Self, Stop> {
        stats.removing.fetch_add(1, SeqCst);
        let removal = Self(stats);
        if stats.moving.load(SeqCst) {
            return Err(unchanged(
                "data is being moved (see /migrate/state and /migrate/jobs), and removed data might come \
                 back; wait for the end, or cancel it",
            ));
        }
        Ok(removal)
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.0.removing.fetch_sub(1, SeqCst);
    }
}

fn unchanged(why: &str) -> Stop {
    Stop::unavailable(format!("{why}: nothing was changed"))
}

/// The backends to run `statement` on: all that answer. Checks the results of probes first, then asks the others.
///
/// # Errors
/// 503 when one does not answer that the statement may change.
fn answering(context: &Context<'_>, statement: &Statement) -> Result<Vec<BackendId>, Stop> {
    let shared = context.shared;
    let (down, up): (Vec<_>, Vec<_>) = context.backends().partition(|&backend| context.is_down(backend));
    let mut silent: Vec<_> = down.into_iter().map(|backend| (backend, "down".to_owned())).collect();
    let may_be_left_out = |silent: &[(BackendId, String)], up: &[BackendId]| {
        silent.iter().all(|(backend, _)| {
            creates_nothing(statement, |db| {
                let others = up.iter().filter_map(|&other| shared.policies(other, db)).collect();
                Some((shared.policies(*backend, db)?, others))
            })
        })
    };
    let refused = |silent: &[(BackendId, String)]| {
        let names: Vec<_> = silent.iter().map(|(backend, why)| format!("{} ({why})", context.name(*backend))).collect();
        let names = names.join(", ");
        unchanged(&format!("every backend must be up for this statement, and these are not: {names}"))
    };
    if !may_be_left_out(&silent, &up) {
        return Err(refused(&silent));
    }
    let questions = up.iter().map(|&backend| (backend, "SHOW DATABASES".to_owned())).collect();
    let soon = |call: Call| Call { time_left: call.time_left.min(limits::SHOW_TIMEOUT), ..call };
    let answers = context.ask_each_as(questions, Times::Nanoseconds, &soon)?;
    let mut answer_well = Vec::new();
    for (answer, backend) in answers.into_iter().zip(up) {
        match answer.map_or_else(|unanswered| Some(unanswered.why), |answer| answer.error) {
            Some(why) => silent.push((backend, why)),
            None => answer_well.push(backend),
        }
    }
    if may_be_left_out(&silent, &answer_well) { Ok(answer_well) } else { Err(refused(&silent)) }
}

/// Whether a backend that does not answer has what `statement` creates, so that it would change nothing there and be
/// answered as elsewhere. `policies` gives the policies of a database there, and on backends that answer.
fn creates_nothing(statement: &Statement, policies: impl Fn(&str) -> Option<(Vec<Policy>, Vec<Vec<Policy>>)>) -> bool {
    match statement {
        Statement::CreateDatabase { name, options: None } => policies(name).is_some(),
        // It asks for a default policy, and fails when another one is there: the backends must be alike.
        Statement::CreateDatabase { name, .. } => {
            policies(name).is_some_and(|(here, others)| !here.is_empty() && others.contains(&here))
        }
        Statement::CreateRetentionPolicy(policy) => policies(&policy.db).is_some_and(|(here, others)| {
            let of = |policies: &[Policy]| policies.iter().find(|known| known.name == policy.name).cloned();
            of(&here).is_some_and(|here| others.iter().any(|other| of(other).as_ref() == Some(&here)))
        }),
        _ => false,
    }
}

/// Half of the time is for waiting, so that the change itself has as much.
fn hold(context: &Context<'_>, statement: &Statement) -> Result<Hold, Stop> {
    let db = changed(statement, &context.request.db);
    context.shared.workers.drain(db, context.time_left()? / 2).map_err(|undrained| match undrained {
        Undrained::Behind(backends) => {
            let names: Vec<_> = backends.into_iter().map(|backend| context.name(backend)).collect();
            unchanged(&format!("earlier points are still queued for {}", names.join(", ")))
        }
        Undrained::Unsaved(why) => unchanged(&format!(
            "this proxy cannot save what it has delivered ({why}), and a crash would bring back what is removed"
        )),
        Undrained::NoAnswer => unchanged("a worker of this proxy does not answer"),
    })
}

/// The database whose data the statement removes. Empty: it cannot be told.
fn changed<'a>(statement: &'a Statement, default: &'a str) -> &'a str {
    match statement {
        Statement::DropDatabase { name } => name,
        Statement::DropRetentionPolicy { db, .. } => db,
        Statement::DropMeasurement { .. } => default,
        Statement::Delete { sources, .. } | Statement::DropSeries { sources, .. } => {
            let is_here = |source: &Source| matches!(source, Source::Measurement(m) if m.db.is_none());
            if sources.iter().all(is_here) { default } else { "" }
        }
        _ => "",
    }
}

/// Whether older points must be delivered before the statement runs.
fn removes(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::DropDatabase { .. }
            | Statement::DropRetentionPolicy { .. }
            | Statement::Delete { .. }
            | Statement::DropSeries { .. }
            | Statement::DropMeasurement { .. }
    )
}

/// Replaces `now()` by one time for all backends.
fn with_now(statement: &Statement, now_ns: i64) -> Statement {
    let mut statement = statement.clone();
    if let Statement::Delete { condition: Some(condition), .. }
    | Statement::DropSeries { condition: Some(condition), .. } = &mut statement
    {
        replace_now(condition, now_ns);
    }
    statement
}

/// The result of a statement at one backend.
#[derive(Debug)]
enum BackendOutcome {
    /// Done, with its messages.
    Yes(Vec<Message>),
    Refused(String),
    /// It did not answer, and may have done it.
    Unknown(String),
}

/// The combined answer: empty, InfluxDB's own error, or a list of who has done it and who has not.
fn together(removes: bool, results: &[(&str, BackendOutcome)]) -> Answer {
    let refusals = || {
        results
            .iter()
            .filter_map(|(_, done)| if let BackendOutcome::Refused(error) = done { Some(error) } else { None })
    };
    // A field in WHERE. Backends without such a series do not report it.
    if let Some(error) = refusals().find(|error| error.contains("fields not supported in WHERE clause")) {
        return Answer::failed(error);
    }
    if refusals().count() == results.len() {
        let mut texts = refusals().map(|error| without_numbers(error));
        let first = texts.next().unwrap_or_default();
        if texts.all(|text| text == first) {
            return refusals().next().map(Answer::failed).unwrap_or_default();
        }
    }
    // A missing thing counts as removed.
    let is_done = |done: &BackendOutcome| match done {
        BackendOutcome::Yes(_) => true,
        BackendOutcome::Refused(error) => removes && error.contains(" not found: "),
        BackendOutcome::Unknown(_) => false,
    };
    let (done, not_done): (Vec<_>, Vec<_>) = results.iter().partition(|(_, done)| is_done(done));
    if not_done.is_empty() {
        let messages =
            results.iter().find_map(|(_, done)| if let BackendOutcome::Yes(m) = done { Some(m.clone()) } else { None });
        return Answer { messages: messages.unwrap_or_default(), ..Answer::default() };
    }
    let done: Vec<_> = done.into_iter().map(|(name, _)| *name).collect();
    let not_done: Vec<_> = not_done
        .into_iter()
        .map(|(name, done)| match done {
            BackendOutcome::Unknown(why) => format!("{name} (no answer, it may have done it: {why})"),
            BackendOutcome::Refused(why) => format!("{name} ({why})"),
            BackendOutcome::Yes(_) => (*name).to_owned(),
        })
        .collect();
    let by = if done.is_empty() { "no backend".to_owned() } else { done.join(", ") };
    Answer::failed(format!("done by {by}, not by {}: repeat the statement until all have done it", not_done.join(", ")))
}

/// Removes digits: errors name shards by number, which differs between servers.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::influxql::{Params, parse};

    use super::*;

    fn statement(text: &str) -> Statement {
        parse(text, &Params::default()).unwrap().remove(0)
    }

    fn refused(text: &str) -> BackendOutcome {
        BackendOutcome::Refused(text.to_owned())
    }

    #[test]
    fn now_is_one_number_for_all() {
        let delete = with_now(&statement("DELETE FROM m WHERE time < NOW() - 1d AND host = 'now()'"), 1_700);
        assert_eq!(delete.to_string(), r#"DELETE FROM "m" WHERE "time" < 1700 - 1d AND "host" = 'now()'"#);
    }

    #[test]
    fn a_removal_is_tried_where_there_is_nothing() {
        let tried = |text: &str| removing_nothing(&statement(text)).map(|probe| probe.to_string());
        let at = "AND \"time\" = -9223372036854775807";
        let want = |rest: &str| Some(format!("DELETE FROM \"m\" WHERE ({rest}) {at}"));
        assert_eq!(tried("DELETE FROM m WHERE time < 5 AND host = 'a'"), want("\"host\" = 'a'"));
        assert_eq!(tried("DROP SERIES FROM m WHERE a = 'x' OR b = 'y'"), want("\"a\" = 'x' OR \"b\" = 'y'"));
        let nested = "DELETE FROM m WHERE (time > 1 AND (a = 'x' OR time < 9)) AND b = 'y'";
        assert_eq!(tried(nested), want("((\"a\" = 'x')) AND \"b\" = 'y'"));
        for other in ["DELETE FROM m", "DELETE WHERE time < now()", "DROP SERIES FROM m WHERE a = 'x' AND time > 1"] {
            assert_eq!(tried(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_creation_that_changes_nothing_does_without_a_backend() {
        let policy = |name: &str, duration: &str| Policy {
            name: name.to_owned(),
            duration: duration.to_owned(),
            shard_duration: "24h0m0s".to_owned(),
            default: name == "autogen",
        };
        let (autogen, week) = (policy("autogen", "0s"), policy("week", "168h0m0s"));
        let here = vec![autogen.clone(), week.clone()];
        let know = |db: &str, other: &[Policy]| (db == "db").then(|| (here.clone(), vec![other.to_vec()]));
        let alike = |text: &str| creates_nothing(&statement(text), |db| know(db, &here));
        let longer = [autogen.clone(), policy("week", "200h0m0s")];
        let unlike = |text: &str| creates_nothing(&statement(text), |db| know(db, &longer));
        let (plain, with) = ("CREATE DATABASE db", "CREATE DATABASE db WITH DURATION 1d NAME x");
        let rp = "CREATE RETENTION POLICY week ON db DURATION 1w REPLICATION 1";
        assert!([plain, with, rp].into_iter().all(alike));
        assert!(unlike(plain) && ![with, rp].into_iter().any(unlike), "the backends answer differently");
        for changes in [
            "CREATE DATABASE other",
            "CREATE RETENTION POLICY day ON db DURATION 1d REPLICATION 1",
            "CREATE RETENTION POLICY week ON other DURATION 1w REPLICATION 1",
            "ALTER RETENTION POLICY week ON db DURATION 1w",
            "DROP DATABASE db",
            "DROP MEASUREMENT m",
        ] {
            assert!(!alike(changes), "{changes}");
        }
    }

    #[test]
    fn equal_answers_give_influxdbs_own_answer() {
        let missing = || refused("database not found: x");
        assert_eq!(
            together(true, &[("a", BackendOutcome::Yes(vec![])), ("b", BackendOutcome::Yes(vec![]))]),
            Answer::default()
        );
        assert_eq!(together(true, &[("a", missing()), ("b", missing())]), Answer::failed("database not found: x"));
        let warning = Message { level: "warning".into(), text: "deprecated".into() };
        let warned = together(true, &[("a", missing()), ("b", BackendOutcome::Yes(vec![warning.clone()]))]);
        assert_eq!(warned, Answer { messages: vec![warning], ..Answer::default() });
        let shard = |n| refused(&format!("shard {n}: no"));
        assert_eq!(together(true, &[("a", shard(1)), ("b", shard(22))]), Answer::failed("shard 1: no"));
        let field = refused("shard 7: fields not supported in WHERE clause during deletion");
        assert!(
            together(true, &[("a", BackendOutcome::Yes(vec![])), ("b", field)]).error.unwrap().starts_with("shard 7")
        );
    }

    #[test]
    fn a_partial_change_names_the_other_backends_and_why() {
        let results = [
            ("a", BackendOutcome::Yes(vec![])),
            ("b", refused("conflicts")),
            ("c", BackendOutcome::Unknown("timeout".into())),
        ];
        let text = together(true, &results).error.unwrap();
        assert_eq!(
            text,
            "done by a, not by b (conflicts), c (no answer, it may have done it: timeout): \
             repeat the statement until all have done it"
        );
        let missing = [("a", BackendOutcome::Yes(vec![])), ("b", refused("database not found: x"))];
        let text = together(false, &missing).error.expect("a policy is not created where there is no database");
        assert!(text.starts_with("done by a, not by b (database not found: x)"), "{text}");
    }
}
