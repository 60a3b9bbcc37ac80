//! The other proxies that the configuration names in `peers`, or a request in `ha_addrs`: calls to ask them and tell
//! them about migrations.
//!
//! The calls are those of influx-proxy's own `/migrate/state`, so the other proxy may be an influx-proxy; one of 2.5
//! has `/transfer/state` instead. An influx-proxy does not say which points it holds in memory. Whether it has some in
//! its cache files 2.5 says in `/health`; that of 2.4 asks all backends for everything, so it is left alone. A proxy
//! recognises itself in the list by [`INSTANCE`], a header of its answers, because one address can be written in many
//! ways.
//!
//! Calls block, each within its timeout. Nothing is repeated here (`coordination.rs` does that).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fluxgate_dataplane::settings::Credentials;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::BackendId;
use serde::Deserialize;

use crate::influx::client;
use crate::limits;

/// Identifies the process that answers `/migrate/state`; new at each start.
pub const INSTANCE: &str = "X-Fluxgate-Instance";

/// In answers of `/migrate/state`: the backends that points wait for, by number, each with the age of the oldest point
/// in milliseconds: `0=12,3=70000`. Left out when no points wait.
pub const WAITING: &str = "X-Fluxgate-Waiting";

/// In every answer of a fluxgate.
const OWN_VERSION: &str = "X-Fluxgate-Version";

const HTTPS: &str = "https://";

/// Calls to other proxies, with this proxy's own user.
#[derive(Debug)]
pub struct Peers {
    agent: ureq::Agent,
    authorization: Option<String>,
    /// `peers` of the configuration.
    configured: Vec<String>,
    instance: String,
    /// How long another proxy is waited for that does not answer, or does not say what it holds.
    pub silence_max: Duration,
}

/// The last answer of another proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerBacklog {
    /// When it was asked (since 1970).
    pub at_ms: u64,
    /// By backend: the age of the oldest waiting point at that time. influx-proxy 2.5 says of no age, and 2.4 nothing.
    pub waiting: HashMap<usize, u64>,
    pub kind: PeerKind,
    /// Why it has not said since what waits; None = it has.
    pub silent: Option<String>,
}

/// What program another proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    Fluxgate,
    /// influx-proxy 2.4.
    Older,
    /// influx-proxy 2.5.
    Newer,
}

impl PeerKind {
    /// For how long it may hold points of which it says nothing.
    fn holds_ms(self) -> u64 {
        match self {
            Self::Fluxgate => 0,
            Self::Older | Self::Newer => limits::INFLUX_PROXY_HOLDS.as_millis() as u64,
        }
    }

    /// What an operator must know of it.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Fluxgate => None,
            Self::Older => Some(
                "is an influx-proxy 2.4, which does not say which points it holds: if it has cached points of a \
                 backend that was down, run this again when its .dat files are empty",
            ),
            Self::Newer => Some(
                "is an influx-proxy 2.5, which does not say which points it has in memory: those of the last seconds \
                 are waited for, and what it has cached",
            ),
        }
    }
}

/// The answer of another proxy that was told of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTold {
    /// As in [`PeerBacklog`]; [`Peers::cached`] asks an influx-proxy 2.5 for it.
    pub waiting: HashMap<usize, u64>,
    pub kind: PeerKind,
}

impl PeerBacklog {
    /// Whether points that it accepted before `ms` may still wait for `backend`. Ages are compared, not times: clocks
    /// differ.
    pub fn is_behind(&self, backend: BackendId, ms: u64) -> bool {
        let oldest = |age: &u64| self.at_ms.saturating_sub(*age) <= ms;
        self.at_ms < ms || self.waiting.get(&backend.index()).is_some_and(oldest)
    }

    /// The same, for points of which an influx-proxy says nothing as well.
    pub fn may_be_behind(&self, backend: BackendId, ms: u64) -> bool {
        self.at_ms < ms.saturating_add(self.kind.holds_ms()) || self.is_behind(backend, ms)
    }

    /// It does not say what waits, but may do so again.
    pub fn is_awaited(&self, now_ms: u64, silence_max: Duration) -> bool {
        self.silent.is_some() && self.age_ms(now_ms) < silence_max.as_millis()
    }

    /// It has not said for so long what waits that it is not waited for any more.
    pub fn is_gone(&self, now_ms: u64, silence_max: Duration) -> bool {
        self.silent.is_some() && self.age_ms(now_ms) >= silence_max.as_millis()
    }

    fn age_ms(&self, now_ms: u64) -> u128 {
        u128::from(now_ms.saturating_sub(self.at_ms))
    }
}

/// The value of [`WAITING`] at time `now_ms`.
pub fn waiting(stats: &Stats, now_ms: u64) -> String {
    let oldest = stats.couriers.iter().map(|courier| courier.oldest_ms.load(Relaxed)).enumerate();
    // A courier that does not know yet has 0, which counts as waiting for long.
    let waits = oldest.filter(|(_, at)| *at != u64::MAX);
    waits.map(|(backend, at)| format!("{backend}={}", now_ms.saturating_sub(at))).collect::<Vec<_>>().join(",")
}

fn read_waiting(text: &str) -> HashMap<usize, u64> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(backend, age)| Some((backend.parse().ok()?, age.parse().ok()?)))
        .collect()
}

/// The state of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAnswer {
    /// It is this process.
    ThisProxy,
    State {
        /// By circle.
        migrating: Vec<bool>,
        resyncing: bool,
    },
    /// It answers, but not with a state.
    NotAProxy,
}

#[derive(Deserialize)]
struct PeerState {
    circles: Vec<PeerCircle>,
    is_resyncing: bool,
}

#[derive(Deserialize)]
struct PeerCircle {
    circle_id: usize,
    is_migrating: bool,
}

/// The same in the words of influx-proxy 2.5.
#[derive(Deserialize)]
struct NewerState {
    circles: Vec<NewerCircle>,
    resyncing: bool,
}

#[derive(Deserialize)]
struct NewerCircle {
    id: usize,
    transferring: bool,
}

/// What influx-proxy 2.5 says of its cache files.
#[derive(Deserialize)]
struct NewerHealth {
    circles: Vec<NewerCircleHealth>,
}

#[derive(Deserialize)]
struct NewerCircleHealth {
    backends: Vec<NewerBackendHealth>,
}

#[derive(Deserialize)]
struct NewerBackendHealth {
    backlog: bool,
    rewriting: bool,
}

/// Reads a state in either words.
fn read_state(body: &[u8]) -> Option<(Vec<(usize, bool)>, bool)> {
    if let Ok(PeerState { circles, is_resyncing }) = serde_json::from_slice(body) {
        return Some((circles.iter().map(|circle| (circle.circle_id, circle.is_migrating)).collect(), is_resyncing));
    }
    let NewerState { circles, resyncing } = serde_json::from_slice(body).ok()?;
    Some((circles.iter().map(|circle| (circle.id, circle.transferring)).collect(), resyncing))
}

/// A change that is told to other proxies, with influx-proxy's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerChange {
    /// `moved`: all data is at its new place, so the other proxy ends its dual writes before it answers. influx-proxy
    /// ignores it.
    Migrating {
        circle: usize,
        migrating: bool,
        moved: bool,
    },
    Resyncing(bool),
}

impl PeerChange {
    /// The circle whose data has all been moved.
    pub fn moved(self) -> Option<usize> {
        match self {
            Self::Migrating { circle, moved: true, .. } => Some(circle),
            _ => None,
        }
    }

    fn query(self) -> String {
        match self {
            Self::Migrating { circle, migrating, moved } => {
                let moved = if moved { "&moved=true" } else { "" };
                format!("circle_id={circle}&migrating={migrating}{moved}")
            }
            Self::Resyncing(resyncing) => format!("resyncing={resyncing}"),
        }
    }

    /// In the words of influx-proxy 2.5.
    fn newer_query(self) -> String {
        match self {
            Self::Migrating { circle, migrating, .. } => format!("circle_id={circle}&transferring={migrating}"),
            Self::Resyncing(resyncing) => format!("resyncing={resyncing}"),
        }
    }
}

impl Peers {
    pub fn new(credentials: &Credentials, configured: Vec<String>, trust: &Trust) -> Self {
        let authorization = client::authorization(&credentials.username, &credentials.password);
        let config = client::plain_config().tls_config(client::tls_config(trust, true));
        let agent = config.timeout_global(Some(limits::PEER_TIMEOUT)).build().new_agent();
        // The standard library's hasher has random keys in each process.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        let instance = format!("{:016x}{:016x}", random(), random());
        Self { agent, authorization, configured, instance, silence_max: limits::PEER_SILENCE_MAX }
    }

    /// The value of [`INSTANCE`] in this process's answers.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The other proxies of the configuration.
    pub fn configured(&self) -> &[String] {
        &self.configured
    }

    /// The start of a proxy's urls, and the credentials for it. A request may name any host, so only a proxy of the
    /// configuration, or one that is reached through TLS, gets them.
    fn reach(&self, addr: &str) -> (String, Option<&String>) {
        let is_https = addr.starts_with(HTTPS);
        let url = if is_https { addr.to_owned() } else { format!("http://{addr}") };
        let is_trusted = is_https || self.configured.iter().any(|known| known == addr);
        (url, self.authorization.as_ref().filter(|_| is_trusted))
    }

    /// What a status means that is no success.
    fn refusal(&self, status: u16, with_user: bool) -> String {
        if status == 401 && !with_user && self.authorization.is_some() {
            return "answered 401: list it under peers in the configuration, so that it gets this proxy's user, or \
                    name it as https://host:port"
                .to_owned();
        }
        format!("answered {status}")
    }

    /// Asks a proxy for its state.
    ///
    /// # Errors
    /// Why there was no usable answer, for the operator.
    pub fn ask(&self, addr: &str) -> Result<PeerAnswer, String> {
        let (url, authorization) = self.reach(addr);
        let get = |path: &str| {
            let request = self.agent.get(format!("{url}{path}"));
            client::authorized(request, authorization).call().map_err(|e| e.to_string())
        };
        let mut answer = get("/migrate/state")?;
        if answer.status().as_u16() == 404 {
            answer = get("/transfer/state")?;
        }
        if answer.headers().get(INSTANCE).is_some_and(|value| value.as_bytes() == self.instance.as_bytes()) {
            return Ok(PeerAnswer::ThisProxy);
        }
        match answer.status().as_u16() {
            200..=299 => {}
            404 | 405 => return Ok(PeerAnswer::NotAProxy),
            status => return Err(self.refusal(status, authorization.is_some())),
        }
        let body = answer.body_mut().with_config().limit(limits::PEER_ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|e| e.to_string())?;
        let Some((circles, resyncing)) = read_state(&body) else { return Ok(PeerAnswer::NotAProxy) };
        let mut migrating = Vec::new();
        for (id, is_migrating) in circles.into_iter().filter(|(id, _)| *id < limits::PEER_CIRCLES_MAX) {
            migrating.resize(migrating.len().max(id + 1), false);
            migrating[id] = is_migrating;
        }
        Ok(PeerAnswer::State { migrating, resyncing })
    }

    /// Tells a proxy of a change. Ok = what it says of its points in the same answer.
    ///
    /// # Errors
    /// Why it may not have received the change.
    pub fn tell(&self, addr: &str, change: PeerChange) -> Result<PeerTold, String> {
        let (url, authorization) = self.reach(addr);
        let post = |target: &str| {
            let request = client::authorized(self.agent.post(format!("{url}{target}")), authorization);
            request.send_empty().map_err(|e| e.to_string())
        };
        let answer = post(&format!("/migrate/state?{}", change.query()))?;
        match answer.status().as_u16() {
            200..=299 => {
                let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
                let kind = if header(OWN_VERSION).is_some() { PeerKind::Fluxgate } else { PeerKind::Older };
                return Ok(PeerTold { waiting: header(WAITING).map(read_waiting).unwrap_or_default(), kind });
            }
            404 => {}
            status => return Err(self.refusal(status, authorization.is_some())),
        }
        match post(&format!("/transfer/state?{}", change.newer_query()))?.status().as_u16() {
            200..=299 => Ok(PeerTold { waiting: HashMap::new(), kind: PeerKind::Newer }),
            status => Err(self.refusal(status, authorization.is_some())),
        }
    }

    /// The backends for which an influx-proxy 2.5 has points in cache files, which may be of any age.
    ///
    /// # Errors
    /// Why this is not known.
    pub fn cached(&self, addr: &str) -> Result<HashMap<usize, u64>, String> {
        let (url, authorization) = self.reach(addr);
        let request = client::authorized(self.agent.get(format!("{url}/health")), authorization);
        let mut answer = request.call().map_err(|e| e.to_string())?;
        if answer.status().as_u16() != 200 {
            return Err(self.refusal(answer.status().as_u16(), authorization.is_some()));
        }
        let body = answer.body_mut().with_config().limit(limits::PEER_ANSWER_BYTES_MAX).read_to_vec();
        let health: Result<NewerHealth, _> = serde_json::from_slice(&body.map_err(|e| e.to_string())?);
        let Ok(NewerHealth { circles }) = health else { return Err("does not say in /health what it holds".into()) };
        let backends = circles.iter().flat_map(|circle| &circle.backends).enumerate();
        let cached = backends.filter(|(_, backend)| backend.backlog || backend.rewriting);
        Ok(cached.map(|(number, _)| (number, u64::MAX)).collect())
    }
}

/// `host:port` with a host of letters, digits, `_`, `-` and `.`, or the same behind `https://`.
pub fn is_addr(addr: &str) -> bool {
    let Some((host, port)) = addr.strip_prefix(HTTPS).unwrap_or(addr).rsplit_once(':') else { return false };
    let of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=253).contains(&host.len())
        && host.chars().all(of_host)
        && !port.starts_with('+')
        && port.parse::<u16>().is_ok()
}

/// The pause before the `attempt`th repeat of a call: doubling, bounded.
pub fn pause(attempt: u32) -> Duration {
    (limits::PEER_PAUSE_MIN * 2u32.saturating_pow(attempt.min(16))).min(limits::PEER_PAUSE_MAX)
}

#[cfg(test)]
mod tests {

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request and returns it.
    fn answer_once(head: String, body: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = vec![0; 4096];
            let n = stream.read(&mut got).unwrap();
            let length = body.len();
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
            String::from_utf8_lossy(&got[..n]).into_owned()
        });
        (addr, thread)
    }

    fn of(credentials: Credentials, configured: &[&str]) -> Peers {
        let configured = configured.iter().map(|&addr| addr.to_owned()).collect();
        Peers::new(&credentials, configured, &Trust::default())
    }

    const STATE: &str = concat!(
        r#"{"circles":[{"circle_id":0,"circle_name":"a","is_migrating":false},"#,
        r#"{"circle_id":1,"circle_name":"b","is_migrating":true}],"is_resyncing":false}"#
    );

    #[test]
    fn the_state_of_a_proxy_is_read_and_a_proxy_recognises_itself() {
        let peers = of(Credentials { username: "u".into(), password: "p".into() }, &[]);
        let (addr, thread) = answer_once("200 OK".into(), STATE);
        let said = PeerAnswer::State { migrating: vec![false, true], resyncing: false };
        assert_eq!(peers.ask(&addr), Ok(said));
        let got = thread.join().unwrap().to_ascii_lowercase();
        assert!(got.starts_with("get /migrate/state ") && !got.contains("authorization"), "{got}");

        let (addr, thread) = answer_once(format!("200 OK\r\n{INSTANCE}: {}", peers.instance()), STATE);
        assert_eq!(peers.ask(&addr), Ok(PeerAnswer::ThisProxy));
        thread.join().unwrap();
        let (addr, thread) = answer_once("401 Unauthorized".into(), "");
        assert!(peers.ask(&addr).unwrap_err().starts_with("answered 401: list it under peers"));
        thread.join().unwrap();
        let (addr, thread) = answer_once("405 Method Not Allowed".into(), "");
        assert_eq!(peers.ask(&addr), Ok(PeerAnswer::NotAProxy));
        thread.join().unwrap();
        assert_ne!(peers.instance(), of(Credentials::default(), &[]).instance());
    }

    /// A request may name any host, which must not learn the user of the proxy.
    #[test]
    fn credentials_go_to_configured_proxies_and_through_tls_only() {
        let user = || Credentials { username: "u".into(), password: "p".into() };
        for is_configured in [true, false] {
            let (addr, thread) = answer_once("401 Unauthorized".into(), "");
            let configured = [&addr[..]];
            let peers = of(user(), if is_configured { &configured } else { &[] });
            let why = peers.tell(&addr, PeerChange::Resyncing(true)).unwrap_err();
            let got = thread.join().unwrap().to_ascii_lowercase();
            assert_eq!(got.contains("authorization: basic dtpw"), is_configured, "{got}");
            assert_eq!(why.contains("list it under peers"), !is_configured, "{why}");
        }
        let peers = of(user(), &["a:1"]);
        let reach = |addr: &str| (peers.reach(addr).0, peers.reach(addr).1.is_some());
        assert_eq!(reach("a:1"), ("http://a:1".to_owned(), true));
        assert_eq!(reach("a:2"), ("http://a:2".to_owned(), false));
        assert_eq!(reach("https://b:2"), ("https://b:2".to_owned(), true));
        assert!(["a:1", "https://a-b.c:65535"].iter().all(|addr| is_addr(addr)));
        let none = ["a", "http://a:1", "https://a", "https://u@a:1", "a:1/x", "a:70000", ":1"];
        assert!(none.iter().all(|addr| !is_addr(addr)));
    }

    #[test]
    fn an_answer_without_end_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
            let mut sent = 0;
            while stream.write_all(&[b' '; 65536]).is_ok() {
                sent += 65536;
            }
            sent
        });
        assert!(of(Credentials::default(), &[]).ask(&addr).is_err());
        assert!(thread.join().unwrap() < 100_000_000, "it is read to a bound only");
    }

    #[test]
    fn changes_are_sent_with_influx_proxys_parameters() {
        let peers = of(Credentials::default(), &[]);
        let all = [
            (PeerChange::Migrating { circle: 0, migrating: true, moved: false }, "circle_id=0&migrating=true"),
            (
                PeerChange::Migrating { circle: 1, migrating: false, moved: true },
                "circle_id=1&migrating=false&moved=true",
            ),
            (PeerChange::Resyncing(false), "resyncing=false"),
        ];
        for (change, query) in all {
            let (addr, thread) = answer_once("200 OK".into(), "{}");
            assert_eq!(peers.tell(&addr, change), Ok(PeerTold { waiting: HashMap::new(), kind: PeerKind::Older }));
            let got = thread.join().unwrap();
            assert!(got.starts_with(&format!("POST /migrate/state?{query} HTTP/1.1\r\n")), "{got}");
        }
        let (addr, thread) = answer_once(format!("200 OK\r\n{OWN_VERSION}: 1\r\n{WAITING}: 0=12,3=70000"), "{}");
        let waiting = HashMap::from([(0, 12), (3, 70_000)]);
        assert_eq!(peers.tell(&addr, PeerChange::Resyncing(true)), Ok(PeerTold { waiting, kind: PeerKind::Fluxgate }));
        thread.join().unwrap();
        let (addr, thread) = answer_once("503 No".into(), "");
        assert_eq!(peers.tell(&addr, PeerChange::Resyncing(true)), Err("answered 503".to_owned()));
        thread.join().unwrap();
        assert!(peers.tell(&addr, PeerChange::Resyncing(true)).is_err(), "nobody listens any more");
    }

    #[test]
    fn points_that_another_proxy_holds_are_known_by_age() {
        let stats = Stats::new(2, 3, 1);
        for (backend, at) in [(0, 400), (1, u64::MAX)] {
            stats.couriers[backend].oldest_ms.store(at, Relaxed);
        }
        assert_eq!(waiting(&stats, 1000), "0=600,2=1000", "of the last one its courier does not know yet");
        let (waiting, kind) = (read_waiting(&waiting(&stats, 1000)), PeerKind::Fluxgate);
        let mut heard = PeerBacklog { at_ms: 50_000, waiting, kind, silent: None };
        let is_behind = |backend, ms| heard.is_behind(BackendId(backend), ms);
        assert!(!is_behind(0, 49_399) && is_behind(0, 49_400));
        assert!(!is_behind(1, 50_000) && is_behind(1, 50_001), "what it took since is not known");
        let holds = limits::INFLUX_PROXY_HOLDS.as_millis() as u64;
        for (kind, ms) in
            [(PeerKind::Fluxgate, 50_000), (PeerKind::Older, 50_000 - holds), (PeerKind::Newer, 50_000 - holds)]
        {
            heard.kind = kind;
            let may_be_behind = |ms| heard.may_be_behind(BackendId(1), ms);
            assert!(!may_be_behind(ms) && may_be_behind(ms + 1), "{kind:?}");
        }
        let minute = Duration::from_secs(60);
        assert!(!heard.is_awaited(50_000, minute) && !heard.is_gone(110_000, minute), "it answers");
        heard.silent = Some("answered 500".to_owned());
        assert!(heard.is_awaited(109_999, minute) && !heard.is_awaited(110_000, minute));
        assert!(!heard.is_gone(109_999, minute) && heard.is_gone(110_000, minute));
    }

    /// An influx-proxy 2.5 as recorded: it has no `/migrate/state`.
    #[test]
    fn an_influx_proxy_2_5_is_asked_and_told_in_its_own_words() {
        let recorded = include_str!("../../../tests/golden/v2.5.12.jsonl");
        let health = r#"{"checks":[],"circles":[{"circle":{"id":0},"backends":[{"name":"a","backlog":false,
            "rewriting":false},{"name":"b","backlog":true,"rewriting":false}]},{"circle":{"id":1},"backends":[
            {"name":"c","backlog":false,"rewriting":true}]}]}"#;
        let body = |id: &str| {
            let line = recorded.lines().find(|line| line.starts_with(&format!("{{\"id\": {id},"))).unwrap();
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["response"]["body"]["text"].as_str().unwrap().to_owned()
        };
        let (state, set) = (body("766"), body("797"));
        let answers = [("404 Not Found", "404 page not found\n".to_owned()), ("200 OK", state)];
        let told = [("404 Not Found", String::new()), ("200 OK", set), ("200 OK", health.to_owned())];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let mut got = Vec::new();
            for (head, body) in answers.into_iter().chain(told) {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let n = stream.read(&mut request).unwrap();
                let length = body.len();
                write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                    .unwrap();
                got.push(String::from_utf8_lossy(&request[..n]).split(" HTTP").next().unwrap().to_owned());
            }
            got
        });
        let peers = of(Credentials::default(), &[]);
        let said = PeerAnswer::State { migrating: vec![false, false], resyncing: false };
        assert_eq!(peers.ask(&addr), Ok(said));
        let waiting = HashMap::from([(1, u64::MAX), (2, u64::MAX)]);
        let change = PeerChange::Migrating { circle: 0, migrating: true, moved: false };
        let told = PeerTold { waiting: HashMap::new(), kind: PeerKind::Newer };
        assert_eq!(peers.tell(&addr, change), Ok(told), "it knows, whatever /health says");
        assert_eq!(peers.cached(&addr), Ok(waiting.clone()));
        let want = [
            "GET /migrate/state",
            "GET /transfer/state",
            "POST /migrate/state?circle_id=0&migrating=true",
            "POST /transfer/state?circle_id=0&transferring=true",
            "GET /health",
        ];
        assert_eq!(thread.join().unwrap(), want);
        let heard = PeerBacklog { at_ms: 50_000, waiting, kind: PeerKind::Newer, silent: None };
        assert!(heard.is_behind(BackendId(1), 0) && heard.is_behind(BackendId(2), 0), "of any age");
        assert!(!heard.is_behind(BackendId(0), 50_000));
    }
}
