//! Parses a JSON document of a backend.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{StatementAnswer, WireError};
use crate::influx::answer::{Answer, Message, Row, Series};

#[derive(Deserialize)]
struct AnswerDocument<'a> {
    #[serde(borrow, default)]
    results: Vec<StatementDocument<'a>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct StatementDocument<'a> {
    #[serde(default)]
    statement_id: i64,
    #[serde(borrow, default)]
    series: Vec<SeriesDocument<'a>>,
    #[serde(default)]
    messages: Vec<MessageDocument>,
    #[serde(default)]
    partial: bool,
    error: Option<String>,
}

#[derive(Deserialize)]
struct SeriesDocument<'a> {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(borrow, default)]
    values: Vec<&'a RawValue>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct MessageDocument {
    level: String,
    text: String,
}

/// An object of strings, in the order in which it was written.
#[derive(Default)]
struct Tags(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Tags;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Tags(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Parses one document (a whole answer, or one line of a chunked one). Rows are slices of `body` and keep it in memory.
pub fn parse(body: Bytes) -> Result<Vec<StatementAnswer>, WireError> {
    // Checked once here; serde_json would check each row again.
    let text = std::str::from_utf8(&body).map_err(|_| WireError::Malformed)?;
    let document: AnswerDocument<'_> = serde_json::from_str(text).map_err(|_| WireError::Malformed)?;
    if let Some(text) = document.error {
        return Err(WireError::Refused(text));
    }
    Ok(document.results.into_iter().map(|statement| of_statement(statement, &body)).collect())
}

fn of_statement(document: StatementDocument<'_>, body: &Bytes) -> StatementAnswer {
    let series = document.series.into_iter().map(|series| of_series(series, body)).collect();
    let messages =
        document.messages.into_iter().map(|message| Message { level: message.level, text: message.text }).collect();
    let answer = Answer { series, messages, error: document.error };
    StatementAnswer { statement_id: document.statement_id, answer, partial: document.partial }
}

fn of_series(document: SeriesDocument<'_>, body: &Bytes) -> Series {
    let row = |raw: &RawValue| Row(body.slice_ref(raw.get().as_bytes()));
    Series {
        name: document.name,
        tags: document.tags.0,
        columns: document.columns,
        rows: document.values.into_iter().map(row).collect(),
        partial: document.partial,
        ..Series::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer combined from several of InfluxDB 1.6.7.
    const BODY: &str = concat!(
        r#"{"results":[{"statement_id":0,"series":[{"name":"cp\u003cu","tags":{"host":"","region":"e,u"},"#,
        r#""columns":["time","v"],"#,
        r#""values":[["1970-01-01T00:00:00.000000003Z",-4],["a,\"]}b\u003c",1e+21],[null,9223372036854775807]],"#,
        r#""partial":true},"#,
        r#"{"columns":["key"]}],"messages":[{"level":"warning","text":"old"}],"partial":true},"#,
        r#"{"statement_id":1,"error":"not executed"}]}"#,
        "\n"
    );

    #[test]
    fn all_parts_of_an_answer_are_read_and_rows_are_slices_of_the_body() {
        let body = Bytes::from_static(BODY.as_bytes());
        let answers = parse(body.clone()).unwrap();
        let rows: Vec<_> = answers[0].answer.series[0].rows.iter().map(Row::text).collect();
        let want =
            [r#"["1970-01-01T00:00:00.000000003Z",-4]"#, r#"["a,\"]}b\u003c",1e+21]"#, "[null,9223372036854775807]"];
        assert_eq!(rows, want);
        let lies_in_body = |row: &&str| body.as_ptr_range().contains(&row.as_ptr());
        assert!(rows.iter().all(lies_in_body));

        let mut answers = answers;
        answers[0].answer.series[0].rows.clear();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let cpu = Series {
            name: "cp<u".into(),
            tags: vec![pair("host", ""), pair("region", "e,u")],
            columns: vec!["time".into(), "v".into()],
            rows: Vec::new(),
            partial: true,
            ..Series::default()
        };
        let keys = Series { columns: vec!["key".into()], ..Series::default() };
        let messages = vec![Message { level: "warning".into(), text: "old".into() }];
        let want = [
            StatementAnswer {
                statement_id: 0,
                answer: Answer { series: vec![cpu, keys], messages, error: None },
                partial: true,
            },
            StatementAnswer { statement_id: 1, answer: Answer::failed("not executed"), partial: false },
        ];
        assert_eq!(answers, want);
    }

    #[test]
    fn refusals_and_malformed_answers_are_told_apart() {
        for (body, want) in [
            (r#"{"results":[{"statement_id":0}]}"#, Ok(1)),
            ("{}\n", Ok(0)),
            (r#"{"error":"error parsing query"}"#, Err(WireError::Refused("error parsing query".into()))),
            ("", Err(WireError::Malformed)),
            ("[]x", Err(WireError::Malformed)),
            (r#"{"results":[{"statement_id":0}]}{}"#, Err(WireError::Malformed)),
            (r#"{"results":[{"series":[{"values":[[1,2"#, Err(WireError::Malformed)),
            (r#"{"results":{"series":1}}"#, Err(WireError::Malformed)),
        ] {
            assert_eq!(parse(Bytes::from_static(body.as_bytes())).map(|answers| answers.len()), want, "{body}");
        }
        assert_eq!(parse(Bytes::from_static(b"{\"error\":\"\xff\"}")), Err(WireError::Malformed));
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_malformed() {
        let body = Bytes::from_static(BODY.trim_end().as_bytes());
        assert!(parse(body.clone()).is_ok());
        for len in 0..body.len() {
            assert_eq!(parse(body.slice(..len)), Err(WireError::Malformed), "{len} bytes");
        }
    }
}
