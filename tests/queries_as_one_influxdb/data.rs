//! The data set that the oracle and the cluster are both given: how it is declared, and the bytes that are written.
//!
//! Always the same points, from a counter and a small generator, so that a query of the corpus may name any of them;
//! only those of the database `now` lie around the time of the run. Measurements are many and small, so that every
//! backend of a circle owns some, and odd in their names, so that order and quoting matter.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// 2023-11-13T00:00:00Z, a Monday, in seconds.
pub const START: i64 = 1_699_833_600;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Points of `big`.`rows`, more than the 10,000 from which InfluxDB marks a series as partial.
pub const ROWS: i64 = 10_500;

/// Statements that make the databases and policies, in order. Shard groups of a day, so that a few days are several.
pub const DECLARATIONS: &[&str] = &[
    r#"CREATE DATABASE a"#,
    r#"ALTER RETENTION POLICY autogen ON a SHARD DURATION 1d"#,
    r#"CREATE RETENTION POLICY days ON a DURATION 30000d REPLICATION 1 SHARD DURATION 1d"#,
    r#"CREATE DATABASE b WITH DURATION 30000d REPLICATION 1 SHARD DURATION 2d NAME "main""#,
    r#"CREATE RETENTION POLICY late ON b DURATION INF REPLICATION 1"#,
    r#"CREATE DATABASE "c d""#,
    r#"CREATE RETENTION POLICY "r p" ON "c d" DURATION INF REPLICATION 1 DEFAULT"#,
    r#"CREATE DATABASE now"#,
    r#"CREATE DATABASE empty"#,
];

/// The same for the part with many rows and series.
pub const DECLARATIONS_BIG: &[&str] = &[r#"CREATE DATABASE big"#];

/// One write request.
pub struct Batch {
    pub db: &'static str,
    /// Empty: the default.
    pub rp: &'static str,
    pub precision: &'static str,
    pub lines: String,
}

/// Measurements of `a` in its default policy, as they are written in queries.
pub const NAMES: &[&str] = &[
    "cpu",
    "mem",
    "disk",
    "net",
    "str",
    "flag",
    "val",
    "num",
    "\"Disk\"",
    "_x",
    "\"cpu load\"",
    "\"cpu!\"",
    "\"cpu-total\"",
    "\"été\"",
    "\"温度\"",
    "\"we\\\"ird\"",
    "\"it's\"",
    "\"a,b\"",
    "\"a=b\"",
    "\"back\\\\slash\"",
    "\"<tag>&\"",
    "\"m.n\"",
    "\"a/b\"",
    "\"select\"",
    "\"1st\"",
    "sparse",
    "gaps",
    "drift",
    "wide",
    "events",
    "alone",
    "ints",
    "floats",
    "counter",
];

/// A name of [`NAMES`] without its quotes.
pub fn plain(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => name.to_owned(),
    }
}

/// Lines of one (database, policy) in the making.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// A point at `seconds` after [`START`].
    fn at(&mut self, seconds: i64, series: &str, fields: &str) {
        writeln!(self.0, "{series} {fields} {}", (START + seconds) * 1_000_000_000).expect("a String takes everything");
    }

    fn batch(self, db: &'static str, rp: &'static str) -> Batch {
        Batch { db, rp, precision: "ns", lines: self.0 }
    }
}

/// A number that looks random and is always the same: 0 to `below` - 1.
fn noise(seed: i64, below: i64) -> i64 {
    let mixed = (seed as u64 ^ 0x9e37_79b9).wrapping_mul(0x2545_f491_4f6c_dd1d);
    ((mixed >> 33) % below as u64) as i64
}

/// A number with two decimals.
fn float(seed: i64) -> f64 {
    noise(seed, 10_000) as f64 / 100.0
}

/// All but the large measurements.
pub fn batches() -> Vec<Batch> {
    let mut batches = vec![machines(), values(), names(), shapes(), days(), second_database()];
    batches.extend([late(), third_database(), third_database_autogen(), seconds()]);
    batches.extend(around_now());
    batches
}

/// `a`: what monitoring writes. Host `d` has no region; there is nothing in the night of the second day.
fn machines() -> Batch {
    let mut lines = Lines::default();
    for n in 0..3 * DAY / (20 * MINUTE) {
        let at = n * 20 * MINUTE;
        if (DAY..DAY + 6 * HOUR).contains(&at) {
            continue;
        }
        for (h, host) in ["a,region=eu", "b,region=us", "c,region=eu", "d"].iter().enumerate() {
            let seed = n * 4 + h as i64;
            let fields = format!("usage={},idle={}i", float(seed), noise(seed + 7, 100));
            lines.at(at, &format!("cpu,host={host}"), &fields);
        }
    }
    for n in 0..96 {
        let at = n * 45 * MINUTE;
        for (h, host) in ["a", "b", "e"].iter().enumerate() {
            let seed = 9_000 + n * 3 + h as i64;
            // `usage` is a float in cpu, a tag in net.
            let fields = format!("used={}i,free={},usage={}i", noise(seed, 1 << 34), float(seed), noise(seed, 100));
            lines.at(at, &format!("mem,host={host},rack=r{}", h % 2), &fields);
        }
        let seed = 20_000 + n;
        lines.at(at, r"disk,host=a,path=/", &format!("used={},total={}i", float(seed), i64::MAX - n));
        lines.at(
            at,
            r"disk,host=b,path=/var\ log\,\=x",
            &format!("used={},total={}i", float(seed + 1), i64::MIN + 1 + n),
        );
        for (i, usage) in ["in", "out"].iter().enumerate() {
            let bytes = n * 1000 + noise(n + i as i64, 500);
            lines.at(at, &format!("net,host=a,if=eth{i},usage={usage}"), &format!("bytes={bytes}i,errs={}", n / 7));
        }
        // Counts up, and starts again twice.
        lines.at(at, "counter,host=a", &format!("n={}i,v={}", (n % 40) * 10, (n % 40) as f64 * 2.5));
        lines.at(at, "counter,host=b", &format!("n={}i,v={}", (n % 33) * 3, (n % 33) as f64 * 0.5));
    }
    lines.batch("a", "")
}

/// `a`: the field `value` with every type, and the edges of each type.
fn values() -> Batch {
    let mut lines = Lines::default();
    let text = [
        r#"plain"#,
        r#""#,
        r#"a \"quoted\" word"#,
        r#"back\\slash"#,
        "two\nlines",
        "tab\there",
        "<b>&amp;</b>",
        "été 温度 🙂",
        "sep\u{2028}ara\u{2029}tor",
        "it's",
        "a,b=c d",
        "\u{7f}\u{1}",
        "error: disk full",
        "warn: slow",
        "null",
    ];
    for (n, text) in text.iter().enumerate() {
        let fields = format!("s=\"{text}\",value=\"{text}\",b={}", n % 2 == 0);
        lines.at(n as i64 * HOUR, &format!("str,host={}", ["a", "b", "x"][n % 3]), &fields);
    }
    lines.at(20 * HOUR, "str,host=long", &format!("s=\"{}\"", "0123456789".repeat(500)));
    for n in 0..60 {
        let at = n * HOUR;
        lines.at(
            at,
            &format!("flag,host={}", ["a", "b"][n as usize % 2]),
            &format!("value={},ok={}", n % 3 == 0, n % 2 == 0),
        );
        lines.at(at, "val,host=a", &format!("value={}", float(n)));
        lines.at(at, "val,host=c", &format!("value=-{}", float(n + 1)));
        lines.at(at, "num,host=a", &format!("value={}i", noise(n, 1000) - 500));
        // The type changes with the shard group.
        let fields = if n < 24 { format!("value={n}i") } else { format!("value={n}.5") };
        lines.at(at, "drift,host=a", &fields);
    }
    let ints = [0, 1, -1, i64::MAX, i64::MIN, 9_007_199_254_740_993, 1_000_000, 999_999_999_999_999_999];
    let floats = [
        "0",
        "-0",
        "1",
        "0.1",
        "1e21",
        "1e20",
        "1e-7",
        "1e-6",
        "1.7976931348623157e308",
        "5e-324",
        "123456789.125",
        "-2.5",
    ];
    for (n, value) in ints.iter().enumerate() {
        lines.at(n as i64, &format!("ints,k=k{}", n % 2), &format!("value={value}i"));
    }
    for (n, value) in floats.iter().enumerate() {
        lines.at(n as i64, &format!("floats,k=k{}", n % 3), &format!("value={value}"));
    }
    lines.batch("a", "")
}

/// `a`: names that need quoting, escaping or care with their order.
fn names() -> Batch {
    let mut lines = Lines::default();
    let series = [
        r"Disk,host=a",
        r"_x,host=a",
        r"cpu\ load,host=a",
        r"cpu!,host=a",
        r"cpu-total,host=a",
        r"été,ville=Genève",
        r"温度,城市=北京",
        r#"we"ird,host=a"#,
        r"it's,host=a",
        r"a\,b,host=a",
        r"a=b,host=a",
        r"back\slash,host=a",
        r"<tag>&,host=<a>&",
        r"m.n,host=a",
        r"a/b,host=a",
        r"select,host=a",
        r"1st,host=a",
    ];
    for (s, series) in series.iter().enumerate() {
        for n in 0..6 {
            let seed = s as i64 * 10 + n;
            let odd = if s % 3 == 0 { r#",field\ one=1i,"q"=2"# } else { "" };
            let fields = format!("v={},n={}i{odd}", float(seed), noise(seed, 50));
            lines.at(n * 7 * HOUR + s as i64, &format!("{series},dc=d{}", n % 2), &fields);
        }
    }
    lines.at(5, r"温度,城市=上\ 海,dc=d0", "值=21.5,v=3");
    lines.at(6, r"été,ville=Le\ Havre,dc=d1", "température=8i,v=4");
    lines.batch("a", "")
}

/// `a`: sparse fields, gaps, many columns, events.
fn shapes() -> Batch {
    let mut lines = Lines::default();
    for n in 0..80 {
        lines.at(n * HOUR / 2, &format!("sparse,k=k{}", n % 4), &format!("f{}={n},g{}={n}i", n % 7, n % 3));
        if noise(n, 4) == 0 {
            lines.at(n * HOUR, "gaps,host=a", &format!("v={n},n={n}i"));
            lines.at(n * HOUR + 10, "gaps,host=b", &format!("v={n}.25"));
        }
    }
    for n in 0..4 {
        let fields: Vec<_> = (0..40).map(|f| format!("f{f:02}={}", float(n * 40 + f))).collect();
        lines.at(n * DAY / 2, &format!("wide,host=a,rack=r{n}"), &fields.join(","));
    }
    for n in 0..40 {
        let level = ["info", "warn", "error"][noise(n, 3) as usize];
        let fields = format!("title=\"event {n}\",tags=\"{level},x\",n={n}i");
        lines.at(n * 97 * MINUTE, &format!("events,level={level}"), &fields);
    }
    lines.at(0, "alone", "v=1");
    lines.at(DAY, "alone", "v=2,w=\"no tags\"");
    lines.batch("a", "")
}

/// `a`.`days`: a second measurement called cpu, with other fields, and two of its own.
fn days() -> Batch {
    let mut lines = Lines::default();
    for n in 0..4 {
        lines.at(n * DAY, "cpu,host=a,region=eu", &format!("usage={}i,load={}", n * 10, float(n)));
        lines.at(n * DAY, "cpu,host=z", &format!("usage={}i", n));
        lines.at(n * DAY, "daily,host=a", &format!("mean={},s=\"day {n}\"", float(n)));
        lines.at(n * DAY + HOUR, "slow,region=eu", &format!("value={n}i"));
    }
    lines.batch("a", "days")
}

/// `b`: measurements called as in `a`, and others.
fn second_database() -> Batch {
    let mut lines = Lines::default();
    for n in 0..50 {
        lines.at(n * HOUR + 1, &format!("cpu,host=b{}", n % 3), &format!("usage={},idle={}i", float(n), n));
        lines.at(n * HOUR, "m,k=x", &format!("value={n}"));
        lines.at(n * HOUR, "only_b,k=x", &format!("value={n}i,other=true"));
    }
    lines.batch("b", "")
}

/// `b`.`late`: its `m` again.
fn late() -> Batch {
    let mut lines = Lines::default();
    for n in 0..10 {
        lines.at(10 * DAY + n * HOUR, "m,k=y", &format!("value={n},extra=\"e{n}\""));
    }
    lines.batch("b", "late")
}

/// `c d`: its default policy has a blank in its name as well.
fn third_database() -> Batch {
    let mut lines = Lines::default();
    for n in 0..20 {
        lines.at(n * HOUR, r"x\ y,host=a", &format!("v={n}"));
        lines.at(n * HOUR, "cpu,host=c1", &format!("usage={n}.5"));
        lines.at(n * HOUR, "other,host=a", &format!("v=\"{n}\""));
    }
    lines.batch("c d", "")
}

fn third_database_autogen() -> Batch {
    let mut lines = Lines::default();
    for n in 0..5 {
        lines.at(n * HOUR, r"x\ y,host=old", &format!("v={n}i"));
    }
    lines.batch("c d", "autogen")
}

/// `c d`: written in whole seconds.
fn seconds() -> Batch {
    let lines = (0..5).map(|n| format!("sec,host=a v={n} {}\n", START + n)).collect();
    Batch { db: "c d", rp: "", precision: "s", lines }
}

/// `now`: points every minute of the last two hours, every hour of the last two days, and some that are to come.
fn around_now() -> [Batch; 1] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs() as i64;
    let mut lines = Lines::default();
    let ages = (0..120).map(|n| n * MINUTE).chain((2..48).map(|n| n * HOUR)).chain([-3 * HOUR, -50 * HOUR]);
    for age in ages {
        // In the middle of a minute, so that borders of buckets are far.
        let at = (now - age) / MINUTE * MINUTE + 30 - START;
        for host in ["a", "b", "c"] {
            let seed = age / MINUTE + i64::from(host.as_bytes()[0]);
            lines.at(at, &format!("cpu,host={host}"), &format!("usage={},idle={}i", float(seed), noise(seed, 100)));
        }
        lines.at(at, "mem,host=a", &format!("used={}i", noise(age, 1 << 30)));
        lines.at(at, "net,host=b", &format!("bytes={}i", 1_000_000 - age));
        lines.at(at, "logs,app=x", &format!("s=\"line at {age}\""));
    }
    [lines.batch("now", "")]
}

/// `big`: more than 10,000 rows in one series, more than 10,000 series in one measurement, and two measurements that
/// have as many only together.
pub fn batches_big() -> Vec<Batch> {
    let mut lines: Vec<String> =
        (0..ROWS).map(|n| format!("rows,k=x n={n}i {}\n", (START + n) * 1_000_000_000)).collect();
    let at = START * 1_000_000_000;
    lines.extend((0..10_300).map(|n| format!("ids,id=s{n:05} n={n}i {at}\n")));
    lines.extend((0..5_300).map(|n| format!("left,id=a{n:05} n={n}i {at}\n")));
    lines.extend((0..5_200).map(|n| format!("right,id=b{n:05} n={n}i {at}\n")));
    lines.chunks(5_000).map(|chunk| Batch { db: "big", rp: "", precision: "ns", lines: chunk.concat() }).collect()
}

/// Points for all measurements of `a`, with a field of their own; the first of each series replace those of the round
/// before.
pub fn written_late(round: i64, points: i64) -> Batch {
    let mut lines = Lines::default();
    for name in NAMES {
        let measurement = plain(name).replace(' ', r"\ ").replace(',', r"\,");
        for n in 0..points {
            lines.at(n * MINUTE, &format!("{measurement},host=late"), &format!("late={}i", n * (round + 1)));
        }
        lines.at(points * MINUTE, &format!("{measurement},host=late{round}"), "late=1i");
    }
    lines.batch("a", "")
}
