//! What of a log a backend needs, when some of its points are parked; and how a key is written in the state.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::{Log, LogReader, Seq};
use crate::http::query::{percent_encode, unescape};
use crate::parked::ParkedKey;
use crate::topology::BackendId;

/// A key as one word, in ASCII: `db/*`, `db/week` or `db/,autogen`. Bytes other than letters, digits, `-`, `_`, `.` and
/// `~` are percent-encoded.
pub(super) fn encode_key(key: &ParkedKey) -> String {
    let mut word = Vec::new();
    percent_encode(&mut word, &key.db);
    word.push(b'/');
    match &key.rps {
        None => word.push(b'*'),
        Some(rps) => rps.iter().enumerate().for_each(|(i, rp)| {
            word.extend((i > 0).then_some(b','));
            percent_encode(&mut word, rp);
        }),
    }
    String::from_utf8(word).expect("percent-encoding is ASCII")
}

/// Reads what [`encode_key`] has written. None: it is something else.
pub(super) fn decode_key(word: &str) -> Option<ParkedKey> {
    let (db, rps) = word.split_once('/')?;
    let name = |text: &str| Some(unescape(text.as_bytes())?.into_owned().into_boxed_slice());
    let rps = if rps == "*" { None } else { Some(rps.split(',').map(name).collect::<Option<_>>()?) };
    Some(ParkedKey { db: name(db)?, rps })
}

/// See [`Parked::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParkedId(u64);

/// Parked points of one backend in one log.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) key: ParkedKey,
    /// Unique since the start. Readers look for it, which costs less than to look for the key.
    pub(super) id: ParkedId,
    /// All records before this sequence have been confirmed.
    pub(super) cursor: Seq,
    /// The position after the last record given to their reader, and the last one confirmed.
    pub(super) given: Seq,
    pub(super) confirmed: Seq,
    /// The end of what had been given, not confirmed, when the log dropped it. The cursor has passed that.
    pub(super) held: Seq,
    /// The position of their reader while it waits.
    pub(super) resting: Option<Seq>,
    /// Set when a frame with records for the backend can be read.
    pub(super) behind: Option<Arc<AtomicBool>>,
}

impl Parked {
    pub(super) fn new(key: ParkedKey, cursor: Seq) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = ParkedId(NEXT.fetch_add(1, Relaxed));
        Self { key, id, cursor, given: cursor, confirmed: cursor, held: Seq(0), resting: None, behind: None }
    }

    fn has_only_given(&self, end: Seq) -> bool {
        self.held > self.confirmed && end > self.confirmed
    }
}

/// What one backend needs of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// All records from here on that are not parked.
    pub(super) cursor: Seq,
    /// Parked records from that sequence on.
    pub(super) parked: Vec<(ParkedKey, Seq)>,
}

impl Needs {
    pub(super) fn from(cursor: Seq) -> Self {
        Self { cursor, parked: Vec::new() }
    }

    /// Nothing before this sequence is needed.
    pub(super) fn first(&self) -> Seq {
        self.parked.iter().map(|(_, from)| *from).fold(self.cursor, Seq::min)
    }

    /// Whether this record, which is for the backend, is needed.
    pub(super) fn has(&self, db: &[u8], rp: &[u8], seq: Seq) -> bool {
        let parked = self.parked.iter().find(|(key, _)| key.has(db, rp));
        seq >= parked.map_or(self.cursor, |(_, from)| *from)
    }

    /// Nothing before `seq` is needed any more.
    pub(super) fn forget_before(&mut self, seq: Seq) {
        self.cursor = self.cursor.max(seq);
        self.parked.iter_mut().for_each(|(_, from)| *from = seq.max(*from));
    }
}

/// Parked points of this log.
impl Log {
    /// A reader for points of a backend that are parked ([`Log::park`]). One at a time.
    pub fn parked_reader(self: &Rc<Self>, backend: BackendId, key: ParkedKey) -> LogReader {
        LogReader::new(Rc::clone(self), backend, Some(key))
    }

    /// From now on the cursor of `backend` may pass points of this key, although those from `from` on are not
    /// confirmed. Nothing changes if the key is parked already.
    pub fn park(&self, backend: BackendId, key: &ParkedKey, from: Seq) {
        let mut inner = self.shared.inner.borrow_mut();
        if inner.parked_mut(backend, key).is_none() {
            // What the cursor has passed was not parked then.
            let cursor = inner.cursors[backend.index()];
            inner.parked[backend.index()].push(Parked::new(key.clone(), from.max(cursor)));
        }
    }

    /// All parked points of this key before the cursor of `backend` are confirmed: they are not parked any more.
    /// Returns records that the log has dropped: some were given to the reader, and who used it leaves them to the
    /// backend's reader, which does not find them any more.
    pub fn unpark(&self, backend: BackendId, key: &ParkedKey) -> Option<Range<Seq>> {
        let mut inner = self.shared.inner.borrow_mut();
        let dropped = inner.parked_mut(backend, key).map(|parked| parked.confirmed..parked.cursor.min(parked.held));
        inner.parked[backend.index()].retain(|parked| parked.key != *key);
        drop(inner);
        self.shared.confirmed.notify();
        // Its reader ends.
        self.shared.arrived[backend.index()].notify();
        dropped.filter(|dropped| !dropped.is_empty())
    }

    /// The keys under which points of `backend` are parked.
    pub fn parked(&self, backend: BackendId) -> Vec<ParkedKey> {
        self.shared.inner.borrow().parked[backend.index()].iter().map(|parked| parked.key.clone()).collect()
    }

    /// `flag` is set whenever a frame that may hold parked points of this key can be read.
    pub fn tell_parked_written(&self, backend: BackendId, key: &ParkedKey, flag: Arc<AtomicBool>) {
        if let Some(parked) = self.shared.inner.borrow_mut().parked_mut(backend, key) {
            parked.behind = Some(flag);
        }
    }

    /// As [`Log::confirm`], for parked points.
    pub fn confirm_parked(&self, backend: BackendId, key: &ParkedKey, next: Seq) {
        let mut inner = self.shared.inner.borrow_mut();
        assert!(next <= inner.written, "only what was read can be confirmed");
        let Some(parked) = inner.parked_mut(backend, key) else { return };
        parked.confirmed = next.max(parked.confirmed);
        let skipped = parked.resting.filter(|_| parked.given <= next);
        parked.cursor = skipped.map_or(next, |to| to.max(next)).max(parked.cursor);
        drop(inner);
        self.shared.confirmed.notify();
    }

    /// Whether records of this database before `end` that are parked for `backend` are all confirmed.
    pub fn parked_reach(&self, backend: BackendId, db: &[u8], end: Seq) -> bool {
        let inner = self.shared.inner.borrow();
        let mut of_db = inner.parked[backend.index()].iter().filter(|parked| *parked.key.db == *db);
        of_db.all(|parked| parked.cursor >= end && !parked.has_only_given(end))
    }

    /// Whether records before `end` were given to a reader of `backend` that the log has dropped since, and which are
    /// not confirmed: they are delivered if the process lives until then. Of parked ones: those of this database.
    pub fn has_only_given(&self, backend: BackendId, db: &[u8], end: Seq) -> bool {
        let inner = self.shared.inner.borrow();
        let mut of_db = inner.parked[backend.index()].iter().filter(|parked| *parked.key.db == *db);
        inner.has_only_given(backend, end) || of_db.any(|parked| parked.has_only_given(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(db: &[u8], rps: Option<&[&[u8]]>) -> ParkedKey {
        ParkedKey { db: db.into(), rps: rps.map(|rps| rps.iter().map(|&rp| rp.into()).collect()) }
    }

    #[test]
    fn a_key_is_one_word_and_reads_back() {
        for (key, word) in [
            (key(b"telegraf", None), "telegraf/*"),
            (key(b"a b/c", Some(&[b""])), "a%20b%2Fc/"),
            (key(b"db", Some(&[b"", b"autogen"])), "db/,autogen"),
            (key(b"\xff%", Some(&[b"*", b"x,y\n"])), "%FF%25/%2A,x%2Cy%0A"),
            (key(b"", None), "/*"),
        ] {
            assert_eq!(encode_key(&key), word);
            assert_eq!(decode_key(word), Some(key));
        }
        for bad in ["db", "db%/*", "db%4/*", "db%zz/a", "db/%"] {
            assert_eq!(decode_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn parked_records_are_needed_from_a_place_of_their_own() {
        let mut needs = Needs {
            cursor: Seq(50),
            parked: vec![(key(b"held", Some(&[b"", b"autogen"])), Seq(10)), (key(b"ahead", None), Seq(70))],
        };
        assert_eq!((needs.first(), Needs::from(Seq(7)).first()), (Seq(10), Seq(7)));
        for (db, rp, seq, want) in [
            ("held", "", 9, false),
            ("held", "", 10, true),
            ("held", "autogen", 60, true),
            ("held", "week", 49, false),
            ("held", "week", 50, true),
            ("ahead", "any", 69, false),
            ("ahead", "any", 70, true),
            ("other", "", 49, false),
            ("other", "", 50, true),
        ] {
            assert_eq!(needs.has(db.as_bytes(), rp.as_bytes(), Seq(seq)), want, "{db} {rp} {seq}");
        }
        needs.forget_before(Seq(60));
        assert!(!needs.has(b"held", b"", Seq(59)) && needs.has(b"held", b"", Seq(60)));
        assert!(!needs.has(b"other", b"", Seq(59)) && !needs.has(b"ahead", b"", Seq(69)));
    }
}
