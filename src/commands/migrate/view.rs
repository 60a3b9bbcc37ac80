//! Shows the progress of a migration: a bar on a terminal, lines elsewhere.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::remote::Job;

/// Plain output: a line for so much more of the work, in percent, ...
const STEP_PERCENT: f64 = 5.0;
/// ... and after so long without one, so that it is seen to live.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Shows what it is told.
pub enum View<'a> {
    Bar(ProgressBar),
    Lines { out: &'a mut dyn Write, last: Option<ShownProgress> },
}

/// What stood in the line before.
pub struct ShownProgress {
    state: String,
    doing: String,
    percent: f64,
    at: Instant,
}

impl<'a> View<'a> {
    /// A bar on standard error if that is a terminal, else lines to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        if !io::stderr().is_terminal() {
            return Self::Lines { out, last: None };
        }
        let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix} [{wide_bar}]\n{msg}");
        bar.set_style(style.expect("a constant that is right").progress_chars("=> "));
        Self::Bar(bar)
    }

    /// # Errors
    /// Those of the output.
    pub fn show(&mut self, job: &Job) -> io::Result<()> {
        match self {
            Self::Bar(bar) => {
                bar.set_prefix(format!("{} {}", job.kind, job.id));
                bar.set_position((job.percent * 10.0) as u64);
                bar.set_message(format!("{}\n       {}", state(job), speed(job)));
            }
            Self::Lines { out, last } => {
                if last.as_ref().is_none_or(|last| is_news(last, job)) {
                    writeln!(out, "migration {}: {}", job.id, progress(job))?;
                    out.flush()?;
                    let (state, doing) = (job.state.clone(), job.doing.clone());
                    *last = Some(ShownProgress { state, doing, percent: job.percent, at: Instant::now() });
                }
            }
        }
        Ok(())
    }

    /// Something that is not progress.
    ///
    /// # Errors
    /// Those of the output.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines { out, .. } => writeln!(out, "{text}").and_then(|()| out.flush())?,
        }
        Ok(())
    }

    /// Leaves the terminal as it was.
    pub fn close(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn is_news(last: &ShownProgress, job: &Job) -> bool {
    last.state != job.state
        || step(&last.doing) != step(&job.doing)
        || (job.percent - last.percent).abs() >= STEP_PERCENT
        || last.at.elapsed() >= LINE_INTERVAL
}

/// What the job does, without the numbers behind it, which change all the time.
fn step(doing: &str) -> &str {
    doing.split(" (").next().unwrap_or_default()
}

/// ` 42.5% running, moving measurements: 17 of 40 measurements, 1,200 rows, 3.40 MB at 1.10 MB/s, 20s left`.
fn progress(job: &Job) -> String {
    format!("{}: {}", state(job), speed(job))
}

fn state(job: &Job) -> String {
    let mut text = format!("{:5.1}% {}", job.percent, job.state);
    if !job.is_over() && !job.doing.is_empty() {
        text += &format!(", {}", job.doing);
    }
    text
}

fn speed(job: &Job) -> String {
    let mut text = amount(job);
    if job.state == "running" {
        if job.bytes_per_second > 0 {
            text += &format!(" at {}/s", DecimalBytes(job.bytes_per_second));
        }
        if let Some(seconds) = job.eta_seconds {
            text += &format!(", {:#} left", HumanDuration(Duration::from_secs(seconds)));
        }
    }
    text
}

fn amount(job: &Job) -> String {
    let (rows, bytes) = (HumanCount(job.rows), DecimalBytes(job.bytes));
    let mut text = format!("{} of {} measurements, {rows} rows, {bytes}", job.tasks.done, job.tasks.total);
    if job.tasks.failed > 0 {
        text += &format!(", {} failed", job.tasks.failed);
    }
    text
}

/// How it ended, in one sentence; with what went wrong, a line each.
pub fn end(job: &Job) -> String {
    let mut text = format!("{job} {}", if job.state == "done" { "is done" } else { &job.state });
    let seconds = job.ended.unwrap_or(job.started).saturating_sub(job.started);
    text += &format!(" after {}: {}", HumanDuration(Duration::from_secs(seconds)), amount(job));
    if job.rows_expired > 0 {
        let rows = HumanCount(job.rows_expired);
        text += &format!("\n  {rows} rows are left out: older than their retention policy allows");
    }
    for error in &job.errors {
        text += &format!("\n  {error}");
    }
    if job.errors_left_out > 0 {
        text += &format!("\n  and {} more: see the proxy's migration log", job.errors_left_out);
    }
    text
}

/// A table of all, one line each.
///
/// # Errors
/// Those of the output.
pub fn list(jobs: &[Job], out: &mut dyn Write) -> io::Result<()> {
    if jobs.is_empty() {
        return writeln!(out, "there are no migrations");
    }
    for job in jobs {
        writeln!(out, "{job}: {}", progress(job).trim_start())?;
        if let Some(error) = job.errors.first() {
            let more = job.errors.len() as u64 - 1 + job.errors_left_out;
            let more = if more > 0 { format!(" (and {more} more: migrate watch {})", job.id) } else { String::new() };
            writeln!(out, "  {error}{more}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::migrate::remote::Tasks;

    fn job(state: &str, percent: f64) -> Job {
        Job {
            id: 3,
            kind: "rebalance".to_owned(),
            state: state.to_owned(),
            doing: "moving measurements".to_owned(),
            percent,
            rows: 1200,
            bytes: 3_400_000,
            tasks: Tasks { total: 40, done: 17, failed: 0 },
            circle_id: Some(0),
            started: 100,
            ..Job::default()
        }
    }

    #[test]
    fn lines_come_for_what_is_new_only() {
        let mut out = Vec::new();
        let mut view = View::Lines { out: &mut out, last: None };
        let eta = Job { eta_seconds: Some(20), bytes_per_second: 1_100_000, ..job("running", 10.0) };
        for job in [&eta, &job("running", 14.9), &job("running", 15.0), &job("paused", 15.0), &job("paused", 15.0)] {
            view.show(job).unwrap();
        }
        view.show(&Job { doing: "telling other proxies".to_owned(), ..job("paused", 15.0) }).unwrap();
        let amount = "17 of 40 measurements, 1,200 rows, 3.40 MB";
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "migration 3:  10.0% running, moving measurements: {amount} at 1.10 MB/s, 20s left\n\
                 migration 3:  15.0% running, moving measurements: {amount}\n\
                 migration 3:  15.0% paused, moving measurements: {amount}\n\
                 migration 3:  15.0% paused, telling other proxies: {amount}\n"
            )
        );
    }

    #[test]
    fn the_end_tells_all_that_went_wrong() {
        let mut failed = job("failed", 100.0);
        failed.ended = Some(160);
        failed.tasks.failed = 2;
        failed.errors = vec!["db.cpu: refused".to_owned(), "db.mem: refused".to_owned()];
        failed.errors_left_out = 7;
        failed.rows_expired = 1234;
        assert_eq!(
            end(&failed),
            "migration 3 (rebalance of circle 0) failed after 60 seconds: 17 of 40 measurements, 1,200 rows, 3.40 MB, \
             2 failed\n  1,234 rows are left out: older than their retention policy allows\n  \
             db.cpu: refused\n  db.mem: refused\n  and 7 more: see the proxy's migration log"
        );
        let mut out = Vec::new();
        list(&[failed], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\n  db.cpu: refused (and 8 more: migrate watch 3)\n"), "{text}");
    }
}
