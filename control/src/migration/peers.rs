//! The other proxies that the configuration names in `peers`, or a request in `ha_addrs`: calls to ask them and tell
//! them about migrations.
//!
//! The calls are those of influx-proxy's own `/migrate/state`, so the other proxy may be an influx-proxy. A proxy
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

const HTTPS: &str = "https://";

/// Calls to other proxies, with this proxy's own user.
#[derive(Debug)]
pub struct Peers {
    agent: ureq::Agent,
    authorization: Option<String>,
    /// `peers` of the configuration.
    configured: Vec<String>,
    instance: String,
}

/// The last answer of another proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerBacklog {
    /// When it was asked (since 1970).
    pub at_ms: u64,
    /// By backend: the age of the oldest waiting point at that time. An influx-proxy does not say.
    pub waiting: HashMap<usize, u64>,
    /// It has not answered since.
    pub is_silent: bool,
}

impl PeerBacklog {
    /// Whether points that it accepted before `ms` may still wait for `backend`. Ages are compared, not times: clocks
    /// differ.
    pub fn is_behind(&self, backend: BackendId, ms: u64) -> bool {
        let oldest = |age: &u64| self.at_ms.saturating_sub(*age) <= ms;
        self.at_ms < ms || self.waiting.get(&backend.index()).is_some_and(oldest)
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
}

impl Peers {
    pub fn new(credentials: &Credentials, configured: Vec<String>, trust: &Trust) -> Self {
        let authorization = client::authorization(&credentials.username, &credentials.password);
        let config = client::plain_config().tls_config(client::tls_config(trust, true));
        let agent = config.timeout_global(Some(limits::PEER_TIMEOUT)).build().new_agent();
        // The standard library's hasher has random keys in each process.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self { agent, authorization, configured, instance: format!("{:016x}{:016x}", random(), random()) }
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
        let request = self.agent.get(format!("{url}/migrate/state"));
        let mut answer = client::authorized(request, authorization).call().map_err(|e| e.to_string())?;
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
        let Ok(state) = serde_json::from_slice::<PeerState>(&body) else { return Ok(PeerAnswer::NotAProxy) };
        let mut migrating = Vec::new();
        for circle in state.circles.iter().filter(|circle| circle.circle_id < limits::PEER_CIRCLES_MAX) {
            migrating.resize(migrating.len().max(circle.circle_id + 1), false);
            migrating[circle.circle_id] = circle.is_migrating;
        }
        Ok(PeerAnswer::State { migrating, resyncing: state.is_resyncing })
    }

    /// Tells a proxy of a change. Ok = its [`WAITING`].
    ///
    /// # Errors
    /// Why it may not have received the change.
    pub fn tell(&self, addr: &str, change: PeerChange) -> Result<HashMap<usize, u64>, String> {
        let (url, authorization) = self.reach(addr);
        let request = self.agent.post(format!("{url}/migrate/state?{}", change.query()));
        let request = client::authorized(request, authorization);
        let answer = request.send_empty().map_err(|e| e.to_string())?;
        match answer.status().as_u16() {
            200..=299 => {
                let waiting = answer.headers().get(WAITING).and_then(|value| value.to_str().ok());
                Ok(waiting.map(read_waiting).unwrap_or_default())
            }
            status => Err(self.refusal(status, authorization.is_some())),
        }
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
        let (addr, thread) = answer_once("404 Not Found".into(), "");
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
            assert_eq!(peers.tell(&addr, change), Ok(HashMap::new()));
            let got = thread.join().unwrap();
            assert!(got.starts_with(&format!("POST /migrate/state?{query} HTTP/1.1\r\n")), "{got}");
        }
        let (addr, thread) = answer_once(format!("200 OK\r\n{WAITING}: 0=12,3=70000"), "{}");
        assert_eq!(peers.tell(&addr, PeerChange::Resyncing(true)), Ok(HashMap::from([(0, 12), (3, 70_000)])));
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
        let heard = PeerBacklog { at_ms: 50_000, waiting: read_waiting(&waiting(&stats, 1000)), is_silent: false };
        let is_behind = |backend, ms| heard.is_behind(BackendId(backend), ms);
        assert!(!is_behind(0, 49_399) && is_behind(0, 49_400));
        assert!(!is_behind(1, 50_000) && is_behind(1, 50_001), "what it took since is not known");
    }
}
