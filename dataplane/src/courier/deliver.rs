//! Delivers one group of a window: sends its requests in order and acts on each verdict. All decisions about a request
//! are in [`Delivery::serve`].
//!
//! Nothing sleeps here: a group that must wait notes until when, and the function returns. The courier pauses
//! (`mod.rs`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Handle;
use super::answer::WriteAnswer;
use super::bisect::{Bisect, Next, PartReply};
use super::body::RequestBody;
use super::client::{Attempt, WriteClient};
use super::dead_letter;
use super::exchange::ExchangeFailure;
use super::group::{Group, Splitter};
use super::hint;
use super::learning::Learning;
use super::missing::{CreationStep, Missing};
use super::series::SeriesMemory;
use super::source::{DeliveryState, Reports};
use super::verdict::WriteVerdict;
use super::watch::{Watch, Watched};
use crate::io;
use crate::limits::{
    DOUBT, LOGGED_TEXT_CHARS_MAX, LOUD_INTERVAL, POISON_ATTEMPTS, SEARCH_REST, SEARCH_TURN, SEARCH_TURN_REQUESTS,
    WATCH_TIMEOUTS,
};

/// One connection and a buffer for parts of a request.
#[derive(Debug)]
pub struct Lane {
    pub client: WriteClient,
    pub part: RequestBody,
}

/// What the lanes of one courier share. No borrow lives across an `.await`.
#[derive(Debug)]
pub struct Delivery<R> {
    /// Names backend and worker in log lines.
    pub label: String,
    pub reports: R,
    pub handle: Rc<Handle>,
    pub split: Splitter,
    pub missing: RefCell<Missing>,
    /// Shared with side couriers.
    pub learning: Rc<RefCell<Learning>>,
    pub series: RefCell<SeriesMemory>,
    /// Dead letters not yet on disk. The cursor waits for them.
    pub letters: RefCell<Vec<u8>>,
    /// Bodies of settled requests, for reuse.
    pub bodies: RefCell<Vec<RequestBody>>,
    /// A request has timed out: kept connections may be dead as well, without anybody having been told.
    pub timed_out: Cell<bool>,
    /// Size of a request that was too large for the backend.
    pub too_large: Cell<Option<usize>>,
    pub state: Cell<DeliveryState>,
    pub loud_at: Cell<Option<Instant>>,
    /// Sends points that had to wait for the backend.
    pub rewriting: Cell<bool>,
    /// Records with smaller stamps are from former processes.
    pub began: Cell<u64>,
}

impl<R: Reports> Delivery<R> {
    /// Sends the group's requests until all are settled, the backend must be left alone, or the group must wait. A
    /// search rests now and then, so that the courier can fetch and send the points of others.
    pub async fn serve(&self, group: &mut Group, lane: &mut Lane) {
        let (began, mut sent) = (io::now(), 0);
        while group.is_due(io::now()) {
            let attempt = match group.watch.take().map(Watch::outcome) {
                Some(Ok(Watched::Answered(answer))) => Attempt::from(answer),
                Some(Ok(ended)) => {
                    if matches!(ended, Watched::Ended) {
                        group.doubt(io::now() + DOUBT);
                    }
                    self.unanswered(group);
                    continue;
                }
                Some(Err(watch)) => {
                    group.watch = Some(watch);
                    return;
                }
                None if !self.handle.health.borrow().open(io::now()) => return,
                None if group.is_searched() && (sent >= SEARCH_TURN_REQUESTS || io::elapsed(began) >= SEARCH_TURN) => {
                    return group.backoff.rest(io::now() + SEARCH_REST);
                }
                None => match self.must_wait_for_others(group) {
                    Some(rest) => return group.backoff.rest(io::now() + rest),
                    None if self.skip_refused(group) => continue,
                    None => Self::send(group, lane).await,
                },
            };
            sent += 1;
            let now = io::now();
            if attempt.doubtful {
                group.doubt(now + DOUBT);
            }
            let verdict = WriteVerdict::of(&attempt.outcome);
            let text = describe(&attempt.outcome);
            self.reports.answered(&text);
            let request = group.requests.front_mut().expect("it was sent");
            match verdict {
                WriteVerdict::Delivered => {
                    self.up(now, true);
                    group.backoff.reset();
                    self.missing.borrow_mut().found(&group.db, &request.rp);
                    self.advance(group, PartReply::Taken, now);
                }
                WriteVerdict::Unavailable => {
                    return self.down(DeliveryState::Down, &text, now, attempt.outcome.is_err());
                }
                WriteVerdict::Unauthorized => {
                    return self.hold(group, &text, now, "refuses writes to it until an operator acts");
                }
                WriteVerdict::NotNow => return self.hold(group, &text, now, "does not take writes to it now"),
                // A good probe shows that InfluxDB answers there again.
                WriteVerdict::Misdirected => return self.down(DeliveryState::Refusing, &text, now, true),
                WriteVerdict::TimedOut => {
                    self.down(DeliveryState::Down, &text, now, true);
                    self.timed_out.set(true);
                    match attempt.unanswered {
                        Some(unanswered) => {
                            group.doubt(now);
                            let longest = lane.client.timeout() * WATCH_TIMEOUTS;
                            group.watch = Some(Watch::start(unanswered, longest, self.handle.clone()));
                        }
                        None => self.unanswered(group),
                    }
                    return;
                }
                WriteVerdict::Missing => {
                    self.up(now, false);
                    self.learning.borrow_mut().begin(&group.db);
                    // It has nothing of it any more, and other circles may have judged more lines meanwhile.
                    request.search = None;
                    let decided = self.missing.borrow_mut().lacked(&self.label, (&group.db, &request.rp), &text, now);
                    let step = match decided {
                        Some(step) => step,
                        None => {
                            let (db, rp) = (String::from_utf8_lossy(&group.db), String::from_utf8_lossy(&request.rp));
                            let created = self.reports.create_database(&db, &rp).await;
                            self.missing.borrow_mut().answered(
                                &self.label,
                                (&group.db, &request.rp),
                                &text,
                                created,
                                io::now(),
                            )
                        }
                    };
                    match step {
                        CreationStep::Again => {}
                        CreationStep::Hold => {
                            return self.handle.health.borrow_mut().pause(&mut group.backoff, io::now());
                        }
                        CreationStep::Reject(reason) => self.reject_all(group, reason, &text),
                    }
                }
                WriteVerdict::TooLarge => {
                    self.up(now, false);
                    self.too_large.set(Some(request.body.len()));
                    if !group.halve(self.split) {
                        self.reject_all(group, "too large", &text);
                    }
                }
                WriteVerdict::Refused { certain: true } => {
                    self.up(now, false);
                    self.advance(group, PartReply::Refused(&text), now);
                }
                WriteVerdict::Refused { certain: false } | WriteVerdict::Suspect => {
                    request.strikes += 1;
                    // Only once: other groups may succeed meanwhile, and the state must not change with every retry.
                    if request.strikes == 1 {
                        self.suspect(&text, now);
                    }
                    let since = *request.since.get_or_insert(now);
                    let alive = {
                        let health = self.handle.health.borrow();
                        health.probe_up() || health.succeeded_since(since)
                    };
                    if request.search.is_some() || (request.strikes >= POISON_ATTEMPTS && alive) {
                        self.advance(group, PartReply::Doubt(&text), now);
                    } else {
                        self.handle.health.borrow_mut().pause(&mut group.backoff, now);
                    }
                }
            }
        }
    }

    /// The backend may not know the types of fields, and other circles have not judged the first request's lines yet:
    /// after which time it is looked at again.
    fn must_wait_for_others(&self, group: &mut Group) -> Option<Duration> {
        let mut learning = self.learning.borrow_mut();
        if !learning.is_on(&group.db) {
            return None;
        }
        let request = group.requests.front_mut().expect("the group is due");
        request.is_closed = true;
        let is_judged = request.last_stamp().is_none_or(|last| self.reports.others_are_past(&group.db, last));
        learning.must_wait(&group.db, is_judged, io::now())
    }

    /// Of a backlog, and of a database that the backend has lacked, lines are not sent that another backend has refused
    /// for the type of a field. This one may have been replaced by an empty server, which would take them, and refuse
    /// the good ones. True: no line is left, and the request is settled.
    fn skip_refused(&self, group: &mut Group) -> bool {
        let request = group.requests.front_mut().expect("the group is due");
        let is_backlog = self.state.get() != DeliveryState::Up
            || self.rewriting.get()
            || request.stamp().is_some_and(|stamp| stamp < self.began.get());
        if request.search.is_some() || !is_backlog && !self.learning.borrow().is_on(&group.db) {
            return false;
        }
        let known = request.lines_among(|log, record| self.reports.refused_lines(log, record));
        if known.is_empty() {
            return false;
        }
        let search = Bisect::knowing((self.split)(request.body.bytes()), &known, hint::REFUSED_ELSEWHERE);
        let is_done = search.is_done();
        request.search = Some(search);
        if is_done {
            self.settle(group);
        }
        is_done
    }

    /// Sends the first request, or a part of it while those lines are searched that the backend refuses.
    async fn send(group: &mut Group, lane: &mut Lane) -> Attempt {
        let request = group.requests.front_mut().expect("the group is due");
        // `Request::target` would borrow the body as well.
        let target = super::client::Target { db: &group.db, rp: &request.rp, precision: request.precision };
        if request.strikes > 0 {
            // A kept connection that ends is replaced and the request sent again: once too often for a suspect request.
            lane.client.disconnect();
        }
        match &request.search {
            None => lane.client.write(target, &mut request.body).await,
            Some(search) => {
                search.part(request.body.bytes(), &mut lane.part);
                lane.client.write(target, &mut lane.part).await
            }
        }
    }

    /// The first request got no answer in its time. It is sent again.
    fn unanswered(&self, group: &mut Group) {
        let request = group.requests.front_mut().expect("it was sent");
        request.timeouts += 1;
        // The backend is up but too slow for this request. Halving it changes only the time it takes.
        if request.timeouts >= POISON_ATTEMPTS && self.handle.health.borrow().probe_up() {
            group.halve(self.split);
        }
    }

    /// Handles the reply to the first request, or to the part of it that was sent.
    fn advance(&self, group: &mut Group, reply: PartReply<'_>, now: Instant) {
        let request = group.requests.front_mut().expect("a request got a reply");
        if request.search.is_none() {
            if let PartReply::Taken = reply {
                return self.settle(group);
            }
            log::info!("{}: searching {} lines for those it refuses", self.label, request.lines);
            request.search = Some(Bisect::new((self.split)(request.body.bytes())));
        }
        let search = request.search.as_mut().expect("made above");
        if let PartReply::Refused(text) = reply
            && hint::is_series_limit(text)
        {
            let memory = self.series.borrow();
            search.rank_series(request.body.bytes(), &|series| memory.fate(&group.db, series));
        }
        match search.answered(request.body.bytes(), reply) {
            Next::Send => {}
            Next::Pause => self.handle.health.borrow_mut().pause(&mut group.backoff, now),
            Next::Settled => self.settle(group),
            Next::Halve => {
                group.halve(self.split);
                self.handle.health.borrow_mut().pause(&mut group.backoff, now);
            }
            Next::Fruitless => {
                request.search = None;
                // What follows may show that the backend takes other lines of this database.
                group.join_next();
                self.handle.health.borrow_mut().pause(&mut group.backoff, now);
            }
        }
    }

    /// The first request is done: all its lines are delivered except those its search has found.
    fn settle(&self, group: &mut Group) {
        let request = group.requests.pop_front().expect("a request is being settled");
        let refused = request.search.as_ref().map(Bisect::refused).unwrap_or_default();
        if let Some(search) = &request.search {
            let mut letters = self.letters.borrow_mut();
            let at = io::system_time();
            for line in refused {
                let bytes = &request.body.bytes()[search.line(line.line)];
                dead_letter::entry(&mut letters, at, request.target(&group.db), &line.text, bytes);
            }
            if refused.iter().any(|line| hint::is_series_limit(&line.text)) {
                self.series.borrow_mut().learn(&group.db, search.series(request.body.bytes()), io::now());
            }
        }
        let by_record = group.count(&request, refused.iter().map(|line| (u64::from(line.line), &*line.text)));
        by_record.into_iter().for_each(|(log, refused)| self.reports.refused(log, refused));
        if let Some(first) = refused.first() {
            log::warn!("{}: refused {} of {} lines: {}", self.label, refused.len(), request.lines, cut(&first.text));
        }
        self.bodies.borrow_mut().push(request.body);
    }

    /// Rejects all lines of the first request.
    fn reject_all(&self, group: &mut Group, reason: &'static str, text: &str) {
        let request = group.requests.pop_front().expect("a request is being rejected");
        let at = io::system_time();
        let body = request.body.bytes();
        let mut letters = self.letters.borrow_mut();
        for line in (self.split)(body) {
            dead_letter::entry(&mut letters, at, request.target(&group.db), text, &body[line]);
        }
        log::warn!("{}: refused all {} lines: {}", self.label, request.lines, cut(text));
        let by_record = group.count_refused(&request, reason, text);
        by_record.into_iter().for_each(|(log, refused)| self.reports.refused(log, refused));
        self.bodies.borrow_mut().push(request.body);
    }

    fn up(&self, now: Instant, taken: bool) {
        // A side courier, which shares it, may have taken note of a success before.
        let was_down = self.handle.health.borrow_mut().succeeded(now, taken).unwrap_or_default();
        if self.state.replace(DeliveryState::Up) != DeliveryState::Up {
            log::info!("{}: up again after {:.1} s", self.label, was_down.as_secs_f64());
            self.loud_at.set(None);
            self.reports.state(DeliveryState::Up, "");
            if !self.rewriting.replace(true) {
                self.reports.rewriting(true);
            }
        }
    }

    fn down(&self, state: DeliveryState, text: &str, now: Instant, unreachable: bool) {
        self.handle.health.borrow_mut().failed(now, unreachable);
        self.tell(state, text, now);
    }

    /// The backend does not take points of this database: the group waits, others go on. A wrong password stops each
    /// group in this way. `what`: what the backend does, for the log.
    fn hold(&self, group: &mut Group, text: &str, now: Instant, what: &str) {
        let mut health = self.handle.health.borrow_mut();
        health.pause(&mut group.backoff, now);
        // Only once, as for a suspect.
        if group.loud_at.is_none() {
            health.suspected(now);
            if self.state.replace(DeliveryState::Refusing) != DeliveryState::Refusing {
                self.reports.state(DeliveryState::Refusing, text);
            }
        }
        if group.loud_at.is_none_or(|at| now.saturating_duration_since(at) >= LOUD_INTERVAL) {
            group.loud_at = Some(now);
            let db = String::from_utf8_lossy(&group.db);
            log::error!("{}: database {db:?}: {what}, its points are kept: {}", self.label, cut(text));
        }
    }

    fn suspect(&self, text: &str, now: Instant) {
        self.handle.health.borrow_mut().suspected(now);
        self.tell(DeliveryState::Down, text, now);
    }

    fn tell(&self, state: DeliveryState, text: &str, now: Instant) {
        let changed = self.state.replace(state) != state;
        if changed {
            self.reports.state(state, text);
        }
        if state == DeliveryState::Refusing {
            let quiet = self.loud_at.get().is_some_and(|at| now.saturating_duration_since(at) < LOUD_INTERVAL);
            if !quiet {
                self.loud_at.set(Some(now));
                log::error!("{}: refuses writes until an operator acts, points are kept: {}", self.label, cut(text));
            }
        } else if changed {
            log::warn!("{}: down, points are kept: {}", self.label, cut(text));
        }
    }
}

/// The backend's own text if there is one.
fn describe(attempt: &Result<WriteAnswer, ExchangeFailure>) -> String {
    match attempt {
        Ok(answer) if answer.status == 204 => String::new(),
        Ok(answer) if answer.status / 100 == 2 => {
            format!("status {}, where InfluxDB confirms with 204: another server answers", answer.status)
        }
        Ok(answer) if answer.error.is_empty() => format!("status {}", answer.status),
        Ok(answer) => answer.error.clone(),
        Err(failure) => failure.to_string(),
    }
}

/// Shortens a text for the log: a refusal may quote a whole batch.
fn cut(text: &str) -> &str {
    text.char_indices().nth(LOGGED_TEXT_CHARS_MAX).map_or(text, |(at, _)| &text[..at])
}
