//! Promise: the corpus asks only what has one answer. Two single servers with the same data agree on all of it, so that
//! any other difference is the cluster's.

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;

use crate::pair::{Findings, Pair};
use crate::{corpus, data};

/// Two servers with the same data.
fn twins() -> (Influxd, Influxd, Pair) {
    let (oracle, other) = (Influxd::start().unwrap(), Influxd::start().unwrap());
    let mut pair = Pair::new(oracle.addr(), other.addr());
    pair.alike = true;
    pair.give(data::DECLARATIONS, &data::batches());
    (oracle, other, pair)
}

#[test]
fn two_single_servers_agree_on_the_corpus() {
    let (_oracle, _other, mut pair) = twins();
    pair.give(data::DECLARATIONS_BIG, &data::batches_big());
    let queries = corpus::read("queries.txt");
    pair.agree("two single servers", &queries);
    let mut findings = Findings::new("changes of two single servers");
    for query in &corpus::read("changes.txt") {
        findings.note(query, pair.compare(query));
    }
    findings.end();
}

/// An error of the merge shows in many queries.
#[test]
fn a_single_wrong_point_is_noticed() {
    let (_oracle, other, mut pair) = twins();
    let wrong = format!("mem,host=a,rack=r0 used=1i {}", data::START * 1_000_000_000);
    assert_eq!(Client::connect(other.addr()).unwrap().write("a", &wrong).unwrap().status, 204);
    let queries = corpus::read("queries.txt");
    let touched = queries.iter().filter(|query| query.db == "a" && query.text.contains("mem"));
    let noticed: Vec<_> = touched.filter_map(|query| pair.compare(query)).collect();
    assert!(noticed.len() >= 20, "{noticed:?}");
    let elsewhere = queries.iter().filter(|query| query.db == "b");
    pair.agree("the other database", elsewhere);
}
