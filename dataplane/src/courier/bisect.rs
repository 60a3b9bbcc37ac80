//! Finds exactly the lines of a request a backend will not take, and delivers the others. Pure: it says what to send
//! next and is told the answer.
//!
//! A request that was not taken is divided: by what the answer says (`hint.rs`), else in equal parts; a part that is
//! taken is done, a part that is not is divided again, down to single lines. Parts are asked breadth first, so that the
//! healthy majority is delivered, and speaks for the backend, before the search goes into the depth.
//!
//! Order: parts may be asked out of their order, so an older value may for a moment lie on top of a newer one. The last
//! request of every search is therefore *all* good lines in their order (left out when that has just been sent). Writes
//! are idempotent, so whatever came before, the backend ends as if it had got the good lines once, in order.
//!
//! Doubt: an error 5xx or a cut connection may be the backend's own trouble (a full disk, say), and so may a refusal
//! that is not in InfluxDB's form. A line is blamed for such an answer only after it has failed alone [`STRIKES`]
//! times, and all other lines, sent together in between, were taken each time. When the backend takes nothing at all
//! the search is fruitless, and the batch is kept whole; when the others fail together too, the backend is unsteady or
//! the batch too much for it: nobody is blamed, and the request is halved.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::body::RequestBody;
use super::hint;

/// Equal parts after a refusal.
const PARTS: usize = 2;
/// Equal parts when the backend failed: each failure may cost a restart of the server, so fewer levels are worth more
/// requests.
const PARTS_IN_DOUBT: usize = 8;
/// Failures of a single line before it is blamed.
const STRIKES: u8 = 3;
/// Divisions by what the answers say before the next one in equal parts: hints about ever new measurements would send
/// the remaining lines again for each of them.
const HINTS: u8 = 4;
/// Times the good lines may be refused together although each part was taken.
const FINALS_MAX: u8 = 3;

/// What came back for the part that was sent.
#[derive(Clone, Copy, Debug)]
pub enum PartReply<'a> {
    Taken,
    /// Some of its lines are refused, by the backend's parser or storage.
    Refused(&'a str),
    /// Something went wrong that may or may not be its lines' fault.
    Doubt(&'a str),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the next part now.
    Send,
    /// Send it after a pause.
    Pause,
    /// All lines are delivered or among [`Bisect::refused`].
    Settled,
    /// Nothing was learnt: keep the batch, try it whole later.
    Fruitless,
    /// No line is at fault alone: make two requests of this one, try them later.
    Halve,
}

/// A line that will not be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine {
    /// Its number in the request.
    pub line: u32,
    pub text: Rc<str>,
}

#[derive(Debug)]
struct BatchPart {
    /// Numbers of its lines, ascending.
    lines: Vec<u32>,
    strikes: u8,
    repeated: bool,
    hints: u8,
    /// All lines against which there is nothing, together.
    others: bool,
}

impl BatchPart {
    fn new(lines: Vec<u32>, hints: u8) -> Self {
        Self { lines, strikes: 0, repeated: false, hints, others: false }
    }
}

/// The search within one request.
#[derive(Debug)]
pub struct Bisect {
    /// Each line of the request's body, without its LF.
    lines: Vec<Range<usize>>,
    /// Parts still to be asked; the first one is the one being sent.
    parts: VecDeque<BatchPart>,
    refused: Vec<RefusedLine>,
    /// Single lines that have failed, and the answers; asked again once the others were taken together.
    suspects: Vec<(BatchPart, Rc<str>)>,
    /// Something was taken.
    taken: bool,
    /// Answers in doubt so far. With nothing taken, more of them than this make the search fruitless: the request and
    /// each of the parts it was first divided into.
    doubts: usize,
    doubts_max: usize,
    /// Lines of the part taken last; 0 when another part was sent since.
    last_taken: usize,
    /// Times all good lines were sent, and how many lines were refused before the last of them.
    finals: u8,
    refused_before_final: usize,
}

impl Bisect {
    /// A search in the request with these lines, which was sent whole and is about to be [`Bisect::answered`].
    pub fn new(lines: Vec<Range<usize>>) -> Self {
        let all = (0..u32::try_from(lines.len()).expect("a request is smaller than 4 GiB")).collect();
        Self {
            lines,
            parts: VecDeque::from([BatchPart::new(all, HINTS)]),
            refused: Vec::new(),
            suspects: Vec::new(),
            taken: false,
            doubts: 0,
            doubts_max: 0,
            last_taken: 0,
            finals: 0,
            refused_before_final: 0,
        }
    }

    /// Puts the part to be sent into `out`. `body`: the whole request's.
    pub fn part(&self, body: &[u8], out: &mut RequestBody) {
        out.clear();
        for &line in self.parts.front().map(|p| &p.lines[..]).unwrap_or_default() {
            out.push(&body[self.lines[line as usize].clone()]);
            out.push(b"\n");
        }
    }

    /// The part sent last got this answer. `vouched`: the backend is known to take writes for others, so that a line
    /// may be blamed even if nothing beside it was taken.
    pub fn answered(&mut self, body: &[u8], reply: PartReply<'_>, vouched: bool) -> Next {
        let part = self.parts.pop_front().expect("a search that is not settled has a part under way");
        self.last_taken = 0;
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
                if self.doubts > self.doubts_max && !self.taken && !vouched {
                    return Next::Fruitless;
                }
                next = Next::Pause;
            }
        }
        if self.parts.is_empty() { self.conclude(next, vouched) } else { next }
    }

    /// All lines that will not be taken, once settled.
    pub fn refused(&self) -> &[RefusedLine] {
        &self.refused
    }

    /// A line's place in the body.
    pub fn line(&self, line: u32) -> Range<usize> {
        self.lines[line as usize].clone()
    }

    fn narrow(&mut self, body: &[u8], mut part: BatchPart, text: &str) {
        // Without `partial write` nothing was stored: InfluxDB opened a shard for lines that disagree among themselves.
        // The same lines again get an answer that says more.
        if text.starts_with("field type conflict") && !part.repeated {
            part.repeated = true;
            self.parts.push_front(part);
            return;
        }
        if part.lines.len() == 1 || hint::all_dropped(text, body, &self.lines, &part.lines) {
            self.blame(&part.lines, text);
            return;
        }
        if part.hints > 0
            && let Some(suspects) = hint::suspects(text, body, &self.lines, &part.lines)
        {
            let others = part.lines.iter().copied().filter(|i| suspects.binary_search(i).is_err()).collect();
            self.doubts_max += 2;
            self.parts.push_back(BatchPart::new(suspects, part.hints - 1));
            self.parts.push_back(BatchPart::new(others, part.hints - 1));
            return;
        }
        self.doubts_max += self.divide(&part, PARTS);
    }

    fn doubt(&mut self, mut part: BatchPart, text: &str) {
        self.doubts += 1;
        if part.lines.len() == 1 {
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
        let before = self.parts.len();
        for lines in part.lines.chunks(part.lines.len().div_ceil(parts)) {
            self.parts.push_back(BatchPart::new(lines.to_vec(), HINTS));
        }
        self.parts.len() - before
    }

    fn blame(&mut self, lines: &[u32], text: &str) {
        let text: Rc<str> = text.into();
        self.refused.extend(lines.iter().map(|&line| RefusedLine { line, text: text.clone() }));
    }

    /// Every part has been asked: what is left is to have sent all good lines in their order, and to ask the suspects
    /// again after that.
    fn conclude(&mut self, next: Next, vouched: bool) -> Next {
        let others = self.lines.len() - self.refused.len() - self.suspects.len();
        // Without others only somebody else's word can show that the backend works.
        if self.last_taken == others && (others > 0 || self.suspects.is_empty() || vouched) {
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

    /// The others have just been taken together: who has failed often enough is to blame, the rest is asked again.
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
