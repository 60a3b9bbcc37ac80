//! Measures how long it takes to find a line's route: a hit of the worker's cache, for few and for many measurements,
//! and the rings themselves (a miss).

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fluxgate_dataplane::placement::{Place, Placement, PlacementSettings, RouteTable};
use fluxgate_dataplane::topology::{Backend, Topology};

fn topology(circles: usize, backends: usize) -> Topology {
    let mut topology = Topology::default();
    for circle in 0..circles {
        let backend = |index| {
            let port = 8086 + circle * backends + index;
            Backend::new(format!("influxdb-{circle}-{index}"), format!("http://127.0.0.1:{port}"))
        };
        topology.add_circle(format!("circle-{circle}"), (0..backends).map(backend));
    }
    topology
}

fn lookups(c: &mut Criterion) {
    let placement = Arc::new(Placement::new(&topology(2, 2), &PlacementSettings::default()));
    let mut group = c.benchmark_group("placement");
    for names in [10usize, 1_000, 50_000] {
        // Shuffled by a step that is coprime to the count, so that consecutive names are not adjacent in memory.
        let names: Vec<String> = (0..names).map(|i| format!("measurement_{}", i * 7919 % names)).collect();
        let mut table = RouteTable::new(placement.clone());
        group.throughput(Throughput::Elements(names.len() as u64));
        group.bench_function(format!("hit/{}", names.len()), |b| {
            b.iter(|| {
                for name in &names {
                    black_box(table.lookup(black_box(Place::new(b"telegraf", name.as_bytes()))));
                }
            });
        });
    }
    let mut route = Vec::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("rings/2x2", |b| {
        b.iter(|| {
            route.clear();
            placement.route(black_box(Place::new(b"telegraf", b"measurement_1")), &mut route);
            black_box(&route);
        });
    });
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
