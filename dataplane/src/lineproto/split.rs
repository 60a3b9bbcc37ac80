//! Where a line ends: InfluxDB's splitter, which knows nothing of measurements and only little of quotes.
//!
//! It is not the reading that decides what a line means (`parse`), and the two do not always agree; both are followed
//! to the letter, since a line must end where InfluxDB ends it.

/// Progress within one line.
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
    /// At the end of the whole body, which ends the line too.
    BodyEnd,
    /// At this offset: what follows it must be seen first.
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
    /// Goes on from `at`. `last`: nothing follows `body`.
    pub(super) fn run(&mut self, body: &[u8], mut at: usize, last: bool) -> Split {
        while let Some(&byte) = body.get(at) {
            if !STOPS[usize::from(byte)] {
                at += 1;
                continue;
            }
            match byte {
                // A backslash hides the next byte, but only if one more follows in the body.
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

/// Whether `line`, sent with an LF behind it and other lines around it, is taken for exactly one line.
pub(super) fn stands_alone(line: &[u8]) -> bool {
    let mut splitter = Splitter::default();
    // `Cut` before the end is a backslash among the last two bytes: harmless if it hides the very last byte.
    match splitter.run(line, 0, false) {
        Split::Cut(at) => !splitter.quoted && (at == line.len() || at + 2 == line.len()),
        Split::Lf(_) | Split::BodyEnd => false,
    }
}
