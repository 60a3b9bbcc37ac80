//! `GET /debug/pprof/...`: profiles of CPU, memory and threads, in the forms of Go's `net/http/pprof`, so that `go tool
//! pprof` and other tools for these profiles open them.
//!
//! Differences from influx-proxy: the user is required when one is configured; `cmdline` exists (2.4.7 answers 404);
//! profiles that exist only in Go (`allocs`, `block`, `mutex`, `trace`, `symbol`) are unknown. When off
//! (`pprof_enabled`), all paths answer 404.

pub mod cpu;
pub mod heap;
mod stacks;
mod threads;

use std::fs;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use fluxgate_dataplane::handoff::AdminResponse;
use pprof::protos::{Message, Profile};

use super::params::UrlParams;
use super::{Action, AdminCall, AdminState, Decide, response, text};

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The endpoint of a path below `/debug/pprof`.
pub fn endpoint(path: &str) -> Option<Decide> {
    if path == "/debug/pprof" {
        return Some(moved);
    }
    Some(match path.strip_prefix("/debug/pprof/")? {
        "" => index,
        "cmdline" => cmdline,
        "profile" => cpu::decide,
        "heap" => heap::decide,
        // In Go these two differ; here every thread is a system thread.
        "goroutine" | "threadcreate" => threads::decide,
        _ => unknown,
    })
}

/// The answer to a second profile while one is running, with Go's text.
pub fn busy() -> AdminResponse {
    failed(500, "Could not enable CPU profiling: cpu profiling already in use")
}

/// The answer when there is no profile, with the reason.
pub fn failed(status: u16, why: &str) -> AdminResponse {
    let mut response = not_sniffed(text(status, why));
    response.headers.push(("X-Go-Pprof".to_owned(), "1".to_owned()));
    response
}

fn moved(_: &AdminState, _: &AdminCall<'_>) -> Action {
    let mut response = response(301, HTML, b"<a href=\"/debug/pprof/\">Moved Permanently</a>.\n\n".to_vec());
    response.headers.push(("Location".to_owned(), "/debug/pprof/".to_owned()));
    Action::Answer(response)
}

fn index(_: &AdminState, _: &AdminCall<'_>) -> Action {
    Action::Answer(not_sniffed(response(200, HTML, include_bytes!("index.html").to_vec())))
}

/// The arguments of the process, separated by zero bytes.
fn cmdline(_: &AdminState, _: &AdminCall<'_>) -> Action {
    let answer = fs::read("/proc/self/cmdline").map(|mut arguments| {
        arguments.pop_if(|last| *last == 0);
        not_sniffed(response(200, PLAIN, arguments))
    });
    Action::Answer(or_failed(answer))
}

fn unknown(_: &AdminState, _: &AdminCall<'_>) -> Action {
    Action::Answer(failed(404, "Unknown profile"))
}

/// Whether the client wants text instead of protobuf: `debug=1`, or any other number except 0.
fn wants_text(params: UrlParams<'_>) -> bool {
    let value = params.value("debug");
    std::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok()).is_some_and(|level| level != 0)
}

/// A profile as a file for `go tool pprof`: protobuf, gzip.
fn download(name: &str, profile: &Profile) -> io::Result<AdminResponse> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&profile.encode_to_vec())?;
    let mut response = response(200, "application/octet-stream", packed.finish()?);
    response.headers.push(("Content-Disposition".to_owned(), format!("attachment; filename=\"{name}\"")));
    Ok(not_sniffed(response))
}

fn or_failed(answer: io::Result<AdminResponse>) -> AdminResponse {
    answer.unwrap_or_else(|error| failed(500, &format!("cannot read /proc: {error}")))
}

fn not_sniffed(mut response: AdminResponse) -> AdminResponse {
    response.headers.push(("X-Content-Type-Options".to_owned(), "nosniff".to_owned()));
    response
}

#[cfg(test)]
pub mod tests {
    use super::super::golden_test::state;
    use super::*;
    use fluxgate_dataplane::handoff::AdminRequest;

    pub fn ask(state: &AdminState, path: &str, query: &str) -> Action {
        let request = AdminRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            ..Default::default()
        };
        super::super::decide(state, &request)
    }

    fn answer(path: &str, query: &str) -> (u16, String) {
        let Action::Answer(response) = ask(&state("open"), path, query) else { panic!("{path}?{query}: no answer") };
        (response.status, String::from_utf8_lossy(&response.body).into_owned())
    }

    #[test]
    fn every_link_of_the_index_leads_somewhere() {
        let (status, page) = answer("/debug/pprof/", "");
        assert_eq!(status, 200);
        let links: Vec<_> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(links.len() >= 6, "{links:?}");
        for link in links {
            let (path, query) = link.split_once('?').unwrap_or((link, ""));
            let known = match ask(&state("open"), &format!("/debug/pprof/{path}"), query) {
                Action::Answer(response) => response.status == 200,
                Action::Profile(_) | Action::Heap(_) => true,
                _ => false,
            };
            assert!(known, "{link}");
        }
    }

    #[test]
    fn every_path_is_404_when_pprof_is_off() {
        let off = AdminState { pprof_enabled: false, ..state("open") };
        for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/profile", "/debug/pprof/heap", "/debug/pprof/x"] {
            let Action::Answer(response) = ask(&off, path, "") else { panic!("{path} is answered") };
            assert_eq!((response.status, &response.body[..]), (404, &b"404 page not found\n"[..]), "{path}");
        }
    }

    #[test]
    fn every_path_requires_the_user() {
        let paths = ["", "/", "/profile", "/heap", "/cmdline", "/goroutine", "/threadcreate", "/mutex"];
        for path in paths.map(|path| format!("/debug/pprof{path}")) {
            let Action::Answer(response) = ask(&state("auth"), &path, "u=admin") else { panic!("{path} is answered") };
            assert_eq!(response.status, 401, "{path}");
        }
    }

    #[test]
    fn cmdline_shows_the_arguments_of_this_process() {
        let (status, text) = answer("/debug/pprof/cmdline", "");
        let arguments: Vec<_> = std::env::args().collect();
        assert_eq!((status, text), (200, arguments.join("\0")));
    }

    #[test]
    fn profiles_only_go_has_are_unknown() {
        for name in ["allocs", "block", "mutex", "trace", "symbol", "profile/", "nope"] {
            assert_eq!(answer(&format!("/debug/pprof/{name}"), ""), (404, "Unknown profile\n".to_owned()), "{name}");
        }
    }
}
