//! The other proxies that a request names in `ha_addrs`: calls to ask them and tell them about migrations.
//!
//! The calls are those of influx-proxy's own `/migrate/state`, so the other proxy may be an influx-proxy. A proxy
//! recognises itself in the list by [`INSTANCE`], a header of its answers, because one address can be written in many
//! ways.
//!
//! Calls block, each within its timeout. Nothing is repeated here (`coordination.rs` does that).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use fluxgate_dataplane::settings::Credentials;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::BackendId;
use serde::Deserialize;

use crate::influx::client;
use crate::limits;

/// Identifies the process that answers `/migrate/state`; new at each start.
pub const INSTANCE: &str = "X-Fluxgate-Instance";

/// In answers of `/migrate/state`: the backends that points wait for, by number, each with the age of the oldest point
/// in milliseconds: `0=12,3=70000`. Left out when no points wait.
pub const WAITING: &str = "X-Fluxgate-Waiting";

/// Calls to other proxies, with this proxy's own user.
#[derive(Debug)]
pub struct Peers {
    agent: ureq::Agent,
    authorization: Option<String>,
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
    let oldest = |backend: usize| stats.oldest_ms(backend);
    // A worker that does not know yet has 0, which counts as waiting for long.
    let waits = (0..stats.reads.len()).map(|backend| (backend, oldest(backend))).filter(|(_, at)| *at != u64::MAX);
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
    pub fn new(credentials: &Credentials) -> Self {
        let authorization = client::authorization(&credentials.username, &credentials.password);
        let agent = client::plain_config().timeout_global(Some(limits::PEER_TIMEOUT)).build().new_agent();
        // The standard library's hasher has random keys in each process.
        let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self { agent, authorization, instance: format!("{:016x}{:016x}", random(), random()) }
    }

    /// The value of [`INSTANCE`] in this process's answers.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Asks a proxy for its state.
    ///
    /// # Errors
    /// Why there was no usable answer, for the operator.
    pub fn ask(&self, addr: &str) -> Result<PeerAnswer, String> {
        let request = self.agent.get(format!("http://{addr}/migrate/state"));
        let mut answer = client::authorized(request, self.authorization.as_ref()).call().map_err(|e| e.to_string())?;
        if answer.headers().get(INSTANCE).is_some_and(|value| value.as_bytes() == self.instance.as_bytes()) {
            return Ok(PeerAnswer::ThisProxy);
        }
        match answer.status().as_u16() {
            200..=299 => {}
            404 | 405 => return Ok(PeerAnswer::NotAProxy),
            status => return Err(format!("answered {status}")),
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
        let request = self.agent.post(format!("http://{addr}/migrate/state?{}", change.query()));
        let request = client::authorized(request, self.authorization.as_ref());
        let answer = request.send_empty().map_err(|e| e.to_string())?;
        match answer.status().as_u16() {
            200..=299 => {
                let waiting = answer.headers().get(WAITING).and_then(|value| value.to_str().ok());
                Ok(waiting.map(read_waiting).unwrap_or_default())
            }
            status => Err(format!("answered {status}")),
        }
    }
}

/// The pause before the `attempt`th repeat of a call: doubling, bounded.
pub fn pause(attempt: u32) -> Duration {
    (limits::PEER_PAUSE_MIN * 2u32.saturating_pow(attempt.min(16))).min(limits::PEER_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

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

    const STATE: &str = concat!(
        r#"{"circles":[{"circle_id":0,"circle_name":"a","is_migrating":false},"#,
        r#"{"circle_id":1,"circle_name":"b","is_migrating":true}],"is_resyncing":false}"#
    );

    #[test]
    fn the_state_of_a_proxy_is_read_and_a_proxy_recognises_itself() {
        let peers = Peers::new(&Credentials { username: "u".into(), password: "p".into() });
        let (addr, thread) = answer_once("200 OK".into(), STATE);
        let said = PeerAnswer::State { migrating: vec![false, true], resyncing: false };
        assert_eq!(peers.ask(&addr), Ok(said));
        let got = thread.join().unwrap().to_ascii_lowercase();
        assert!(got.starts_with("get /migrate/state ") && got.contains("authorization: basic dtpw"), "{got}");

        let (addr, thread) = answer_once(format!("200 OK\r\n{INSTANCE}: {}", peers.instance()), STATE);
        assert_eq!(peers.ask(&addr), Ok(PeerAnswer::ThisProxy));
        thread.join().unwrap();
        let (addr, thread) = answer_once("401 Unauthorized".into(), "");
        assert_eq!(peers.ask(&addr), Err("answered 401".to_owned()));
        thread.join().unwrap();
        let (addr, thread) = answer_once("404 Not Found".into(), "");
        assert_eq!(peers.ask(&addr), Ok(PeerAnswer::NotAProxy));
        thread.join().unwrap();
        assert_ne!(peers.instance(), Peers::new(&Credentials::default()).instance());
    }

    #[test]
    fn changes_are_sent_with_influx_proxys_parameters() {
        let peers = Peers::new(&Credentials::default());
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
        for (worker, backend, at) in [(0, 0, 900), (1, 0, 400), (0, 1, u64::MAX), (1, 1, u64::MAX), (0, 2, u64::MAX)] {
            stats.workers[worker].backends[backend].oldest_ms.store(at, Relaxed);
        }
        assert_eq!(waiting(&stats, 1000), "0=600,2=1000", "of the last one a worker does not know yet");
        let heard = PeerBacklog { at_ms: 50_000, waiting: read_waiting(&waiting(&stats, 1000)), is_silent: false };
        let is_behind = |backend, ms| heard.is_behind(BackendId(backend), ms);
        assert!(!is_behind(0, 49_399) && is_behind(0, 49_400));
        assert!(!is_behind(1, 50_000) && is_behind(1, 50_001), "what it took since is not known");
    }
}
