//! Where the cluster's answer differs from one server's on purpose, one by one, with the reason and what is answered
//! instead. A query of the corpus names its departure; one that does not depart, or not so, is a failure as well.

use crate::ask::ComparedAnswer;
use crate::compare::{Form, Json, difference, documents};

/// What is answered instead.
#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// 400 and an `error` that contains this.
    Refused(&'static str),
    /// 200 and, as the error of a statement, one that contains this.
    StatementFails(&'static str),
    /// Series of all backends, told apart by a tag `backend`.
    SideBySide,
    /// Status and content type of the oracle, other contents.
    OtherContents,
    /// The answer of the oracle, but for the numbers in it, which are the same by chance only.
    OtherNumbers,
    /// The answer of the oracle, but for columns that are null in all rows of a series.
    OtherEmptyColumns,
}

pub struct Departure {
    pub name: &'static str,
    pub why: &'static str,
    pub instead: Instead,
}

pub const DEPARTURES: &[Departure] = &[
    Departure {
        name: "one name in two databases",
        why: "the answer is one series of both databases' rows, whose owners differ: how rows of one time lie in it \
            is not known",
        instead: Instead::Refused("databases"),
    },
    Departure {
        name: "explain",
        why: "shards, files and blocks are those of the backend that has the measurement, not of one server with all",
        instead: Instead::OtherNumbers,
    },
    Departure {
        name: "explain over several",
        why: "iterators, shards and blocks are those of each backend, and their order is random on one server too",
        instead: Instead::OtherContents,
    },
    Departure {
        name: "tags without data",
        why: "the inmem index knows a measurement's tags where the policy or the time read has none of its points, \
            and a server \
              with all data has a shard there: `*` has them as empty columns, unless the owners have no such shard",
        instead: Instead::OtherEmptyColumns,
    },
    Departure { name: "explain analyze", why: "it tells how long the steps took", instead: Instead::OtherContents },
    Departure {
        name: "explain analyze over several",
        why: "it measures one server",
        instead: Instead::Refused("measures one server"),
    },
    Departure {
        name: "ends at a clock",
        why: "without an end in the statement the last group is that of now, and each backend's now is another",
        instead: Instead::StatementFails("clocks differ"),
    },
    Departure {
        name: "no order",
        why: "InfluxDB only reverses what it has in no defined order",
        instead: Instead::StatementFails("has no defined order"),
    },
    Departure {
        name: "one backend each",
        why: "what it tells of is a process, and there are several",
        instead: Instead::SideBySide,
    },
    Departure {
        name: "per server",
        why: "users, continuous queries, subscriptions, ids of queries and shards belong to one server each",
        instead: Instead::Refused(""),
    },
    Departure {
        name: "a shard's number",
        why: "the error names a shard by a number, and shards are numbered by each backend",
        instead: Instead::OtherNumbers,
    },
    Departure {
        name: "a NUL in the text",
        why: "InfluxDB drops it wherever it stands, so that the words it reads are not those that were sent",
        instead: Instead::Refused("NUL byte"),
    },
    Departure {
        name: "a control character in the error",
        why: "InfluxDB puts the error in the answer's head too, where such a character must not stand: the answer is \
            not \
              taken, and the error is told in other words",
        instead: Instead::Refused("error parsing query: "),
    },
];

/// The departure called `name`.
pub fn named(name: &str) -> &'static Departure {
    DEPARTURES
        .iter()
        .find(|departure| departure.name == name)
        .unwrap_or_else(|| panic!("no departure is called {name}"))
}

impl Departure {
    /// Whether the cluster may answer just as the oracle.
    pub fn by_chance(&self) -> bool {
        matches!(self.instead, Instead::OtherNumbers | Instead::OtherEmptyColumns)
    }

    /// What is wrong with the way the cluster departs, or `None`.
    pub fn wrong(&self, oracle: &ComparedAnswer, cluster: &ComparedAnswer) -> Option<String> {
        let documents = documents(&cluster.body).unwrap_or_default();
        let results = || documents.iter().flat_map(|document| document.list("results"));
        let series = || results().flat_map(|result| result.list("series"));
        let holds = match self.instead {
            Instead::Refused(words) => {
                let error = documents.first().and_then(|document| document.text("error"));
                cluster.status == 400 && error.is_some_and(|error| !error.is_empty() && error.contains(words))
            }
            Instead::StatementFails(words) => {
                let fails = |result: &Json| result.text("error").is_some_and(|error| error.contains(words));
                cluster.status == 200 && results().any(fails)
            }
            Instead::SideBySide => {
                let backend = |series: &Json| series.get("tags").is_some_and(|tags| tags.text("backend").is_some());
                cluster.status == 200 && series().count() > 0 && series().all(backend)
            }
            Instead::OtherContents => cluster.status == oracle.status && cluster.content_type == oracle.content_type,
            Instead::OtherNumbers => {
                let [oracle, cluster] = [oracle, cluster].map(without_numbers);
                difference(Form::Json, &oracle, &cluster).is_none()
            }
            Instead::OtherEmptyColumns => {
                let oracle = self::documents(&oracle.body).unwrap_or_default();
                cluster.status == 200
                    && documents
                        .iter()
                        .cloned()
                        .map(without_empty_columns)
                        .eq(oracle.into_iter().map(without_empty_columns))
            }
        };
        (!holds).then(|| format!("departs ({}: {}), but not as {:?}", self.name, self.why, self.instead))
    }
}

/// The same with each number in the body as 0.
fn without_numbers(answer: &ComparedAnswer) -> ComparedAnswer {
    let mut body = Vec::with_capacity(answer.body.len());
    for &byte in &answer.body {
        let byte = if byte.is_ascii_digit() { b'0' } else { byte };
        if byte != b'0' || body.last() != Some(&b'0') {
            body.push(byte);
        }
    }
    ComparedAnswer { body, ..answer.clone() }
}

/// The same without the columns that have no value in a series.
fn without_empty_columns(mut json: Json) -> Json {
    match &mut json {
        Json::Object(series) if series.contains_key("columns") => {
            let rows = series.get("values").map_or(&[][..], Json::items).to_vec();
            let is_empty = |at: usize| rows.iter().all(|row| row.items().get(at) == Some(&Json::Plain("null".into())));
            let width = series["columns"].items().len();
            let empty: Vec<bool> = (0..width).map(is_empty).collect();
            let shorten = |list: &mut Json| {
                let mut at = 0..;
                let Json::List(items) = list else { return };
                items.retain(|_| at.next().is_none_or(|at| empty.get(at) != Some(&true)));
            };
            series.get_mut("columns").into_iter().for_each(shorten);
            if let Some(Json::List(rows)) = series.get_mut("values") {
                rows.iter_mut().for_each(shorten);
            }
            json
        }
        Json::Object(map) => Json::Object(
            std::mem::take(map).into_iter().map(|(key, value)| (key, without_empty_columns(value))).collect(),
        ),
        Json::List(items) => Json::List(std::mem::take(items).into_iter().map(without_empty_columns).collect()),
        Json::Plain(_) | Json::Text(_) => json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> ComparedAnswer {
        ComparedAnswer { status: 200, content_type: "application/json".into(), headers: Vec::new(), body: body.into() }
    }

    /// What may differ must not hide what may not.
    #[test]
    fn a_departure_admits_no_more_than_it_says() {
        let rows = |columns: &str, values: &str| {
            answer(&format!(
                r#"{{"results":[{{"series":[{{"name":"m","columns":[{columns}],"values":[{values}]}}]}}]}}"#
            ))
        };
        let tags = named("tags without data");
        let oracle = rows(r#""time","a","b""#, "[1,2,null],[2,3,null]");
        assert_eq!(tags.wrong(&oracle, &rows(r#""time","a""#, "[1,2],[2,3]")), None);
        for (columns, values) in [
            (r#""time","b""#, "[1,null],[2,null]"),
            (r#""time","a""#, "[1,2]"),
            (r#""time","a""#, "[1,2],[2,4]"),
            (r#""time","a","b""#, "[1,2,null],[2,3,4]"),
        ] {
            assert!(tags.wrong(&oracle, &rows(columns, values)).is_some(), "{columns} {values}");
        }
        let plan = named("explain");
        let oracle = rows(r#""QUERY PLAN""#, r#"["NUMBER OF SHARDS: 12"],["EXPRESSION: mean(usage)"]"#);
        let other = |text: &str| rows(r#""QUERY PLAN""#, text);
        assert_eq!(plan.wrong(&oracle, &other(r#"["NUMBER OF SHARDS: 3"],["EXPRESSION: mean(usage)"]"#)), None);
        assert!(plan.wrong(&oracle, &other(r#"["NUMBER OF SHARDS: 3"],["EXPRESSION: mean(idle)"]"#)).is_some());
        assert!(plan.wrong(&oracle, &other(r#"["NUMBER OF SHARDS: 3"]"#)).is_some());
        let not_json = ComparedAnswer { status: 400, ..answer("not a document") };
        assert!(DEPARTURES.iter().all(|departure| departure.wrong(&oracle, &not_json).is_some()));
    }
}
