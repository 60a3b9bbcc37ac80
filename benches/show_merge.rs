//! Measures the merge of 100,000 rows of SHOW SERIES and SHOW TAG VALUES from four backends.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fluxgate_control::influx::answer::{Answer, Row, Series};
use fluxgate_control::query::show::merge;
use fluxgate_dataplane::influxql::ast::{Show, Statement};
use fluxgate_dataplane::influxql::{Params, parse};
use fluxgate_dataplane::topology::BackendId;

const ROWS: usize = 100_000;
const BACKENDS: usize = 4;
const MEASUREMENTS: usize = 200;

fn show(text: &str) -> Show {
    match parse(text, &Params::default()).expect("a statement").pop() {
        Some(Statement::Show(show)) => *show,
        other => panic!("{other:?}"),
    }
}

/// Each measurement is on one backend, or on two.
fn backends_of(measurement: usize, copies: usize) -> impl Iterator<Item = usize> {
    (0..copies).map(move |copy| (measurement * 7 + copy) % BACKENDS)
}

/// Rows as slices of one body per backend, as parsed from an answer.
fn rows(texts: &[String]) -> Vec<Row> {
    let body = Bytes::from(texts.concat());
    let mut at = 0;
    let slice = |text: &String| {
        at += text.len();
        Row(body.slice(at - text.len()..at))
    };
    texts.iter().map(slice).collect()
}

fn series(copies: usize) -> Vec<(BackendId, Answer)> {
    let mut texts = vec![Vec::new(); BACKENDS];
    for n in 0..ROWS / copies {
        let m = n * MEASUREMENTS * copies / ROWS;
        for backend in backends_of(m, copies) {
            texts[backend]
                .push(format!(r#"["measurement_{m:04},datacenter=eu-west-1,host=server{n:07}.example.com,rack=7"]"#));
        }
    }
    answers(
        texts.iter().map(|texts| vec![Series { columns: vec!["key".into()], rows: rows(texts), ..Series::default() }]),
    )
}

fn values(copies: usize) -> Vec<(BackendId, Answer)> {
    let mut all = vec![Vec::new(); BACKENDS];
    let each = ROWS / MEASUREMENTS / copies;
    for m in 0..MEASUREMENTS {
        let texts: Vec<_> = (0..each).map(|n| format!(r#"["host","server{n:07}.example.com"]"#)).collect();
        for backend in backends_of(m, copies) {
            let columns = vec!["key".into(), "value".into()];
            let series =
                Series { name: format!("measurement_{m:04}"), columns, rows: rows(&texts), ..Series::default() };
            all[backend].push(series);
        }
    }
    answers(all.into_iter())
}

fn answers(parts: impl Iterator<Item = Vec<Series>>) -> Vec<(BackendId, Answer)> {
    let answer = |series| Answer { series, ..Answer::default() };
    parts.enumerate().map(|(at, series)| (BackendId(at as u16), answer(series))).collect()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("show_merge_100k");
    for (name, text, answers) in [
        ("series", "SHOW SERIES", series(1)),
        ("series_by_time", "SHOW SERIES WHERE time > 0", series(1)),
        ("series_all_twice", "SHOW SERIES", series(2)),
        ("tag_values", "SHOW TAG VALUES WITH KEY = host", values(1)),
        ("tag_values_all_twice", "SHOW TAG VALUES WITH KEY = host", values(2)),
    ] {
        let show = show(text);
        let setup = || answers.clone();
        group.bench_function(name, |b| b.iter_batched(setup, |a| black_box(merge(&show, a)), BatchSize::LargeInput));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
