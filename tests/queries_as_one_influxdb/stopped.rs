//! Promise: while every measurement has a backend that answers, answers are whole; what has none is refused with 503,
//! and the answer names what is down. Never a part of the data as if it were all.

use fluxgate::lab::proxy::backend_name;

use crate::corpus::{self, Kind, Query};
use crate::data;
use crate::world::{CIRCLES, OracleAndCluster};

/// Every second query that does not depart; `odd` tells which half.
fn half(queries: &[Query], odd: usize) -> impl Iterator<Item = &Query> {
    let asked = queries.iter().filter(|query| query.departs.is_none() && query.db != "big");
    asked.enumerate().filter(move |(index, _)| index % 2 == odd).map(|(_, query)| query)
}

#[test]
fn one_stopped_backend_changes_no_answer() {
    let mut world = OracleAndCluster::start(false);
    let queries = corpus::read("queries.txt");
    let places = (0..CIRCLES.len()).flat_map(|circle| (0..CIRCLES[circle]).map(move |backend| (circle, backend)));
    for (n, (circle, backend)) in places.enumerate() {
        world.circles[circle][backend].kill();
        // Asked at once: it must not matter whether the proxy has noticed that the backend is down.
        world.pair.agree(&format!("{} stopped", backend_name(circle, backend)), half(&queries, n % 2));
        world.circles[circle][backend].restart().unwrap();
        world.wait_until_all_are_seen();
    }
}

#[test]
fn what_has_no_backend_left_is_refused_and_the_rest_is_answered() {
    let mut world = OracleAndCluster::start(false);
    let owners: Vec<_> = data::NAMES.iter().map(|name| world.owners("a", &data::plain(name))).collect();
    // One backend of each circle, chosen so that some measurements have no backend left and most have one.
    let lost = |down: &[String]| owners.iter().filter(|owners| owners.iter().all(|owner| down.contains(owner))).count();
    let pairs = (0..CIRCLES[0]).flat_map(|one| (0..CIRCLES[1]).map(move |other| (one, other)));
    let (one, other) = pairs
        .max_by_key(|(one, other)| lost(&[backend_name(0, *one), backend_name(1, *other)]))
        .expect("there are backends");
    let down = [backend_name(0, one), backend_name(1, other)];
    assert!((2..owners.len() - 2).contains(&lost(&down)), "{owners:?}");
    world.circles[0][one].kill();
    world.circles[1][other].kill();

    let is_lost = |name: usize| owners[name].iter().all(|owner| down.contains(owner));
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    let mut sort = |names: &[usize], text: String| {
        let query = corpus::made("a backend of each circle is down", "a", &text, Kind::Rows);
        if names.iter().any(|name| is_lost(*name)) { refused.push(query) } else { answered.push(query) }
    };
    for (n, name) in data::NAMES.iter().enumerate() {
        let next = (n + 1) % data::NAMES.len();
        let far = (n + 11) % data::NAMES.len();
        sort(&[n], format!("SELECT * FROM {name} LIMIT 3"));
        sort(&[n], format!("SELECT count(*) FROM {name} GROUP BY *"));
        sort(&[n], format!("SHOW FIELD KEYS FROM {name}"));
        sort(&[n, next], format!("SELECT * FROM {name}, {} LIMIT 2", data::NAMES[next]));
        sort(&[n, far], format!("SELECT count(*) FROM {name}, {} GROUP BY host", data::NAMES[far]));
        sort(&[n, next], format!("SELECT * FROM {name} LIMIT 1; SELECT * FROM {} LIMIT 1", data::NAMES[next]));
        sort(&[n, far], format!("SELECT last(*) FROM (SELECT * FROM {name}, {})", data::NAMES[far]));
    }
    // A statement without a source is about all measurements.
    let all: Vec<_> = (0..data::NAMES.len()).collect();
    for text in [
        "SELECT * FROM /.*/ LIMIT 1",
        "SHOW MEASUREMENTS",
        "SHOW SERIES",
        "SHOW TAG KEYS",
        "SHOW TAG VALUES WITH KEY = host",
        "SHOW FIELD KEYS",
        "SHOW SERIES CARDINALITY",
    ] {
        sort(&all, text.into());
    }
    assert!(answered.len() > 50 && refused.len() > 20, "{} {}", answered.len(), refused.len());
    world.pair.agree("a backend of each circle is down", &answered);
    for query in &refused {
        let answer = world.pair.ask_cluster(&query.request);
        let text = answer.short();
        let error = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        let error = error.as_ref().and_then(|body| body["error"].as_str()).unwrap_or_default();
        assert_eq!(answer.status, 503, "{}: {text}", query.text);
        assert!(down.iter().any(|name| error.contains(name)), "{}: names none of {down:?}: {text}", query.text);
    }
    // With all backends back, all is answered again.
    world.circles[0][one].restart().unwrap();
    world.circles[1][other].restart().unwrap();
    world.wait_until_all_are_seen();
    world.pair.agree("all are back", answered.iter().chain(&refused));
}
