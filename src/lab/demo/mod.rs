//! The demo: shows in half a minute that no acknowledged point is lost.
//!
//! Two circles of two backends, a proxy before them, and a load. One backend is killed in the middle and restarted.
//! Every point has a number ([`crate::lab::load`]), so the end is a proof: each circle holds every acknowledged point,
//! and the ledger balances. Child processes and files are removed at the end.

mod backends;
mod verdict;
mod view;

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use backends::Backend;
use clap::Args;
use verdict::{Stored, Verdict};
use view::{BackendRow, Frame, Screen, grouped};

use crate::lab::influxd::Influxd;
use crate::lab::load::{self, LoadArgs, Snapshot, Summary};
use crate::lab::proxy::{Proxy, ProxyConfig, backend_name};

const DB: &str = "demo";
const CIRCLES: usize = 2;
const BACKENDS: usize = 2;
/// The backend that is killed: circle and index in it.
const VICTIM: (usize, usize) = (0, 1);
const CONNECTIONS: usize = 16;
/// The display is refreshed this often.
const REFRESH: Duration = Duration::from_millis(250);
/// The backlog must be delivered within this after the load has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A demo shorter than this shows nothing.
const SECONDS_MIN: f64 = 3.0;

/// Kills a backend under load and proves that no acknowledged point is lost.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct DemoArgs {
    /// How long to write
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Points per second
    #[arg(long, default_value_t = 20_000)]
    pub rate: u64,
    /// Lines (= points) in a request
    #[arg(long, default_value_t = 100)]
    pub lines: u64,
    /// Use built-in stand-ins even where InfluxDB is installed
    #[arg(long)]
    pub standins: bool,
}

/// Runs the demo with `executable` as the proxy, and shows it on `out`. True if the proof succeeded. `stop` ends it
/// early, without a proof.
pub fn run(args: &DemoArgs, executable: &Path, stop: &AtomicBool, out: &mut dyn Write) -> io::Result<bool> {
    if !(args.seconds >= SECONDS_MIN && args.rate > 0) {
        let text = format!("--seconds must be at least {SECONDS_MIN} and --rate at least 1");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let standins = args.standins || Influxd::executable().is_none();
    let mut screen = Screen::new(out, io::stdout().is_terminal());
    let kind = match standins {
        true if args.standins => "built-in stand-ins for InfluxDB".into(),
        true => "built-in stand-ins for InfluxDB (influxd is not on PATH)".into(),
        false => format!("real InfluxDB servers ({})", Influxd::executable().unwrap_or_default().display()),
    };
    screen.say(&format!("Starting {CIRCLES} circles of {BACKENDS} backends: {kind}."))?;
    let circle = |_| (0..BACKENDS).map(|_| Backend::start(standins, DB)).collect::<io::Result<Vec<_>>>();
    let circles = (0..CIRCLES).map(circle).collect::<io::Result<Vec<_>>>()?;
    let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Backend::url).collect()).collect();
    let proxy = ProxyConfig::new(&urls).set("rewrite_interval", 1).start(executable)?;
    screen.say(&format!(
        "The proxy listens on {}. Writing {} points/s for {:.0} s.",
        proxy.url(),
        grouped(args.rate),
        args.seconds
    ))?;
    let victim = Victim { name: backend_name(VICTIM.0, VICTIM.1), state: VictimState::Up };
    let mut demo = Demo { screen, frame: Frame::default(), start: Instant::now(), victim, proxy, circles };
    let summary = demo.load(args, stop)?;
    let drained = demo.drain(&summary, stop)?;
    if stop.load(Relaxed) {
        demo.screen.say("Interrupted. Everything is stopped and removed.")?;
        return Ok(false);
    }
    demo.judge(&summary, drained)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VictimState {
    Up,
    Killed,
    Back,
}

struct Victim {
    name: String,
    state: VictimState,
}

struct Demo<'a> {
    screen: Screen<&'a mut dyn Write>,
    frame: Frame,
    start: Instant,
    victim: Victim,
    /// Declared before the backends, so that it is dropped first and logs nothing about them.
    proxy: Proxy,
    circles: Vec<Vec<Backend>>,
}

impl Demo<'_> {
    /// Writes. Kills the backend after a third of the time and restarts it after two thirds.
    fn load(&mut self, args: &DemoArgs, stop: &AtomicBool) -> io::Result<Summary> {
        let load = LoadArgs {
            seconds: Some(args.seconds),
            rate: args.rate,
            lines: args.lines,
            connections: CONNECTIONS,
            ..LoadArgs::new(&self.proxy.url(), DB)
        };
        let third = Duration::from_secs_f64(args.seconds / 3.0);
        let latest = Mutex::new(Snapshot::default());
        let stop_load = AtomicBool::new(false);
        self.start = Instant::now();
        // The load gets the new thread: children end with the thread that started them.
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let mut progress = |snapshot: &Snapshot| latest.lock().expect("no holder panics").clone_from(snapshot);
                load::run(&load, &stop_load, &mut progress)
            });
            let mut watch = || {
                while !running.is_finished() && !stop.load(Relaxed) {
                    match self.victim.state {
                        VictimState::Up if self.start.elapsed() >= third => self.kill_victim()?,
                        VictimState::Killed if self.start.elapsed() >= 2 * third => self.bring_back()?,
                        _ => {}
                    }
                    self.frame.load = latest.lock().expect("no holder panics").clone();
                    self.refresh()?;
                    std::thread::sleep(REFRESH);
                }
                Ok(())
            };
            let watched: io::Result<()> = watch();
            // Interrupted, or the display failed: open requests need no answers any more.
            if !running.is_finished() {
                stop_load.store(true, Relaxed);
                self.proxy.kill();
            }
            let summary = running.join().expect("the load does not panic").map_err(io::Error::other)?;
            watched.map(|()| summary)
        })
    }

    fn kill_victim(&mut self) -> io::Result<()> {
        self.circles[VICTIM.0][VICTIM.1].kill();
        self.victim.state = VictimState::Killed;
        self.event("is killed. Writes go on; its points wait in the proxy's log.")
    }

    fn bring_back(&mut self) -> io::Result<()> {
        self.circles[VICTIM.0][VICTIM.1].restart()?;
        self.victim.state = VictimState::Back;
        self.event("is back. The proxy delivers what it missed.")
    }

    fn event(&mut self, what: &str) -> io::Result<()> {
        self.screen.say(&format!("{:>6.1} s  {} {what}", self.start.elapsed().as_secs_f64(), self.victim.name))
    }

    /// Waits until every acknowledged point has been delivered. False if that takes too long.
    fn drain(&mut self, summary: &Summary, stop: &AtomicBool) -> io::Result<bool> {
        if self.victim.state == VictimState::Killed {
            self.bring_back()?;
        }
        self.frame.load = Snapshot { failed_requests: summary.counts.failed_requests(), ..Snapshot::default() };
        let wanted = summary.counts.acked_points * CIRCLES as u64;
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < deadline && !stop.load(Relaxed) {
            self.refresh()?;
            if self.frame.totals.accepted >= wanted && self.frame.totals.queued == 0 {
                return Ok(true);
            }
            std::thread::sleep(REFRESH);
        }
        Ok(false)
    }

    /// Asks the proxy for its state and shows it. A proxy that does not answer is shown as such; the verdict comes
    /// later.
    fn refresh(&mut self) -> io::Result<()> {
        let frame = &mut self.frame;
        frame.elapsed = self.start.elapsed();
        frame.phase = match self.victim.state {
            VictimState::Up => "everything is up".into(),
            VictimState::Killed => format!("{} is down", self.victim.name),
            VictimState::Back => format!("{} is back", self.victim.name),
        };
        let health = self.proxy.health().unwrap_or_default();
        if let Ok(ledger) = self.proxy.ledger() {
            frame.totals = ledger.totals;
            frame.rows = names()
                .map(|name| {
                    let totals = ledger.backend(&name);
                    let found = health.iter().flat_map(|circle| &circle.backends).find(|backend| backend.name == name);
                    let up = found.map(|backend| backend.active);
                    BackendRow { name, up, delivered: totals.delivered, queued: totals.queued }
                })
                .collect();
        }
        self.screen.show(frame)
    }

    /// Counts the points of every backend, and prints the proof or the errors.
    fn judge(&mut self, summary: &Summary, drained: bool) -> io::Result<bool> {
        self.screen.keep();
        self.screen.say("")?;
        let mut circles = Vec::new();
        for (c, circle) in self.circles.iter().enumerate() {
            let mut stored = Stored { name: format!("circle-{}", c + 1), ..Stored::default() };
            for (b, backend) in circle.iter().enumerate() {
                stored.backends.push((backend_name(c, b), backend.points(DB)?));
                if let Some(serials) = backend.serials(DB) {
                    stored.serials.get_or_insert_default().merge(&serials);
                }
            }
            circles.push(stored);
        }
        let ledger = self.proxy.ledger();
        let verdict = Verdict::of(summary, &circles, ledger.as_ref().ok(), drained);
        verdict.lines.iter().try_for_each(|line| self.screen.say(line))?;
        if let Err(error) = ledger {
            self.screen.say(&format!("The proxy does not answer: {error}\n{}", self.proxy.stderr()))?;
        }
        Ok(verdict.good)
    }
}

fn names() -> impl Iterator<Item = String> {
    (0..CIRCLES).flat_map(|c| (0..BACKENDS).map(move |b| backend_name(c, b)))
}
