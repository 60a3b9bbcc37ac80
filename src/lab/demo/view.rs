//! Output of the running demo: a table that is redrawn on a terminal, one line a second elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use crate::lab::load::Snapshot;
use crate::lab::proxy::LedgerTotals;

/// No line of the display may be wider: a terminal would wrap it, and repainting would fail.
const WIDTH_MAX: usize = 79;
const BAR_WIDTH: usize = 24;
/// Without a terminal, one line is printed per interval.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// One backend as the proxy sees it.
#[derive(Clone, Debug, Default)]
pub struct BackendRow {
    pub name: String,
    /// `None`: the proxy does not say.
    pub up: Option<bool>,
    pub delivered: u64,
    pub queued: u64,
}

/// One moment of the demo.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub elapsed: Duration,
    /// The present phase in a few words.
    pub phase: String,
    pub load: Snapshot,
    pub rows: Vec<BackendRow>,
    pub totals: LedgerTotals,
}

impl Frame {
    fn picture(&self) -> Vec<String> {
        let load = &self.load;
        let mut lines = vec![
            format!("{:>6.1} s  {}", self.elapsed.as_secs_f64(), self.phase),
            format!(
                "  writes   {:>9} points/s   ack p50 {} ms, p99 {} ms   {} failed",
                grouped(load.points_per_second as u64),
                milliseconds(load.p50_us),
                milliseconds(load.p99_us),
                load.failed_requests
            ),
            format!("  {:<14}{:<6}{:>12}{:>12}", "backend", "", "delivered", "queued"),
        ];
        let most = self.rows.iter().map(|row| row.queued).max().unwrap_or(0).max(1);
        lines.extend(self.rows.iter().map(|row| {
            let bar = "#".repeat((row.queued * BAR_WIDTH as u64).div_ceil(most) as usize);
            format!(
                "  {:<14}{:<6}{:>12}{:>12}  {bar}",
                row.name,
                state(row.up),
                grouped(row.delivered),
                grouped(row.queued)
            )
        }));
        lines.push(format!("  ledger  {}", equation(&self.totals)));
        lines.iter().map(|line| line.chars().take(WIDTH_MAX).collect()).collect()
    }

    fn line(&self) -> String {
        let load = &self.load;
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| format!("{} {} {} queued", row.name, state(row.up), grouped(row.queued)))
            .collect();
        format!(
            "{:>6.1} s  {} points/s, ack p50 {} ms, p99 {} ms, {} delivered; {}",
            self.elapsed.as_secs_f64(),
            grouped(load.points_per_second as u64),
            milliseconds(load.p50_us),
            milliseconds(load.p99_us),
            grouped(self.totals.delivered),
            rows.join(", ")
        )
    }
}

/// The ledger's totals as an equation.
pub fn equation(totals: &LedgerTotals) -> String {
    format!(
        "{} = {} delivered + {} queued + {} rejected + {} dropped",
        totals.accepted, totals.delivered, totals.queued, totals.rejected, totals.dropped
    )
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn milliseconds(us: u64) -> String {
    format!("{:.1}", us as f64 / 1e3)
}

fn state(up: Option<bool>) -> &'static str {
    match up {
        Some(true) => "up",
        Some(false) => "DOWN",
        None => "?",
    }
}

/// Where frames and events are printed.
pub struct Screen<W> {
    out: W,
    repaint: bool,
    /// Lines of the frame on the screen.
    drawn: usize,
    last_line: Option<Duration>,
}

impl<W: Write> Screen<W> {
    /// `repaint`: a terminal, on which a frame replaces the one before.
    pub fn new(out: W, repaint: bool) -> Self {
        Self { out, repaint, drawn: 0, last_line: None }
    }

    /// Prints a line that stays, above the frame.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.wipe()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    pub fn show(&mut self, frame: &Frame) -> io::Result<()> {
        if self.repaint {
            self.wipe()?;
            let lines = frame.picture();
            self.drawn = lines.len();
            writeln!(self.out, "{}", lines.join("\n"))?;
        } else if self.last_line.is_none_or(|last| frame.elapsed >= last + LINE_INTERVAL) {
            self.last_line = Some(frame.elapsed);
            writeln!(self.out, "{}", frame.line())?;
        }
        self.out.flush()
    }

    /// Leaves the frame on the screen; later output goes below it.
    pub fn keep(&mut self) {
        self.drawn = 0;
    }

    /// Moves up over the frame and clears from there (ECMA-48 CPL and ED).
    fn wipe(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}F\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seconds: f64) -> Frame {
        let row = |name: &str, up, queued| BackendRow { name: name.into(), up, delivered: 1_234_567, queued };
        Frame {
            elapsed: Duration::from_secs_f64(seconds),
            phase: "one is down".into(),
            load: Snapshot { points_per_second: 20_000.4, p50_us: 1_250, p99_us: 12_345, ..Default::default() },
            rows: vec![row("influxdb-1-1", Some(true), 0), row("influxdb-1-2", Some(false), 54_321), row("x", None, 1)],
            totals: LedgerTotals { accepted: 6, delivered: 3, queued: 2, rejected: 1, dropped: 0 },
        }
    }

    fn screen(repaint: bool) -> Screen<Vec<u8>> {
        Screen { out: Vec::new(), repaint, drawn: 0, last_line: None }
    }

    #[test]
    fn a_terminal_sees_one_picture_that_changes() {
        let mut screen = screen(true);
        screen.show(&frame(1.0)).unwrap();
        screen.show(&frame(1.2)).unwrap();
        screen.say("event").unwrap();
        screen.show(&frame(1.4)).unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        let lines = frame(1.0).picture().len();
        assert_eq!(text.matches(&format!("\x1b[{lines}F\x1b[J")).count(), 2);
        assert!(text.contains("influxdb-1-2  DOWN     1,234,567      54,321  ########################\n"), "{text}");
        assert!(text.contains("  ledger  6 = 3 delivered + 2 queued + 1 rejected + 0 dropped"));
    }

    #[test]
    fn no_line_of_the_picture_wraps() {
        let mut wide = frame(123_456.7);
        let usual = LedgerTotals { accepted: 8_000_000, delivered: 7_500_000, queued: 500_000, ..Default::default() };
        let whole = format!("  ledger  {}", equation(&usual));
        wide.totals = usual;
        assert_eq!(wide.picture().last(), Some(&whole), "a usual ledger is shown whole");
        wide.totals = LedgerTotals { accepted: u64::MAX, delivered: u64::MAX, queued: u64::MAX, ..wide.totals };
        assert!(wide.picture().iter().all(|line| line.len() <= WIDTH_MAX), "{:#?}", wide.picture());
    }

    #[test]
    fn a_file_gets_one_line_a_second() {
        let mut screen = screen(false);
        for tenths in 0..25 {
            screen.show(&frame(f64::from(tenths) / 10.0)).unwrap();
        }
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("20,000 points/s, ack p50 1.2 ms, p99 12.3 ms, 3 delivered; influxdb-1-1 up 0 queued, "));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
