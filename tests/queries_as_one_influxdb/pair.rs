//! Two sides that must answer alike: the same data into both, the same queries to both, and what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::url_encoded;

use crate::ask::{ComparedAnswer, Request, Side};
use crate::compare::difference;
use crate::corpus::{Kind, Query};
use crate::data::Batch;
use crate::departures;

/// A report shows at most so many differences.
const REPORTED_MAX: usize = 200;
/// The oracle is asked again if its own answer changes with time, as with `now()`.
const ATTEMPTS: usize = 5;

/// The oracle, and what must answer as it does.
pub struct Pair {
    oracle: Side,
    cluster: Side,
    addrs: [SocketAddr; 2],
    /// The other side is a single server, too. Queries with a departure only have to get an answer of the same kind.
    pub alike: bool,
}

impl Pair {
    pub fn new(oracle: SocketAddr, cluster: SocketAddr) -> Self {
        Self { oracle: Side::new(oracle), cluster: Side::new(cluster), addrs: [oracle, cluster], alike: false }
    }

    /// The same statements and points for both.
    pub fn give(&mut self, declarations: &[&str], batches: &[Batch]) {
        for statement in declarations {
            let request = Request {
                method: "POST".into(),
                target: format!("/query?q={}", url_encoded(statement)),
                ..Request::default()
            };
            for side in [&mut self.oracle, &mut self.cluster] {
                let answer = side.ask(&request);
                assert_eq!(Kind::of(&answer), Some(Kind::Empty), "{statement}: {}", answer.short());
            }
        }
        for addr in self.addrs {
            let mut client = Client::connect(addr).unwrap();
            for Batch { db, rp, precision, lines } in batches {
                let target = format!("/write?db={}&rp={}&precision={precision}", url_encoded(db), url_encoded(rp));
                let reply = client.request("POST", &target, &[], lines.as_bytes()).unwrap();
                assert_eq!(reply.status, 204, "{target}: {}", reply.text());
            }
        }
    }

    pub fn ask_oracle(&mut self, request: &Request) -> ComparedAnswer {
        self.oracle.ask(request)
    }

    pub fn ask_cluster(&mut self, request: &Request) -> ComparedAnswer {
        self.cluster.ask(request)
    }

    /// Asks both sides and compares. `None`: they agree, or depart as they should.
    pub fn compare(&mut self, query: &Query) -> Option<String> {
        let mut oracle = self.oracle.ask(&query.request);
        let mut cluster = self.cluster.ask(&query.request);
        let departure = query.departs.as_deref().map(departures::named);
        let mut found = difference(query.form, &oracle, &cluster);
        // If the answer depends on the time, both must be asked while the oracle's answer does not change.
        for _ in 1..ATTEMPTS {
            if found.is_none() || departure.is_some() {
                break;
            }
            let again = self.oracle.ask(&query.request);
            if difference(query.form, &oracle, &again).is_none() {
                break;
            }
            oracle = again;
            cluster = self.cluster.ask(&query.request);
            found = difference(query.form, &oracle, &cluster);
        }
        let kind = Kind::of(&oracle);
        let found = match (departure, found) {
            _ if query.kind.is_some() && kind != query.kind => {
                Some(format!("the oracle's answer is {kind:?}, not {:?}", query.kind))
            }
            (Some(_), _) if self.alike => None,
            (None, found) => found,
            (Some(departure), None) if departure.by_chance() => None,
            (Some(departure), None) => Some(format!("does not depart any more: {}", departure.name)),
            (Some(departure), Some(_)) => departure.wrong(&oracle, &cluster),
        };
        found.map(|found| {
            let mut text = format!("{} [{}] db={:?} {}\n", query.place, query.category, query.db, query.text);
            writeln!(text, "    {found}\n    oracle:  {}\n    cluster: {}", oracle.short(), cluster.short()).unwrap();
            text
        })
    }

    /// Asks all of these. Panics with what differs.
    pub fn agree<'a>(&mut self, when: &str, queries: impl IntoIterator<Item = &'a Query>) -> usize {
        let mut findings = Findings::new(when);
        for query in queries {
            findings.note(query, self.compare(query));
        }
        findings.end()
    }
}

/// What a round of queries has found.
pub struct Findings {
    when: String,
    asked: BTreeMap<String, usize>,
    wrong: Vec<String>,
    categories: BTreeSet<String>,
}

impl Findings {
    pub fn new(when: &str) -> Self {
        Self { when: when.into(), asked: BTreeMap::new(), wrong: Vec::new(), categories: BTreeSet::new() }
    }

    pub fn note(&mut self, query: &Query, found: Option<String>) {
        *self.asked.entry(query.category.clone()).or_default() += 1;
        if let Some(found) = found {
            self.categories.insert(query.category.clone());
            self.wrong.push(found);
        }
    }

    /// The number of queries that were asked. Panics with what differed.
    pub fn end(self) -> usize {
        let asked = self.asked.values().sum();
        eprintln!("{}: {asked} queries, by category {:?}", self.when, self.asked);
        let shown = &self.wrong[..self.wrong.len().min(REPORTED_MAX)];
        assert!(
            self.wrong.is_empty(),
            "{}: {} of {asked} queries differ, in {:?}:\n{}",
            self.when,
            self.wrong.len(),
            self.categories,
            shown.join("\n"),
        );
        asked
    }
}
