//! Measures the HTTP cost of a small write: head, parameters, credentials and the 204, on one core, in cache.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fluxgate_dataplane::http::auth::Guard;
use fluxgate_dataplane::http::request_id::RequestIds;
use fluxgate_dataplane::http::response::{ReplyTo, Responder};
use fluxgate_dataplane::http::{Status, head, query};
use fluxgate_dataplane::settings::Credentials;

const TELEGRAF: &[u8] = b"POST /write?db=telegraf&precision=ns HTTP/1.1\r\nHost: influx.example:8086\r\n\
    User-Agent: Telegraf/1.30.0 Go/1.22.2\r\nContent-Length: 172\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Authorization: Basic YWRtaW46czNjciZ0\r\nAccept-Encoding: gzip\r\n\r\n";
/// The head of a load generator's request.
const SHORT: &[u8] = b"POST /write?db=bench HTTP/1.1\r\nHost: 127.0.0.1:7076\r\nContent-Length: 136\r\n\r\n";

fn parsed(buf: &[u8]) -> head::Head {
    match head::parse(buf) {
        Ok(Status::Complete(head)) => head,
        other => panic!("{other:?}"),
    }
}

fn heads(c: &mut Criterion) {
    c.bench_function("head/telegraf", |b| b.iter(|| parsed(black_box(TELEGRAF))));
    c.bench_function("head/short", |b| b.iter(|| parsed(black_box(SHORT))));
    c.bench_function("head/partial", |b| b.iter(|| head::parse(black_box(&TELEGRAF[..TELEGRAF.len() - 2]))));
}

fn parameters(c: &mut Criterion) {
    c.bench_function("query/db_rp_precision_consistency", |b| {
        b.iter(|| {
            let query = black_box(&b"db=telegraf&precision=ns"[..]);
            ["db", "rp", "precision", "consistency"].map(|key| query::first(query, key).is_some())
        })
    });
    let guard = Guard::new(&Credentials { username: "admin".into(), password: "s3cr&t".into() });
    c.bench_function("auth/basic", |b| {
        b.iter(|| {
            let header = black_box(Some(&b"Basic YWRtaW46czNjciZ0"[..]));
            guard.judge(black_box(b"db=telegraf&precision=ns"), header)
        })
    });
}

fn responses(c: &mut Criterion) {
    let mut responder = Responder::new(RequestIds::new(1, [0; 6]), Some("disk"));
    responder.set_time(Duration::from_secs(1_700_000_000));
    let mut out = Vec::with_capacity(4096);
    c.bench_function("response/204", |b| {
        let head = parsed(TELEGRAF);
        b.iter(|| {
            out.clear();
            responder.no_content(&mut out, ReplyTo::new(black_box(&head), TELEGRAF), Some("disk"));
            out.len()
        })
    });
    c.bench_function("response/400", |b| {
        let head = parsed(TELEGRAF);
        b.iter(|| {
            out.clear();
            let text = black_box(&b"unable to parse 'm v=x 5': invalid boolean"[..]);
            responder.error(&mut out, ReplyTo::new(&head, TELEGRAF), 400, text, false, &[]);
            out.len()
        })
    });
}

criterion_group!(benches, heads, parameters, responses);
criterion_main!(benches);
