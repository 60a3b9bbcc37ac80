//! Line protocol: where lines end, which are valid, and their measurements and timestamps.
//!
//! [`Scanner::scan`] reads a body once, in pieces of any size. It returns, in order, a [`Line`] for each point that
//! InfluxDB 1.x would accept and a [`Refused`] for each other one. Comments and blank lines return nothing. Results are
//! offsets into the body: nothing is copied, and nothing allocated except for lines of more than 32 tags.
//!
//!   | measurement | ,tag=value ... | blanks | fields     | blanks, timestamp, blanks | LF
//!   ^ start       ^ measurement_end                      ^ fields_end                ^ end
//!
//! Three parsers, each in its own file. `plain` reads ordinary lines fast and never refuses one; what it does not
//! accept goes to `split` (where does the line end?) and `parse` (is it valid, and if not, what does InfluxDB say?).
//! `naive` does all of it again in the simplest way; tests and fuzzing compare the others with it.
//!
//! Differences from InfluxDB, all of them refusals: lines longer than [`limits::LINE_BYTES_MAX`], and the last group of
//! [`Reason`]. Not here: values, types, the clock, and what an answer looks like.

mod classes;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(test)]
mod golden_test;
mod measurement;
#[cfg(any(test, feature = "fuzzing"))]
mod naive;
mod number;
mod parse;
mod plain;
#[cfg(test)]
mod property_test;
mod reason;
mod split;

pub use measurement::unescape_measurement;
pub use reason::Reason;

use crate::limits;
use crate::precision::Precision;
use split::{Split, Splitter};

/// The parts of one valid line; offsets into the scanned body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// At the first byte that is not blank.
    pub start: u32,
    /// After the last byte, without the LF.
    pub end: u32,
    /// The raw measurement is `body[start..measurement_end]`.
    pub measurement_end: u32,
    /// Where a missing timestamp is inserted.
    pub fields_end: u32,
    pub has_timestamp: bool,
}

/// A line that InfluxDB refuses, or that fluxgate refuses to protect InfluxDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub start: u32,
    /// `body[start..end]` is the LINE of InfluxDB's message; of a too long line only its beginning.
    pub end: u32,
    pub reason: Reason,
}

impl Refused {
    /// Appends InfluxDB's text, `unable to parse 'LINE': REASON`.
    pub fn describe(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"unable to parse '");
        out.extend_from_slice(&body[self.start as usize..self.end as usize]);
        out.extend_from_slice(b"': ");
        self.reason.describe(body, out);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Line(Line),
    Refused(Refused),
}

/// Scans one body, piece by piece.
#[derive(Clone, Debug)]
pub struct Scanner {
    precision: Precision,
    /// Inside a too long line that has been reported.
    skipping: Option<Splitter>,
}

impl Scanner {
    pub fn new(precision: Precision) -> Self {
        Self { precision, skipping: None }
    }

    /// Scans the complete lines of `body` and returns how many bytes are finished. `last`: nothing follows, so the rest
    /// is a line too and everything is finished. Otherwise the next call's `body` must begin with the bytes from the
    /// returned offset on: at most [`limits::LINE_BYTES_MAX`] + 2 of them, whatever the client sends.
    ///
    /// Panics if `body` is 4 GiB or longer.
    pub fn scan(&mut self, body: &[u8], last: bool, mut sink: impl FnMut(Item)) -> usize {
        assert!(u32::try_from(body.len()).is_ok(), "offsets have 32 bits");
        let mut at = 0;
        if let Some(splitter) = &mut self.skipping {
            match splitter.run(body, 0, last) {
                Split::Cut(cut) => return cut,
                Split::Lf(lf) => at = lf + 1,
                Split::BodyEnd => at = body.len(),
            }
            self.skipping = None;
        }
        let mut index = plain::Index::new();
        while at < body.len() {
            at = index.scan(body, at, self.precision, |line| sink(Item::Line(line)));
            if at == body.len() {
                break;
            }
            let mut splitter = Splitter::default();
            let (end, next) = match splitter.run(body, at, last) {
                Split::Lf(lf) => (lf, lf + 1),
                Split::BodyEnd => (body.len(), body.len()),
                Split::Cut(_) if body.len() - at <= limits::LINE_BYTES_MAX + 2 => return at,
                Split::Cut(cut) => {
                    self.skipping = Some(splitter);
                    (body.len(), cut)
                }
            };
            if let Some(item) = judge(body, at, end, next == end, self.precision) {
                sink(item);
            }
            at = next;
            if self.skipping.is_some() {
                return at;
            }
        }
        at
    }
}

/// One line of any kind, `body[raw_start..end]`, without its LF.
fn judge(body: &[u8], raw_start: usize, end: usize, at_body_end: bool, precision: Precision) -> Option<Item> {
    let blanks = body[raw_start..end].iter().take_while(|&&byte| parse::is_blank(byte)).count();
    if end - raw_start > limits::LINE_BYTES_MAX {
        // The range must not depend on where the body was split.
        let known_end = raw_start + limits::LINE_BYTES_MAX;
        let start = known_end.min(raw_start + blanks);
        let end = known_end.min(start + limits::LINE_SHOWN_BYTES_MAX);
        let refused = Refused { start: start as u32, end: end as u32, reason: Reason::LineTooLong };
        return (body[start] != b'#').then_some(Item::Refused(refused));
    }
    let start = raw_start + blanks;
    if start == end || body[start] == b'#' {
        return None;
    }
    let end = if body[end - 1] == b'\n' { end - 1 } else { end };
    let judged = parse::parse(body, start, end, precision).and_then(|line| {
        // Where this line ends may depend on the bytes around it.
        let context = blanks > 0
            || at_body_end
            || body[end - 1] == b'\\'
            || (!line.has_timestamp && memchr::memchr(b'\n', &body[line.fields_end as usize..end]).is_some());
        if context && !split::stands_alone(line.kept(body)) { Err(Reason::NotSelfContained) } else { Ok(line) }
    });
    Some(match judged {
        Ok(line) => Item::Line(line),
        Err(reason) => Item::Refused(Refused { start: start as u32, end: end as u32, reason }),
    })
}
