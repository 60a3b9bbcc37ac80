//! Measures the scan of one line of a large body. Time is per body of [`LINES`] lines, so ns/line is a thousandth of
//! it; throughput is in bytes.
//!
//! `telegraf`: about 162 bytes, 20 measurements, 5 tags, 4 fields, nanosecond timestamps. `mixed`: the number of tags
//! and fields and the types of values vary from line to line. `quoted`: like `telegraf` with one string field.
//! `escaped`: like `quoted` with a backslash, so that no line is plain. `telegraf_encode` also copies each line out.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fluxgate::lab::load::MEASUREMENTS;
use fluxgate_dataplane::lineproto::{Item, Scanner};
use fluxgate_dataplane::precision::Precision;

const LINES: usize = 1000;

/// A small random generator, so that every run measures the same bytes.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Lines like Telegraf's. `string` adds a string field; `disk` is added to the tags.
fn telegraf(disk: &str, string: bool) -> String {
    let mut random = Random(12_345);
    let mut body = String::new();
    for i in 0..LINES {
        let measurement = MEASUREMENTS[random.below(20) as usize];
        let (host, dc, rack, cpu) = (random.below(200), random.below(4), random.below(40), random.below(16));
        write!(body, "{measurement},host=host-{host:03},dc=dc{dc},rack=r{rack:02},env=prod,cpu=cpu{cpu}{disk} ")
            .unwrap();
        for field in ["user", "system", "idle"] {
            write!(body, "usage_{field}={}.{:02},", random.below(100), random.below(100)).unwrap();
        }
        if string {
            write!(body, "state=\"running for {} s\",", random.below(1000)).unwrap();
        }
        writeln!(body, "n={}i 1600000000{:03}000000", random.below(100_000), i).unwrap();
    }
    body
}

fn mixed() -> String {
    let mut random = Random(54_321);
    let mut body = String::new();
    for i in 0..LINES {
        body.push_str(MEASUREMENTS[random.below(20) as usize]);
        for tag in 0..random.below(9) {
            write!(
                body,
                ",tag_{}{tag}=value{}",
                ["", "name", "identifier"][random.below(3) as usize],
                random.below(9999)
            )
            .unwrap();
        }
        body.push(' ');
        for field in 0..=random.below(9) {
            let comma = if field > 0 { "," } else { "" };
            match random.below(5) {
                0 => write!(body, "{comma}field{field}={}i", random.below(1_000_000_000)),
                1 => write!(body, "{comma}field{field}={}", random.below(1000)),
                2 => write!(body, "{comma}field{field}=-{}.{}", random.below(1000), random.below(1_000_000_000)),
                3 => write!(body, "{comma}field{field}={}", random.below(2) == 0),
                _ => write!(body, "{comma}field{field}={}.{:02}", random.below(100), random.below(100)),
            }
            .unwrap();
        }
        writeln!(body, " 1600000000{i:03}000000").unwrap();
    }
    body
}

fn count(body: &[u8]) -> usize {
    let mut lines = 0;
    Scanner::new(Precision::Nanosecond).scan(body, true, |item| lines += usize::from(matches!(item, Item::Line(_))));
    lines
}

fn scan(criterion: &mut Criterion) {
    let bodies = [
        ("telegraf", telegraf("", false)),
        ("mixed", mixed()),
        ("quoted", telegraf("", true)),
        ("escaped", telegraf(",disk=Disk\\ C:", true)),
    ];
    let mut group = criterion.benchmark_group("scan");
    for (name, body) in &bodies {
        assert_eq!(count(body.as_bytes()), LINES);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(*name, |bencher| bencher.iter(|| count(black_box(body.as_bytes()))));
    }
    let body = bodies[0].1.as_bytes();
    let mut out = vec![0; body.len() + 64];
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("telegraf_encode", |bencher| {
        bencher.iter(|| {
            let mut at = 0;
            Scanner::new(Precision::Nanosecond).scan(black_box(body), true, |item| {
                if let Item::Line(line) = item {
                    at += line.encode(body, b"1600000000000000000", &mut out[at..]);
                }
            });
            at
        });
    });
    let line = &body[..body.iter().position(|&byte| byte == b'\n').unwrap() + 1];
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("one_line_body", |bencher| bencher.iter(|| count(black_box(line))));
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
