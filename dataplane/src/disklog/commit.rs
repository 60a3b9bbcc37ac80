//! Group commit: one task writes the open frame while the next one fills with new appends.
//!
//! With durability `disk` a segment is opened O_DSYNC, so that a finished write is durable. With a lower level a sync
//! follows a write only when a request asks for `disk`, and always before the log moves to the next segment. So it is
//! always enough to sync the segment being written.
//!
//! A failed write or sync ends this task and poisons the log. The contents of the disk are then unknown, and a repeated
//! sync may succeed without having written anything (the kernel drops dirty pages after it has reported an error once).
//! Only "no space" is retried: such a write has not reached the disk, and the frame is still in memory.
//!
//! Space is reserved before an append is accepted: while a segment fills up, the file for the next one is prepared. A
//! failure to prepare or to begin it, whatever its cause, leaves nothing in doubt, since the file holds no frame yet:
//! it is tried again with another file, and meanwhile appends are refused with [`Error::NoNextFile`].

use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use super::gather::Gather;
use super::parked::{Needs, Parked};
use super::scan::{FrameStep, Scan};
use super::segment::{self, Mark, Segment};
use super::store::{Store, WriteFile, is_full};
use super::{Error, Seq, SharedLog, frame, record, spare_name};
use crate::io::{now, sleep};
use crate::limits::{LOG_DROPPED_NAMES_MAX, LOG_FULL_RETRY};
use crate::settings::{BacklogFull, Durability};
use crate::topology::BackendId;
use futures_lite::future::or;

/// The step that fails when a file cannot be opened or its space not be reserved.
const CREATE: &str = "create";

/// Proof that a record has reached a level. A 204 cannot be sent without it.
#[derive(Debug)]
pub struct Durable {
    level: Durability,
}

impl Durable {
    /// The level that was asked for and reached.
    pub fn level(&self) -> Durability {
        self.level
    }
}

pub(super) async fn committed(shared: &SharedLog, seq: Seq, level: Durability) -> Result<Durable, Error> {
    loop {
        let wait = {
            let mut inner = shared.inner.borrow_mut();
            assert!(seq < inner.tail.end(), "only what was appended can be waited for");
            let reached = match level {
                Durability::Memory => inner.tail.end(),
                Durability::Os => inner.written,
                Durability::Disk => inner.synced,
            };
            if seq < reached {
                return Ok(Durable { level });
            }
            inner.check_poison()?;
            if inner.stuck {
                return Err(inner.no_room());
            }
            if level == Durability::Disk && !shared.dsync() {
                inner.sync_wanted = true;
                shared.work.notify();
                shared.synced.wait()
            } else {
                // The open frame gets the number `frames_sealed`. An older frame that is not written has the number
                // before.
                let open = seq >= inner.tail.open_first();
                shared.acks[((inner.frames_sealed + u64::from(!open)) % 2) as usize].wait()
            }
        };
        wait.await;
    }
}

/// The commit task. Ends when the log is closing and all is written, or when the log is poisoned.
pub(super) async fn run(shared: Rc<SharedLog>) {
    let mut idle = true;
    let mut gather = Gather::default();
    loop {
        let work = shared.work.wait();
        let (open, sync, closing, filled) = {
            let inner = shared.inner.borrow();
            if inner.poison.is_some() {
                return;
            }
            (inner.tail.open_len() > 0, inner.sync_wanted, inner.closing, inner.tail.is_filled())
        };
        if open && idle && !filled && !closing && !shared.linger.is_zero() {
            // A full frame or a request for a sync ends the wait.
            or(work, sleep(shared.linger)).await;
        } else if open && !filled && !closing && !sync {
            wait_for_more(&shared, &mut gather, work).await;
        } else if !open && !sync {
            if closing {
                return;
            }
            work.await;
            idle = true;
            prepare_if_needed(&shared).await;
            continue;
        }
        idle = false;
        if let Err(error) = step(&shared).await {
            return shared.poison(&error);
        }
        let inner = shared.inner.borrow();
        gather.committed(inner.sealed_appends, inner.open_appends, now());
    }
}

/// Lets the open frame fill with the appends that are expected soon. `work` ends the wait.
async fn wait_for_more(shared: &SharedLog, gather: &mut Gather, work: impl Future<Output = ()>) {
    let target = {
        let mut inner = shared.inner.borrow_mut();
        // With acks from memory no client waits for a commit.
        let Some(target) = gather.target(inner.open_appends, now()).filter(|_| shared.durability > Durability::Memory)
        else {
            return;
        };
        inner.gather_target = target;
        target
    };
    or(work, sleep(Gather::bound())).await;
    let mut inner = shared.inner.borrow_mut();
    inner.gather_target = 0;
    if !inner.tail.is_filled() {
        gather.waited(target, inner.open_appends);
    }
}

/// Writes the open frame, syncs if that was asked for, and prepares the next segment's file in time.
async fn step(shared: &SharedLog) -> Result<(), Error> {
    let len = shared.inner.borrow().tail.open_len();
    if len > 0 {
        // The frame may grow, up to its limit, while the log moves to the next segment.
        while shared.inner.borrow().left_in_segment() < frame::padded(shared.inner.borrow().tail.open_len()) as u64 {
            next_segment(shared).await?;
        }
        write_frame(shared).await?;
    }
    let sync = std::mem::take(&mut shared.inner.borrow_mut().sync_wanted);
    if sync {
        sync_current(shared).await?;
    }
    prepare_if_needed(shared).await;
    Ok(())
}

async fn sync_current(shared: &SharedLog) -> Result<(), Error> {
    let (file, written) = {
        let inner = shared.inner.borrow();
        (Rc::clone(&inner.file), inner.written)
    };
    if !shared.dsync() {
        file.sync().await.map_err(|e| failed(shared, "sync", e))?;
    }
    // `written` was read before the sync: later writes are not covered. Only this task writes.
    shared.inner.borrow_mut().synced = written;
    shared.synced.notify();
    Ok(())
}

fn failed(shared: &SharedLog, op: &'static str, source: std::io::Error) -> Error {
    Error::io(op, &shared.dir.join(shared.inner.borrow().current().name()), source)
}

async fn write_frame(shared: &SharedLog) -> Result<(), Error> {
    let (sealed, offset, file) = {
        let mut guard = shared.inner.borrow_mut();
        let inner = &mut *guard;
        let (epoch, offset) = (inner.current().header.epoch, inner.current().used);
        let stamp = (!shared.acks_from_memory()).then(|| shared.next_stamp());
        let sealed = inner.tail.seal(epoch, stamp);
        inner.sealed_stamp = stamp.unwrap_or(inner.acked_stamp);
        inner.frames_sealed += 1;
        inner.sealed_appends = std::mem::take(&mut inner.open_appends);
        std::mem::swap(&mut inner.open_bytes, &mut inner.sealed_bytes);
        (sealed, offset, Rc::clone(&inner.file))
    };
    // A new frame is open: appends continue.
    shared.room.notify();
    let padded = frame::padded(sealed.header.len);
    let mut done = 0;
    while done < padded {
        let write = file.write(offset + done as u64, padded - done, &mut |out| {
            let inner = shared.inner.borrow();
            let rest = inner.tail.bytes(&sealed).get(done..).unwrap_or(&[]);
            out[..rest.len()].copy_from_slice(rest);
            out[rest.len()..].fill(0);
        });
        match write.await {
            // A partly written block is written again.
            Ok(n) if n >= frame::BLOCK_BYTES => done += n & !(frame::BLOCK_BYTES - 1),
            Ok(_) => return Err(failed(shared, "write", std::io::ErrorKind::WriteZero.into())),
            Err(e) if is_full(&e) => {
                // Nobody was told that this frame is safe, so its place in the order is still open. Meanwhile what
                // others have committed need not wait for it.
                let open = !shared.acks_from_memory();
                if open {
                    shared.order.withdraw(shared.number, None);
                }
                wait_for_space(shared).await;
                if open {
                    let stamp = shared.next_stamp();
                    let mut inner = shared.inner.borrow_mut();
                    inner.tail.stamp_again(&sealed, stamp);
                    inner.sealed_stamp = stamp;
                    drop(inner);
                    done = 0;
                }
            }
            Err(e) => return Err(failed(shared, "write", e)),
        }
    }
    finish_frame(shared, &sealed, padded as u64);
    Ok(())
}

/// The frame is on disk: sends acks, wakes readers, and moves the cursors of readers that need nothing of it past it.
fn finish_frame(shared: &SharedLog, sealed: &super::tail::Sealed, padded: u64) {
    let mut guard = shared.inner.borrow_mut();
    let inner = &mut *guard;
    inner.stuck = false;
    inner.tail.mark_written();
    let (first, end) = (sealed.header.first, sealed.header.end());
    inner.written = end;
    inner.acked_stamp = inner.acked_stamp.max(inner.sealed_stamp);
    if shared.dsync() {
        inner.synced = end;
    }
    let segment = inner.segments.back_mut().expect("there is always one being written");
    segment.note(Mark { seq: first, offset: segment.used, lines: sealed.header.lines_before });
    segment.used += padded;
    segment.end = end;
    segment.lines_end = sealed.header.lines_after();
    let counts = segment.bytes_by_backend.as_mut().expect("counted since it was made");
    for (count, new) in counts.iter_mut().zip(&mut inner.sealed_bytes) {
        *count += std::mem::take(new);
    }
    let mut moved = false;
    for backend in 0..inner.cursors.len() {
        if sealed.wanted.may_contain(backend) {
            if let Some(behind) = &inner.behind[backend] {
                behind.store(true, SeqCst);
            }
            shared.arrived[backend].notify();
        } else if inner.resting[backend] == Some(first) {
            inner.resting[backend] = Some(end);
            if inner.cursors[backend] == first {
                inner.cursors[backend] = end;
                moved = true;
            }
        }
        for parked in &mut inner.parked[backend] {
            if sealed.wanted.may_contain(backend) {
                parked.behind.iter().for_each(|behind| behind.store(true, SeqCst));
            } else if parked.resting == Some(first) {
                parked.resting = Some(end);
                if parked.cursor == first {
                    parked.cursor = end;
                    moved = true;
                }
            }
        }
    }
    // Last, when readers can find the frame.
    shared.order.withdraw(shared.number, inner.tail.open_stamp().filter(|_| shared.acks_from_memory()));
    let ack = &shared.acks[((inner.frames_sealed + 1) % 2) as usize];
    drop(guard);
    ack.notify();
    shared.room.notify();
    if moved {
        shared.confirmed.notify();
    }
}

/// Finishes the segment being written and makes the prepared file the next one.
async fn next_segment(shared: &SharedLog) -> Result<(), Error> {
    sync_current(shared).await?;
    let (start, previous) = {
        let inner = shared.inner.borrow();
        let start = Mark { seq: inner.tail.open_first(), lines: inner.tail.lines_before(), offset: 0 };
        (start, inner.current().first())
    };
    let header = segment::Header::of(&shared.topology, shared.inner.borrow().current().header.worker as usize);
    let (header, file) = loop {
        prepare_if_needed(shared).await;
        let next = shared.inner.borrow_mut().next.take();
        let Some((name, file)) = next else {
            wait_for_space(shared).await;
            continue;
        };
        let (store, dsync) = (&*shared.store, shared.dsync());
        match start_segment(store, &shared.dir, &name, &*file, header.clone(), start, previous, dsync).await {
            Ok(header) => break (header, file),
            // If it has its final name already, the next one takes that name from it.
            Err(error) => give_up_file(shared, &name, &error).await,
        }
        wait_for_space(shared).await;
    };
    let mut inner = shared.inner.borrow_mut();
    inner.file = file;
    let mut segment = Segment::new(header, &shared.topology, shared.sizes.segment_bytes);
    segment.bytes_by_backend = Some(vec![0; shared.topology.backends.len()]);
    inner.segments.push_back(segment);
    inner.stuck = false;
    inner.obstacle = None;
    drop(inner);
    shared.room.notify();
    shared.compact.notify();
    Ok(())
}

/// Makes the file `name` a segment. It gets its final name only when its header is durable, so that every file with
/// such a name has a header.
#[expect(clippy::too_many_arguments, reason = "called before there is a log and by it")]
pub(super) async fn start_segment(
    store: &dyn Store,
    dir: &Path,
    name: &str,
    file: &dyn WriteFile,
    header: segment::Header,
    start: Mark,
    previous: Seq,
    dsync: bool,
) -> Result<segment::Header, Error> {
    let header =
        segment::Header { epoch: segment::new_epoch(), first: start.seq, lines_base: start.lines, previous, ..header };
    let bytes = header.encode();
    let io = |e| Error::io("start", &dir.join(name), e);
    let mut done = 0;
    while done < bytes.len() {
        let n = file.write(done as u64, bytes.len() - done, &mut |out| out.copy_from_slice(&bytes[done..])).await;
        let n = n.map_err(io)? & !(frame::BLOCK_BYTES - 1);
        if n == 0 {
            return Err(io(std::io::ErrorKind::WriteZero.into()));
        }
        done += n;
    }
    if !dsync {
        file.sync().await.map_err(io)?;
    }
    store.rename(name, &segment::file_name(header.first)).await.map_err(io)?;
    Ok(header)
}

/// Refuses acks and appends until there may be space again.
async fn wait_for_space(shared: &SharedLog) {
    {
        let mut inner = shared.inner.borrow_mut();
        inner.stuck = true;
        inner.full = true;
    }
    shared.acks.iter().for_each(super::Event::notify);
    shared.synced.notify();
    shared.room.notify();
    or(shared.work.wait(), sleep(LOG_FULL_RETRY)).await;
    // Pauses in any case, so that the disk is not asked in a loop.
    sleep(LOG_FULL_RETRY / 10).await;
}

/// The file could not be made the next segment. Releases its space and says why, once until it works again. A file that
/// stays is found as a spare at the next open.
async fn give_up_file(shared: &SharedLog, name: &str, error: &Error) {
    let _ = shared.store.remove(name).await;
    let Error::Io { op, source, .. } = error else { return };
    if !is_full(source) && shared.inner.borrow_mut().obstacle.replace(op).is_none() {
        log::error!("{error}; writes are answered 503 until it works. What was acknowledged is safe");
    }
}

/// Reserves the next segment's file when the one being written is nearly full.
async fn prepare_if_needed(shared: &SharedLog) {
    if !shared.written {
        return;
    }
    loop {
        let name = {
            let mut guard = shared.inner.borrow_mut();
            let inner = &mut *guard;
            if inner.next.is_some() || inner.left_in_segment() >= 3 * shared.sizes.frame_bytes_max as u64 {
                if std::mem::take(&mut inner.full) {
                    shared.room.notify();
                }
                return;
            }
            inner.spares.pop().or_else(|| {
                let fits = shared.disk_bytes(inner) + shared.sizes.segment_bytes <= shared.max_bytes;
                fits.then(|| {
                    inner.spares_made += 1;
                    spare_name(inner.spares_made)
                })
            })
        };
        let mut obstructed = false;
        if let Some(name) = name {
            match shared.store.create(&name, shared.sizes.segment_bytes, shared.dsync()).await {
                Ok(file) => {
                    let mut inner = shared.inner.borrow_mut();
                    inner.next = Some((name, file));
                    inner.full = false;
                    inner.obstacle.take_if(|op| *op == CREATE);
                    drop(inner);
                    shared.room.notify();
                    return;
                }
                Err(e) => {
                    obstructed = !is_full(&e);
                    give_up_file(shared, &name, &Error::io(CREATE, &shared.dir.join(&name), e)).await;
                }
            }
        }
        if !obstructed && shared.backlog_full == BacklogFull::DropOldest && drop_oldest(shared).await {
            continue;
        }
        let mut inner = shared.inner.borrow_mut();
        if !obstructed {
            inner.obstacle.take_if(|op| *op == CREATE);
        }
        inner.full = true;
        inner.retry_after = now() + LOG_FULL_RETRY;
        drop(inner);
        shared.room.notify();
        return;
    }
}

/// Deletes the oldest segment, and before that counts and books the points that backends still needed. False if none
/// can be deleted now.
async fn drop_oldest(shared: &SharedLog) -> bool {
    if shared.inner.borrow().segments.len() == 1 {
        return false;
    }
    // Before a cursor moves: a log that fails here saves nothing any more, and its points must not count as settled.
    if let Err(error) = sync_current(shared).await {
        shared.poison(&error);
        log::error!("{error}; the oldest segment stays, although it was to be dropped");
        return false;
    }
    let (name, mut scan, stored_lines, backends, needs) = {
        let mut guard = shared.inner.borrow_mut();
        let inner = &mut *guard;
        let needs_now = |b: usize| inner.needs_now(BackendId(b as u16));
        let all: Vec<Needs> = (0..inner.cursors.len()).map(needs_now).collect();
        let spared = inner.segments.len() == 1;
        let oldest = inner.segments.front_mut().expect("never empty");
        if spared || oldest.busy {
            return false;
        }
        oldest.busy = true;
        // Records that couriers have fetched are still delivered; after this no reader reads here.
        let end = oldest.end;
        let given = |(b, parked): (usize, &Vec<Parked>)| Needs {
            cursor: inner.given[b].max(inner.cursors[b]),
            parked: parked.iter().map(|parked| (parked.key.clone(), parked.given.max(parked.cursor))).collect(),
        };
        let needs = DroppedNeeds { all, not_given: inner.parked.iter().enumerate().map(given).collect() };
        for (b, cursor) in inner.cursors.iter_mut().enumerate() {
            *cursor = end.max(*cursor);
            if inner.given[b] > inner.confirmed[b] {
                inner.held[b] = inner.given[b];
            }
        }
        for parked in inner.parked.iter_mut().flatten() {
            parked.cursor = end.max(parked.cursor);
            if parked.given > parked.confirmed {
                parked.held = parked.given;
            }
        }
        inner.dropping = Some(end);
        inner.absent.iter_mut().for_each(|(_, needs)| needs.forget_before(end));
        let scan = Scan::new(oldest.header.epoch, oldest.mark_before(oldest.first()), oldest.used, Some(oldest.end));
        (oldest.name(), scan, oldest.stored_lines_end(), Rc::clone(&oldest.backends), needs)
    };
    if let Err(read) = count_dropped(shared, &name, &mut scan, &backends, &needs).await {
        // The segment is deleted all the same; what could not be read cannot be counted by backend.
        let lines = stored_lines.saturating_sub(read.lines);
        let (epoch, end) = shared.inner.borrow().segments.front().map_or((0, read.seq), |s| (s.header.epoch, s.end));
        let damage = shared.damage_in(&name, read.offset..scan.end, read.seq..end, lines);
        shared.report(epoch, damage).await;
    }
    if let Err(error) = shared.save_without_oldest().await {
        log::error!("{error}; the oldest segment stays, although it was to be dropped");
        let mut inner = shared.inner.borrow_mut();
        inner.segments.front_mut().expect("busy segments stay").busy = false;
        inner.dropping = None;
        drop(inner);
        shared.confirmed.notify();
        return false;
    }
    let segment = shared.inner.borrow_mut().segments.pop_front().expect("busy segments stay");
    shared.inner.borrow_mut().dropping = None;
    if let Err(error) = shared.free_file(&segment).await {
        log::error!("{error}; the next start frees it");
    }
    shared.confirmed.notify();
    true
}

/// What backends need of a log, by number, when its oldest segment is dropped.
struct DroppedNeeds {
    all: Vec<Needs>,
    /// Without what couriers have been given.
    not_given: Vec<Needs>,
}

/// Counts the points dropped with one segment, but for those that couriers have been given: these are delivered if the
/// process lives until then. The error is the place where reading failed.
async fn count_dropped(
    shared: &SharedLog,
    name: &str,
    scan: &mut Scan,
    backends: &[Option<BackendId>],
    needs: &DroppedNeeds,
) -> Result<(), Mark> {
    let mut at = Mark { seq: Seq(0), offset: 0, lines: 0 };
    let file = shared.store.open(name).await.map_err(|_| at)?;
    loop {
        match scan.step() {
            FrameStep::Read { offset, len } => {
                let bytes = file.read(offset, len).await.map_err(|_| at)?;
                scan.give(offset, bytes, len);
            }
            FrameStep::Frame(found) => {
                let header = found.header;
                at = Mark { seq: header.end(), offset: found.offset, lines: header.lines_after() };
                let listener = shared.drop_listener.borrow().clone();
                let mut inner = shared.inner.borrow_mut();
                let dropped = &mut inner.dropped;
                for record in record::records(scan.body(&found)) {
                    let seq = record.seq(header.first);
                    let is_in = |needs: &Needs| needs.has(record.db, record.rp, seq);
                    let to = record.route().filter_map(|i| backends.get(usize::from(i)).copied().flatten());
                    for backend in to.filter(|b| is_in(&needs.all[b.index()])) {
                        if !is_in(&needs.not_given[backend.index()]) {
                            shared.order.dropped(backend, record.db, record.rp, record.stamp);
                            continue;
                        }
                        if let Some(tell) = &listener {
                            tell(backend, seq);
                        }
                        *dropped.entry((record.db.to_vec(), backend)).or_default() += u64::from(record.lines);
                    }
                }
                let crowded = dropped.len() >= LOG_DROPPED_NAMES_MAX;
                drop(inner);
                let book = shared.book.borrow().clone().filter(|_| crowded);
                if let Some(book) = book {
                    // For what it takes: the ledger is saved when the whole segment has been counted.
                    _ = book(&[]);
                }
            }
            // The owners of damaged records are unknown.
            FrameStep::Gap(gap) => {
                let damage = shared.damage_in(name, gap.bytes, gap.seqs, gap.lines);
                let epoch = shared.inner.borrow().segments.front().map_or(0, |s| s.header.epoch);
                shared.report(epoch, damage).await;
            }
            FrameStep::End(_) => return Ok(()),
        }
    }
}
