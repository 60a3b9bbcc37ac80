//! The refused lines of a write, kept for its answer.

use crate::limits::{ERROR_TEXT_BYTES_MAX, LINE_SHOWN_BYTES_MAX, REFUSED_LISTED_MAX};
use crate::lineproto::Refused;

/// Lines that were refused.
#[derive(Debug, Default)]
pub struct Refusals {
    pub count: u64,
    /// InfluxDB's error texts, one a line; cut at `ERROR_TEXT_BYTES_MAX`.
    pub text: Vec<u8>,
    /// The first `REFUSED_LISTED_MAX`.
    pub listed: Vec<RefusedLine>,
}

/// A refused line that the answer lists.
#[derive(Debug)]
pub struct RefusedLine {
    /// From 1, the first line of the body.
    pub number: u64,
    pub reason: String,
    /// The line, or the series of a point; cut at `LINE_SHOWN_BYTES_MAX`.
    pub shown: Box<[u8]>,
}

impl Refusals {
    /// Adds a refused line. `newlines_before` lines precede `body`.
    pub fn add(&mut self, body: &[u8], refused: &Refused, newlines_before: u64) {
        self.count += 1;
        if self.listed.len() < REFUSED_LISTED_MAX {
            let before = memchr::memchr_iter(b'\n', &body[..refused.start as usize]).count() as u64;
            let mut reason = Vec::new();
            refused.reason.describe(body, &mut reason);
            let reason = String::from_utf8_lossy(&reason).into_owned();
            let line = &body[refused.start as usize..refused.end as usize];
            let shown = line[..line.len().min(LINE_SHOWN_BYTES_MAX)].into();
            self.listed.push(RefusedLine { number: newlines_before + before + 1, reason, shown });
        }
        if self.text.len() >= ERROR_TEXT_BYTES_MAX {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        refused.describe(body, &mut self.text);
        self.text.truncate(ERROR_TEXT_BYTES_MAX);
    }

    /// Adds points that no line can hold, the first of which is the `number`th of the body.
    pub fn add_points(&mut self, points: u64, number: u64, key: &[u8], reason: &str) {
        self.count += points;
        let shown = &key[..key.len().min(LINE_SHOWN_BYTES_MAX)];
        if self.listed.len() < REFUSED_LISTED_MAX {
            self.listed.push(RefusedLine { number, reason: reason.to_owned(), shown: shown.into() });
        }
        if self.text.len() >= ERROR_TEXT_BYTES_MAX {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(&[b"unable to write '", shown, b"': ", reason.as_bytes()].concat());
        self.text.truncate(ERROR_TEXT_BYTES_MAX);
    }
}
