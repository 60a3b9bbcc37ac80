//! Tests the search against a model of a backend that stores points, refuses some, and counts like InfluxDB.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;

use super::bisect::{Bisect, Next, PartReply};
use super::body::RequestBody;
use super::series::Fate;

pub(super) fn split(body: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, _) in body.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        lines.push(start..at);
        start = at + 1;
    }
    lines
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// `partial write` with the correct count; the other points are stored.
    Partial,
    /// The same, but the count is too small.
    PartialUndercounted,
    /// The whole request is refused, nothing stored.
    Whole,
    /// The server falls over: 500, nothing stored.
    Fails,
}

/// The text of a line says what it is: `m<series> v=<value>[bad] <time>`.
struct Model {
    manner: Manner,
    stored: BTreeMap<String, String>,
    requests: usize,
    failures: usize,
}

impl Model {
    fn ask(&mut self, part: &[u8]) -> Result<(), String> {
        self.requests += 1;
        let text = std::str::from_utf8(part).unwrap();
        let bad = text.lines().filter(|l| l.contains("bad")).count();
        if bad == 0 || matches!(self.manner, Manner::Partial | Manner::PartialUndercounted) {
            for line in text.lines().filter(|l| !l.contains("bad")) {
                let mut words = line.split(' ');
                let (series, value, time) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                self.stored.insert(format!("{series} {time}"), value.to_owned());
            }
        }
        if bad == 0 {
            return Ok(());
        }
        match self.manner {
            Manner::Partial => Err(format!("partial write: some reason dropped={bad}")),
            Manner::PartialUndercounted => Err(format!("partial write: some reason dropped={}", bad.div_ceil(2) - 1)),
            Manner::Whole => Err("no such thing".into()),
            Manner::Fails => {
                self.failures += 1;
                Err("500".into())
            }
        }
    }
}

/// Runs a search to its end. Returns the refused lines; None: it was fruitless.
fn search(body: &str, model: &mut Model) -> Option<BTreeSet<u32>> {
    let body = body.as_bytes();
    let mut bisect = Bisect::new(split(body));
    let mut part = RequestBody::default();
    for _ in 0..100_000 {
        bisect.part(body, &mut part);
        let answer = model.ask(part.bytes());
        let reply = match &answer {
            Ok(()) => PartReply::Taken,
            Err(text) if model.manner == Manner::Fails => PartReply::Doubt(text),
            Err(text) => PartReply::Refused(text),
        };
        match bisect.answered(body, reply) {
            Next::Send | Next::Pause => {}
            Next::Settled => return Some(bisect.refused().iter().map(|r| r.line).collect()),
            Next::Fruitless => return None,
            Next::Halve => panic!("a steady backend takes what it took before"),
        }
    }
    panic!("the search does not end");
}

/// The types of fields as InfluxDB makes them: see `sim/src/influx.rs`, which is held against a real one.
#[derive(Default)]
struct Types {
    known: BTreeMap<String, char>,
    /// Those of which a point has been stored. A restart forgets the others.
    stored: BTreeMap<String, char>,
}

impl Types {
    /// Lines are `m<n> v=<value><type> <time>`.
    fn ask(&mut self, part: &[u8]) -> Result<(), String> {
        let word = |line: &str, n: usize| line.split(' ').nth(n).unwrap().to_owned();
        let kind = |value: &str| if value.ends_with('i') { 'i' } else { 'f' };
        let lines = std::str::from_utf8(part).unwrap().lines().map(|line| (word(line, 0), kind(&word(line, 1))));
        let known = self.known.clone();
        let (good, wrong): (Vec<_>, Vec<_>) = lines.partition(|(m, kind)| known.get(m).is_none_or(|is| is == kind));
        for (measurement, kind) in &good {
            if self.known.entry(measurement.clone()).or_insert(*kind) != kind {
                return Err("field type conflict".to_owned());
            }
        }
        self.stored.extend(good);
        let Some((measurement, kind)) = wrong.first() else { return Ok(()) };
        let name = |kind| if kind == 'i' { "integer" } else { "float" };
        Err(format!(
            "partial write: field type conflict: input field \"v\" on measurement \"{measurement}\" is type {}, \
             already exists as type {} dropped={}",
            name(*kind),
            name(known[measurement]),
            wrong.len()
        ))
    }
}

fn manners() -> impl Strategy<Value = Manner> {
    prop_oneof![Just(Manner::Partial), Just(Manner::PartialUndercounted), Just(Manner::Whole), Just(Manner::Fails)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// However the lines are cut into requests, and if the server is restarted in between, the first line of a
    /// measurement decides its type.
    #[test]
    fn the_first_line_of_a_new_field_decides_its_type(
        lines in prop::collection::vec((0u8..100, prop::bool::ANY), 1..300),
        cut in 1usize..300,
        restart in 1usize..60,
    ) {
        let (mut types, mut want, mut asked) = (Types::default(), BTreeMap::new(), 0);
        for request in lines.chunks(cut) {
            let text = |(m, integer): &(u8, bool)| format!("m{m} v=1{} 1\n", if *integer { "i" } else { "" });
            let body: String = request.iter().map(text).collect();
            let body = body.as_bytes();
            let mut refused = BTreeSet::new();
            for (i, (m, integer)) in (0u32..).zip(request) {
                let kind = if *integer { 'i' } else { 'f' };
                if *want.entry(format!("m{m}")).or_insert(kind) != kind {
                    refused.insert(i);
                }
            }
            let mut part = RequestBody::default();
            let mut end = Next::Fruitless;
            // Halves are sent later, in the same order as the whole.
            while matches!(end, Next::Fruitless | Next::Halve) {
                let mut bisect = Bisect::new(split(body));
                end = loop {
                    bisect.part(body, &mut part);
                    asked += 1;
                    let answer = types.ask(part.bytes());
                    let reply = match &answer {
                        _ if asked == restart => {
                            types.known = types.stored.clone();
                            PartReply::Doubt("cut")
                        }
                        Ok(()) => PartReply::Taken,
                        Err(text) => PartReply::Refused(text),
                    };
                    match bisect.answered(body, reply) {
                        Next::Send | Next::Pause => {}
                        end => break end,
                    }
                };
                if end == Next::Settled {
                    prop_assert_eq!(&bisect.refused().iter().map(|r| r.line).collect::<BTreeSet<_>>(), &refused);
                }
            }
            prop_assert_eq!(end, Next::Settled);
            prop_assert_eq!(&types.stored, &want);
        }
    }

    /// Few series and times: many lines overwrite each other, so that a wrong order shows.
    #[test]
    fn exactly_the_bad_lines_are_found_and_the_others_end_in_order(
        lines in prop::collection::vec((0u8..3, 0u8..4, prop::bool::weighted(0.1)), 1..200),
        manner in manners(),
    ) {
        let text = |(i, (series, time, bad)): (usize, &(u8, u8, bool))| {
            format!("m{series} v={i}{} {time}\n", if *bad { "bad" } else { "" })
        };
        let body: String = lines.iter().enumerate().map(text).collect();
        let bad: BTreeSet<u32> = (0..).zip(&lines).filter(|(_, l)| l.2).map(|(i, _)| i).collect();
        let mut model = Model { manner, stored: BTreeMap::new(), requests: 0, failures: 0 };
        let found = search(&body, &mut model);

        let mut want = BTreeMap::new();
        for (i, (series, time, _)) in lines.iter().enumerate().filter(|(_, l)| !l.2) {
            want.insert(format!("m{series} {time}"), format!("v={i}"));
        }
        match found {
            Some(found) => {
                prop_assert_eq!(&found, &bad);
                prop_assert_eq!(&model.stored, &want);
            }
            // No good line was taken in any of the first parts, so nothing showed that the backend works.
            None => {
                prop_assert_eq!(manner, Manner::Fails);
                let first_parts = lines.chunks(lines.len().div_ceil(8));
                prop_assert!(first_parts.into_iter().all(|part| part.iter().any(|l| l.2)));
            }
        }
        let levels = (lines.len() as f64).log2().ceil() as usize + 1;
        let fan_out = if manner == Manner::Fails { 8 } else { 2 };
        prop_assert!(
            model.requests <= 8 + fan_out * bad.len().max(1) * levels + 3 * bad.len(),
            "{} requests for {} of {}", model.requests, bad.len(), lines.len()
        );
    }
}

#[test]
fn one_poison_line_among_ten_thousand_costs_few_failures() {
    let body: String = (0..10_000).map(|i| format!("m v={i}{} 1\n", if i == 7_777 { "bad" } else { "" })).collect();
    let mut model = Model { manner: Manner::Fails, stored: BTreeMap::new(), requests: 0, failures: 0 };
    assert_eq!(search(&body, &mut model), Some(BTreeSet::from([7_777])));
    assert!(model.failures <= 8, "each may be a restart of the server: {}", model.failures);
    assert!(model.requests <= 50, "{}", model.requests);
}

#[test]
fn no_line_is_blamed_when_a_backend_takes_nothing() {
    let mut model = Model { manner: Manner::Fails, stored: BTreeMap::new(), requests: 0, failures: 0 };
    let all_bad: String = (0..1000).map(|i| format!("m v={i}bad 1\n")).collect();
    assert_eq!(search(&all_bad, &mut model), None);
    assert_eq!(model.requests, 9);
    assert_eq!(search("m v=1bad 1\n", &mut model), None);
}

/// Lines are blamed only while the backend is steady.
#[test]
fn no_line_is_blamed_when_a_backend_is_unsteady() {
    let body = b"m v=1 1\nm v=2 1\n";
    let mut bisect = Bisect::new(split(body));
    let mut answers =
        [PartReply::Doubt("502"), PartReply::Doubt("502"), PartReply::Taken, PartReply::Doubt("502")].into_iter();
    let mut last = Next::Send;
    for reply in answers.by_ref() {
        assert!(matches!(last, Next::Send | Next::Pause));
        last = bisect.answered(body, reply);
    }
    // Sent so far: the whole, line 1, line 2, line 1 again.
    assert_eq!(last, Next::Pause);
    assert_eq!(bisect.answered(body, PartReply::Doubt("502")), Next::Halve);
}

/// Lines that fail only together are not at fault.
#[test]
fn a_request_that_is_too_much_as_a_whole_is_halved() {
    let body: String = (0..100).map(|i| format!("m v={i} 1\n")).collect();
    let body = body.as_bytes();
    let mut bisect = Bisect::new(split(body));
    let mut part = RequestBody::default();
    loop {
        bisect.part(body, &mut part);
        let reply = if split(part.bytes()).len() > 50 { PartReply::Doubt("500") } else { PartReply::Taken };
        match bisect.answered(body, reply) {
            Next::Send | Next::Pause => {}
            end => break assert_eq!(end, Next::Halve),
        }
    }
}

/// A client that sends integers for a float field, beside correct ones, is common: this case must be cheap.
#[test]
fn a_type_conflict_costs_three_requests_however_many_lines_it_has() {
    let text = |i: u32| format!("m,h=h{i} f={i}{} 1\n", if i.is_multiple_of(2) { "i" } else { "" });
    let body: String = (0..1000).map(text).collect();
    let body = body.as_bytes();
    let mut bisect = Bisect::new(split(body));
    let conflict = |n: usize| {
        format!(
            "partial write: field type conflict: input field \"f\" on measurement \"m\" is type integer, \
             already exists as type float dropped={n}"
        )
    };
    let mut part = RequestBody::default();
    assert_eq!(bisect.answered(body, PartReply::Refused(&conflict(500))), Next::Send);
    bisect.part(body, &mut part);
    assert_eq!(split(part.bytes()).len(), 500);
    assert!(part.bytes().starts_with(b"m,h=h0 f=0i 1\n"));
    assert_eq!(bisect.answered(body, PartReply::Refused(&conflict(500))), Next::Send);
    assert_eq!(bisect.answered(body, PartReply::Taken), Next::Settled);
    assert_eq!(bisect.refused().len(), 500);
    assert!(bisect.refused().iter().all(|r| r.line % 2 == 0));
}

/// InfluxDB 1.6.7 refuses a whole request with a bare text if the request creates a shard and has two types for one
/// field. The same request sent again is a partial write.
#[test]
fn a_bare_type_conflict_is_asked_again_before_anything_is_divided() {
    let body = b"m f=1 1\nm f=1i 2\n";
    let mut bisect = Bisect::new(split(body));
    let mut part = RequestBody::default();
    assert_eq!(bisect.answered(body, PartReply::Refused("field type conflict")), Next::Send);
    bisect.part(body, &mut part);
    assert_eq!(part.bytes(), body);
    let text = "partial write: field type conflict: input field \"f\" on measurement \"m\" is type integer, \
                already exists as type float dropped=1";
    assert_eq!(bisect.answered(body, PartReply::Refused(text)), Next::Send);
    bisect.part(body, &mut part);
    assert_eq!(part.bytes(), b"m f=1i 2\n");
}

/// A database at its limit of series, with InfluxDB 1.6.7's ways (`sim/src/influx.rs`): it refuses all lines of new
/// series and counts them, forgets which ones these were, and so leaves out as many of the first lines too, uncounted.
/// It answers for one shard only, now this one, now that one.
#[derive(Default)]
struct AtLimit {
    known: BTreeSet<String>,
    stored: BTreeMap<String, String>,
    requests: usize,
}

impl AtLimit {
    /// Lines are `SERIES v=VALUE TIME`; the time's hundreds are the shard.
    fn write(&mut self, body: &str) -> Result<(), String> {
        self.requests += 1;
        let lines = || body.lines().map(|l| l.split_once(' ').unwrap());
        let shard = |rest: &str| rest.split_once(' ').unwrap().1.parse::<u32>().unwrap() / 100;
        let mut answer = Ok(());
        let mut shards: Vec<u32> = lines().map(|l| shard(l.1)).collect::<BTreeSet<_>>().into_iter().collect();
        let first = self.requests % shards.len();
        shards.rotate_left(first);
        for of in shards {
            let here: Vec<_> = lines().filter(|l| shard(l.1) == of).collect();
            let new = here.iter().filter(|l| !self.known.contains(l.0)).count();
            for (series, rest) in here.iter().skip(new).filter(|l| self.known.contains(l.0)) {
                let (value, time) = rest.split_once(' ').unwrap();
                self.stored.insert(format!("{series} {time}"), value.to_owned());
            }
            if new > 0 {
                let text = "partial write: max-series-per-database limit exceeded: (5) dropped=";
                answer = answer.and(Err(format!("{text}{new}")));
            }
        }
        answer
    }

    /// Searches; returns the refused lines and the number of requests with the first one.
    fn search(&mut self, body: &str, fate: &dyn Fn(&[u8]) -> Fate) -> (Vec<u32>, usize) {
        let before = self.requests;
        let bytes = body.as_bytes();
        let mut bisect = Bisect::new(split(bytes));
        let mut part = RequestBody::default();
        let mut sent = body.to_owned();
        for _ in 0..100_000 {
            let answer = self.write(&sent);
            let reply = answer.as_ref().map_or_else(|text| PartReply::Refused(text), |()| PartReply::Taken);
            if answer.is_err() {
                bisect.rank_series(bytes, fate);
            }
            match bisect.answered(bytes, reply) {
                Next::Send => {}
                Next::Settled => {
                    let refused: Vec<u32> = bisect.refused().iter().map(|r| r.line).collect();
                    let by_series = bisect.series(bytes).filter(|(_, refused)| *refused).count();
                    assert_eq!(by_series, refused.len());
                    return (refused, self.requests - before);
                }
                other => panic!("{other:?}"),
            }
            bisect.part(bytes, &mut part);
            sent = std::str::from_utf8(part.bytes()).unwrap().to_owned();
        }
        panic!("the search does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// Whatever the guesses, also wrong ones, and with counts that are too small.
    #[test]
    fn a_limit_of_series_keeps_out_exactly_the_lines_of_new_series(
        lines in prop::collection::vec((0u8..20, 0u8..4, 0u8..3), 1..150),
        known in prop::collection::btree_set(0u8..20, 0..20),
        remembered in prop::collection::vec(0u8..3, 20),
        shards in 1u8..4,
    ) {
        let series = |s: u8| format!("m,h={s:02}");
        let time = |time: u8, shard: u8| 100 * u32::from(shard % shards) + u32::from(time);
        let place = |&(s, t, shard): &(u8, u8, u8)| format!("{} {}", series(s), time(t, shard));
        let text = |(i, line): (usize, &(u8, u8, u8))| place(line).replace(' ', &format!(" v={i} ")) + "\n";
        let body: String = lines.iter().enumerate().map(text).collect();
        let want: Vec<u32> = (0..).zip(&lines).filter(|(_, l)| !known.contains(&l.0)).map(|(i, _)| i).collect();
        let mut influx = AtLimit { known: known.iter().map(|&s| series(s)).collect(), ..AtLimit::default() };
        let fate = |key: &[u8]| {
            let number: usize = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
            [Fate::Refused, Fate::Unknown, Fate::Stored][usize::from(remembered[number])]
        };
        let (refused, requests) = influx.search(&body, &fate);
        prop_assert_eq!(&refused, &want);
        let good = (0..).zip(&lines).filter(|(_, l)| known.contains(&l.0));
        let stored: BTreeMap<String, String> = good.map(|(i, l): (u32, _)| (place(l), format!("v={i}"))).collect();
        prop_assert_eq!(&influx.stored, &stored);
        let series_refused = lines.iter().map(|l| l.0).filter(|s| !known.contains(s)).collect::<BTreeSet<_>>().len();
        prop_assert!(shards > 1 || requests <= 4 + 5 * series_refused, "{requests} for {series_refused} series");
    }
}

/// What a request of 10,000 lines costs at the limit, of which 1000 are refused.
#[test]
fn a_limit_of_series_costs_few_requests_when_the_guess_is_right() {
    let unknown = |_: &[u8]| Fate::Unknown;
    let scattered = |i: usize| i * 7919 % 10_000 < 1000;
    let remembered = |series: &[u8]| match series.strip_prefix(b"m,h=") {
        Some(n) if scattered(std::str::from_utf8(n).unwrap().parse().unwrap()) => Fate::Refused,
        _ => Fate::Stored,
    };
    type Line<'a> = dyn Fn(usize) -> (String, bool) + 'a;
    type Case<'a> = (&'a str, &'a Line<'a>, &'a dyn Fn(&[u8]) -> Fate, usize);
    let few_lines =
        |i: usize| if i.is_multiple_of(10) { (format!("m,h=n{i}"), true) } else { (format!("m,h={}", i % 100), false) };
    let half_known = |i: usize| if i.is_multiple_of(10) { (format!("m,h=n{}", i % 20), true) } else { few_lines(i) };
    let close_keys = |i: usize| (format!("m,h={:05}", i * 7919 % 10_000), (2500..3500).contains(&(i * 7919 % 10_000)));
    let anywhere = |i: usize| (format!("m,h={i}"), scattered(i));
    let cases: [Case<'_>; 5] = [
        ("new series have few lines", &few_lines, &unknown, 3),
        ("they were refused before", &anywhere, &remembered, 3),
        ("they have many lines", &half_known, &unknown, 10),
        ("their keys are close together", &close_keys, &unknown, 30),
        ("nothing tells them apart", &anywhere, &unknown, 4100),
    ];
    for (what, line, fate, most) in cases {
        let lines: Vec<_> = (0..10_000).map(line).collect();
        let known = lines.iter().filter(|l| !l.1).map(|l| l.0.clone()).collect();
        let mut influx = AtLimit { known, ..AtLimit::default() };
        let body: String = (0..).zip(&lines).map(|(i, (series, _))| format!("{series} v={i} 1\n")).collect();
        let (refused, requests) = influx.search(&body, fate);
        assert_eq!(refused.len(), 1000, "{what}");
        assert!(requests <= most, "{what}: {requests} requests");
    }
}
