//! Reads log directories for people: lists, prints as line protocol, checks. Blocking, read-only calls, also while a
//! log has the directory open. What that log is writing may then look unfinished, and is reported as unfinished.
//!
//! Each function takes the directory of one worker's log, or a data directory with several logs (`worker-*`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::parked::encode_key;
use super::recovery::read_chain;
use super::scan::{End, FrameStep, Gap, Remains, Scan};
use super::segment::{self, Segment};
use super::state_files::{FoundState, read_state};
use super::store::Files;
use super::{Error, Loss, PendingRecord, RecordView, Seq, frame, pending, record, state, worker_dir};
use crate::limits::VERIFY_LOOKS;
use crate::one_line::one_line;
use crate::topology::Topology;

/// Lists segments and cursors.
pub fn ls(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    for dir in log_dirs(dir)? {
        let chain = read_chain(dir.as_path(), &dir, &Topology::default())?;
        let io = print_error(&dir);
        writeln!(out, "{}", dir.display()).map_err(&io)?;
        for segment in &chain.segments {
            let Segment { header, file_bytes, .. } = segment;
            let end = if segment.end > segment.first() { segment.end.0.to_string() } else { String::from("open") };
            let compacted = if header.compacted.is_some() { " compacted" } else { "" };
            let (name, first, names) = (segment.name(), header.first.0, header.backends.join(","));
            writeln!(out, "  {name} seq={first}..{end} bytes={file_bytes}{compacted} backends={names}").map_err(&io)?;
        }
        for name in &chain.headless {
            writeln!(out, "  {name} damaged header").map_err(&io)?;
        }
        match read_state(dir.as_path(), &dir)? {
            FoundState::Whole(state, _) => {
                let how = if state.closed { "closed" } else { "saved" };
                writeln!(out, "  end seq={} points={} {how}", state.end.seq.0, state.end.lines).map_err(&io)?;
                for (name, seq) in &state.cursors {
                    writeln!(out, "  cursor seq={} backend={name}", seq.0).map_err(&io)?;
                }
                for (name, key, seq) in &state.parked {
                    writeln!(out, "  parked seq={} backend={name} {}", seq.0, encode_key(key)).map_err(&io)?;
                }
            }
            FoundState::None => writeln!(out, "  no state").map_err(&io)?,
            FoundState::Fault(_) => writeln!(out, "  {} damaged", state::FILES[0]).map_err(&io)?,
        }
    }
    Ok(())
}

/// Prints all records as line protocol, each after a comment line `# db= rp= precision= seq= route=`. Missing points
/// appear as a comment.
pub fn cat(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    for dir in log_dirs(dir)? {
        let io = print_error(&dir);
        let chain = read_chain(dir.as_path(), &dir, &Topology::default())?;
        for segment in &chain.segments {
            let mut printed = Ok(());
            let (gaps, _) = walk(&dir, segment, &mut |header, body| {
                for record in record::records(body) {
                    if printed.is_ok() {
                        printed = print_record(out, segment, header.first, &record);
                    }
                }
            })?;
            printed.map_err(&io)?;
            for gap in gaps {
                writeln!(out, "# {}: {} points are missing", segment.name(), gap.lines).map_err(&io)?;
            }
        }
    }
    Ok(())
}

/// Prints what is undelivered as line protocol, each record after a comment line that names the backends which still
/// need it. Of a running log what its state said when it was last saved, at most about a second ago.
pub fn cat_pending(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    for dir in log_dirs(dir)? {
        let io = print_error(&dir);
        let mut pending = pending(&dir)?;
        while let Some(PendingRecord { record, needed_by }) = pending.next_record()? {
            let names: Vec<_> = needed_by.iter().map(|(_, name)| one_line(name)).collect();
            let RecordView { db, rp, precision, .. } = record;
            let (db, rp, precision) = (db.escape_ascii(), rp.escape_ascii(), precision.as_param());
            writeln!(out, "# db={db} rp={rp} precision={precision} backends={}", names.join(",")).map_err(&io)?;
            out.write_all(record.bytes).map_err(&io)?;
        }
        if pending.lost() > 0 {
            writeln!(out, "# {}: {} points are missing, the log is damaged", dir.display(), pending.lost())
                .map_err(&io)?;
        }
    }
    Ok(())
}

fn print_record(out: &mut dyn Write, segment: &Segment, first: Seq, record: &record::Record<'_>) -> io::Result<()> {
    let names = &segment.header.backends;
    let route: Vec<&str> =
        record.route().map(|i| names.get(usize::from(i)).map_or("?", |name| name.as_str())).collect();
    writeln!(
        out,
        "# db={} rp={} precision={} seq={} route={}",
        record.db.escape_ascii(),
        record.rp.escape_ascii(),
        record.precision.as_param(),
        record.seq(first).0,
        route.join(",")
    )?;
    out.write_all(record.bytes)
}

/// Checks every frame; prints all faults and a summary. True if each worker has a log and nothing is lost.
pub fn verify(dir: &Path, out: &mut dyn Write) -> Result<bool, Error> {
    let mut sound = true;
    for dir in log_dirs(dir)? {
        let io = print_error(&dir);
        // Read first: a running log may save one while this goes through its files.
        let state = read_state(dir.as_path(), &dir)?;
        let chain = read_chain(dir.as_path(), &dir, &Topology::default())?;
        let (mut frames, mut records, mut lines) = (0u64, 0u64, 0u64);
        for name in &chain.headless {
            sound = false;
            writeln!(out, "{}: both copies of the header are damaged", dir.join(name).display()).map_err(&io)?;
        }
        let mut before: Option<(Seq, u64)> = None;
        for segment in &chain.segments {
            let file = dir.join(segment.name());
            if let Some((end, lines)) = before
                && segment.header.lines_base > lines
            {
                sound = false;
                let (missing, to) = (segment.header.lines_base - lines, segment.first().0);
                writeln!(out, "{}: records {}..{to} before it are missing, {missing} points", file.display(), end.0)
                    .map_err(&io)?;
            }
            let (mut gaps, mut end) = walk(&dir, segment, &mut |header, _| {
                frames += 1;
                records += u64::from(header.records);
                lines += u64::from(header.lines);
            })?;
            let open = segment.end == segment.first() && segment.header.compacted.is_none();
            if !open && segment.stored_lines_end() > end.after.lines {
                let lines = segment.stored_lines_end() - end.after.lines;
                gaps.push(Gap { bytes: end.after.offset..segment.file_bytes, seqs: end.after.seq..segment.end, lines });
            }
            if open {
                // A running log may be writing it just now.
                let mut looks = 1;
                while end.remains.is_some() && looks < VERIFY_LOOKS {
                    looks += 1;
                    (_, end) = walk(&dir, segment, &mut |_, _| {})?;
                }
            }
            let last = segment.first() == chain.segments.back().map_or(Seq(0), Segment::first);
            // Up to the saved end the state tells what is missing.
            let saved = match &state {
                FoundState::Whole(state, _) => Some(state.end.seq).filter(|saved| *saved > end.after.seq),
                _ => None,
            };
            let told = |r: &Remains| open && last && saved.is_none_or(|saved| r.is_after(saved));
            let mut reached = (end.after.seq, end.after.lines);
            if let Some(remains) = end.remains.filter(told) {
                let torn = remains.torn(&file, end.after);
                sound &= torn.loss == Loss::CutShort;
                writeln!(out, "{torn}").map_err(&io)?;
                let written = remains.written;
                if written.seq > end.after.seq {
                    let (bytes, seqs) = (end.after.offset..written.offset, end.after.seq..written.seq);
                    gaps.push(Gap { bytes, seqs, lines: written.lines - end.after.lines });
                    reached = (written.seq, written.lines);
                }
            }
            for gap in gaps.iter().filter(|gap| gap.lines > 0) {
                sound = false;
                let damage = super::Damage {
                    kind: super::DamageKind::Frames,
                    file: file.clone(),
                    bytes: gap.bytes.clone(),
                    seqs: gap.seqs.clone(),
                    lines: gap.lines,
                };
                writeln!(out, "{damage}").map_err(&io)?;
            }
            before = Some(if open { reached } else { (segment.end, segment.lines_end) });
        }
        match state {
            FoundState::None if chain.segments.is_empty() && chain.headless.is_empty() => {
                sound = false;
                writeln!(out, "{}: there is no log", dir.display()).map_err(&io)?;
                continue;
            }
            FoundState::Fault(_) => {
                sound = false;
                writeln!(out, "{}: damaged", dir.join(state::FILES[0]).display()).map_err(&io)?;
            }
            FoundState::Whole(state, _) if before.is_none_or(|(end, _)| end < state.end.seq) => {
                let have = before.map_or(state.first_lines, |(_, lines)| lines);
                if state.end.lines > have && state.passed() < state.end.seq {
                    sound = false;
                    let missing = state.end.lines - have;
                    writeln!(out, "{}: the last {missing} points are missing", dir.display()).map_err(&io)?;
                }
            }
            _ => {}
        }
        let segments = chain.segments.len();
        writeln!(out, "{}: {segments} segments, {frames} frames, {records} records, {lines} points", dir.display())
            .map_err(&io)?;
    }
    Ok(sound)
}

fn print_error(dir: &Path) -> impl Fn(io::Error) -> Error {
    move |e| Error::io("print", dir, e)
}

/// The worker directories in `dir`, or else `dir` itself if it holds a log.
fn log_dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = |e| Error::io("list", dir, e);
    let dirs = worker_dirs(dir).map_err(list)?;
    if !dirs.is_empty() {
        return Ok(dirs.into_iter().map(|(_, path)| path).collect());
    }
    let is_of_log = |name: &str| segment::parse_file_name(name).is_some() || state::FILES.contains(&name);
    for entry in std::fs::read_dir(dir).map_err(list)? {
        if entry.map_err(list)?.file_name().to_str().is_some_and(is_of_log) {
            return Ok(vec![dir.to_owned()]);
        }
    }
    Err(Error::NoLog { dir: dir.to_owned() })
}

/// The folders of the workers' logs in a data directory, with their numbers, ascending.
///
/// # Errors
/// When it cannot be listed.
pub fn worker_dirs(data_dir: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(data_dir)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("worker-")?.parse().ok());
        // As `worker_dir` writes it: not `worker-00`.
        let number = number.filter(|&number| worker_dir(data_dir, number) == path && path.is_dir());
        dirs.extend(number.map(|number| (number, path)));
    }
    dirs.sort_unstable();
    Ok(dirs)
}

/// When the state of a log was saved. None: it never was, or that cannot be read.
pub fn saved(dir: &Path) -> Option<SystemTime> {
    let modified = |name| dir.join(name).metadata().ok()?.modified().ok();
    state::FILES.into_iter().filter_map(modified).max()
}

fn walk(
    dir: &Path,
    segment: &Segment,
    on_frame: &mut dyn FnMut(&frame::Header, &[u8]),
) -> Result<(Vec<Gap>, End), Error> {
    let until = (segment.end > segment.first()).then_some(segment.end);
    let mut scan = Scan::new(segment.header.epoch, segment.mark_before(segment.first()), segment.file_bytes, until);
    let name = segment.name();
    let mut gaps = Vec::new();
    loop {
        match scan.step() {
            FrameStep::Read { offset, len } => match Files::read(dir, &name, offset, len) {
                Ok(bytes) => scan.give(offset, bytes, len),
                // A running log has removed the file: no backend needs it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => scan.give(offset, Vec::new(), len),
                Err(e) => return Err(Error::io("read", &dir.join(&name), e)),
            },
            FrameStep::Frame(found) => on_frame(&found.header, scan.body(&found)),
            FrameStep::Gap(gap) => gaps.push(gap),
            FrameStep::End(end) => return Ok((gaps, end)),
        }
    }
}
