//! Tests of the copy engine between two real InfluxDB servers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fluxgate_dataplane::placement::Place;

use super::intercept::{Then, intercept};
use super::support::{Influxd, topology};
use fluxgate_control::influx::catalog;
use fluxgate_control::influx::client::Client;
use fluxgate_control::influx::policy::Policy;
use fluxgate_control::influx::wire::msgpack::MsgpackValue;
use fluxgate_control::migration::rows::{self, PointSink};
use fluxgate_control::migration::side::SliceWindow;
use fluxgate_control::migration::slices;
use fluxgate_control::migration::{
    Copied, CopyError, CopySide, CopyTask, NotCleared, Progress, Slice, Steering, Writes, clear,
};

pub const PATIENCE: Duration = Duration::from_secs(20);
const DAY: i64 = 86_400_000_000_000;
/// A Thursday; a shard group of autogen begins on Monday.
pub const T0: i64 = 1_700_000_000_000_000_000;

pub fn side(url: String) -> CopySide {
    let backend = &topology(&[vec![url]]).backends[0];
    CopySide::new(backend, Client::new(backend, &fluxgate_dataplane::tls::Trust::default()))
}

pub fn task(measurement: &str) -> CopyTask {
    CopyTask { place: Place::new("db", measurement).owned(), since_ns: None, done: Vec::new(), retry_for: PATIENCE }
}

/// A copy between servers without other writes: all earlier points have been delivered.
fn copy(
    task: &CopyTask,
    source: &CopySide,
    target: &CopySide,
    steering: &Steering,
    progress: &Progress,
    checkpoint: &mut dyn FnMut(&Slice),
) -> Result<Copied, CopyError> {
    let writes = Writes::ToBoth(&|| Ok(()));
    fluxgate_control::migration::copy(task, source, target, writes, steering, progress, checkpoint)
}

pub fn write(influxd: &Influxd, rp: &str, lines: &[u8]) {
    side(influxd.url()).client.write("db", rp, lines, PATIENCE).unwrap();
}

/// Every value of a window with its series, time and type, bit for bit.
#[derive(Default)]
struct Everything {
    series: String,
    fields: Vec<String>,
    values: BTreeSet<String>,
}

impl PointSink for Everything {
    type Error = Infallible;

    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        let there = tags.iter().filter(|(_, value)| !value.is_empty());
        self.series = there.map(|(k, v)| format!("{}={};", k.escape_ascii(), v.escape_ascii())).collect();
        self.fields = fields.iter().map(|field| field.escape_ascii().to_string()).collect();
    }

    fn row(&mut self, time_ns: i64, values: &[MsgpackValue<'_>]) -> Result<(), Infallible> {
        for (field, value) in self.fields.iter().zip(values) {
            let value = match value {
                MsgpackValue::Nil => continue,
                MsgpackValue::Float(value) => format!("float {:016x}", value.to_bits()),
                MsgpackValue::String(text) => format!("string {}", text.escape_ascii()),
                other => format!("{other:?}"),
            };
            self.values.insert(format!("{} {field} {time_ns} {value}", self.series));
        }
        Ok(())
    }

    fn document(&mut self, _bytes: usize) {}
}

/// All values, read by shard group, so that nothing is cast.
pub fn everything(influxd: &Influxd, rp: &str, measurement: &str) -> BTreeSet<String> {
    let side = side(influxd.url());
    let mut all = Everything::default();
    for (begin_ns, end_ns) in slices::intervals(&side, "db", rp, i64::MIN + 2).unwrap() {
        let window = SliceWindow { db: "db", rp, measurement, begin_ns, end_ns };
        rows::read(&side, &window, 1000, &Arc::default(), &mut all).unwrap();
    }
    all.values
}

fn policies(influxd: &Influxd) -> Vec<Policy> {
    let mut policies = catalog::database(&influxd.client(), "db").unwrap().expect("the database");
    policies.sort_by(|x, y| x.name.cmp(&y.name));
    policies
}

fn measurements(influxd: &Influxd) -> Vec<String> {
    influxd.run("SHOW MEASUREMENTS ON db").into_iter().map(|mut row| row.remove(0)).collect()
}

/// `count` points of two fields, one per second from T0 on, in 10 series.
fn plain(count: i64) -> Vec<u8> {
    let line = |i: i64| format!("m,host=h{} i={i}i,f={i}.5 {}\n", i % 10, T0 + i * 1_000_000_000);
    (0..count).map(line).collect::<String>().into_bytes()
}

#[test]
fn a_copy_is_exact_in_every_type_name_and_policy() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run(r#"CREATE DATABASE db WITH DURATION INF REPLICATION 1 SHARD DURATION 2d NAME "autogen""#);
    a.run(r#"CREATE RETENTION POLICY "year \"s" ON db DURATION 5200w REPLICATION 1 SHARD DURATION 3d DEFAULT"#);
    a.run(r#"CREATE RETENTION POLICY "short" ON db DURATION 40h REPLICATION 1 SHARD DURATION 1h"#);
    let year = "year \"s";
    let mut lines: Vec<u8> = Vec::new();
    let integers = [i64::MIN, i64::MIN + 1, -1_000_000, -1, 0, 999_999, 1_000_000, 1 << 53, (1 << 53) + 1, i64::MAX];
    for (at, n) in integers.into_iter().enumerate() {
        lines.extend(format!("m,host=a int={n}i {}\n", T0 + at as i64).bytes());
    }
    let floats = ["-0", "0", "1", "1e-320", "5e-324", "0.1", "1e6", "1e21", "-1.7976931348623157e308", "2.5e-8", "1e7"];
    for (at, x) in floats.into_iter().enumerate() {
        lines.extend(format!("m,host=b float={x} {}\n", T0 + at as i64).bytes());
    }
    // Every byte value, each in one string.
    for byte in 0..=255_u8 {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            other => &[other],
        };
        lines.extend(
            [&b"m,host=c string=\"<"[..], escaped, format!(">\" {}\n", T0 + i64::from(byte)).as_bytes()].concat(),
        );
    }
    lines.extend(format!("m,host=d string=\"\" {T0}\nm,host=d string=\"a\\\\\\\\\\\"b\nc\" {}\n", T0 + 1).bytes());
    lines.extend(format!("m,host=e yes=t,no=F {T0}\nm no=true {T0}\nm,x=1 sparse=1i {}\n", T0 + 1).bytes());
    // A field with the name of a tag.
    let fields = r#"host="field",time2=1,a\,b\=c\ d=2,"q"=3,un"paired=5,count_x=4i"#;
    lines.extend(format!("m,host=f {fields} {T0}\nm,host=g after=\"\" {T0}\n").bytes());
    lines.extend(format!("m,t\\,a\\=g\\ s=v\\,a\\=l\\ ue,back\\slash=\\a\\,b,q\"=\"\",é=中\\ 文 v=1 {T0}\n").bytes());
    lines.extend("m v=1 -9223372036854775806\nm v=2 -1\nm v=3 0\nm v=4 9223372036854775806\n".bytes());
    // Another type in another shard group, in both directions.
    lines.extend(format!("m mixed=1i {}\nm mixed=1 {}\nm mixed=\"1\" {}\n", T0, T0 + 30 * DAY, T0 + 60 * DAY).bytes());
    lines.extend(format!("m mixed=true {}\n", T0 + 90 * DAY).bytes());
    write(&a, "autogen", &lines);
    write(&a, year, format!("m,host=a v=1.5 {T0}\nm,host=a v=7i {}\n", T0 + 20 * DAY).as_bytes());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    write(&a, "short", format!("m v=1i {now}\nm v=2i {}\n", now - DAY).as_bytes());
    let odd = ["a b", "a,b", "a=b", "a\"b", "a\\b", "a\\\\b", "é中", "a'b", "a\tb", "/a/"];
    for name in odd {
        let escaped = name.replace(',', "\\,").replace(' ', "\\ ");
        write(&a, "autogen", format!("{escaped},host=a v=1i {T0}\n").as_bytes());
    }
    // The target's own settings must be changed.
    b.run("CREATE DATABASE db WITH DURATION 1d REPLICATION 1 SHARD DURATION 1h");
    b.run("CREATE RETENTION POLICY \"short\" ON db DURATION INF REPLICATION 1 SHARD DURATION 7d DEFAULT");

    let (source, target) = (side(a.url()), side(b.url()));
    let names = measurements(&a);
    assert_eq!(names.len(), 1 + odd.len(), "{names:?}");
    for name in &names {
        let progress = Progress::default();
        let copied = copy(&task(name), &source, &target, &Steering::new(0), &progress, &mut |_| ());
        let copied = copied.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(progress.retries.load(Relaxed), 0, "{name}");
        assert_eq!(progress.slices_done.load(Relaxed), copied.slices);
        assert_eq!(progress.slices_done.load(Relaxed), progress.slices_total.load(Relaxed));
    }
    assert_eq!(policies(&a), policies(&b));
    assert_eq!(measurements(&b), names);
    let mut values = 0;
    for name in &names {
        for rp in ["autogen", year, "short"] {
            let (want, have) = (everything(&a, rp, name), everything(&b, rp, name));
            let (lost, strange): (Vec<_>, Vec<_>) =
                (want.difference(&have).collect(), have.difference(&want).collect());
            assert!(lost.is_empty() && strange.is_empty(), "{name} {rp}: lost {lost:?}, strange {strange:?}");
            values += want.len();
        }
    }
    assert!(values > 300, "{values}");
    let text: String = everything(&a, "autogen", "m").into_iter().collect();
    for sample in ["Int(-9223372036854775808)", "float 8000000000000000", "float 00000000000007e8", "Bool(true)"] {
        assert!(text.contains(sample), "{sample} was never there");
    }
    assert_eq!(a.run("SHOW SERIES ON db"), b.run("SHOW SERIES ON db"));
}

/// Names with special characters, as far as InfluxDB accepts them.
#[test]
fn unusual_names_are_copied_unchanged() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    let mut state = 7_u64;
    let mut name = || {
        let mut name = String::new();
        for at in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Not at the front, where it begins a comment.
            let pieces = ["a", "\\,", "\\ ", "\\=", "\"", "\\", "é", "'", "\\\\", "\t", if at > 0 { "#" } else { "x" }];
            name += pieces[(state >> 33) as usize % pieces.len()];
        }
        name
    };
    let mut taken = 0;
    for at in 0..300 {
        let line = format!("{},{}={},{}={} {}={at}i {}", name(), name(), name(), name(), name(), name(), T0 + at);
        let written = side(a.url()).client.write("db", "autogen", line.as_bytes(), PATIENCE);
        taken += usize::from(written.is_ok());
    }
    assert!(taken > 100, "{taken} lines");
    // An invalid escape (`\\=` in a measurement, for example) leaves points that InfluxDB itself never finds again.
    let (mut readable, mut values) = (Vec::new(), 0);
    for name in measurements(&a) {
        let copied =
            copy(&task(&name), &side(a.url()), &side(b.url()), &Steering::new(0), &Progress::default(), &mut |_| ());
        copied.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let want = everything(&a, "autogen", &name);
        assert_eq!(want, everything(&b, "autogen", &name), "{name:?}");
        values += want.len();
        if !want.is_empty() {
            readable.push(name);
        }
    }
    assert!(values > 60, "{values} values");
    assert_eq!(measurements(&b), readable);
}

#[test]
fn a_cancelled_copy_goes_on_after_its_last_slice() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    let days: String = (0..20).map(|day| format!("m v={day}i {}\n", T0 + day * 7 * DAY)).collect();
    write(&a, "autogen", days.as_bytes());
    let (source, target) = (side(a.url()), side(b.url()));
    let steering = Steering::new(0);
    let mut done: Vec<Slice> = Vec::new();
    let stopped = copy(&task("m"), &source, &target, &steering, &Progress::default(), &mut |slice| {
        done.push(slice.clone());
        if done.len() == 5 {
            steering.cancel();
        }
    });
    assert_eq!((stopped, done.len()), (Err(CopyError::Cancelled), 5));
    assert!(done.windows(2).all(|pair| pair[0].begin_ns >= pair[1].end_ns), "the newest first: {done:?}");
    assert_eq!(everything(&b, "autogen", "m").len(), 6, "one more is written while the fifth is verified");

    // Finished slices are skipped: otherwise this point would be copied too.
    write(&a, "autogen", format!("m late=1i {}\n", done[0].begin_ns).as_bytes());
    let rest = CopyTask { done: done.clone(), ..task("m") };
    // A cancel ends all calls of its sides for good, so new sides are needed.
    let (source, target) = (side(a.url()), side(b.url()));
    let copied = copy(&rest, &source, &target, &Steering::new(0), &Progress::default(), &mut |slice| {
        assert!(!done.contains(slice), "{slice:?} twice");
    });
    assert_eq!(copied.map(|copied| (copied.slices, copied.values)), Ok((15, 15)));
    assert_eq!(everything(&b, "autogen", "m").len(), 20);
    // Only the last weeks, as in a resync.
    let since = CopyTask { since_ns: Some(T0 + 18 * 7 * DAY), ..task("m") };
    let copied = copy(&since, &source, &target, &Steering::new(0), &Progress::default(), &mut |_| ());
    assert_eq!(copied.map(|copied| copied.values), Ok(3), "two points of the last two weeks, and the late one");
}

#[test]
fn a_target_that_comes_back_gets_everything() {
    let (a, mut b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    write(&a, "autogen", &plain(30_000));
    let (source, target) = (side(a.url()), side(b.url()));
    let (steering, progress) = (Steering::new(2_000_000), Progress::default());
    let task = task("m");
    let copied = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&task, &source, &target, &steering, &progress, &mut |_| ()));
        let end = Instant::now() + PATIENCE;
        while progress.points.load(Relaxed) == 0 {
            assert!(Instant::now() < end && !copying.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        b.stop();
        while progress.retries.load(Relaxed) == 0 {
            assert!(Instant::now() < end && !copying.is_finished(), "it must notice the stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        b.restart();
        copying.join().unwrap()
    });
    assert_eq!(copied.map(|copied| copied.values), Ok(60_000));
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));
}

#[test]
fn a_target_that_stays_away_is_a_failure_and_no_slice_is_done() {
    let (a, mut b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    b.run("CREATE DATABASE db");
    write(&a, "autogen", &plain(30_000));
    let (source, target) = (side(a.url()), side(b.url()));
    let (steering, progress) = (Steering::new(2_000_000), Progress::default());
    let task = CopyTask { retry_for: Duration::from_secs(1), ..task("m") };
    let mut done = 0;
    let copied = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&task, &source, &target, &steering, &progress, &mut |_| done += 1));
        let end = Instant::now() + PATIENCE;
        while progress.points.load(Relaxed) == 0 {
            assert!(Instant::now() < end && !copying.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        b.stop();
        copying.join().unwrap()
    });
    assert!(matches!(copied, Err(CopyError::Target(_))), "{copied:?}");
    assert_eq!((done, progress.slices_done.load(Relaxed)), (0, 0));

    let nowhere = copy(&task, &target, &source, &Steering::new(0), &progress, &mut |_| ());
    assert!(matches!(nowhere, Err(CopyError::Source(_))), "{nowhere:?}");
    let missing = CopyTask { place: Place::new("nowhere", "m").owned(), ..task };
    let missing = copy(&missing, &source, &target, &Steering::new(0), &progress, &mut |_| ());
    assert!(matches!(&missing, Err(CopyError::Source(why)) if why.contains("database not found")), "{missing:?}");
}

#[test]
fn a_refused_slice_fails_and_the_copy_goes_on() {
    let (a, b) = (Influxd::start(), Influxd::start());
    for influxd in [&a, &b] {
        influxd.run("CREATE DATABASE db");
    }
    write(&a, "autogen", format!("m v=1i {T0}\nm v=2i,w=1 {}\nm v=3i {}\n", T0 + 1, T0 + 30 * DAY).as_bytes());
    // The same field as a float in the same shard group.
    write(&b, "autogen", format!("m v=1.0 {}\n", T0 + 2).as_bytes());
    let progress = Progress::default();
    let mut done = Vec::new();
    let copied = copy(&task("m"), &side(a.url()), &side(b.url()), &Steering::new(0), &progress, &mut |slice| {
        done.push(slice.clone());
    });
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert!(failures[0].why.contains("refused 2 points") && failures[0].why.contains("type conflict"), "{failures:?}");
    assert!(done.len() == 1 && done[0].begin_ns > T0, "{done:?}");
    assert_eq!(progress.points_refused.load(Relaxed), 2);
    assert_eq!(progress.slices_failed.load(Relaxed), 1);
}

/// The URL of `influxd` behind a proxy that answers 204 to the first `lies` writes and passes none of them on.
fn lying(influxd: &Influxd, lies: usize) -> String {
    let left = AtomicUsize::new(lies);
    intercept(influxd, move |request| {
        let is_lie = request.starts_with("POST /write")
            && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_lie { Then::Acknowledge } else { Then::Pass }
    })
}

#[test]
fn a_point_that_was_acknowledged_and_lost_is_copied_again() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    write(&a, "autogen", &plain(10));
    let progress = Progress::default();
    let mut done = 0;
    let target = side(lying(&b, 1));
    let copied = copy(&task("m"), &side(a.url()), &target, &Steering::new(0), &progress, &mut |_| done += 1);
    assert_eq!((copied.map(|copied| copied.values), done), (Ok(20), 1));
    assert_eq!(progress.retries.load(Relaxed), 1);
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));
}

#[test]
fn a_point_that_is_lost_each_time_is_a_failure_with_numbers() {
    let (a, b) = (Influxd::start(), Influxd::start());
    for influxd in [&a, &b] {
        influxd.run("CREATE DATABASE db");
        write(influxd, "autogen", &plain(9));
    }
    write(&a, "autogen", &plain(10));
    let progress = Progress::default();
    let target = side(lying(&b, usize::MAX));
    let copied = copy(&task("m"), &side(a.url()), &target, &Steering::new(0), &progress, &mut |_| {
        panic!("a point is missing");
    });
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert_eq!(failures[0].why, "2 values are missing");
    // Extra points at the target do not make up for it.
    write(&b, "autogen", format!("m,host=new i=1i,f=1 {T0}\nm,host=new i=1i,f=1 {}\n", T0 + 1).as_bytes());
    let copied = copy(&task("m"), &side(a.url()), &target, &Steering::new(0), &progress, &mut |_| {
        panic!("a point is missing");
    });
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert!(failures[0].why.starts_with("2 values are missing"), "{failures:?}");
}

#[test]
fn a_target_may_have_more_than_the_source() {
    let (a, b) = (Influxd::start(), Influxd::start());
    for influxd in [&a, &b] {
        influxd.run("CREATE DATABASE db");
    }
    write(&a, "autogen", &plain(10));
    write(&b, "autogen", format!("m,host=new,tag=x other=1,i=1i,f=1 {T0}\nm,tag=a i=1i {T0}\n").as_bytes());
    let progress = Progress::default();
    let copied = copy(&task("m"), &side(a.url()), &side(b.url()), &Steering::new(0), &progress, &mut |_| ());
    assert_eq!(copied.map(|copied| copied.values), Ok(20));
    assert_eq!(progress.retries.load(Relaxed), 0);
    assert_eq!(everything(&b, "autogen", "m").len(), 24);
}

#[test]
fn a_measurement_is_dropped_only_when_its_owner_has_each_of_its_points() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    a.run("CREATE RETENTION POLICY two ON db DURATION INF REPLICATION 1");
    write(&a, "autogen", &plain(100));
    write(&a, "two", b"m v=1i 5\nm v=2i 6\n");
    write(&a, "autogen", b"other v=1 5\n");
    let (misplaced, right) = (side(a.url()), side(b.url()));
    let place = Place::new("db", "m").owned();
    let (second, steering, progress) = (Duration::from_secs(1), Steering::new(0), Progress::default());
    let clear = || clear(&place, &misplaced, &right, second, &steering, &progress);
    let Err(NotCleared::Failed { why, .. }) = clear() else { panic!("the owner has nothing") };
    assert!(why.contains("database not found"), "{why}");
    copy(&task("m"), &misplaced, &right, &Steering::new(0), &Progress::default(), &mut |_| ()).unwrap();

    // One point less and another one instead: the counts are equal.
    b.run_in("db", "DELETE FROM m WHERE time = 6");
    write(&b, "two", b"m v=2i 7\n");
    let Err(NotCleared::Missing { values: 1, rp, interval }) = clear() else { panic!("a point is missing") };
    assert!(rp == "two" && interval.0 <= 6 && 6 < interval.1, "{rp} {interval:?}");
    assert_eq!(everything(&a, "autogen", "m").len(), 200);

    write(&b, "two", b"m v=2i 6\n");
    assert_eq!(clear(), Ok(202));
    assert_eq!(measurements(&a), ["other"]);
    assert_eq!(everything(&b, "autogen", "m").len(), 200);
}

#[test]
fn a_rate_limit_holds_and_a_pause_lasts_until_it_ends() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    write(&a, "autogen", &plain(60_000));
    let (source, target) = (side(a.url()), side(b.url()));
    let (steering, progress) = (Steering::new(1_500_000), Progress::default());
    let task = task("m");
    let begin = Instant::now();
    steering.pause(true);
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&task, &source, &target, &steering, &progress, &mut |_| ()));
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(progress.points.load(Relaxed), 0, "paused");
        steering.pause(false);
        assert_eq!(copying.join().unwrap().map(|copied| copied.values), Ok(120_000));
    });
    let (bytes, took) = (progress.bytes.load(Relaxed), begin.elapsed());
    // The last batch is sent at once and leaves a debt.
    let least = (bytes as f64 - 1_100_000.0) / 1_500_000.0;
    assert!(bytes > 2_500_000 && took.as_secs_f64() > least, "{bytes} bytes in {took:?}");
}

#[test]
fn memory_does_not_grow_with_the_measurement() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    let source = side(a.url());
    const POINTS: i64 = 1_000_000;
    for part in 0..POINTS / 20_000 {
        let line = |i: i64| format!("m,host=h{} i={i}i {}\n", i % 10, T0 + i * 100_000);
        let lines: String = (part * 20_000..(part + 1) * 20_000).map(line).collect();
        write(&a, "autogen", lines.as_bytes());
    }
    // Strings of a large size: a piece of 10,000 rows would be 300 MB.
    let long = "x".repeat(30_000);
    for part in 0..10 {
        let line = |i: i64| format!("m,host=long s=\"{long}\" {}\n", T0 + i);
        let lines: String = (part * 100..(part + 1) * 100).map(line).collect();
        write(&a, "autogen", lines.as_bytes());
    }
    let progress = Progress::default();
    let mut done = 0;
    let copied = copy(&task("m"), &source, &side(b.url()), &Steering::new(0), &progress, &mut |_| done += 1);
    assert_eq!(copied.map(|copied| copied.values), Ok(POINTS as u64 + 1000));
    assert!(done > 5, "{done} slices: the measurement must be cut");
    let held = progress.held_bytes_max.load(Relaxed);
    assert!(held > 0 && held < 20_000_000, "{held} bytes");
    let count = b.run_in("db", "SELECT count(i), count(s) FROM m");
    assert_eq!(count[0][1..], [POINTS.to_string(), "1000".to_owned()]);
}
