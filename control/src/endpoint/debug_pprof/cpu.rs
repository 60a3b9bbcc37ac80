//! `GET /debug/pprof/profile?seconds=&format=`: where the CPU time of all threads goes.
//!
//! The kernel's profiling timer (ITIMER_PROF) sends SIGPROF to whichever thread has used the CPU; the handler of the
//! `pprof` crate walks that thread's stack. Nothing of it runs, and no handler is installed, while no profile is taken.
//!
//! - The handler takes its one lock only if it is free, and allocates nothing. It unwinds with libgcc, which since
//!   glibc 2.35 and GCC 12 finds tables without a lock; samples inside libgcc itself (a panic that unwinds) and inside
//!   the vDSO (whose tables are wrong on some systems) are left out.
//! - System calls go on: SIGPROF is installed with SA_RESTART, glommio takes EINTR of a waiting ring as a reason to
//!   look again, and kernel threads of a ring do not take signals.
//! - What kernel threads of the rings (`iou-wrk-*`) use is charged to a thread that is not at work at the time.
//! - The crate's table of stacks is some 65 MiB resident, is made anew after each profile before the old one goes, and
//!   stays. Everything else goes back to the system at the end (`give_memory_back`): of the 265 MiB a release build
//!   takes, 70 stay; of a debug build's 240, all stayed without it and 79 do with it. The table has a temporary file
//!   too; without a folder for it (TMPDIR) there is no profile, and the answer says so.

use std::io;
use std::thread;
use std::time::Duration;

use fluxgate_dataplane::handoff::AdminResponse;
use fluxgate_dataplane::limits::PROFILE_MAX;
use pprof::{Frames, ProfilerGuardBuilder, Report, Symbol};

use super::{Action, AdminCall, AdminState, download, failed, not_sniffed, response};
use crate::limits::{PROFILE_OWN_FRAMES_MAX, PROFILE_SECONDS_DEFAULT};

/// Samples per second of CPU time. Not 100: in step with timers it would see the same moment of each.
const FREQUENCY_HZ: i32 = 99;
/// Libraries in which no stack is walked.
const NOT_WALKED: [&str; 2] = ["libgcc", "vdso"];
/// A low priority: turning addresses into names must not take the CPU from workers. A tenth of their share; with the
/// lowest one, a hundredth, a profile of 33 s on a busy machine was answered after 65 s.
const NICE: i32 = 10;

/// A profile that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub duration: Duration,
    pub format: ProfileFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFormat {
    /// Protobuf, gzip: what Go gives.
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

/// Takes a profile: blocks for its duration, on a thread of its own, and lowers that thread's priority for good. There
/// must be no other one at the time.
pub fn take(wanted: Wanted) -> AdminResponse {
    // A kernel that refuses costs workers some CPU after the profile, no more.
    let _ = rustix::process::setpriority_process(None, NICE);
    let taken = sample(wanted.duration).and_then(|report| render(&report, wanted.format));
    give_memory_back();
    match taken {
        Ok(response) => response,
        Err(error) => failed(500, &format!("Could not enable CPU profiling: {error}")),
    }
}

/// Drops the symbol tables that naming functions has read, and hands what the allocator has kept of them and of the old
/// table of stacks back to the system.
fn give_memory_back() {
    backtrace::clear_symbol_cache();
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number, locks each arena itself while it looks at it, and touches only what is free.
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

/// Names functions, and takes the sampler's own away: the innermost ones, which would be first in every list.
fn tidy(frames: &mut Frames) {
    let stack = &mut frames.frames;
    stack.iter_mut().flatten().for_each(name_by_file);
    let of_sampler = |symbol: &Symbol| {
        let name = String::from_utf8_lossy(symbol.name.as_deref().unwrap_or_default());
        // As parts of mangled names (with their length) and of files.
        ["perf_signal_handler", "9backtrace", "pprof..backtrace", "backtrace-0."].iter().any(|part| name.contains(part))
    };
    let own = stack.iter().take(PROFILE_OWN_FRAMES_MAX).rposition(|frame| frame.iter().any(of_sampler));
    stack.drain(..own.map_or(0, |last| last + 1));
}

/// With line tables alone an inlined function has no path, and one `{async_fn#0}` would be the same as another: the
/// file goes in front, from the folder of its crate on.
fn name_by_file(symbol: &mut Symbol) {
    let (Some(name), Some(file)) = (&symbol.name, &symbol.filename) else { return };
    // Others are mangled, and have a path.
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

/// The flame graph of a process that did nothing.
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
