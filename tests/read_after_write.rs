//! Promise: a query sees what this proxy acknowledged before it began, or its answer says that it may not, and it waits
//! no longer than `read_wait` for that.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::http1::{Request, RequestState};
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::Value;

const STALE: &str = "X-Fluxgate-Stale";

/// Far more than one query waits for a backend, far less than an answer that waits for `write_timeout`.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Two circles, of two servers and of one, with the database `db`.
fn circles() -> Vec<Vec<Influxd>> {
    let circles: Vec<_> = [2, 1].map(|count| (0..count).map(|_| Influxd::start().unwrap()).collect()).into();
    circles.iter().flatten().for_each(|server: &Influxd| server.create_database("db").unwrap());
    circles
}

fn start(circles: &[Vec<Influxd>], workers: usize) -> ProxyConfig {
    let urls: Vec<Vec<String>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
    ProxyConfig::new(&urls).set("workers", workers)
}

/// Writes over a connection of its own, so that the worker changes.
fn write(proxy: &Proxy, lines: &str) {
    let reply = Client::connect(proxy.addr()).unwrap().write("db", lines).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

/// Asks over a connection of its own.
fn ask(proxy: &Proxy, q: &str) -> (Reply, Value) {
    let target = format!("/query?db=db&epoch=ns&q={}", q.replace(' ', "+").replace('"', "%22"));
    let reply = Client::connect(proxy.addr()).unwrap().get(&target).unwrap();
    assert_eq!(reply.status, 200, "{q}: {}", reply.text());
    let answer = serde_json::from_str(&reply.text()).unwrap();
    (reply, answer)
}

/// The sum of the second column of all rows of all series.
fn sum(answer: &Value) -> u64 {
    let series = answer["results"][0]["series"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = series.iter().flat_map(|series| series["values"].as_array().unwrap());
    rows.map(|row| row[1].as_u64().unwrap()).sum()
}

/// Ways to ask for one measurement, for all of them, and in groups. Each one counts the points.
const ALL: [&str; 3] = [
    "SELECT count(n) FROM /m.*/",
    "SELECT count(n) FROM m0,m1,m2,m3,m4 GROUP BY host",
    "SELECT count(n) FROM (SELECT n FROM /m.*/)",
];

/// Writes a point of each of five measurements and asks at once, again and again. Returns how many answers lacked some.
fn rounds(proxy: &Proxy, rounds: u64) -> u64 {
    let mut lacking = 0;
    for round in 1..=rounds {
        let lines: String = (0..5).map(|m| format!("m{m},host=h{} n={round}i {round}\n", round % 3)).collect();
        write(proxy, &lines);
        let (reply, one) = ask(proxy, &format!("SELECT count(n) FROM m{}", round % 5));
        let (merged, all) = ask(proxy, ALL[round as usize % ALL.len()]);
        assert_eq!((reply.header(STALE), merged.header(STALE)), (None, None), "{round}");
        lacking += u64::from(sum(&one) < round) + u64::from(sum(&all) < 5 * round);
    }
    lacking
}

#[test]
fn a_query_sees_what_was_acknowledged_before_it() {
    for workers in [1, 3] {
        let circles = circles();
        let proxy = support::start(&start(&circles, workers).set("read_wait", 20_000));
        assert_eq!(rounds(&proxy, 100), 0, "{workers} workers\n{}", proxy.stderr());
    }
}

#[test]
fn a_query_can_be_told_not_to_wait() {
    let circles = circles();
    let proxy = support::start(&start(&circles, 2).set("read_your_writes", false));
    assert!(rounds(&proxy, 100) > 0, "a server had each point before the next request");
}

#[test]
fn many_writers_each_see_their_own() {
    let circles = circles();
    let proxy = support::start(&start(&circles, 3).set("read_wait", 20_000));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let proxy = &proxy;
            scope.spawn(move || {
                for round in 1..=40 {
                    write(proxy, &format!("w{writer} n={round}i {round}\nm{} n=1i {writer}\n", round % 5));
                    let (reply, answer) = ask(proxy, &format!("SELECT count(n) FROM w{writer}"));
                    assert_eq!((sum(&answer), reply.header(STALE)), (round, None), "{writer}");
                    let (reply, answer) = ask(proxy, &format!("SELECT count(n) FROM /^w{writer}$/"));
                    assert_eq!((sum(&answer), reply.header(STALE)), (round, None), "{writer}, merged");
                }
            });
        }
    });
}

#[test]
fn with_a_server_down_or_frozen_the_other_circle_answers_at_once() {
    for freeze in [false, true] {
        let mut circles = circles();
        // No probe tells that a server is gone.
        let config = start(&circles, 2).set("read_wait", 1_000).set("check_interval", 3600);
        let proxy = support::start(&config);
        assert_eq!(rounds(&proxy, 1), 0);
        proxy.drained(Duration::from_secs(20)).unwrap();
        if freeze {
            circles[1][0].freeze().unwrap()
        } else {
            circles[1][0].kill()
        }
        for round in 2..=30 {
            let lines: String = (0..5).map(|m| format!("m{m},host=h n={round}i {round}\n")).collect();
            write(&proxy, &lines);
            for (q, want) in [("SELECT count(n) FROM m1", round), (ALL[round as usize % 3], 5 * round)] {
                let asked = Instant::now();
                let (reply, answer) = ask(&proxy, q);
                assert_eq!(
                    (sum(&answer), reply.header(STALE)),
                    (want, None),
                    "frozen: {freeze}, {round}: {q} {}",
                    proxy.stderr()
                );
                assert!(asked.elapsed() < AT_ONCE, "frozen: {freeze}, {round}: {q}: {:?}", asked.elapsed());
            }
        }
    }
}

#[test]
fn while_writes_hang_the_answer_says_so_and_other_databases_are_answered() {
    let server = Influxd::start().unwrap();
    ["db", "other"].iter().for_each(|db| server.create_database(db).unwrap());
    let gate = Gate::before(server.addr());
    let proxy = support::start(&ProxyConfig::new(&[vec![gate.url()]]).set("workers", 2).set("write_timeout", 60));
    write(&proxy, "m n=1i 1\n");
    assert_eq!(sum(&ask(&proxy, "SELECT count(n) FROM m").1), 1);
    gate.close(true);
    write(&proxy, "m n=1i 2\n");
    let stale = |q: &str| {
        let (reply, answer) = ask(&proxy, q);
        (reply.header(STALE).is_some(), sum(&answer))
    };
    assert_eq!(stale("SELECT count(n) FROM m"), (true, 1), "nothing else could be answered");
    assert_eq!(stale("SELECT count(n) FROM /m/"), (true, 1));
    let other = Client::connect(proxy.addr()).unwrap().get("/query?db=other&q=SELECT+count(n)+FROM+m").unwrap();
    assert_eq!((other.status, other.header(STALE)), (200, None), "nothing waits for it there");
    // It is known by now, so that a query no longer waits: twenty of them would take 5 s otherwise.
    std::thread::sleep(Duration::from_millis(400));
    let asked = Instant::now();
    (0..20).for_each(|_| assert_eq!(stale("SELECT count(n) FROM m"), (true, 1)));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    gate.close(false);
    let all_there = || stale("SELECT count(n) FROM m") == (false, 2);
    assert!(eventually(Duration::from_secs(20), all_there), "{}", proxy.stderr());
}

/// What a backend that refuses `held` says.
const NO_RIGHT: &str = "user is not authorized to write to database held";

/// Points of `held` are parked at the first backend.
fn park(proxy: &Proxy) {
    let reply = Client::connect(proxy.addr()).unwrap().write("held", "m n=1i 1\n").unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert!(eventually(Duration::from_secs(20), || !parked(proxy).is_empty()), "{}", proxy.stderr());
    // A backend is avoided when points have waited for a second.
    std::thread::sleep(Duration::from_millis(1500));
}

/// What `/health` says of the first backend: each database, and why its points are parked.
fn parked(proxy: &Proxy) -> Vec<(String, String)> {
    let health: Value =
        serde_json::from_str(&Client::connect(proxy.addr()).unwrap().get("/health").unwrap().text()).unwrap();
    let parked = health[0]["backends"][0]["parked"].as_array().cloned().unwrap_or_default();
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    parked.iter().map(|of| (text(of, "database"), text(of, "why"))).collect()
}

/// The number of points of `m`, and whether the answer may lack some. `read_wait` is long, so a test must not wait.
fn count(proxy: &Proxy, db: &str) -> (u64, bool) {
    let asked = Instant::now();
    let target = format!("/query?db={db}&q=SELECT+count(n)+FROM+m");
    let reply = Client::connect(proxy.addr()).unwrap().get(&target).unwrap();
    assert!(reply.status == 200 && asked.elapsed() < AT_ONCE, "{db}: {:?} {}", asked.elapsed(), reply.text());
    (sum(&serde_json::from_str(&reply.text()).unwrap()), reply.header(STALE).is_some())
}

#[test]
fn points_that_a_backend_does_not_take_do_not_concern_queries_of_other_databases() {
    for (workers, circle_count) in [(1, 1), (2, 2)] {
        let servers: Vec<_> = (0..circle_count).map(|_| Influxd::start().unwrap()).collect();
        servers.iter().for_each(|server| ["db", "held"].iter().for_each(|db| server.create_database(db).unwrap()));
        let gate = Gate::before(servers[0].addr());
        gate.refuse(true);
        let mut urls = vec![vec![gate.url()]];
        urls.extend(servers[1..].iter().map(|server| vec![server.url()]));
        let config = ProxyConfig::new(&urls).set("workers", workers).set("read_wait", 20_000);
        let mut proxy = support::start(&config);
        park(&proxy);
        // Only the first server has it, so an answer shows who was asked.
        assert_eq!(Client::connect(servers[0].addr()).unwrap().write("db", "m n=1i 1000\n").unwrap().status, 204);
        for start in 0..2 {
            for round in 1..=10 {
                let written = start * 10 + round;
                write(&proxy, &format!("m n=1i {written}\n"));
                let (points, is_stale) = count(&proxy, "db");
                assert!(points >= written && !is_stale, "{points} of {written}\n{}", proxy.stderr());
            }
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(count(&proxy, "db"), (start * 10 + 11, false), "the first server\n{}", proxy.stderr());
            let others = u64::from(circle_count == 2);
            assert_eq!(count(&proxy, "held"), (others, circle_count == 1), "it waits for nothing");
            assert_eq!(parked(&proxy), [("held".to_owned(), NO_RIGHT.to_owned())], "{}", proxy.stderr());
            // What is settled is saved within a second.
            std::thread::sleep(Duration::from_millis(2_500));
            proxy.signal(rustix::process::Signal::KILL).unwrap();
            proxy.restart().unwrap();
            assert!(eventually(AT_ONCE, || parked(&proxy).iter().any(|(_, why)| *why == NO_RIGHT)), "known again");
        }
        gate.refuse(false);
        let all_there = || parked(&proxy).is_empty() && count(&proxy, "held") == (1, false);
        assert!(eventually(Duration::from_secs(20), all_there), "{:?}\n{}", parked(&proxy), proxy.stderr());
    }
}

/// A statement that writes says what became of its points when a backend takes too long.
#[test]
fn points_of_a_statement_that_takes_too_long_are_safe_and_arrive() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let gate = Gate::before(servers[0].addr());
    let config = ProxyConfig::new(&[vec![gate.url()], vec![servers[1].url()]]).set("query_timeout", 3);
    let proxy = support::start(&config);
    write(&proxy, "m n=1i 1\nm n=2i 2\n");
    assert!(eventually(Duration::from_secs(20), || sum(&ask(&proxy, "SELECT count(n) FROM m").1) == 2));
    gate.close(true);
    let (_, answer) = ask(&proxy, "SELECT n INTO copy FROM m");
    let text = answer["results"][0]["error"].as_str().unwrap_or_default();
    assert!(text.contains("points are safe and will be delivered"), "{answer}\n{}", proxy.stderr());
    gate.close(false);
    let arrived = |server: &Influxd| {
        let answer = fluxgate::lab::influxd::query(&server.url(), "db", "SELECT count(n) FROM copy").unwrap();
        sum(&answer) == 2
    };
    assert!(eventually(Duration::from_secs(20), || servers.iter().all(arrived)), "{}", proxy.stderr());
}

/// Passes everything on to a server, but for writes while it is closed, or to `held` while it refuses these.
struct Gate {
    addr: SocketAddr,
    closed: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
}

impl Gate {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let [closed, refuses] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let shared = (closed.clone(), refuses.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (closed, refuses) = shared.clone();
                std::thread::spawn(move || pass(client, server, &closed, &refuses));
            }
        });
        Self { addr, closed, refuses }
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, SeqCst);
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn close(&self, closed: bool) {
        self.closed.store(closed, SeqCst);
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, closed: &AtomicBool, refuses: &AtomicBool) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || io::copy(&mut answers, &mut back));
    let (mut buffer, mut block) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let Ok(RequestState::Whole(request)) = Request::parse(&buffer) else {
            match client.read(&mut block)? {
                0 => return server.shutdown(std::net::Shutdown::Both),
                n => buffer.extend_from_slice(&block[..n]),
            }
            continue;
        };
        while request.path() == "/write" && closed.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let len = request.len;
        if request.path() == "/write" && request.target.contains("db=held") && refuses.load(SeqCst) {
            let body = format!("{{\"error\":\"{NO_RIGHT}\"}}\n");
            write!(
                client,
                "HTTP/1.1 403 Forbidden\r\nX-Influxdb-Version: 1.6.7\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        } else {
            server.write_all(&buffer[..len])?;
        }
        buffer.drain(..len);
    }
}
