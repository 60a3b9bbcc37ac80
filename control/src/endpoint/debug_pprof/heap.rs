//! `GET /debug/pprof/heap`: memory by part; with `debug=1` as text, with the kernel's counts.
//!
//! Not by call site: the allocator does not sample, so profiling costs nothing. Nearly all memory is in a few large
//! parts that are counted anyway; `other` is the rest of the resident memory. Parts count bytes taken from the system,
//! which is more than the resident bytes until a part has been full once.
//!
//! ```text
//! resident          81002496   pages in memory now
//! ...
//! hot_tails         67108864   newest log in memory, 1 worker
//! ```

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{fs, io};

use fluxgate_dataplane::handoff::AdminResponse;
use fluxgate_dataplane::stats::WorkerStats;
use pprof::protos::Profile;

use super::stacks::{self, Stack};
use super::{Action, AdminCall, AdminState, PLAIN, download, not_sniffed, or_failed, response, wants_text};

/// Its name in `smaps_rollup`.
const ANONYMOUS: &str = "Anonymous";
/// Our name, the file below `/proc/self`, the kernel's name there, and a description.
const PROCESS: [(&str, FigureSource, &str, &str); 8] = [
    ("resident", FigureSource::Status, "VmRSS", "pages in memory now"),
    ("resident_max", FigureSource::Status, "VmHWM", "highest value of resident so far"),
    ("swapped", FigureSource::Status, "VmSwap", "swapped out"),
    ("virtual", FigureSource::Status, "VmSize", "address space, mostly not in memory"),
    ("locked", FigureSource::Status, "VmLck", "locked in memory: rings of io_uring"),
    ("stack", FigureSource::Status, "VmStk", "stack of the main thread"),
    ("proportional", FigureSource::Rollup, "Pss", "resident, shared pages divided among the processes that share them"),
    ("anonymous", FigureSource::Rollup, ANONYMOUS, "resident, not backed by a file: heap, stacks, rings"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum FigureSource {
    Status,
    Rollup,
}

/// The format of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapFormat {
    /// Protobuf, gzip: for `go tool pprof`.
    Pprof,
    Text,
}

pub fn decide(_: &AdminState, call: &AdminCall<'_>) -> Action {
    Action::Heap(if wants_text(call.query) { HeapFormat::Text } else { HeapFormat::Pprof })
}

/// The answer; `query_bytes` is the size of the backends' answers that are being merged.
pub fn response_with(state: &AdminState, query_bytes: usize, format: HeapFormat) -> AdminResponse {
    let read = || Ok((fs::read_to_string("/proc/self/status")?, fs::read_to_string("/proc/self/smaps_rollup")?));
    let answer: io::Result<(String, String)> = read();
    let parts = parts(state, query_bytes);
    or_failed(answer.and_then(|(status, rollup)| match format {
        HeapFormat::Pprof => download("heap", &profile(&parts, bytes_of(&rollup, ANONYMOUS).unwrap_or(0))),
        HeapFormat::Text => Ok(not_sniffed(response(200, PLAIN, table(state, &parts, &status, &rollup).into_bytes()))),
    }))
}

/// Name, bytes, description.
type HeapPart = (&'static str, u64, &'static str);

fn parts(state: &AdminState, query_bytes: usize) -> [HeapPart; 3] {
    let workers = &state.stats.workers;
    [
        (
            "hot_tails",
            state.hot_tail_bytes as u64 * workers.len() as u64,
            "newest log in memory, hot_tail_bytes for each worker",
        ),
        (
            "bodies",
            sum(state, |worker| &worker.body_bytes),
            "buffers of bodies beyond a connection's own, in use or kept",
        ),
        ("query_answers", query_bytes as u64, "answers of backends being merged"),
    ]
}

fn sum(state: &AdminState, count: fn(&WorkerStats) -> &AtomicU64) -> u64 {
    state.stats.workers.iter().map(|worker| count(worker).load(Relaxed)).sum()
}

fn profile(parts: &[HeapPart], anonymous: u64) -> Profile {
    let other = anonymous.saturating_sub(parts.iter().map(|part| part.1).sum());
    let parts = parts.iter().map(|&(name, bytes, _)| (name, bytes)).chain([("other", other)]);
    let stacks: Vec<_> = parts.map(|(name, bytes)| Stack { names: vec![name], values: [bytes as i64] }).collect();
    stacks::profile([("inuse_space", "bytes")], &stacks)
}

fn table(state: &AdminState, parts: &[HeapPart], status: &str, rollup: &str) -> String {
    let mut text = "memory profile, in bytes; the process, as the kernel counts it:\n".to_owned();
    let line = |text: &mut String, name: &str, value: u64, what: &str| {
        writeln!(text, "{name:<16} {value:>14}   {what}").expect("a String takes everything");
    };
    for (name, source, kernel_name, what) in PROCESS {
        let file = if source == FigureSource::Status { status } else { rollup };
        if let Some(bytes) = bytes_of(file, kernel_name) {
            line(&mut text, name, bytes, what);
        }
    }
    text += "\nparts, as the program counts them:\n";
    parts.iter().for_each(|&(name, bytes, what)| line(&mut text, name, bytes, what));
    text += "\ncounts:\n";
    let connections = sum(state, |worker| &worker.connections_open);
    line(&mut text, "connections", connections, "open, each with buffers of its own");
    text
}

/// The value of a line `Name:   123 kB`.
fn bytes_of(file: &str, name: &str) -> Option<u64> {
    let value = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::super::golden_test::state;
    use super::*;

    #[test]
    fn parts_are_summed_over_workers_and_the_kernels_are_bytes() {
        let state = AdminState { hot_tail_bytes: 1000, ..state("open") };
        for (worker, bytes) in state.stats.workers.iter().zip([5, 7]) {
            worker.body_bytes.store(bytes, Relaxed);
            worker.connections_open.store(bytes * 10, Relaxed);
        }
        let parts = parts(&state, 33);
        let text =
            table(&state, &parts, "VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\nThreads:\t4\n", "Pss:  1 kB\nPss_Anon: 3 kB\n");
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        };
        let names = ["resident", "proportional", "swapped", "hot_tails", "bodies", "query_answers", "connections"];
        let want = [Some(2048 * 1024), Some(1024), None, Some(2000), Some(12), Some(33), Some(120)];
        assert_eq!(names.map(value), want, "{text}");
        // Resident memory may be less than what the parts have taken.
        for (anonymous, other) in [(2045, 0), (2046, 1), (0, 0)] {
            let want = [("hot_tails", 2000), ("bodies", 12), ("query_answers", 33), ("other", other)];
            let profile = profile(&parts, anonymous);
            let stacks = stacks::tests::stacks(&profile);
            assert_eq!(stacks, want.each_ref().map(|(name, bytes)| (vec![*name], std::slice::from_ref(bytes))));
        }
    }

    #[test]
    fn this_process_has_memory() {
        let answer = response_with(&state("open"), 0, HeapFormat::Text);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let known = |name: &str| text.lines().any(|line| line.starts_with(name));
        assert!(answer.status == 200 && PROCESS.iter().all(|(name, ..)| known(name)), "{text}");
    }
}
