//! Tests of rendering: bytes as InfluxDB 1.6.7 wrote them, and properties of any answer. `tests/backends/render.rs`
//! compares with a running InfluxDB.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use fluxgate_dataplane::influxql::ast::{Select, Show};
use proptest::prelude::*;

use super::*;
use crate::influx::answer::{Message, Row, Series};
use crate::influx::budget::MemoryBudget;
use crate::influx::wire::{StatementAnswer, json, msgpack};
use crate::limits::ANSWER_PIECE_BYTES;

fn request(format: Format) -> QueryRequest {
    QueryRequest { chunk_size: 2, format, ..QueryRequest::default() }
}

fn chunked(format: Format) -> QueryRequest {
    QueryRequest { chunked: true, ..request(format) }
}

fn pieces(request: &QueryRequest, outcomes: &[StatementOutcome]) -> Vec<Bytes> {
    let held = MemoryBudget::new(usize::MAX).hold(Arc::default());
    let Ok(QueryReply::Answer { body, .. }) = render(request, outcomes, &held) else { panic!("not an answer") };
    let pieces: Vec<_> = body.collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    pieces
}

fn body(request: &QueryRequest, outcomes: &[StatementOutcome]) -> Vec<u8> {
    pieces(request, outcomes).concat()
}

fn text(request: &QueryRequest, outcomes: &[StatementOutcome]) -> String {
    String::from_utf8(body(request, outcomes)).unwrap()
}

fn outcome(statement_id: i64, chunking: Chunking, answer: Answer) -> StatementOutcome {
    StatementOutcome { statement_id, answer, chunking }
}

fn series(name: &str, tags: &[(&str, &str)], columns: &[&str], rows: &[&'static str]) -> Series {
    Series {
        name: name.to_owned(),
        tags: tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        columns: columns.iter().map(|column| column.to_string()).collect(),
        rows: rows.iter().map(|row| Row(Bytes::from_static(row.as_bytes()))).collect(),
        partial: false,
        ..Series::default()
    }
}

fn answer(series: &[Series]) -> Answer {
    Answer { series: series.to_vec(), ..Answer::default() }
}

fn cpu(rows: &[&'static str]) -> Series {
    series("cpu", &[("host", "a")], &["time", "v"], rows)
}

#[test]
fn fields_are_in_influxdbs_order_and_empty_ones_are_left_out() {
    let messages = vec![Message { level: "warning".into(), text: "old <b>".into() }];
    let written = Answer { messages, ..answer(&[series("result", &[], &["time", "written"], &["[0,21]"])]) };
    let long = Series { partial: true, ..series("", &[], &["key"], &[r#"["a,\u003c"]"#, r#"["b"]"#]) };
    let outcomes = [
        outcome(0, Chunking::Rows, written),
        outcome(1, Chunking::Rows, Answer::default()),
        outcome(2, Chunking::Rows, answer(&[long, series("e", &[], &["name"], &[])])),
        outcome(3, Chunking::Rows, Answer::failed("no \"x\"")),
    ];
    let want = concat!(
        r#"{"results":[{"statement_id":0,"series":[{"name":"result","columns":["time","written"],"values":[[0,21]]}],"#,
        r#""messages":[{"level":"warning","text":"old \u003cb\u003e"}]},{"statement_id":1},"#,
        r#"{"statement_id":2,"series":[{"columns":["key"],"#,
        r#""values":[["a,\u003c"],["b"]],"partial":true},{"name":"e","columns":["name"]}]},"#,
        r#"{"statement_id":3,"error":"no \"x\""}]}"#,
        "\n"
    );
    assert_eq!(text(&request(Format::Json), &outcomes), want);
    assert_eq!(text(&request(Format::Json), &[]), "{}\n");
}

#[test]
fn pretty_spreads_rows_too() {
    let pretty = QueryRequest { pretty: true, ..request(Format::Json) };
    let outcomes = [outcome(0, Chunking::Rows, answer(&[cpu(&[r#"["a,[",null]"#])]))];
    let want = r#"{
    "results": [
        {
            "statement_id": 0,
            "series": [
                {
                    "name": "cpu",
                    "tags": {
                        "host": "a"
                    },
                    "columns": [
                        "time",
                        "v"
                    ],
                    "values": [
                        [
                            "a,[",
                            null
                        ]
                    ]
                }
            ]
        }
    ]
}
"#;
    assert_eq!(text(&pretty, &outcomes), want);
}

/// The lines of a chunked answer, each without the common prefix and suffix.
fn lines(outcomes: &[StatementOutcome]) -> Vec<String> {
    let text = text(&chunked(Format::Json), outcomes);
    assert!(text.is_empty() || text.ends_with('\n'));
    let line = |line: &str| {
        line.strip_prefix(r#"{"results":[{"statement_id":"#).unwrap().strip_suffix("}]}").unwrap().to_owned()
    };
    text.lines().map(line).collect()
}

#[test]
fn pieces_of_rows_say_whether_more_follow() {
    let two = [cpu(&["[1,1]", "[2,2]", "[3,3]"]), series("mem", &[], &["time", "v"], &["[1,1]", "[2,2]"])];
    let head = |id: u8, start: &str| format!(r#"{id},"series":[{{{start}"#);
    let cpu = r#""name":"cpu","tags":{"host":"a"},"columns":["time","v"],"values":"#;
    let mem = r#""name":"mem","columns":["time","v"],"values":"#;
    let want = [
        head(0, cpu) + r#"[[1,1],[2,2]],"partial":true}],"partial":true"#,
        head(0, cpu) + r#"[[3,3]]}],"partial":true"#,
        head(0, mem) + "[[1,1],[2,2]]}]",
        r#"1,"error":"no""#.to_owned(),
        r#"1,"error":"not executed""#.to_owned(),
        "2".to_owned(),
    ];
    let outcomes = [
        outcome(0, Chunking::Rows, answer(&two)),
        outcome(1, Chunking::Rows, Answer::failed("no")),
        outcome(1, Chunking::Rows, Answer::failed("not executed")),
        outcome(2, Chunking::Rows, Answer::default()),
    ];
    assert_eq!(lines(&outcomes), want);

    // A failure after rows: those rows are marked as not the last.
    let failed = Answer { error: Some("no".into()), ..answer(&two[1..]) };
    let want = [head(0, mem) + r#"[[1,1],[2,2]]}],"partial":true"#, r#"0,"error":"no""#.to_owned()];
    assert_eq!(lines(&[outcome(0, Chunking::Rows, failed)]), want);
    assert_eq!(lines(&[]), [""; 0]);
}

#[test]
fn series_and_whole_answers_are_not_cut_and_not_marked() {
    let keys = |name| Series { partial: true, ..series(name, &[], &["tagKey"], &[r#"["a"]"#, r#"["b"]"#, r#"["c"]"#]) };
    let both = answer(&[keys("cpu"), keys("mem")]);
    let shown = |name: &str| format!(r#"{{"name":"{name}","columns":["tagKey"],"values":[["a"],["b"],["c"]]}}"#);
    let (cpu, mem) = (shown("cpu"), shown("mem"));
    let want = [format!(r#"0,"series":[{cpu}]"#), format!(r#"0,"series":[{mem}]"#)];
    assert_eq!(lines(&[outcome(0, Chunking::Series, both.clone())]), want);
    assert_eq!(lines(&[outcome(0, Chunking::Whole, both)]), [format!(r#"0,"series":[{cpu},{mem}]"#)]);
    for chunking in [Chunking::Series, Chunking::Whole] {
        assert_eq!(lines(&[outcome(0, chunking, Answer::default())]), ["0"]);
        assert_eq!(lines(&[outcome(0, chunking, Answer::failed("no"))]), [r#"0,"error":"no""#]);
    }
}

#[test]
fn how_an_answer_is_cut_follows_from_its_statement() {
    let show = |what| Statement::Show(Box::new(Show::new(what)));
    let select = Box::<Select>::default();
    for (statement, want) in [
        (Statement::Explain { analyze: false, select: select.clone() }, Chunking::Whole),
        (Statement::Select(select), Chunking::Rows),
        (Statement::ShowDatabases, Chunking::Whole),
        (show(ShowKind::Measurements), Chunking::Whole),
        (show(ShowKind::TagKeys), Chunking::Series),
        (show(ShowKind::TagValues), Chunking::Series),
        (show(ShowKind::FieldKeys), Chunking::Rows),
        (show(ShowKind::Series), Chunking::Rows),
        (show(ShowKind::TagKeyCardinality { exact: false }), Chunking::Rows),
    ] {
        assert_eq!(Chunking::of(&statement), want, "{statement:?}");
    }
}

#[test]
fn csv_has_a_header_per_statement_and_where_columns_change() {
    let odd = series("we ird,m=x\"<", &[("e", ""), ("t a=g", "v a,l=ue")], &["time", "f,1"], &["[1,1]"]);
    let outcomes = [
        outcome(0, Chunking::Rows, Answer::failed("invisible")),
        outcome(
            1,
            Chunking::Rows,
            answer(&[cpu(&["[1,true]", r#"[2," lead"]"#]), odd, series("cpu", &[], &["time", "v"], &[])]),
        ),
        outcome(2, Chunking::Rows, Answer::default()),
        outcome(3, Chunking::Whole, answer(&[series("", &[], &["time", "v"], &[r#"["\u003ca\n",null]"#])])),
    ];
    let want = "name,tags,time,v\ncpu,host=a,1,true\ncpu,host=a,2,\" lead\"\n\n\
                name,tags,time,\"f,1\"\n\"we ird,m=x\"\"<\",\"t\\ a\\=g=v\\ a\\,l\\=ue\",1,1\n\nname,tags,time,v\n\n\
                name,tags,time,v\n,,\"<a\n\",\n";
    assert_eq!(text(&request(Format::Csv), &outcomes), want);
    // Chunks form the same table.
    assert_eq!(text(&chunked(Format::Csv), &outcomes), want);
    assert_eq!(text(&request(Format::Csv), &[]), "");
}

#[test]
fn csv_floats_have_no_exponent() {
    let csv = |value: &str| {
        let row = Row::of([value]);
        let outcome =
            outcome(0, Chunking::Rows, answer(&[Series { rows: vec![row], ..series("m", &[], &["v"], &[]) }]));
        let text = text(&request(Format::Csv), &[outcome]);
        text.strip_prefix("name,tags,v\nm,,").unwrap().trim_end().to_owned()
    };
    for (value, want) in [
        ("1e+21", "1000000000000000000000"),
        ("-1e-7", "-0.0000001"),
        ("1.7976931348623157e+308", &("17976931348623157".to_owned() + &"0".repeat(292))),
        ("1.0", "1"),
        ("-0", "-0"),
        ("-0.0", "-0"),
        ("0.1", "0.1"),
        ("9223372036854775807", "9223372036854775807"),
        ("100000000000000000000", "100000000000000000000"),
        (r#""1e5""#, "1e5"),
        ("false", "false"),
        ("null", ""),
    ] {
        assert_eq!(csv(value), want, "{value}");
    }
}

#[test]
fn msgpack_equals_influxdbs() {
    let rows = ["[-5,1.0,127]", "[1500000000123456789,null,-33]", r#"[0,"\u003c",18446744073709551615]"#];
    let messages = vec![Message { level: "warning".into(), text: "old".into() }];
    let selected = Answer { messages, ..answer(&[series("m", &[("h", "")], &["time", "f", "i"], &rows)]) };
    let outcomes = [
        outcome(0, Chunking::Rows, selected),
        outcome(1, Chunking::Whole, Answer::default()),
        outcome(2, Chunking::Rows, Answer::failed("no")),
    ];
    let want = b"\x81\xa7results\x93\x83\xacstatement_id\x00\xa8messages\x91\x82\xa5level\xa7warning\xa4text\xa3old\
        \xa6series\x91\x84\xa4name\xa1m\xa4tags\x81\xa1h\xa0\xa7columns\x93\xa4time\xa1f\xa1i\xa6values\x93\
        \x93\xc7\x0c\x05\xff\xff\xff\xff\xff\xff\xff\xff\x3b\x9a\xc9\xfb\xcb\x3f\xf0\0\0\0\0\0\0\x7f\
        \x93\xc7\x0c\x05\0\0\0\0\x59\x68\x2f\0\x07\x5b\xcd\x15\xc0\xd0\xdf\
        \x93\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\0\xa1<\xcf\xff\xff\xff\xff\xff\xff\xff\xff\
        \x82\xacstatement_id\x01\xa6series\x90\x81\xa5error\xa2no";
    let got = body(&request(Format::Msgpack), &outcomes);
    assert_eq!(got.escape_ascii().to_string(), want.escape_ascii().to_string());

    let epoch = QueryRequest { epoch: "ns".into(), ..request(Format::Msgpack) };
    let got = body(&epoch, &outcomes[..1]);
    assert!(got.windows(4).any(|bytes| bytes == b"\x93\x93\xfb\xcb"), "{}", got.escape_ascii());

    let got = body(&chunked(Format::Msgpack), &[outcome(0, Chunking::Rows, answer(&[cpu(&["[0,1]"; 3])]))]);
    let head =
        b"\x81\xa7results\x91\x83\xacstatement_id\x00\xa6series\x91\x85\xa4name\xa3cpu".escape_ascii().to_string();
    let marks = b"\xa7partial\xc3\xa7partial\xc3\x81\xa7results\x91\x82\xacstatement_id".escape_ascii().to_string();
    let got = got.escape_ascii().to_string();
    assert!(got.starts_with(&head) && got.contains(&marks), "{got}");
}

#[test]
fn the_fields_describe_the_body() {
    for (format, content_type) in
        [(Format::Json, "application/json"), (Format::Csv, "text/csv"), (Format::Msgpack, "application/x-msgpack")]
    {
        let fields = |gzip| {
            let held = MemoryBudget::new(usize::MAX).hold(Arc::default());
            let rendered = render(&QueryRequest { gzip, ..request(format) }, &[], &held);
            let Ok(QueryReply::Answer { fields, .. }) = rendered else { panic!("not an answer") };
            fields
        };
        let plain = ("Content-Type", content_type.to_owned());
        assert_eq!(fields(false), std::slice::from_ref(&plain));
        assert_eq!(fields(true), [plain, ("Content-Encoding", "gzip".to_owned())]);
    }
}

fn inflated(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn long_answers_are_cut_into_pieces_with_and_without_gzip() {
    // Digits that compress badly, so that compressed pieces are ended too.
    let mut state = 1u64;
    let mut row = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Row::of([state.to_string().as_str(), &(state >> 7).to_string()])
    };
    let rows = (0..30_000).map(|_| row()).collect();
    let outcomes = [outcome(0, Chunking::Rows, answer(&[Series { rows, ..cpu(&[]) }]))];
    for client in [request(Format::Json), request(Format::Csv), request(Format::Msgpack), chunked(Format::Json)] {
        let plain = pieces(&client, &outcomes);
        let packed = pieces(&QueryRequest { gzip: true, ..client }, &outcomes);
        assert!(plain.concat() == inflated(&packed.concat()));
        assert!(plain.len() > 2 && packed.len() > 1, "{} {}", plain.len(), packed.len());
        assert!(plain.iter().chain(&packed).all(|piece| piece.len() < 2 * ANSWER_PIECE_BYTES));
    }
    let empty = QueryRequest { gzip: true, ..chunked(Format::Json) };
    assert_eq!(inflated(&body(&empty, &[])), b"");
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|bool| bool.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        (-200i64..200).prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has no others", |x| x.is_finite()).prop_map(|x| format!("{x:?}")),
        "(?s).{0,6}".prop_map(|text| {
            let mut quoted = Vec::new();
            fluxgate_dataplane::http::go_json::push_string(&mut quoted, text.as_bytes());
            String::from_utf8(quoted).unwrap()
        }),
    ]
}

prop_compose! {
    fn any_series()(
        name in "(?s).{0,4}",
        tags in proptest::collection::btree_map("(?s).{0,3}", "(?s).{0,3}", 0..18),
        columns in proptest::collection::vec("(?s).{0,4}", 3),
        rows in proptest::collection::vec(proptest::collection::vec(any_value(), 3), 0..18),
        partial: bool,
    ) -> Series {
        let rows = rows.iter().map(|row| Row::of(row.iter().map(String::as_str))).collect();
        Series { name, tags: tags.into_iter().collect(), columns, rows, partial, ..Series::default() }
    }
}

prop_compose! {
    fn any_answer()(
        series in proptest::collection::vec(any_series(), 0..3),
        messages in proptest::collection::vec((".{0,4}", ".{0,4}"), 0..2),
    ) -> Answer {
        let messages = messages.into_iter().map(|(level, text)| Message { level, text }).collect();
        Answer { series, messages, error: None }
    }
}

fn any_outcomes() -> impl Strategy<Value = Vec<StatementOutcome>> {
    let one = prop_oneof![any_answer(), "(?s).{0,4}".prop_map(Answer::failed)];
    proptest::collection::vec(one, 0..3).prop_map(|answers| {
        let numbered = |(id, answer)| outcome(id as i64, Chunking::Rows, answer);
        answers.into_iter().enumerate().map(numbered).collect()
    })
}

fn answers(outcomes: &[StatementOutcome]) -> Vec<StatementAnswer> {
    let answer = |o: &StatementOutcome| StatementAnswer {
        statement_id: o.statement_id,
        answer: o.answer.clone(),
        partial: false,
    };
    outcomes.iter().map(answer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn written_answers_are_read_back_unchanged(outcomes in any_outcomes()) {
        let json = body(&request(Format::Json), &outcomes);
        prop_assert_eq!(json::parse(json.into()).unwrap(), answers(&outcomes));
        let msgpack = body(&request(Format::Msgpack), &outcomes);
        prop_assert_eq!(msgpack::parse(msgpack.into()).unwrap(), answers(&outcomes));
    }

    #[test]
    fn pieces_hold_all_rows_in_order(outcomes in any_outcomes(), chunk_size in 1usize..8) {
        let client = QueryRequest { chunk_size, ..chunked(Format::Json) };
        let text = text(&client, &outcomes);
        let line = |line: &str| json::parse(Bytes::copy_from_slice(line.as_bytes())).unwrap();
        let parts: Vec<_> = text.lines().flat_map(line).collect();
        for outcome in &outcomes {
            let mine: Vec<_> = parts.iter().filter(|part| part.statement_id == outcome.statement_id).collect();
            let marks: Vec<_> = mine.iter().map(|part| part.partial).collect();
            let (last, others) = marks.split_last().unwrap();
            prop_assert!(!last && others.iter().all(|&partial| partial), "{:?}", marks);
            let rows = mine.iter().flat_map(|part| &part.answer.series).flat_map(|series| &series.rows);
            prop_assert!(rows.eq(outcome.answer.series.iter().flat_map(|series| &series.rows)));
            let mut series = mine.iter().flat_map(|part| &part.answer.series);
            prop_assert!(series.all(|series| series.rows.len() <= chunk_size));
        }
    }
}
