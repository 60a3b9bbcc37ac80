//! Promise: profiles of a proxy that is being written to open in `go tool pprof` and in a browser, name its workers and
//! their functions, and cost no write.

mod support;

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::load::{self, LoadArgs, Summary};
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::StandIn;
use pprof::protos::{Message, Profile};

fn started(backend: &StandIn, keys: &[(&str, &str)]) -> Proxy {
    // One worker, so that it has samples in a short profile.
    let config = ProxyConfig::new(&[vec![backend.url()]]).set("workers", 1);
    support::start(&config.set_all(keys.iter().map(|(key, value)| (*key, (*value).into()))))
}

/// A GET; `target` is all of the request target.
fn get(proxy: &Proxy, target: &str) -> Reply {
    Client::connect(proxy.addr()).unwrap().get(target).unwrap()
}

fn decoded(reply: &Reply) -> Profile {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut bytes).unwrap();
    Profile::decode(&bytes[..]).unwrap()
}

/// Each sample's thread (its label) and functions, innermost first.
fn samples(profile: &Profile) -> Vec<(String, Vec<String>)> {
    let text = |index: i64| profile.string_table[index as usize].clone();
    let function = |id: u64| {
        let location = profile.location.iter().find(|location| location.id == id).expect("a location");
        let id = location.line[0].function_id;
        text(profile.function.iter().find(|function| function.id == id).expect("a function").name)
    };
    let sample = |sample: &pprof::protos::Sample| {
        let thread = sample.label.iter().find(|label| text(label.key) == "thread").map(|label| text(label.str));
        (thread.unwrap_or_default(), sample.location_id.iter().map(|&id| function(id)).collect())
    };
    profile.sample.iter().map(sample).collect()
}

/// Writes until `meanwhile` is done.
fn writing<T>(proxy: &Proxy, meanwhile: impl FnOnce() -> T) -> (Summary, T) {
    let args = LoadArgs { connections: 4, lines: 20, seconds: Some(120.0), ..LoadArgs::new(&proxy.url(), "db") };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| load::run(&args, &stop, &mut |_| {}).unwrap());
        let done = meanwhile();
        stop.store(true, Relaxed);
        (load.join().unwrap(), done)
    })
}

#[test]
fn profiles_under_load_name_workers_and_cost_no_write() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = started(&backend, &[]);
    let (summary, (profile, svg, second)) = writing(&proxy, || {
        let profile = thread::scope(|scope| {
            let first = scope.spawn(|| get(&proxy, "/debug/pprof/profile?seconds=3"));
            // While a profile is taken, a second one is refused, and all other requests are answered.
            thread::sleep(Duration::from_secs(1));
            let second = get(&proxy, "/debug/pprof/profile?seconds=1");
            assert_eq!(get(&proxy, "/debug/pprof/goroutine?debug=1").status, 200);
            (first.join().unwrap(), second)
        });
        let svg = get(&proxy, "/debug/pprof/profile?seconds=2&format=svg");
        (profile.0, svg, profile.1)
    });

    let refused = "Could not enable CPU profiling: cpu profiling already in use\n";
    assert_eq!((second.status, second.text().as_str()), (500, refused));

    assert_eq!(profile.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(profile.header("Content-Disposition"), Some("attachment; filename=\"profile\""));
    let profile = decoded(&profile);
    assert!(profile.duration_nanos >= 3_000_000_000, "{}", profile.duration_nanos);
    assert!(profile.sample.iter().all(|sample| sample.value.len() == profile.sample_type.len()));
    assert_eq!(profile.string_table[0], "");
    let samples = samples(&profile);
    let at_work = |(thread, stack): &&(String, Vec<String>)| {
        thread.starts_with("worker-0")
            && stack
                .iter()
                .any(|function| function.contains("dataplane/src/") || function.contains("fluxgate_dataplane::"))
    };
    // On a busy disk the worker waits more than it uses the CPU: there may be few.
    assert!(samples.iter().any(|sample| at_work(&sample)), "{samples:?}");

    let sampler = |(_, stack): &&(String, Vec<String>)| {
        // The endpoint's own code, `debug_pprof::`, may be seen.
        let own = |function: &str| function.replace("debug_pprof::", "").contains("pprof::");
        stack.iter().any(|function| function.contains("backtrace::trace") || own(function))
    };
    assert_eq!(samples.iter().find(sampler), None, "the sampler sees itself");

    assert_eq!((svg.status, svg.header("Content-Type")), (200, Some("image/svg+xml")), "{}", svg.text());
    let svg = svg.text();
    assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("worker-0"), "{svg}");

    assert!(summary.succeeded() && summary.counts.acked_points > 0, "{summary}");
    let ledger = proxy.drained(Duration::from_secs(30)).unwrap();
    assert!(ledger.proven_balanced() && ledger.totals.delivered == summary.counts.acked_points, "{ledger:?}");
    assert_eq!(backend.points("db"), summary.counts.acked_points);
    let told = proxy.stderr();
    assert!(!told.contains("panicked") && !told.contains(" down"), "{told}");
}

#[test]
fn a_client_that_goes_away_harms_nobody() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = started(&backend, &[]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    client.send(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // It has begun when a second one is refused.
    assert!(eventually(Duration::from_secs(10), || get(&proxy, "/debug/pprof/profile?seconds=1").status == 500));
    drop(client);
    // The next profile is possible as soon as the abandoned one has ended.
    let mut last = None;
    assert!(eventually(Duration::from_secs(60), || {
        last = Some(get(&proxy, "/debug/pprof/profile?seconds=1"));
        last.as_ref().unwrap().status == 200
    }));
    decoded(&last.unwrap());
    let write = Client::connect(proxy.addr()).unwrap().write("db", "m v=1 1\n").unwrap();
    assert_eq!(write.status, 204, "{}", write.text());
}

#[test]
fn the_user_is_wanted_and_the_command_line_and_threads_are_told() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = started(&backend, &[("username", "admin"), ("password", "secret")]);
    for path in ["", "/", "/profile?seconds=1", "/heap", "/cmdline", "/goroutine"] {
        assert_eq!(get(&proxy, &format!("/debug/pprof{path}")).status, 401, "{path}");
    }
    let told = |path: &str| {
        let reply = get(&proxy, &format!("/debug/pprof/{path}u=admin&p=secret"));
        assert_eq!(reply.status, 200, "{path}");
        reply
    };
    assert!(told("?").text().contains("href=\"profile?seconds=30\""));
    let config = proxy.config_file().display().to_string();
    assert!(told("cmdline?").text().ends_with(&format!("fluxgate\0--config\0{config}")));
    let threads = told("goroutine?debug=2&").text();
    for name in ["worker-0", "control", "probe-0", "signals"] {
        assert!(threads.contains(&format!("  {name}")), "{name}: {threads}");
    }
    let listed = samples(&decoded(&told("threadcreate?")));
    assert!(
        listed.iter().any(|(_, stack)| stack.last().is_some_and(|name| name.starts_with("worker-0"))),
        "{listed:?}"
    );
    assert!(told("heap?debug=1&").text().contains("resident"));
    let parts: Vec<_> = samples(&decoded(&told("heap?"))).into_iter().flat_map(|(_, stack)| stack).collect();
    assert_eq!(parts, ["hot_tails", "bodies", "query_answers", "other"]);
}

#[test]
fn it_is_off_where_the_newer_generation_has_it_off() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = started(&backend, &[("shard_key", "%db,%mm")]);
    for path in ["", "/", "/profile?seconds=1", "/heap"] {
        assert_eq!(get(&proxy, &format!("/debug/pprof{path}")).status, 404, "{path}");
    }
}
