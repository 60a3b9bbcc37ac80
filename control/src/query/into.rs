//! SELECT INTO: writes the answer of the SELECT through the workers like any client's points, so every point goes to
//! its owners in all circles.
//!
//! As in InfluxDB, a series becomes points of the target (or of its own name, for `:MEASUREMENT`), its tags become
//! tags, and its columns fields of the same type. Nulls are left out, and a row without any value is not counted.
//! Points written before an error stay.
//!
//! When one backend has all data, the answer is read in pieces and nothing is held. A SELECT reads what existed when it
//! began, so a statement that writes into its own source ends.

use std::collections::BTreeSet;

use fluxgate_dataplane::handoff::{Catalog, Written};
use fluxgate_dataplane::http::error_body::Format;
use fluxgate_dataplane::influxql::ast::{Measurement, Name, Select, Source, Statement};
use fluxgate_dataplane::influxql::{Params, parse, print, visit};
use fluxgate_dataplane::routing::reach::{Class, Reach, class};

use super::context::{Context, Stop, Times};
use super::select;
use super::tagged::{self, Tagged};
use super::workers::Write;
use crate::influx::answer::{Answer, Message, Row, Series};
use crate::influx::line::Layout;
use crate::limits;

/// # Errors
/// What ends the whole request.
pub fn run(context: &Context<'_>, statement: &Statement) -> Result<Answer, Stop> {
    let Statement::Select(whole) = statement else { unreachable!("only SELECT has INTO") };
    let Some(into) = &whole.into else { unreachable!("only SELECT INTO comes here") };
    let request = context.request;
    let db = into.db.as_deref().unwrap_or(&request.db);
    if db.is_empty() {
        return Ok(Answer::failed("database name required"));
    }
    if !is_known(context, |catalog| catalog.may_have_database(db)) {
        return Ok(Answer::failed(format!("database not found: {db}")));
    }
    let (read, tagged) = tagged::read(whole);
    let mut writer = Writer {
        context,
        tagged,
        db,
        rp: into.rp.as_deref().unwrap_or(&request.rp),
        measurement: match &into.name {
            Name::Text(name) => Some(name),
            Name::Regex(_) | Name::Same => None,
        },
        policy_known: false,
        lines: Vec::new(),
        queued: 0,
        written: 0,
        error: None,
    };
    context.read_typed();
    match read_all(context, &read, &mut writer).and_then(|()| writer.flush()) {
        Ok(()) => {}
        Err(ReadEnd::Stop(stop)) => return Err(stop),
        Err(ReadEnd::Statement) => return Ok(Answer::failed(writer.error.unwrap_or_default())),
    }
    let epoch_start =
        if request.epoch.is_empty() && request.format == Format::Json { "\"1970-01-01T00:00:00Z\"" } else { "0" };
    let series = Series {
        name: "result".to_owned(),
        columns: vec!["time".to_owned(), "written".to_owned()],
        rows: vec![Row::of([epoch_start, &writer.written.to_string()])],
        ..Series::default()
    };
    let mut answer = Answer { series: vec![series], ..Answer::default() };
    if request.is_get {
        let statement = unquoted(&Statement::Select(Box::new(normalized(context, whole)?)).to_string());
        let text = format!("deprecated use of '{statement}' in a read only context, please use a POST request instead");
        answer.messages.push(Message { level: "warning".to_owned(), text });
    }
    Ok(answer)
}

/// Why the reading ends early.
enum ReadEnd {
    Stop(Stop),
    /// The statement has failed; the writer has the error.
    Statement,
}

impl From<Stop> for ReadEnd {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

fn read_all(context: &Context<'_>, read: &Select, writer: &mut Writer<'_>) -> Result<(), ReadEnd> {
    let statement = Statement::Select(Box::new(read.clone()));
    let Class::Read(reach) = class(&statement, &context.request.db) else {
        unreachable!("a SELECT without INTO reads")
    };
    let text = statement.to_string();
    loop {
        let shares = context.shares(&reach)?;
        let mut backends = shares.backends.keys();
        let (Some(&backend), None) = (backends.next(), backends.next()) else {
            return merged(context, read, &reach, writer);
        };
        let mut ended = Ok(());
        let answered = context.stream(backend, &text, Times::AsAsked, &mut |piece| {
            ended = writer.take(&piece);
            // Only ends the loop; the error itself is in `ended`.
            ended.as_ref().map_or_else(|_| Err(Stop::Cancelled), |()| Ok(()))
        });
        ended?;
        if answered?.is_ok() {
            return Ok(());
        }
        // Another backend is asked from the start. The points are the same, so a second write changes nothing.
        writer.begin_again();
    }
}

/// Merges the answers of several owners, which are held in memory.
fn merged(context: &Context<'_>, read: &Select, reach: &Reach, writer: &mut Writer<'_>) -> Result<(), ReadEnd> {
    let answer = select::run(context, read, reach)?;
    writer.take(&answer)
}

/// Turns rows into lines and writes them.
struct Writer<'a> {
    context: &'a Context<'a>,
    tagged: Tagged,
    db: &'a str,
    rp: &'a str,
    /// None = the name of each series.
    measurement: Option<&'a str>,
    policy_known: bool,
    lines: Vec<u8>,
    /// Points in `lines`.
    queued: usize,
    /// Rows with a value, as InfluxDB counts them.
    written: u64,
    error: Option<String>,
}

impl Writer<'_> {
    fn begin_again(&mut self) {
        self.lines.clear();
        (self.queued, self.written) = (0, 0);
        self.tagged.begin_again();
    }

    fn fail(&mut self, error: impl Into<String>) -> ReadEnd {
        self.error = Some(error.into());
        ReadEnd::Statement
    }

    fn take(&mut self, answer: &Answer) -> Result<(), ReadEnd> {
        if let Some(error) = &answer.error {
            return Err(self.fail(error));
        }
        let tags = self.tagged.tags.clone();
        for series in &answer.series {
            let layout = Layout::of(self.measurement.unwrap_or(&series.name), series, &tags);
            for row in &series.rows {
                let key = layout.key(row);
                if self.tagged.takes(|| run_of(series, &key)) && layout.line(&key, row, &mut self.lines) {
                    self.written += 1;
                    self.queued += 1;
                }
                if self.queued >= limits::INTO_BATCH_LINES || self.lines.len() >= limits::INTO_BATCH_BYTES {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ReadEnd> {
        if self.lines.is_empty() {
            return Ok(());
        }
        if !self.policy_known {
            let (db, rp) = (self.db, self.rp);
            if !is_known(self.context, |catalog| catalog.may_have_policy(db, rp)) {
                return Err(self.fail(format!("retention policy not found: {rp}")));
            }
            self.policy_known = true;
        }
        self.queued = 0;
        let lines = std::mem::take(&mut self.lines).into();
        let timeout = self.context.time_left()?;
        let write = Write { db: self.db.to_owned(), rp: self.rp.to_owned(), lines, timeout };
        match self.context.shared.workers.write(write) {
            Written::Done => Ok(()),
            Written::Refused(text) => Err(self.fail(text)),
        }
    }
}

/// What tells runs of rows apart for LIMIT and OFFSET: where a row comes from, and its tags.
fn run_of(series: &Series, key: &[u8]) -> Vec<u8> {
    [series.name.as_bytes(), b"\n", key].concat()
}

/// Whether something is in the catalog, or in a refreshed one.
fn is_known(context: &Context<'_>, there: impl Fn(&Catalog) -> bool) -> bool {
    let refreshed = || context.shared.workers.refresh_catalog(limits::ROUND_DEADLINE * 2);
    there(&context.catalog) || refreshed().is_some_and(|catalog| there(&catalog))
}

/// The statement with databases and policies filled in, as in InfluxDB's warning.
fn normalized(context: &Context<'_>, select: &Select) -> Result<Select, Stop> {
    let mut select = select.clone();
    let mut dbs = BTreeSet::new();
    let request = context.request;
    visit::measurements(&select.sources, &mut |m| _ = dbs.insert(m.db.clone().unwrap_or_else(|| request.db.clone())));
    dbs.extend(select.into.iter().map(|m| m.db.clone().unwrap_or_else(|| request.db.clone())));
    let mut defaults = Vec::new();
    for db in dbs {
        let text = format!("SHOW RETENTION POLICIES ON {}", print::name(&db));
        let answers =
            context.scatter(&Reach::Any { db: Some(db.clone()) }, Times::Nanoseconds, &|_, _| text.clone())?;
        let default = answers.iter().flat_map(|(_, answer)| &answer.series).find_map(|series| {
            let column = |name| series.column(name);
            let (name, default) = (column("name")?, column("default")?);
            series.rows.iter().find(|row| row.value(default) == Some("true"))?.string(name)
        });
        defaults.push((db, default));
    }
    let fill = |m: &mut Measurement| {
        let db = m.db.get_or_insert_with(|| request.db.clone());
        if m.rp.is_none() {
            let default = || defaults.iter().find(|(name, _)| name == db).and_then(|(_, default)| default.clone());
            m.rp = if request.rp.is_empty() { default() } else { Some(request.rp.clone()) };
        }
    };
    visit::sources_mut(&mut select.sources, &mut |source| {
        if let Source::Measurement(m) = source {
            fill(m);
        }
    });
    select.into.iter_mut().for_each(fill);
    Ok(select)
}

/// Removes quotes around names that need none, as InfluxDB prints them.
fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'']) {
        out.push_str(&rest[..at]);
        let quote = &rest[at..=at];
        let body = &rest[at + 1..];
        let escaped = |end: usize| body[..end].bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1;
        let Some(end) = body.match_indices(quote).map(|(end, _)| end).find(|&end| !escaped(end)) else {
            rest = &rest[at..];
            break;
        };
        let name = &body[..end];
        if quote == "\"" && !needs_quotes(name) {
            out.push_str(name);
        } else {
            out.push_str(&rest[at..at + end + 2]);
        }
        rest = &body[end + 1..];
    }
    out + rest
}

/// Follows InfluxQL's grammar. A keyword is found by not parsing as a name.
fn needs_quotes(name: &str) -> bool {
    let plain =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    !plain || name.is_empty() || parse(&format!("SELECT {name} FROM m"), &Params::default()).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_quotes_they_do_not_need() {
        let text = concat!(
            r#"SELECT "mean"("a b") AS "from" INTO "db"."autogen"."x_1" "#,
            r#"FROM "db"."autogen"."1m" WHERE "host" = 'it\'s "x"'"#
        );
        let want = r#"SELECT mean("a b") AS "from" INTO db.autogen.x_1 FROM db.autogen."1m" WHERE host = 'it\'s "x"'"#;
        assert_eq!(unquoted(text), want);
    }
}
