//! The state: the cursor of each backend, and the caller's own text. Plain text, readable for people.
//!
//!   fluxgate log state 4
//!   end <seq> <lines> <segment> <epoch> <offset>     the log's end at this state, and where it lies
//!   first <seq> <lines>                              the oldest segment
//!   closed                                           only after an orderly end: nothing was appended since
//!   rerouting                                        what follows `end` was being appended again for backends that are
//!                                                    gone, and is void
//!   rerouted <stamp> <backend name>                  what this backend, which is gone, needed below the stamp has been
//!                                                    appended again, from all logs
//!   stamp <n>                                        no record before `end` has a larger stamp
//!   cursor <seq> <backend name>                      one per backend
//!   parked <seq> <key> <backend name>                points of this key are needed from there on, not from the cursor
//!   settled <n> <backend name>                       all stamps below it are settled, in all logs, but for:
//!   waiting <n> <key> <backend name>                 points of this key are settled only below this stamp
//!   dropped <n> <key> <backend name>                 the stamp of a record of this key (-: that was not parked) that
//!                                                    may have been delivered, and lies in no log any more
//!   changes <n> <backend name>                       how often points were parked, or not any more; absent = 0
//!   refused <seq> <line> ...                         lines of a record that a backend has refused; none, one or more
//!   rejected <n> <seq> <points> <what> <backend name>   settled below its stamp, refused, and of log n, which may not
//!                                                    have saved that; what: database/policy/reason, percent-encoded
//!   ledger <bytes>
//!   ...                                              the caller's text, then LF
//!   checksum <XXH3 in hex over everything before this line>
//!
//! Version 1 had neither `stamp` nor `settled`, version 2 neither `parked` nor `waiting`, version 3 none of
//! `rerouting`, `rerouted`, `rejected` and `dropped`. A key: [`encode_key`].
//!
//! Not here: how it is kept on disk (`state_files.rs`), when it is written (`shared.rs`).

use std::borrow::Cow;
use std::io::{self, Write as _};

use twox_hash::XxHash3_64;

use super::Seq;
use super::parked::{Needs, decode_key, encode_key};
use super::segment::Mark;
use crate::http::query::{percent_encode, unescape as decode_word};
use crate::parked::ParkedKey;
use crate::unsaved::UnsavedRefusal;

/// The two copies.
pub(super) const FILES: [&str; 2] = ["state", "state.2"];
const TITLE: &str = "fluxgate log state ";
const VERSION: u32 = 4;
/// Instead of a key: of what is not parked. Each key has a slash.
const NO_KEY: &str = "-";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedState {
    /// The end of the log: everything before it is counted in `ledger`.
    pub(super) end: Mark,
    /// The segment that contains `end`, and its epoch.
    pub(super) segment: Seq,
    pub(super) epoch: u64,
    /// First sequence of the oldest segment, and the number of lines before it.
    pub(super) first: Seq,
    pub(super) first_lines: u64,
    pub(super) closed: bool,
    /// What follows `end` is void.
    pub(super) rerouting: bool,
    /// By backend that is gone: what it needed below this stamp, of any log, has been appended again.
    pub(super) rerouted: Vec<(String, u64)>,
    /// All stamps before `end` are at most this.
    pub(super) stamp: u64,
    pub(super) cursors: Vec<(String, Seq)>,
    /// By backend and key: from where parked points are needed.
    pub(super) parked: Vec<(String, ParkedKey, Seq)>,
    /// By backend: everything below this stamp is settled, in all logs, but for what is waiting. Not below any cursor
    /// here.
    pub(super) settled: Vec<(String, u64)>,
    /// By backend and key: parked points are settled only below this stamp.
    pub(super) waiting: Vec<(String, ParkedKey, u64)>,
    /// By backend and key: the stamp of a dropped record that may have been delivered.
    pub(super) dropped: Vec<(String, Option<ParkedKey>, u64)>,
    /// By backend: how often that has changed.
    pub(super) changes: Vec<(String, u64)>,
    /// By record: lines that a backend has refused, and another one has not received.
    pub(super) refused: Vec<(Seq, Vec<u32>)>,
    /// By backend: what has been refused, as far as its own log may not have saved that.
    pub(super) rejected: Vec<(String, UnsavedRefusal)>,
    pub(super) ledger: Vec<u8>,
    /// In the order in which the states of one life were made; not on disk.
    pub(super) number: u64,
}

/// Why a state cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateFault {
    Damaged,
    Version(u32),
}

impl SavedState {
    /// Whether a save of this state would change nothing: an idle log is not written. The stamps move all the time.
    /// What they say of this log's records does not change with them, and what is settled of another log is in its own
    /// state.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            stamp: _,
            settled: _,
            waiting: _,
            dropped: _,
            changes: _,
            rejected: _,
            number: _,
            end,
            segment,
            epoch,
            first,
            first_lines,
            ..
        } = self;
        let Self { closed, cursors, parked, refused, ledger, rerouting, rerouted, .. } = self;
        (end, segment, epoch, first, first_lines)
            == (&other.end, &other.segment, &other.epoch, &other.first, &other.first_lines)
            && (closed, cursors, parked, refused, ledger)
                == (&other.closed, &other.cursors, &other.parked, &other.refused, &other.ledger)
            && (rerouting, rerouted) == (&other.rerouting, &other.rerouted)
    }

    /// What this backend needs. None: it is not named.
    pub(super) fn needs_of(&self, name: &str) -> Option<Needs> {
        let (_, cursor) = self.cursors.iter().find(|(named, _)| named == name)?;
        let parked = self.parked.iter().filter(|(named, ..)| named == name);
        Some(Needs { cursor: *cursor, parked: parked.map(|(_, key, from)| (key.clone(), *from)).collect() })
    }

    /// What begins there is void: see `rerouting`.
    pub(super) fn void_from(&self) -> Option<Seq> {
        self.rerouting.then_some(self.end.seq)
    }

    /// Nothing before this sequence is needed.
    pub(super) fn passed(&self) -> Seq {
        let parked = self.parked.iter().map(|(.., from)| *from);
        self.cursors.iter().map(|(_, seq)| *seq).chain(parked).min().unwrap_or(self.end.seq)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.ledger.len() + 1024);
        let written = self.encode_lines(&mut out);
        written.expect("memory only");
        out
    }

    fn encode_lines(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Mark { seq, lines, offset } = self.end;
        writeln!(out, "{TITLE}{VERSION}")?;
        writeln!(out, "end {} {lines} {} {:016x} {offset}", seq.0, self.segment.0, self.epoch)?;
        writeln!(out, "first {} {}", self.first.0, self.first_lines)?;
        if self.closed {
            writeln!(out, "closed")?;
        }
        if self.rerouting {
            writeln!(out, "rerouting")?;
        }
        for (name, stamp) in &self.rerouted {
            writeln!(out, "rerouted {stamp} {}", escape(name))?;
        }
        writeln!(out, "stamp {}", self.stamp)?;
        for (name, seq) in &self.cursors {
            writeln!(out, "cursor {} {}", seq.0, escape(name))?;
        }
        for (name, stamp) in &self.settled {
            writeln!(out, "settled {stamp} {}", escape(name))?;
        }
        for (name, key, seq) in &self.parked {
            writeln!(out, "parked {} {} {}", seq.0, encode_key(key), escape(name))?;
        }
        for (name, changes) in &self.changes {
            writeln!(out, "changes {changes} {}", escape(name))?;
        }
        for (name, key, stamp) in &self.waiting {
            writeln!(out, "waiting {stamp} {} {}", encode_key(key), escape(name))?;
        }
        for (name, key, stamp) in &self.dropped {
            let key = key.as_ref().map_or_else(|| NO_KEY.to_owned(), encode_key);
            writeln!(out, "dropped {stamp} {key} {}", escape(name))?;
        }
        for (record, lines) in &self.refused {
            write!(out, "refused {}", record.0)?;
            lines.iter().try_for_each(|line| write!(out, " {line}"))?;
            writeln!(out)?;
        }
        for (name, UnsavedRefusal { worker, record, db, rp, reason, points }) in &self.rejected {
            write!(out, "rejected {worker} {record} {points} ")?;
            for (i, word) in [db, rp, reason.as_bytes()].into_iter().enumerate() {
                out.extend((i > 0).then_some(b'/'));
                percent_encode(out, word);
            }
            writeln!(out, " {}", escape(name))?;
        }
        writeln!(out, "ledger {}", self.ledger.len())?;
        out.extend_from_slice(&self.ledger);
        writeln!(out)?;
        let sum = XxHash3_64::oneshot(out);
        writeln!(out, "checksum {sum:016x}")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateFault> {
        const TAIL_BYTES: usize = "checksum 0123456789abcdef\n".len();
        let title = bytes.strip_prefix(TITLE.as_bytes()).ok_or(StateFault::Damaged)?;
        let cut = bytes.len().checked_sub(TAIL_BYTES).ok_or(StateFault::Damaged)?;
        let (body, tail) = bytes.split_at(cut);
        if tail != format!("checksum {:016x}\n", XxHash3_64::oneshot(body)).as_bytes() {
            // Without a correct checksum the version is used only if it is a plain number.
            let line = title.split(|&b| b == b'\n').next().unwrap_or_default();
            let version = std::str::from_utf8(line).ok().and_then(|v| v.parse().ok());
            return Err(version.filter(|&v| v > VERSION).map_or(StateFault::Damaged, StateFault::Version));
        }
        parse(body).ok_or(StateFault::Damaged)
    }
}

fn parse(body: &[u8]) -> Option<SavedState> {
    let mut rest = body;
    let mut line = || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end + 1..];
        Some(line)
    };
    line()?;
    let mut numbers = line()?.strip_prefix("end ")?.split(' ');
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let (seq, lines, segment) = (Seq(number()?), number()?, Seq(number()?));
    let epoch = u64::from_str_radix(numbers.next()?, 16).ok()?;
    let offset = numbers.next()?.parse().ok()?;
    let (first, first_lines) = line()?.strip_prefix("first ")?.split_once(' ')?;
    let mut state = SavedState {
        end: Mark { seq, offset, lines },
        segment,
        epoch,
        first: Seq(first.parse().ok()?),
        first_lines: first_lines.parse().ok()?,
        closed: false,
        rerouting: false,
        rerouted: Vec::new(),
        stamp: 0,
        cursors: Vec::new(),
        parked: Vec::new(),
        settled: Vec::new(),
        waiting: Vec::new(),
        dropped: Vec::new(),
        changes: Vec::new(),
        refused: Vec::new(),
        rejected: Vec::new(),
        ledger: Vec::new(),
        number: 0,
    };
    let ledger_bytes: usize = loop {
        let line = line()?;
        if line == "closed" {
            state.closed = true;
        } else if line == "rerouting" {
            state.rerouting = true;
        } else if let Some(rerouted) = line.strip_prefix("rerouted ") {
            let (stamp, name) = rerouted.split_once(' ')?;
            state.rerouted.push((unescape(name), stamp.parse().ok()?));
        } else if let Some(cursor) = line.strip_prefix("cursor ") {
            let (seq, name) = cursor.split_once(' ')?;
            state.cursors.push((unescape(name), Seq(seq.parse().ok()?)));
        } else if let Some(settled) = line.strip_prefix("settled ") {
            let (stamp, name) = settled.split_once(' ')?;
            state.settled.push((unescape(name), stamp.parse().ok()?));
        } else if let Some(changes) = line.strip_prefix("changes ") {
            let (changes, name) = changes.split_once(' ')?;
            state.changes.push((unescape(name), changes.parse().ok()?));
        } else if let Some(parked) = line.strip_prefix("parked ") {
            let (seq, key, name) = keyed(parked)?;
            state.parked.push((name, key, Seq(seq)));
        } else if let Some(waiting) = line.strip_prefix("waiting ") {
            let (stamp, key, name) = keyed(waiting)?;
            state.waiting.push((name, key, stamp));
        } else if let Some(dropped) = line.strip_prefix("dropped ") {
            let (stamp, rest) = dropped.split_once(' ')?;
            let (key, name) = rest.split_once(' ')?;
            let key = if key == NO_KEY { None } else { Some(decode_key(key)?) };
            state.dropped.push((unescape(name), key, stamp.parse().ok()?));
        } else if let Some(refused) = line.strip_prefix("refused ") {
            let (record, lines) = refused.split_once(' ')?;
            let lines = lines.split(' ').map(|line| line.parse().ok()).collect::<Option<_>>()?;
            state.refused.push((Seq(record.parse().ok()?), lines));
        } else if let Some(line) = line.strip_prefix("rejected ") {
            state.rejected.push(rejected(line)?);
        } else if let Some(stamp) = line.strip_prefix("stamp ") {
            state.stamp = stamp.parse().ok()?;
        } else {
            break line.strip_prefix("ledger ")?.parse().ok()?;
        }
    };
    state.ledger = rest.get(..ledger_bytes)?.to_vec();
    Some(state)
}

/// A line feed in a name would end the line, so it and the escape character are escaped.
fn escape(name: &str) -> Cow<'_, str> {
    if name.contains(['\\', '\n']) {
        return Cow::Owned(name.replace('\\', "\\\\").replace('\n', "\\n"));
    }
    Cow::Borrowed(name)
}

/// A number, a key and the name of a backend.
fn keyed(line: &str) -> Option<(u64, ParkedKey, String)> {
    let (number, rest) = line.split_once(' ')?;
    let (key, name) = rest.split_once(' ')?;
    Some((number.parse().ok()?, decode_key(key)?, unescape(name)))
}

/// The backend's name, and what it has refused.
fn rejected(line: &str) -> Option<(String, UnsavedRefusal)> {
    let mut words = line.splitn(5, ' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    let (worker, record, points) = (usize::try_from(number()?).ok()?, number()?, number()?);
    let mut what = words.next()?.split('/').map(|word| decode_word(word.as_bytes()));
    let mut word = || Some(what.next()??.into_owned().into_boxed_slice());
    let (db, rp, reason) = (word()?, word()?, word()?);
    let reason = String::from_utf8(reason.into()).ok()?.into();
    Some((unescape(words.next()?), UnsavedRefusal { worker, record, db, rp, reason, points }))
}

fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rp: Option<&str>) -> ParkedKey {
        ParkedKey { db: b"a b".as_slice().into(), rps: rp.map(|rp| vec![rp.as_bytes().into()]) }
    }

    fn rejection(db: &[u8], rp: &[u8]) -> UnsavedRefusal {
        UnsavedRefusal { worker: 3, record: 5, db: db.into(), rp: rp.into(), reason: "type: 1/2".into(), points: 70 }
    }

    fn sample() -> SavedState {
        SavedState {
            end: Mark { seq: Seq(900), offset: 65536, lines: 12345 },
            segment: Seq(800),
            epoch: 0xabc,
            first: Seq(7),
            first_lines: 70,
            closed: true,
            rerouting: true,
            rerouted: vec![("gone".into(), 60), ("odd\\n\nname".into(), 61)],
            stamp: 77,
            cursors: vec![("influx 1".into(), Seq(10)), ("odd\\n\nname".into(), Seq(900))],
            parked: vec![("influx 1".into(), key(None), Seq(9)), ("odd\\n\nname".into(), key(Some("r p")), Seq(90))],
            settled: vec![("influx 1".into(), 70), ("odd\\n\nname".into(), 0)],
            waiting: vec![("odd\\n\nname".into(), key(Some("")), 3)],
            dropped: vec![("one".into(), None, 8), ("odd\\n\nname".into(), Some(key(Some(""))), 5)],
            changes: vec![("influx 1".into(), 7)],
            refused: vec![(Seq(20), vec![0, 7]), (Seq(21), vec![3])],
            rejected: vec![
                ("odd\\n\nname".into(), rejection(b"a b", b"")),
                ("influx 1".into(), rejection(b"/", b"r p")),
            ],
            ledger: b"any\nbytes \xff".to_vec(),
            number: 0,
        }
    }

    #[test]
    fn a_state_reads_back_and_every_flip_is_seen() {
        let bytes = sample().encode();
        assert_eq!(SavedState::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x01;
            assert!(SavedState::decode(&bad).is_err(), "{at}");
            assert!(SavedState::decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn stamps_alone_make_no_other_state() {
        let (settled, waiting, rejected) = (Vec::new(), Vec::new(), Vec::new());
        let later = SavedState { number: 9, stamp: 99, settled, waiting, rejected, ..sample() };
        assert!(later.says_the_same(&sample()));
        for other in [
            SavedState { end: Mark { lines: 1, ..sample().end }, ..sample() },
            SavedState { cursors: Vec::new(), ..sample() },
            SavedState { parked: Vec::new(), ..sample() },
            SavedState { refused: Vec::new(), ..sample() },
            SavedState { closed: false, ..sample() },
            SavedState { rerouting: false, ..sample() },
            SavedState { rerouted: Vec::new(), ..sample() },
            SavedState { ledger: Vec::new(), ..sample() },
        ] {
            assert!(!other.says_the_same(&sample()), "{other:?}");
        }
    }

    #[test]
    fn what_a_backend_needs_is_its_own() {
        let state = sample();
        assert_eq!(state.passed(), Seq(9));
        assert_eq!(state.needs_of("influx 1"), Some(Needs { cursor: Seq(10), parked: vec![(key(None), Seq(9))] }));
        assert_eq!(state.needs_of("nobody"), None);
    }

    #[test]
    fn a_later_version_is_not_damage() {
        assert_eq!(
            SavedState::decode(b"fluxgate log state 5\nsomething else entirely, longer\n"),
            Err(StateFault::Version(5))
        );
    }
}
