//! SELECT INTO: the SELECT is read, and what it answers is written through the workers like any client's points, so that every
//! point goes to its owners, in all circles.
//!
//! As InfluxDB does it: a series becomes points of the target (or of its own name, for `:MEASUREMENT`), its tags become tags, its
//! columns fields of the same type; nulls are left out, and a row without any value is not counted. What was written before an error stays.
//!
//! Where one backend has all that is read, it is read in pieces and nothing is held. A SELECT reads what was there when it began, so that
//! writing into what is being read comes to an end.

use std::collections::BTreeSet;

use fluxgate_dataplane::handoff::{Catalog, Written};
use fluxgate_dataplane::http::error_body::Format;
use fluxgate_dataplane::influxql::ast::{Measurement, Name, Select, Source, Statement};
use fluxgate_dataplane::influxql::{Params, parse, print, visit};
use fluxgate_dataplane::query::reach::{Class, Reach, class};

use super::context::{Context, Stop, Times};
use super::model::{Answer, Message, Row, Series};
use super::select;
use super::workers::Write;
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
    if !is_known(context, |catalog| has_database(catalog, db)) {
        return Ok(Answer::failed(format!("database not found: {db}")));
    }
    let mut writer = Writer {
        context,
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
    let read = Select { into: None, ..(**whole).clone() };
    match read_all(context, &read, &mut writer).and_then(|()| writer.flush()) {
        Ok(()) => {}
        Err(Ended::Stop(stop)) => return Err(stop),
        Err(Ended::Statement) => return Ok(Answer::failed(writer.error.unwrap_or_default())),
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

/// Why nothing more is read.
enum Ended {
    Stop(Stop),
    /// The statement has failed; the writer has the text.
    Statement,
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

fn read_all(context: &Context<'_>, read: &Select, writer: &mut Writer<'_>) -> Result<(), Ended> {
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
            // Stop is only the way out of the loop that reads.
            ended.as_ref().map_or_else(|_| Err(Stop::Cancelled), |()| Ok(()))
        });
        ended?;
        if answered?.is_ok() {
            return Ok(());
        }
        // Another backend is asked from the start. The points are the same, so that those written twice are written once.
        writer.begin_again();
    }
}

/// Several owners: their answers are merged, which holds them.
fn merged(context: &Context<'_>, read: &Select, reach: &Reach, writer: &mut Writer<'_>) -> Result<(), Ended> {
    let answer = select::run(context, read, reach)?;
    writer.take(&answer)
}

/// Makes lines of rows and has them written.
struct Writer<'a> {
    context: &'a Context<'a>,
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
    }

    fn fail(&mut self, error: impl Into<String>) -> Ended {
        self.error = Some(error.into());
        Ended::Statement
    }

    fn take(&mut self, answer: &Answer) -> Result<(), Ended> {
        if let Some(error) = &answer.error {
            return Err(self.fail(error));
        }
        for series in &answer.series {
            let layout = Layout::of(self.measurement.unwrap_or(&series.name), series);
            for row in &series.rows {
                if layout.line(row, &mut self.lines) {
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

    fn flush(&mut self) -> Result<(), Ended> {
        if self.lines.is_empty() {
            return Ok(());
        }
        if !self.policy_known {
            let (db, rp) = (self.db, self.rp);
            if !is_known(self.context, |catalog| has_policy(catalog, db, rp)) {
                return Err(self.fail(format!("retention policy not found: {rp}")));
            }
            self.policy_known = true;
        }
        self.queued = 0;
        let lines = std::mem::take(&mut self.lines).into();
        let timeout = self.context.time_left()?;
        let write = Write { db: self.db.to_owned(), rp: self.rp.to_owned(), lines, timeout };
        match self.context.house.workers.write(write) {
            Written::Done => Ok(()),
            Written::Refused(text) => Err(self.fail(text)),
        }
    }
}

/// How the rows of one series are written.
struct Layout {
    /// Measurement and tags.
    key: String,
    time: Option<usize>,
    /// By column; None = not a field.
    fields: Vec<Option<String>>,
}

impl Layout {
    fn of(measurement: &str, series: &Series) -> Self {
        let mut key = String::new();
        escape(&mut key, measurement, &[',', ' ']);
        for (tag, value) in series.tags.iter().filter(|(_, value)| !value.is_empty()) {
            key.push(',');
            escape(&mut key, tag, &[',', '=', ' ']);
            key.push('=');
            escape(&mut key, value, &[',', '=', ' ']);
        }
        let columns = &series.columns;
        let field = |(at, name): (usize, &String)| {
            // Of two columns of one name the last one counts.
            let last = columns.iter().rposition(|other| other == name) == Some(at);
            (last && name != "time").then(|| {
                let mut escaped = String::new();
                escape(&mut escaped, name, &[',', '=', ' ']);
                escaped
            })
        };
        let fields = columns.iter().enumerate().map(field).collect();
        Self { key, time: columns.iter().position(|name| name == "time"), fields }
    }

    /// Writes one line behind `out`; false, and nothing written, for a row that is no point.
    fn line(&self, row: &Row, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.extend_from_slice(self.key.as_bytes());
        let mut separator = b' ';
        let mut time = None;
        for (at, value) in row.values().enumerate() {
            if Some(at) == self.time {
                time = Some(value);
            }
            let Some(Some(name)) = self.fields.get(at) else { continue };
            if value == "null" {
                continue;
            }
            out.push(separator);
            separator = b',';
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            if !push_value(value, out) {
                out.truncate(begin);
                return false;
            }
        }
        let Some(time) = time.filter(|_| separator == b',') else {
            out.truncate(begin);
            return false;
        };
        out.push(b' ');
        out.extend_from_slice(time.as_bytes());
        out.push(b'\n');
        true
    }
}

/// Writes a JSON text as a field value; false for what InfluxDB cannot store.
fn push_value(value: &str, out: &mut Vec<u8>) -> bool {
    match value.as_bytes() {
        [b'"', ..] => {
            let Ok(text) = serde_json::from_str::<String>(value) else { return false };
            out.push(b'"');
            for byte in text.bytes() {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
        b"true" | b"false" => out.extend_from_slice(value.as_bytes()),
        // Not a number, or infinite.
        bytes if bytes.iter().any(|byte| matches!(byte, b'N' | b'n')) => return false,
        bytes => {
            out.extend_from_slice(bytes);
            if !bytes.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                out.push(b'i');
            }
        }
    }
    true
}

fn escape(out: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
}

/// Whether something is in the catalog, or in one that is asked for anew.
fn is_known(context: &Context<'_>, there: impl Fn(&Catalog) -> bool) -> bool {
    let refreshed = || context.house.workers.refresh_catalog(limits::ROUND_DEADLINE * 2);
    there(&context.catalog) || refreshed().is_some_and(|catalog| there(&catalog))
}

fn has_database(catalog: &Catalog, db: &str) -> bool {
    !catalog.known || catalog.databases.contains_key(db)
}

/// Policies that could not be asked for may be there; an empty `rp` is the default one.
fn has_policy(catalog: &Catalog, db: &str, rp: &str) -> bool {
    let policies = catalog.databases.get(db).map(|database| &database.policies);
    rp.is_empty() || policies.is_none_or(|policies| policies.is_empty() || policies.iter().any(|policy| policy == rp))
}

/// The statement with databases and policies filled in, as InfluxDB prints it in its warning.
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
            let column = |name| series.columns.iter().position(|column| column == name);
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

/// Without the quotes that InfluxDB does not print: of names that need none.
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

/// As InfluxQL's grammar has it; keywords are known by not being read as a name.
fn needs_quotes(name: &str) -> bool {
    let plain =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    !plain || name.is_empty() || parse(&format!("SELECT {name} FROM m"), &Params::default()).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(measurement: &str, tags: &[(&str, &str)], columns: &[&str], rows: &[&[&str]]) -> (String, usize) {
        let series = Series {
            name: "m".to_owned(),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: rows.iter().map(|row| Row::of(row.iter().copied())).collect(),
            partial: false,
        };
        let layout = Layout::of(measurement, &series);
        let mut out = Vec::new();
        let count = series.rows.iter().filter(|row| layout.line(row, &mut out)).count();
        (String::from_utf8(out).unwrap(), count)
    }

    #[test]
    fn a_row_becomes_a_line_with_its_types() {
        let columns = ["time", "f", "i", "s", "b"];
        let row: &[&str] = &["1700", "1.0", "-9223372036854775808", r#""a \"b\" \\ \u003c""#, "true"];
        let (text, count) = lines("m", &[], &columns, &[row]);
        assert_eq!(text, "m f=1.0,i=-9223372036854775808i,s=\"a \\\"b\\\" \\\\ <\",b=true 1700\n");
        assert_eq!(count, 1);
    }

    #[test]
    fn nulls_are_left_out_and_a_row_of_nulls_is_no_point() {
        let rows: &[&[&str]] = &[&["1", "null", "2.5"], &["2", "null", "null"], &["3", "1e+21", "null"]];
        let (text, count) = lines("m", &[], &["time", "a", "b"], rows);
        assert_eq!((text.as_str(), count), ("m b=2.5 1\nm a=1e+21 3\n", 2));
        assert_eq!(lines("m", &[], &["time", "a"], &[&["1", "NaN"], &["2", "-inf"]]).1, 0);
    }

    #[test]
    fn names_are_escaped_and_empty_tags_left_out() {
        let tags = [("a b", "x=y"), ("empty", ""), ("z", "é,")];
        let (text, _) = lines("cpu load,1", &tags, &["time", "f,=g h"], &[&["1", "1"]]);
        assert_eq!(text, "cpu\\ load\\,1,a\\ b=x\\=y,z=é\\, f\\,\\=g\\ h=1i 1\n");
    }

    #[test]
    fn of_two_columns_of_one_name_the_last_counts() {
        assert_eq!(lines("m", &[], &["time", "a", "a"], &[&["1", "1", "2"]]).0, "m a=2i 1\n");
    }

    #[test]
    fn names_lose_the_quotes_they_do_not_need() {
        let text = r#"SELECT "mean"("a b") AS "from" INTO "db"."autogen"."x_1" FROM "db"."autogen"."1m" WHERE "host" = 'it\'s "x"'"#;
        let want = r#"SELECT mean("a b") AS "from" INTO db.autogen.x_1 FROM db.autogen."1m" WHERE host = 'it\'s "x"'"#;
        assert_eq!(unquoted(text), want);
    }
}
