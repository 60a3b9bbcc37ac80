//! Finds the end of a line, as InfluxDB's splitter does, which does not look at measurements and only partly at quotes.
//!
//! The splitter and the parser (`parse`) do not always agree. Both are copied exactly, since a line must end where
//! InfluxDB ends it.

/// State within one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Splitter {
    space_seen: bool,
    quoted: bool,
    equals: u32,
    commas: u32,
}

/// Where [`Splitter::run`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// At the LF that ends the line.
    Lf(usize),
    /// At the end of the whole body, which also ends the line.
    BodyEnd,
    /// At this offset: more bytes are needed.
    Cut(usize),
}

/// Bytes the splitter must stop at.
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let mut i = 0;
    while i < 6 {
        stops[b"\\ =,\"\n"[i] as usize] = true;
        i += 1;
    }
    stops
};

impl Splitter {
    /// Continues at `at`. `last`: nothing follows `body`.
    pub(super) fn run(&mut self, body: &[u8], mut at: usize, last: bool) -> Split {
        while let Some(&byte) = body.get(at) {
            if !STOPS[usize::from(byte)] {
                // Within a string only these two mean something.
                let next = || memchr::memchr2(b'"', b'\\', &body[at..]).map_or(body.len(), |n| at + n);
                at = if self.quoted { next() } else { at + 1 };
                continue;
            }
            match byte {
                // A backslash escapes the next byte, but only if another byte follows in the body.
                b'\\' if at + 2 < body.len() => at += 1,
                b'\\' if !last => return Split::Cut(at),
                b' ' => self.space_seen = true,
                b'=' if self.space_seen && !self.quoted => self.equals += 1,
                b',' if self.space_seen && !self.quoted => self.commas += 1,
                b'"' if self.space_seen && self.equals > self.commas => self.quoted = !self.quoted,
                b'\n' if !self.quoted => return Split::Lf(at),
                _ => {}
            }
            at += 1;
        }
        if last { Split::BodyEnd } else { Split::Cut(at) }
    }
}

/// Whether `line`, sent with an LF after it and other lines around it, is read as exactly one line.
pub(super) fn stands_alone(line: &[u8]) -> bool {
    let mut splitter = Splitter::default();
    // `Cut` before the end is a backslash among the last two bytes: harmless if it escapes the very last byte.
    match splitter.run(line, 0, false) {
        Split::Cut(at) => !splitter.quoted && (at == line.len() || at + 2 == line.len()),
        Split::Lf(_) | Split::BodyEnd => false,
    }
}
