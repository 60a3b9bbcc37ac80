//! A model of InfluxDB 1.x as a store: what it makes of a write, what it keeps, and in which words it refuses. The last
//! write of a point wins; a field has one type per measurement and shard; databases have policies.
//!
//! `tests/model_is_influxdb.rs` holds it against a real one. Not here: the process and the network (`backend.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::hosts::{self, Place};

pub const POLICY: &str = "autogen";

/// Why a line is refused whose field has another type.
pub const TYPE_CONFLICT: &str = "field type conflict";

const HOUR: i64 = 3600 * 1_000_000_000;
const DAY: i64 = 24 * HOUR;

/// A retention policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    /// None: for ever.
    pub keeps_hours: Option<i64>,
}

impl Policy {
    pub fn autogen() -> Self {
        Self { name: POLICY.to_owned(), keeps_hours: None }
    }

    /// The shard that a time in nanoseconds falls in.
    fn shard(&self, time: i64) -> i64 {
        match self.keeps_hours {
            Some(..48) => time.div_euclid(HOUR),
            Some(..4320) => time.div_euclid(DAY),
            // Weeks begin on Monday, and 1970 began on a Thursday.
            _ => (time + 3 * DAY).div_euclid(7 * DAY),
        }
    }
}

/// What a point is called within its database: the place, the policy's position, the time.
pub type Key = (Place, usize, i64);

/// An answer other than 204.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

fn refuse(status: u16, text: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { status, text: text.into() })
}

#[derive(Default)]
pub struct Influx {
    /// Databases with their policies. The first one is the default.
    pub databases: BTreeMap<usize, Vec<Policy>>,
    /// The type of the one field, by database, policy, shard and measurement: true = float.
    types: BTreeMap<(usize, usize, i64, usize), bool>,
    series: BTreeSet<Place>,
    /// By database, policy and number.
    shards: BTreeSet<(usize, usize, i64)>,
    /// What a point was given, in order: the last one counts.
    pub history: BTreeMap<Key, Vec<(Duration, usize)>>,
    /// When each write was applied first.
    pub applied: ByWrite<Duration>,
    /// Writes refused for their own sake.
    pub refused: BTreeMap<usize, &'static str>,
    /// Writes that found no database.
    pub homeless: BTreeSet<usize>,
    /// `max-series-per-database`.
    pub series_max: Option<usize>,
    /// `max-body-size`.
    pub body_max: Option<usize>,
}

/// What was noted of each write first, by its number.
pub struct ByWrite<T>(Vec<Option<T>>);

impl<T> Default for ByWrite<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> ByWrite<T> {
    fn note(&mut self, write: usize, what: T) {
        if self.0.len() <= write {
            self.0.resize(write + 1, None);
        }
        self.0[write].get_or_insert(what);
    }

    pub fn get(&self, write: usize) -> Option<T> {
        self.0.get(write).copied().flatten()
    }

    pub fn has(&self, write: usize) -> bool {
        self.get(write).is_some()
    }
}

/// Why lines of a request were not taken.
#[derive(Default)]
struct Dropped {
    /// Of the first one.
    why: Option<String>,
    lines: usize,
}

impl Dropped {
    fn add(&mut self, lines: usize, why: impl FnOnce() -> String) {
        self.why.get_or_insert_with(why);
        self.lines += lines;
    }

    fn answer(self) -> Result<(), Refusal> {
        match self.why {
            None => Ok(()),
            Some(why) => refuse(400, format!("partial write: {why} dropped={}", self.lines)),
        }
    }
}

impl Influx {
    /// With so many databases, which have only `autogen`.
    pub fn new(databases: usize) -> Self {
        let databases = (0..databases).map(|db| (db, vec![Policy::autogen()])).collect();
        Self { databases, ..Self::default() }
    }

    /// With the policy that each database has at first, unless it is there.
    pub fn create_database(&mut self, db: usize) {
        self.databases.entry(db).or_insert_with(|| vec![Policy::autogen()]);
    }

    pub fn drop_database(&mut self, db: usize) {
        self.databases.remove(&db);
        self.shards.retain(|(of, ..)| *of != db);
        self.remove(|place| place.db == db);
    }

    pub fn drop_measurement(&mut self, db: usize, measurement: usize) {
        self.remove(|place| (place.db, place.measurement) == (db, measurement));
    }

    /// Data, series and types.
    fn remove(&mut self, goes: impl Fn(&Place) -> bool) {
        self.types.retain(|&(db, _, _, measurement), _| !goes(&Place { db, measurement, number: 0 }));
        self.series.retain(|place| !goes(place));
        self.history.retain(|(place, ..), _| !goes(place));
    }

    /// What the client's point at a place was given; clients write all of them at one time, to the default policy.
    pub fn history_of(&self, place: Place) -> Option<&[(Duration, usize)]> {
        let all = (place, 0, i64::MIN)..=(place, usize::MAX, i64::MAX);
        self.history.range(all).next().map(|(_, history)| &history[..])
    }

    /// All types that a measurement's field has in a policy: true = float.
    pub fn types(&self, db: usize, policy: usize, measurement: usize) -> BTreeSet<bool> {
        let of = |key: &(usize, usize, i64, usize)| (key.0, key.1, key.3) == (db, policy, measurement);
        self.types.iter().filter(|(key, _)| of(key)).map(|(_, float)| *float).collect()
    }

    pub fn series(&self, db: usize) -> usize {
        self.series.iter().filter(|place| place.db == db).count()
    }

    /// A write at this time since the start of the run, and by this wall clock (nanoseconds).
    pub fn write(&mut self, now: Duration, clock: i64, db: &str, rp: &str, body: &[u8]) -> Result<(), Refusal> {
        let number = db.strip_prefix("db").and_then(|n| n.parse().ok());
        let Some((number, policies)) = number.and_then(|n| Some((n, self.databases.get(&n)?))) else {
            self.homeless.extend(lines(body).map(|line| line.value));
            return refuse(404, format!("database not found: \"{db}\""));
        };
        if self.body_max.is_some_and(|max| body.len() > max) {
            return refuse(413, "Request Entity Too Large");
        }
        let named = policies.iter().position(|policy| if rp.is_empty() { true } else { policy.name == rp });
        let Some(policy) = named else { return refuse(500, format!("retention policy not found: {rp}")) };
        let (db, rp) = (number, &policies[policy]);
        let oldest = rp.keeps_hours.map_or(i64::MIN, |hours| clock - hours * HOUR);
        let lines: Vec<_> = lines(body).map(|line| (rp.shard(line.time), line)).collect();
        let mut shards: Vec<i64> = Vec::new();
        for (shard, _) in lines.iter().filter(|(_, line)| line.time >= oldest) {
            if !shards.contains(shard) {
                shards.push(*shard);
            }
        }
        // What is too old is taken all the same when its shard is there for another line.
        let too_old: Vec<_> = lines.iter().filter(|(shard, _)| !shards.contains(shard)).collect();
        self.refused.extend(too_old.iter().map(|(_, line)| (line.value, "beyond retention")));
        let mut answer = Ok(());
        for shard in shards {
            let here: Vec<_> = lines.iter().filter(|(of, _)| *of == shard).map(|(_, line)| line).collect();
            answer = answer.and(self.write_shard(now, (db, policy, shard), here));
        }
        let mut dropped = Dropped::default();
        if !too_old.is_empty() {
            dropped.add(too_old.len(), || "points beyond retention policy".into());
        }
        answer.and(dropped.answer())
    }

    /// A shard that is not there is made, and a failure that says nothing of single lines is not believed at once: in
    /// both cases the request is tried a second time, in the order in which the first attempt left its lines.
    fn write_shard(&mut self, now: Duration, shard: (usize, usize, i64), lines: Vec<&Line>) -> Result<(), Refusal> {
        let mut lines = lines;
        let mut attempt = if self.shards.insert(shard) { Err(Conflict) } else { self.attempt(now, shard, &mut lines) };
        if attempt.is_err() {
            attempt = self.attempt(now, shard, &mut lines);
        }
        attempt.map_or_else(|Conflict| refuse(400, "field type conflict"), Dropped::answer)
    }

    fn attempt(
        &mut self,
        now: Duration,
        (db, policy, shard): (usize, usize, i64),
        lines: &mut [&Line],
    ) -> Result<Dropped, Conflict> {
        let place = |line: &Line| Place { db, measurement: line.measurement, number: line.number };
        let field = |line: &Line| (db, policy, shard, line.measurement);
        let mut dropped = Dropped::default();
        let mut left_out = vec![false; lines.len()];
        // All new series of a request are taken, or none; one that comes twice is counted twice.
        let new: Vec<_> = (0..lines.len()).filter(|&i| !self.series.contains(&place(lines[i]))).collect();
        match self.series_max {
            Some(max) if !new.is_empty() && self.series(db) + new.len() > max => {
                dropped.add(new.len(), || format!("max-series-per-database limit exceeded: ({max})"));
                self.refused.extend(new.iter().map(|&i| (lines[i].value, "series limit")));
                // InfluxDB forgets which lines the series belong to: as many of the first lines go too, not counted.
                (0..new.len()).chain(new.iter().copied()).for_each(|i| left_out[i] = true);
            }
            _ => self.series.extend(lines.iter().map(|line| place(line))),
        }
        let mut kept = 0;
        for i in (0..lines.len()).filter(|&i| !left_out[i]) {
            let line = lines[i];
            match self.types.get(&field(line)) {
                Some(&float) if float != line.float => {
                    self.refused.insert(line.value, TYPE_CONFLICT);
                    dropped.add(1, || conflict(line, float));
                }
                _ => {
                    lines[kept] = line;
                    kept += 1;
                }
            }
        }
        // Fields that are new get the first type. Nothing is stored when lines disagree about one.
        for line in &lines[..kept] {
            if *self.types.entry(field(line)).or_insert(line.float) != line.float {
                return Err(Conflict);
            }
        }
        for line in &lines[..kept] {
            self.history.entry((place(line), policy, line.time)).or_default().push((now, line.value));
            self.applied.note(line.value, now);
        }
        Ok(dropped)
    }
}

/// Lines disagree about a field that is new.
struct Conflict;

fn conflict(line: &Line, exists: bool) -> String {
    let name = |float| if float { "float" } else { "integer" };
    format!(
        "field type conflict: input field \"v\" on measurement \"{}\" is type {}, already exists as type {}",
        hosts::measurement(line.measurement),
        name(line.float),
        name(exists)
    )
}

struct Line {
    measurement: usize,
    number: usize,
    value: usize,
    float: bool,
    time: i64,
}

/// `m1,p=103 v=77i 1700000000000000000`, as the clients write it; a long line has a string behind the value.
fn parse(line: &[u8]) -> Option<Line> {
    let (measurement, rest) = number(line.strip_prefix(b"m")?)?;
    let (point, rest) = number(rest.strip_prefix(b",p=")?)?;
    let (value, rest) = number(rest.strip_prefix(b" v=")?)?;
    let float = !rest.starts_with(b"i");
    let before_time = memchr::memrchr(b' ', rest)?;
    let time = std::str::from_utf8(&rest[before_time + 1..]).ok()?.parse().ok()?;
    Some(Line { measurement, number: point, value, float, time })
}

/// A number, and what follows it.
fn number(text: &[u8]) -> Option<(usize, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value =
        |digits: &[u8]| digits.iter().try_fold(0_usize, |n, d| n.checked_mul(10)?.checked_add(usize::from(d - b'0')));
    let (number, rest) = text.split_at(digits);
    (digits > 0).then(|| Some((value(number)?, rest)))?
}

/// The lines of a request. Strings have no line feeds here.
fn lines(body: &[u8]) -> impl Iterator<Item = Line> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    ends.filter_map(move |end| parse(&body[std::mem::replace(&mut start, end + 1)..end]))
}
