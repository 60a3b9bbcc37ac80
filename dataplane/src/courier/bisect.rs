//! Finds exactly those lines of a request that a backend refuses, and delivers the others. Pure: says what to send
//! next, and is told the answer.
//!
//! A part that is not taken is divided: by what the answer says (`hint.rs`), else into equal parts, down to single
//! lines. A part that is taken is done. Parts are sent breadth first, so that most good lines are delivered, and show
//! that the backend works, before the search goes deeper.
//!
//! Series: a limit of series keeps whole series out, and InfluxDB says how many lines these had. Such a part is divided
//! between series, the likeliest to be refused first (`series.rs`), and at first by that count: when the guess is
//! right, one answer refuses the first part whole. Of two parts only one is sent: the counts of both make up that of
//! the whole, so the other one is known to be good, or is divided further unsent, or is among those that are presumed
//! bad, which are sent together at the end. The counts can be too small (InfluxDB answers for one shard only, and
//! overlooks lines beside refused ones), so they acquit or condemn nobody: every refused line has been refused in an
//! answer, and the last request has all others.
//!
//! Order: parts may be sent out of order, so an older value may for a moment replace a newer one. Therefore the last
//! request of a search has *all* good lines in order (left out if exactly that was sent last). Writes are idempotent,
//! so the backend ends as if it had received the good lines once, in order.
//!
//! Types: the first line of a new field decides its type. When lines of a request disagree about one, InfluxDB stores
//! nothing, and the fields behind that line stay new. From then on parts are sent depth first: no line comes before an
//! earlier one of the same field, and all backends decide alike, however their batches are cut.
//!
//! Doubt: a 5xx or a cut connection may be the backend's own problem (a full disk), and so may a refusal that is not in
//! InfluxDB's form. A line is blamed for such an answer only after it has failed alone [`STRIKES`] times and all other
//! lines, sent together in between, were taken each time. If the backend takes nothing at all, the search is fruitless
//! and the batch is kept whole. If the other lines fail together too, the backend is unsteady or the batch too large
//! for it: no line is blamed, and the request is halved.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::body::RequestBody;
use super::hint;
use super::series::{self, Fate};

/// Number of parts after a refusal.
const PARTS: usize = 2;
/// Number of parts when the backend failed. Each failure may cost a restart of the server, so fewer levels are worth
/// more requests.
const PARTS_IN_DOUBT: usize = 8;
/// Failures of a single line before it is blamed.
const STRIKES: u8 = 3;
/// Divisions by hints before the next division into equal parts. Without a bound, hints about ever new measurements
/// would send the remaining lines again for each of them.
const HINTS: u8 = 4;
/// How often the good lines may be refused together although each part was taken.
const FINALS_MAX: u8 = 3;

/// The answer to the part that was sent.
#[derive(Clone, Copy, Debug)]
pub enum PartReply<'a> {
    Taken,
    /// The backend's parser or storage refuses some of the lines.
    Refused(&'a str),
    /// A failure that may or may not be caused by the lines.
    Doubt(&'a str),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the next part now.
    Send,
    /// Send the next part after a pause.
    Pause,
    /// All lines are delivered or in [`Bisect::refused`].
    Settled,
    /// The search found nothing: keep the batch and send it whole later.
    Fruitless,
    /// No single line is at fault: split the request in two and send both later.
    Halve,
}

/// A refused line and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine {
    /// Number of the line in the request.
    pub line: u32,
    pub text: Rc<str>,
}

#[derive(Debug)]
struct BatchPart {
    /// Line numbers, ascending.
    lines: Vec<u32>,
    strikes: u8,
    repeated: bool,
    hints: u8,
    /// This part has all lines that are neither refused nor suspect.
    others: bool,
    /// What it was divided from; not sent.
    rest: Option<Rest>,
}

/// The other part of a division, with the number of lines that are refused in both together.
#[derive(Debug)]
struct Rest {
    lines: Vec<u32>,
    refused: usize,
}

impl BatchPart {
    fn new(lines: Vec<u32>, hints: u8) -> Self {
        Self { lines, strikes: 0, repeated: false, hints, others: false, rest: None }
    }
}

/// The search within one request.
#[derive(Debug)]
pub struct Bisect {
    /// The range of each line in the request's body, without its LF.
    lines: Vec<Range<usize>>,
    /// Parts still to be sent; the first one is being sent.
    parts: VecDeque<BatchPart>,
    /// Lines disagree about the type of a new field.
    depth_first: bool,
    refused: Vec<RefusedLine>,
    /// Single lines that have failed, with the answers. They are sent again after the other lines were taken together.
    suspects: Vec<(BatchPart, Rc<str>)>,
    /// Some part was taken.
    taken: bool,
    /// Number of doubtful answers so far. If nothing has been taken, more than `doubts_max` make the search fruitless:
    /// one for the request and one for each part of the first division.
    doubts: usize,
    doubts_max: usize,
    /// Number of lines in the part taken last; 0 if another part has been sent since.
    last_taken: usize,
    /// How often all good lines were sent together, and how many lines had been refused before the last time.
    finals: u8,
    refused_before_final: usize,
    /// For each line the number of its series, the likeliest to be refused first. Empty: no limit of series was met.
    ranks: Vec<u32>,
    /// A part has been divided by the count of its refused lines.
    by_count: bool,
    /// Lines that were counted as refused, and have not been sent since.
    presumed: Vec<u32>,
}

impl Bisect {
    /// Starts a search in a request that was sent whole. The answer goes to [`Bisect::answered`] next.
    pub fn new(lines: Vec<Range<usize>>) -> Self {
        let all = (0..u32::try_from(lines.len()).expect("a request is smaller than 4 GiB")).collect();
        Self {
            lines,
            parts: VecDeque::from([BatchPart::new(all, HINTS)]),
            depth_first: false,
            refused: Vec::new(),
            suspects: Vec::new(),
            taken: false,
            doubts: 0,
            doubts_max: 0,
            last_taken: 0,
            finals: 0,
            refused_before_final: 0,
            ranks: Vec::new(),
            by_count: false,
            presumed: Vec::new(),
        }
    }

    /// Starts a search in a request that was not sent. `known`: lines that are refused, ascending, and why. The part to
    /// send first is all the others, if there are any: see [`Bisect::is_done`].
    pub fn knowing(lines: Vec<Range<usize>>, known: &[u32], text: &str) -> Self {
        let mut search = Self::new(lines);
        search.blame(known, text);
        search.parts.retain_mut(|part| {
            part.lines.retain(|line| known.binary_search(line).is_err());
            !part.lines.is_empty()
        });
        search
    }

    /// Nothing is left to send.
    pub fn is_done(&self) -> bool {
        self.parts.is_empty()
    }

    /// Puts the part to send next into `out`. `body` is that of the whole request.
    pub fn part(&self, body: &[u8], out: &mut RequestBody) {
        out.clear();
        for &line in self.parts.front().map(|p| &p.lines[..]).unwrap_or_default() {
            out.push(&body[self.lines[line as usize].clone()]);
            out.push(b"\n");
        }
    }

    /// Handles the answer to the part sent last.
    pub fn answered(&mut self, body: &[u8], reply: PartReply<'_>) -> Next {
        let mut part = self.parts.pop_front().expect("a search that is not settled has a part under way");
        self.last_taken = 0;
        let rest = part.rest.take().map(|rest| (rest, self.count(body, &part, reply)));
        let mut next = Next::Send;
        match reply {
            PartReply::Taken => {
                self.taken = true;
                self.last_taken = part.lines.len();
            }
            PartReply::Refused(text) => self.narrow(body, part, text),
            PartReply::Doubt(_) if part.others => return Next::Halve,
            PartReply::Doubt(text) => {
                self.doubt(part, text);
                if self.doubts > self.doubts_max && !self.taken {
                    return Next::Fruitless;
                }
                next = Next::Pause;
            }
        }
        if let Some((rest, refused)) = rest {
            self.go_on_with(rest, refused);
        }
        if self.parts.is_empty() { self.conclude(next) } else { next }
    }

    /// Numbers the series of the request for a division between series. `fate` says what is known of a series.
    pub fn rank_series(&mut self, body: &[u8], fate: &dyn Fn(&[u8]) -> Fate) {
        if self.ranks.is_empty() {
            self.ranks = series::ranks(body, &self.lines, fate);
        }
    }

    /// The series of the lines, once settled, and whether a limit keeps them out. Not of lines that are refused for
    /// something else.
    pub fn series<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = (&'a [u8], bool)> {
        let mut refused = self.refused.iter().peekable();
        (0..).zip(&self.lines).filter_map(move |(i, line)| {
            let refusal = refused.next_if(|r| r.line == i);
            let for_series = refusal.is_none_or(|r| hint::is_series_limit(&r.text));
            for_series.then(|| (hint::series(&body[line.clone()]), refusal.is_some()))
        })
    }

    /// All refused lines, once settled.
    pub fn refused(&self) -> &[RefusedLine] {
        &self.refused
    }

    /// The range of a line in the body.
    pub fn line(&self, line: u32) -> Range<usize> {
        self.lines[line as usize].clone()
    }

    fn narrow(&mut self, body: &[u8], mut part: BatchPart, text: &str) {
        // Without `partial write` InfluxDB stored nothing: it was creating a shard, and the lines disagree about a
        // type. The same lines sent again get a more precise answer.
        let conflict = text.starts_with("field type conflict");
        self.depth_first |= conflict;
        if conflict && !part.repeated {
            part.repeated = true;
            self.parts.push_front(part);
            return;
        }
        if part.lines.len() == 1 || hint::all_dropped(text, body, &self.lines, &part.lines) {
            self.blame(&part.lines, text);
            return;
        }
        if !self.ranks.is_empty()
            && hint::is_series_limit(text)
            && let Some(refused) = hint::dropped(text).filter(|n| (1..part.lines.len()).contains(n))
        {
            self.divide_by_series(part.lines, refused);
            return;
        }
        if part.hints > 0
            && let Some(suspects) = hint::suspects(text, body, &self.lines, &part.lines)
        {
            let others = part.lines.iter().copied().filter(|i| suspects.binary_search(i).is_err()).collect();
            self.doubts_max += self.add([suspects, others].map(|lines| BatchPart::new(lines, part.hints - 1)));
            return;
        }
        self.doubts_max += self.divide(&part, PARTS);
    }

    fn doubt(&mut self, mut part: BatchPart, text: &str) {
        self.doubts += 1;
        if part.lines.len() == 1 {
            // A server that was restarted has forgotten the type; later lines must not decide it.
            if self.depth_first && !part.repeated {
                part.repeated = true;
                self.parts.push_front(part);
                return;
            }
            part.strikes += 1;
            self.suspects.push((part, text.into()));
            return;
        }
        let first = self.doubts == 1;
        let parts = self.divide(&part, PARTS_IN_DOUBT);
        if first {
            self.doubts_max += parts;
        }
    }

    fn divide(&mut self, part: &BatchPart, parts: usize) -> usize {
        let lines = part.lines.chunks(part.lines.len().div_ceil(parts));
        self.add(lines.map(|lines| BatchPart::new(lines.to_vec(), HINTS)))
    }

    /// Adds the parts of a division: behind all others, or before them. Returns their number.
    fn add(&mut self, parts: impl IntoIterator<Item = BatchPart>) -> usize {
        let before = self.parts.len();
        self.parts.extend(parts);
        let added = self.parts.len() - before;
        if self.depth_first {
            self.parts.rotate_right(added);
        }
        added
    }

    /// Divides a part of which that many lines are refused: the first time by this number, then in half.
    fn divide_by_series(&mut self, mut lines: Vec<u32>, refused: usize) {
        lines.sort_unstable_by_key(|&i| (self.ranks[i as usize], i));
        let first = !std::mem::replace(&mut self.by_count, true);
        let at = self.boundary(&lines, if first { refused } else { lines.len() / 2 });
        let mut rest = lines.split_off(at);
        lines.sort_unstable();
        rest.sort_unstable();
        self.doubts_max += 2;
        let mut part = BatchPart::new(lines, HINTS);
        // After all good lines were refused together the counts are not trusted any more.
        if self.finals == 0 {
            part.rest = Some(Rest { lines: rest, refused });
            self.parts.push_back(part);
        } else {
            self.parts.extend([part, BatchPart::new(rest, HINTS)]);
        }
    }

    /// The place between two series that is nearest to `wanted`. Within a series, if there is only one.
    fn boundary(&self, lines: &[u32], wanted: usize) -> usize {
        let is_between = |&at: &usize| self.ranks[lines[at - 1] as usize] != self.ranks[lines[at] as usize];
        let before = (1..=wanted).rev().find(is_between);
        let after = (wanted.max(1)..lines.len()).find(is_between);
        let nearest = before.into_iter().chain(after).min_by_key(|at| at.abs_diff(wanted));
        nearest.unwrap_or(lines.len() / 2)
    }

    /// How many lines of a part an answer refuses, if it says so.
    fn count(&self, body: &[u8], part: &BatchPart, reply: PartReply<'_>) -> Option<usize> {
        match reply {
            PartReply::Taken => Some(0),
            PartReply::Refused(text) if hint::all_dropped(text, body, &self.lines, &part.lines) => {
                Some(part.lines.len())
            }
            PartReply::Refused(text) => hint::dropped(text).filter(|n| *n < part.lines.len()),
            PartReply::Doubt(_) => None,
        }
    }

    /// Decides about a part that was not sent. `refused`: lines that are refused in the other one.
    fn go_on_with(&mut self, rest: Rest, refused: Option<usize>) {
        match refused.and_then(|n| rest.refused.checked_sub(n)) {
            Some(0) => {}
            Some(n) if n < rest.lines.len() => self.divide_by_series(rest.lines, n),
            Some(n) if n == rest.lines.len() => self.presumed.extend(rest.lines),
            _ => self.parts.push_back(BatchPart::new(rest.lines, HINTS)),
        }
    }

    fn blame(&mut self, lines: &[u32], text: &str) {
        let text: Rc<str> = text.into();
        self.refused.extend(lines.iter().map(|&line| RefusedLine { line, text: text.clone() }));
    }

    /// All parts have been sent. Now all good lines must have been sent in order, and after that the suspects are sent
    /// again.
    fn conclude(&mut self, next: Next) -> Next {
        if !self.presumed.is_empty() {
            self.presumed.sort_unstable();
            let lines = std::mem::take(&mut self.presumed);
            self.parts.push_back(BatchPart::new(lines, HINTS));
            return next;
        }
        let others = self.lines.len() - self.refused.len() - self.suspects.len();
        // Without other lines nothing shows that the backend takes writes for this database.
        if self.last_taken == others && (others > 0 || self.suspects.is_empty()) {
            return self.question_suspects(next);
        }
        if others == 0 {
            return Next::Fruitless;
        }
        if self.finals >= FINALS_MAX && self.refused.len() == self.refused_before_final && self.suspects.is_empty() {
            return Next::Fruitless;
        }
        self.finals = self.finals.saturating_add(1);
        self.refused_before_final = self.refused.len();
        let mut set_aside = vec![false; self.lines.len()];
        let refused = self.refused.iter().map(|r| r.line);
        for line in refused.chain(self.suspects.iter().map(|(part, _)| part.lines[0])) {
            set_aside[line as usize] = true;
        }
        let lines = (0..).zip(set_aside).filter(|(_, aside)| !aside).map(|(i, _)| i).collect();
        self.parts.push_back(BatchPart { others: true, ..BatchPart::new(lines, HINTS) });
        next
    }

    /// The other lines were just taken together: blames suspects that have failed often enough and sends the rest
    /// again.
    fn question_suspects(&mut self, next: Next) -> Next {
        for (part, text) in std::mem::take(&mut self.suspects) {
            if part.strikes >= STRIKES {
                self.refused.push(RefusedLine { line: part.lines[0], text });
            } else {
                self.parts.push_back(part);
            }
        }
        if self.parts.is_empty() {
            self.refused.sort_unstable_by_key(|r| r.line);
            return Next::Settled;
        }
        next
    }
}
