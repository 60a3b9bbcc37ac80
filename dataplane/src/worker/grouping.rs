//! Sorts the lines of one piece of a body by route without moving them. The lines of a route form a chain, and each
//! chain is copied once, straight into the log. Where the unit of timestamps changes, another chain begins.
//!
//! ```text
//!   lines   0 -> 2 -> 5      first chain (route A)
//!           1 -> 3 -> 4      second chain (route B)
//! ```

use crate::disklog::RECORD_BYTES_MAX;
use crate::lineproto::Line;
use crate::placement::RouteId;
use crate::precision::Precision;

const NONE: u32 = u32::MAX;

/// Reused for one piece after the other; empty between pieces.
#[derive(Debug, Default)]
pub struct Grouping {
    lines: Vec<(Line, u32)>,
    chains: Vec<LineChain>,
    /// The open chain of each route, by `RouteId`. An entry is valid only if that chain has this route.
    open: Vec<u32>,
}

/// Lines of one route and unit that fit one record.
#[derive(Clone, Copy, Debug)]
pub struct LineChain {
    pub route: RouteId,
    pub precision: Precision,
    pub lines: u32,
    /// Encoded bytes of the lines, each with its LF.
    pub bytes: usize,
    head: u32,
    tail: u32,
}

impl Grouping {
    /// Adds a line whose encoded form takes `bytes`. Lines of one route stay in order.
    #[inline]
    pub fn add(&mut self, line: Line, bytes: usize, route: RouteId, precision: Precision) {
        let at = u32::try_from(self.lines.len()).expect("a piece has fewer lines than bytes");
        self.lines.push((line, NONE));
        let slot = route.0 as usize;
        if slot >= self.open.len() {
            self.open.resize(slot + 1, NONE);
        }
        if let Some(chain) = self.chains.get_mut(self.open[slot] as usize)
            && chain.route == route
            && chain.precision == precision
            && chain.bytes + bytes <= RECORD_BYTES_MAX
        {
            self.lines[chain.tail as usize].1 = at;
            chain.tail = at;
            chain.lines += 1;
            chain.bytes += bytes;
            return;
        }
        self.open[slot] = self.chains.len() as u32;
        self.chains.push(LineChain { route, precision, lines: 1, bytes, head: at, tail: at });
    }

    /// Chains in the order of their first lines. Chains of one route are in the order of their lines.
    pub fn chains(&self) -> &[LineChain] {
        &self.chains
    }

    /// Writes the lines of a chain into `out`, which is `chain.bytes` long. Lines without a timestamp get `timestamp`.
    #[inline]
    pub fn copy(&self, chain: &LineChain, body: &[u8], timestamp: &[u8], out: &mut [u8]) {
        let mut at = chain.head;
        let mut written = 0;
        while at != NONE {
            let (line, next) = &self.lines[at as usize];
            written += line.encode(body, timestamp, &mut out[written..]);
            at = *next;
        }
        assert_eq!(written, out.len(), "a record holds exactly what was measured for it");
    }

    pub fn clear(&mut self) {
        self.lines.clear();
        self.chains.clear();
    }
}
