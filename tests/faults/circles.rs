//! What the fault tests share: stand-ins in circles, numbered load, and the proof that nothing was lost.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use fluxgate::lab::load::{self, LoadArgs, Summary};
use fluxgate::lab::proxy::{Ledger, Proxy, ProxyConfig, eventually};
use fluxgate::lab::serials::Serials;
use fluxgate::lab::stand_in::StandIn;

pub const DB: &str = "db";
/// Backends that are back must have everything within this. Long, since other tests keep the machine busy.
pub const DRAIN: Duration = Duration::from_secs(60);

/// Runs `fluxgate log ...`.
pub fn log_command(what: &str, dir: &Path) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_fluxgate")).args(["log", what]).arg(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// Circles of stand-ins that know [`DB`].
pub struct Circles(pub Vec<Vec<StandIn>>);

impl Circles {
    pub fn new(circles: usize, backends: usize) -> Self {
        let circle = || (0..backends).map(|_| StandIn::with_databases(&[DB]).unwrap()).collect();
        Self((0..circles).map(|_| circle()).collect())
    }

    /// Backends that are down are asked again after a second, not after the default of ten.
    pub fn config(&self) -> ProxyConfig {
        let urls: Vec<Vec<_>> = self.0.iter().map(|circle| circle.iter().map(StandIn::url).collect()).collect();
        ProxyConfig::new(&urls).set("rewrite_interval", 1)
    }

    pub fn stop(&mut self) {
        self.0.iter_mut().flatten().for_each(StandIn::stop);
    }

    pub fn restart(&mut self) {
        self.0.iter_mut().flatten().for_each(|backend| backend.restart().unwrap());
    }

    /// Numbers of the points a circle holds.
    pub fn held(&self, circle: usize) -> Serials {
        let mut numbers = Serials::default();
        self.0[circle].iter().for_each(|backend| numbers.merge(&backend.serials(DB)));
        numbers
    }
}

/// Numbers of points that were sent, and of those that were acknowledged, over several runs.
#[derive(Default)]
pub struct Points {
    pub sent: Serials,
    pub acked: Serials,
    next: u64,
}

impl Points {
    /// Options for a run that numbers on from those before it.
    pub fn args(&self, proxy: &Proxy) -> LoadArgs {
        LoadArgs { first: self.next + 1, lines: 20, connections: 8, ..LoadArgs::new(&proxy.url(), DB) }
    }

    /// Runs a load while something else happens; takes note of what was acknowledged.
    pub fn load(&mut self, args: &LoadArgs, meanwhile: impl FnOnce()) -> Summary {
        let summary = std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(args, &AtomicBool::new(false), &mut |_| {}).unwrap());
            meanwhile();
            load.join().unwrap()
        });
        self.note(&summary);
        summary
    }

    /// Runs a load until something else is over.
    pub fn load_during(&mut self, args: &LoadArgs, meanwhile: impl FnOnce()) -> Summary {
        let stop = AtomicBool::new(false);
        let summary = std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(args, &stop, &mut |_| {}).unwrap());
            meanwhile();
            stop.store(true, Relaxed);
            load.join().unwrap()
        });
        self.note(&summary);
        summary
    }

    fn note(&mut self, summary: &Summary) {
        let Some((first, last)) = summary.serials else { return };
        let mut excused = Serials::default();
        for range in &summary.counts.unacked {
            (range.first..range.first + range.count).for_each(|n| {
                excused.insert(n);
            });
        }
        for n in first..=last {
            self.sent.insert(n);
            if !excused.contains(n) {
                self.acked.insert(n);
            }
        }
        self.next = last;
    }
}

/// Numbers in `a` that are not in `b`.
pub fn missing(a: &Serials, b: &Serials) -> Vec<u64> {
    a.iter().filter(|n| !b.contains(*n)).collect()
}

/// Waits until the ledger says that nothing is queued. It must add up, now and on the way.
pub fn drained(proxy: &Proxy) -> Ledger {
    let mut ledger = balanced(proxy);
    let empty = eventually(DRAIN, || {
        ledger = balanced(proxy);
        ledger.totals.queued == 0
    });
    assert!(empty, "not drained: {ledger:?}\n{}", proxy.stderr());
    ledger
}

/// The ledger of all workers, which adds up. After a start some may still be opening their logs.
pub fn balanced(proxy: &Proxy) -> Ledger {
    let mut ledger = Ledger::default();
    let whole = eventually(DRAIN, || {
        ledger = proxy.ledger().unwrap_or_else(|e| panic!("{e}\n{}", proxy.stderr()));
        ledger.workers_missing.is_empty()
    });
    assert!(whole, "{ledger:?}\n{}", proxy.stderr());
    assert!(ledger.proven_balanced(), "{ledger:?}\n{}", proxy.stderr());
    ledger
}

/// Waits until everything is delivered, and proves it: each circle holds what was acknowledged and nothing that was not
/// sent, and the ledger counts exactly what each circle holds.
pub fn assert_nothing_lost(proxy: &Proxy, circles: &Circles, points: &Points) -> Ledger {
    let ledger = drained(proxy);
    for circle in 0..circles.0.len() {
        let held = circles.held(circle);
        let lost = missing(&points.acked, &held);
        assert!(lost.is_empty(), "circle {circle} lacks {lost:?}\n{ledger:?}\n{}", proxy.stderr());
        let strangers = missing(&held, &points.sent);
        assert!(strangers.is_empty(), "circle {circle} holds what nobody sent: {strangers:?}");
    }
    let held: Vec<_> = (0..circles.0.len()).map(|circle| circles.held(circle).len()).collect();
    let sum = held.iter().sum();
    let counted = (ledger.totals.delivered, ledger.totals.accepted);
    assert_eq!(counted, (sum, sum), "{held:?} {ledger:?}\n{}", proxy.stderr());
    ledger
}
