//! `GET /debug/pprof/profile?seconds=&format=`: a CPU profile of all threads.
//!
//! The kernel's profiling timer (ITIMER_PROF) sends SIGPROF to a thread that is using the CPU; the handler of the
//! `pprof` crate walks that thread's stack. While no profile is taken, nothing runs and no handler is installed.
//!
//! - The handler skips a sample when its lock is taken, and it does not allocate. It unwinds with libgcc, which finds
//!   tables without a lock since glibc 2.35 and GCC 12. Samples inside libgcc itself (a panic that unwinds) and inside
//!   the vDSO (whose tables are wrong on some systems) are left out.
//! - System calls are restarted: SIGPROF is installed with SA_RESTART, glommio looks again after EINTR of a waiting
//!   ring, and kernel threads of a ring do not take signals.
//! - CPU time of the rings' kernel threads (`iou-wrk-*`) is charged to a thread that is idle at the time.
//! - The crate's table of stacks takes about 65 MiB of resident memory. It is built anew after each profile, before the
//!   old one is freed, and stays. Everything else goes back to the system at the end (`give_memory_back`): of the 265
//!   MiB of a release build, 70 stay; of the 240 of a debug build, 79 stay (without it, all). The table also has a
//!   temporary file; without a folder for it (TMPDIR) there is no profile, and the answer says so.

use std::io;
use std::thread;
use std::time::Duration;

use fluxgate_dataplane::handoff::AdminResponse;
use fluxgate_dataplane::limits::PROFILE_MAX;
use pprof::{Frames, ProfilerGuardBuilder, Report, Symbol};

use super::{Action, AdminCall, AdminState, download, failed, not_sniffed, response};
use crate::limits::{PROFILE_OWN_FRAMES_MAX, PROFILE_SECONDS_DEFAULT};

/// Samples per second of CPU time. Not 100, which would be in step with timers and always sample the same moment.
const FREQUENCY_HZ: i32 = 99;
/// Libraries in which no stack is walked.
const NOT_WALKED: [&str; 2] = ["libgcc", "vdso"];
/// A low priority: resolving function names must not take the CPU from workers. 10 is a tenth of their share. With the
/// lowest priority, a hundredth, a profile of 33 s on a busy machine took 65 s.
const NICE: i32 = 10;

/// The requested profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub duration: Duration,
    pub format: ProfileFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFormat {
    /// Protobuf, gzip: the format of Go.
    Pprof,
    /// A flame graph.
    Svg,
}

pub fn decide(_: &AdminState, call: &AdminCall<'_>) -> Action {
    let params = call.query;
    let format = match &*params.value("format") {
        b"" | b"pprof" => ProfileFormat::Pprof,
        b"svg" => ProfileFormat::Svg,
        _ => return Action::Answer(failed(400, "format must be pprof or svg")),
    };
    let seconds = std::str::from_utf8(&params.value("seconds")).ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.filter(|&seconds| seconds > 0).unwrap_or(PROFILE_SECONDS_DEFAULT));
    if duration > PROFILE_MAX {
        return Action::Answer(failed(400, &format!("seconds must be at most {}", PROFILE_MAX.as_secs())));
    }
    Action::Profile(Wanted { duration, format })
}

/// Takes a profile. Blocks for its duration, and lowers the priority of its thread for good. Only one may run at a
/// time.
pub fn take(wanted: Wanted) -> AdminResponse {
    // On failure workers lose some CPU time after the profile; nothing else.
    let _ = rustix::process::setpriority_process(None, NICE);
    let taken = sample(wanted.duration).and_then(|report| render(&report, wanted.format));
    give_memory_back();
    match taken {
        Ok(response) => response,
        Err(error) => failed(500, &format!("Could not enable CPU profiling: {error}")),
    }
}

/// Frees the symbol tables that were read to name functions, and returns the allocator's free memory to the system.
fn give_memory_back() {
    backtrace::clear_symbol_cache();
    #[cfg(target_env = "gnu")]
    // SAFETY: any argument is valid; the call locks each arena itself and touches only free memory.
    unsafe {
        libc::malloc_trim(0)
    };
}

fn sample(duration: Duration) -> io::Result<Report> {
    let profiler = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HZ)
        .blocklist(&NOT_WALKED)
        .build()
        .map_err(io::Error::other)?;
    thread::sleep(duration);
    profiler.report().frames_post_processor(tidy).build().map_err(io::Error::other)
}

/// Names functions, and removes the sampler's own functions, which would be the innermost ones of each stack.
fn tidy(frames: &mut Frames) {
    let stack = &mut frames.frames;
    stack.iter_mut().flatten().for_each(name_by_file);
    let of_sampler = |symbol: &Symbol| {
        let name = String::from_utf8_lossy(symbol.name.as_deref().unwrap_or_default());
        // Parts of mangled names (with their length) and of files.
        ["perf_signal_handler", "9backtrace", "pprof..backtrace", "backtrace-0."].iter().any(|part| name.contains(part))
    };
    let own = stack.iter().take(PROFILE_OWN_FRAMES_MAX).rposition(|frame| frame.iter().any(of_sampler));
    stack.drain(..own.map_or(0, |last| last + 1));
}

/// With line tables alone an inlined function has no path, so that all `{async_fn#0}` look the same. The file goes in
/// front, starting at the folder of its crate.
fn name_by_file(symbol: &mut Symbol) {
    let (Some(name), Some(file)) = (&symbol.name, &symbol.filename) else { return };
    // Mangled names have a path.
    if name.starts_with(b"_") && !name.starts_with(b"__rust") {
        return;
    }
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    let from =
        parts.iter().rposition(|part| part == "src").map_or(parts.len().saturating_sub(2), |src| src.saturating_sub(1));
    symbol.name = Some(format!("{}: {}", parts[from..].join("/"), String::from_utf8_lossy(name)).into_bytes());
}

fn render(report: &Report, format: ProfileFormat) -> io::Result<AdminResponse> {
    match format {
        ProfileFormat::Pprof => download("profile", &report.pprof().map_err(io::Error::other)?),
        ProfileFormat::Svg => {
            let mut image = Vec::new();
            if report.data.is_empty() {
                image.extend(IDLE_SVG.as_bytes());
            } else {
                report.flamegraph(&mut image).map_err(io::Error::other)?;
            }
            Ok(not_sniffed(response(200, "image/svg+xml", image)))
        }
    }
}

/// The flame graph of a process that used no CPU.
const IDLE_SVG: &str = "<?xml version=\"1.0\" standalone=\"no\"?>\n\
    <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"400\" height=\"40\">\
    <text x=\"10\" y=\"25\">no samples: the process used no CPU</text></svg>\n";

#[cfg(test)]
mod tests {
    use super::super::super::golden_test::state;
    use super::*;

    #[test]
    fn functions_without_a_path_are_named_by_their_file() {
        let named = |name: &str, file: Option<&str>| {
            let name = Some(name.as_bytes().to_vec());
            let mut symbol = Symbol { name, addr: None, lineno: None, filename: file.map(Into::into) };
            name_by_file(&mut symbol);
            String::from_utf8(symbol.name.unwrap()).unwrap()
        };
        for (name, file, want) in [
            ("{async_fn#0}", Some("/r/fluxgate/dataplane/src/conn.rs"), "dataplane/src/conn.rs: {async_fn#0}"),
            ("run", Some("/r/src/index-1/glommio-0.9.0/src/sys/uring.rs"), "glommio-0.9.0/src/sys/uring.rs: run"),
            ("clone3", None, "clone3"),
            ("main", Some("a/b/c.rs"), "b/c.rs: main"),
            ("main", Some("c.rs"), "c.rs: main"),
            ("_ZN3std2io4readE", Some("/s/src/io.rs"), "_ZN3std2io4readE"),
        ] {
            assert_eq!(named(name, file), want);
        }
    }

    #[test]
    fn seconds_are_bounded_and_default_as_in_go() {
        let wanted = |query: &str| match super::super::tests::ask(&state("open"), "/debug/pprof/profile", query) {
            Action::Profile(wanted) => Ok((wanted.duration.as_secs(), wanted.format)),
            Action::Answer(response) => Err((response.status, String::from_utf8(response.body.to_vec()).unwrap())),
            _ => panic!("{query}"),
        };
        for (query, want) in [
            ("", (30, ProfileFormat::Pprof)),
            ("seconds=2", (2, ProfileFormat::Pprof)),
            ("seconds=0", (30, ProfileFormat::Pprof)),
            ("seconds=-1", (30, ProfileFormat::Pprof)),
            ("seconds=x&format=svg", (30, ProfileFormat::Svg)),
            ("seconds=300&format=pprof", (300, ProfileFormat::Pprof)),
        ] {
            assert_eq!(wanted(query), Ok(want), "{query}");
        }
        assert_eq!(wanted("seconds=301"), Err((400, "seconds must be at most 300\n".to_owned())));
        assert_eq!(wanted("format=png"), Err((400, "format must be pprof or svg\n".to_owned())));
    }
}
