//! The calls to one backend, with ureq: `/ping`, statements on `/query`, and a migration's `/write`.
//!
//! Each call uses its own connection: calls are rare, and a probe must find out whether the server accepts connections.
//! A call ends within its timeout, which includes name resolution and the body. Nothing is retried here.
//!
//! Not here: answers that are read as a stream (`reader`), when to call (`event_loop`, `query`, `migration`), writes of
//! clients (couriers send them).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use fluxgate_dataplane::http::version::InfluxVersion;
use fluxgate_dataplane::influxql::unbind;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::Backend;
use rustls::crypto::ring;
use ureq::RequestBuilder;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use super::answer::Answer;
use super::wire::{WireError, json};
use crate::limits;

/// What is shown instead of the text of a server outside the circles.
const HIDDEN: &str = "it refuses (its text is not shown: it is not a backend of the circles)";

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFailure {
    /// No complete answer in time: refused, reset, timeout, unknown host. An operator must check the backend.
    Unreachable(String),
    /// 401 or 403: the configured user is wrong or lacks rights.
    Unauthorized,
    /// Any other status, with the beginning of its text.
    Status(u16, String),
    /// An answer that InfluxDB would not give: it is another kind of server.
    NotInflux,
    /// InfluxDB refused the statement.
    Refused(String),
}

impl CallFailure {
    /// True for the answer of a server that has no databases at all; false when it may only be unable to answer now.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotInflux => true,
            Self::Status(status, _) => matches!(status, 400 | 404 | 405 | 501),
            Self::Unreachable(_) | Self::Unauthorized | Self::Refused(_) => false,
        }
    }
}

impl std::fmt::Display for CallFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Unauthorized => f.write_str("refuses its configured user"),
            Self::Status(status, text) if text.is_empty() => write!(f, "answered {status}"),
            Self::Status(status, text) => write!(f, "answered {status}: {text}"),
            Self::NotInflux => f.write_str("does not answer as InfluxDB does"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// One backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// Without a slash at its end.
    pub(super) url: String,
    pub(super) authorization: Option<String>,
    pub(super) agent: ureq::Agent,
    /// Its own words about failures are shown to operators.
    shows_texts: bool,
}

/// What all calls to one backend share: certificates are verified as by couriers. The caller sets timeouts.
fn agent_config(backend: &Backend, trust: &Trust) -> ConfigBuilder<AgentScope> {
    plain_config().tls_config(tls_config(trust, trust.verifies(backend.id)))
}

/// The authorities that are trusted, for calls to backends and to other proxies.
pub(crate) fn tls_config(trust: &Trust, verifies: bool) -> TlsConfig {
    let roots: Vec<_> = trust.roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::from(roots))
        .disable_verification(!verifies)
        .build()
}

/// What all calls to backends and other proxies share: every status is an answer, redirects are not followed, no
/// connection is kept.
pub(crate) fn plain_config() -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        // A proxy from the environment is for external hosts, not for our own servers.
        .proxy(None)
}

/// The value of `Authorization`; None when no user is configured.
pub(crate) fn authorization(username: &str, password: &str) -> Option<String> {
    let pair = || base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    (!username.is_empty() || !password.is_empty()).then(|| format!("Basic {}", pair()))
}

/// `request` with the header `Authorization`, if there is a value for it.
pub(crate) fn authorized<B>(request: RequestBuilder<B>, value: Option<&String>) -> RequestBuilder<B> {
    value.into_iter().fold(request, |request, value| request.header("Authorization", value))
}

impl Client {
    pub fn new(backend: &Backend, trust: &Trust) -> Self {
        let authorization = authorization(&backend.username, &backend.password);
        let agent = agent_config(backend, trust).build().new_agent();
        let url = backend.url.trim_end_matches('/').to_owned();
        Self { url, authorization, agent, shows_texts: true }
    }

    /// For a server outside the circles: of its failures only the kind is shown, not its text.
    #[must_use]
    pub fn without_texts(self) -> Self {
        Self { shows_texts: false, ..self }
    }

    /// The text of a refusal, as far as it may be shown.
    pub fn shown(&self, text: String) -> String {
        if self.shows_texts { text } else { HIDDEN.to_owned() }
    }

    /// The agent of all calls. Shutting it down ends them at once.
    pub fn agent(&self) -> ureq::Agent {
        self.agent.clone()
    }

    fn prepared<B>(&self, request: RequestBuilder<B>, timeout: Duration) -> RequestBuilder<B> {
        authorized(request.config().timeout_global(Some(timeout)).build(), self.authorization.as_ref())
    }

    /// Sends `GET /ping`; good is InfluxDB's own answer: 204, or 200 with its version (`verbose`). Returns what it says
    /// of its version.
    pub fn ping(&self, timeout: Duration) -> Result<Option<InfluxVersion>, CallFailure> {
        let request = self.prepared(self.agent.get(format!("{}/ping", self.url)), timeout);
        let answer = request.call().map_err(unreachable)?;
        let named = answer.headers().get("x-influxdb-version");
        let version = named.and_then(|text| InfluxVersion::read(text.to_str().ok()?));
        let verbose = answer.status() == 200 && named.is_some();
        check(answer, if verbose { 200 } else { 204 }).map(|_| version)
    }

    /// Runs `statements` (separated by `;`) and returns one [`Answer`] for each. Those after a failed one come back as
    /// "not executed".
    pub fn query(&self, statements: &str, timeout: Duration) -> Result<Vec<Answer>, CallFailure> {
        self.query_in("", statements, timeout)
    }

    /// As [`Client::query`], in database `db`, for statements that cannot name it themselves.
    pub fn query_in(&self, db: &str, statements: &str, timeout: Duration) -> Result<Vec<Answer>, CallFailure> {
        self.signed_query(db, statements, timeout).map(|(answers, _)| answers)
    }

    /// As [`Client::query_in`]. True: the fields of the answer are InfluxDB's.
    fn signed_query(&self, db: &str, statements: &str, timeout: Duration) -> Result<(Vec<Answer>, bool), CallFailure> {
        let request = self.prepared(self.agent.post(format!("{}/query", self.url)), timeout);
        let (statements, params) = unbind(statements);
        let params = params.unwrap_or_default();
        let mut form = vec![("q", &statements[..]), ("db", db), ("params", &params)];
        form.retain(|(_, value)| !value.is_empty());
        let mut response =
            check(request.send_form(form).map_err(unreachable)?, 200).map_err(|failure| match failure {
                CallFailure::Status(status, _) if !self.shows_texts => CallFailure::Status(status, String::new()),
                failure => failure,
            })?;
        let has = |name| response.headers().contains_key(name);
        // Others name a version, too. The build came with InfluxDB 1.5.
        let is_influx = has("x-influxdb-version") && (has("x-influxdb-build") || has("request-id"));
        let body = response.body_mut().with_config().limit(limits::ANSWER_BYTES_MAX).read_to_vec();
        match json::parse(body.map_err(unreachable)?.into()) {
            // InfluxDB gives one result per statement, so none at all is another server.
            Ok(statements) if statements.is_empty() => Err(CallFailure::NotInflux),
            Ok(statements) => {
                let shown = statements.into_iter().map(|statement| Answer {
                    error: statement.answer.error.map(|e| self.shown(e)),
                    ..statement.answer
                });
                Ok((shown.collect(), is_influx))
            }
            Err(WireError::Refused(error)) => Err(CallFailure::Refused(self.shown(error))),
            Err(WireError::Malformed) => Err(CallFailure::NotInflux),
        }
    }

    /// Runs one statement in database `db` (empty = it needs none).
    ///
    /// # Errors
    /// [`CallFailure::Refused`] also for the statement's own error.
    pub fn statement_in(&self, db: &str, statement: &str, timeout: Duration) -> Result<Answer, CallFailure> {
        only(self.query_in(db, statement, timeout)?)
    }

    /// As [`Client::statement_in`], for a statement that needs no database. True: the fields of the answer are
    /// InfluxDB's.
    pub fn signed_statement(&self, statement: &str, timeout: Duration) -> Result<(Answer, bool), CallFailure> {
        let (answers, is_influx) = self.signed_query("", statement, timeout)?;
        Ok((only(answers)?, is_influx))
    }

    /// Writes `lines` with times in nanoseconds to a policy. Idempotent: a repeated point replaces itself.
    ///
    /// `CallFailure::Status(400, _)` may mean that some lines were taken.
    pub fn write(&self, db: &str, rp: &str, lines: &[u8], timeout: Duration) -> Result<(), CallFailure> {
        let request = self.prepared(self.agent.post(format!("{}/write", self.url)), timeout);
        let request = request.query_pairs([("db", db), ("rp", rp), ("precision", "ns")]);
        check(request.send(lines).map_err(unreachable)?, 204).map(drop)
    }

    /// The address for workers: the first address of the host that accepts a connection, otherwise the first. `present`
    /// is tried before the others while it is one of them. May take as long as the system's resolver.
    pub fn resolve(&self, present: Option<SocketAddr>) -> io::Result<SocketAddr> {
        let uri: Uri = self.url.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{e}")))?;
        let host = uri.host().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "url without a host"))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        // An IPv6 address has brackets in a url, but not for the resolver.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        choose((host, port).to_socket_addrs()?.collect(), present)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "host without an address"))
    }
}

/// The answer of the only statement.
fn only(answers: Vec<Answer>) -> Result<Answer, CallFailure> {
    let mut answer = answers.into_iter().next().ok_or(CallFailure::NotInflux)?;
    answer.error.take().map_or(Ok(answer), |error| Err(CallFailure::Refused(error)))
}

fn choose(mut addrs: Vec<SocketAddr>, present: Option<SocketAddr>) -> Option<SocketAddr> {
    if let [only] = addrs[..] {
        return Some(only);
    }
    // Resolvers change the order at each call.
    addrs.sort_by_key(|addr| Some(*addr) != present);
    let accepts =
        |addr: &&SocketAddr| std::net::TcpStream::connect_timeout(addr, limits::ADDRESS_CONNECT_TIMEOUT).is_ok();
    addrs.iter().find(accepts).or(addrs.first()).copied()
}

fn unreachable(error: ureq::Error) -> CallFailure {
    CallFailure::Unreachable(why(&error))
}

/// The cause of an error, for an operator.
pub(super) fn why(error: &ureq::Error) -> String {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    match tls {
        Some(error) => fluxgate_dataplane::tls::TlsFault::of(error).to_string(),
        None => error.to_string(),
    }
}

/// Turns a status into a result; `good` is the only one with which InfluxDB says yes here, since something in between
/// may answer another 2xx by itself. InfluxDB gives the text of an error as JSON.
fn check(
    mut response: ureq::http::Response<ureq::Body>,
    good: u16,
) -> Result<ureq::http::Response<ureq::Body>, CallFailure> {
    let status = response.status().as_u16();
    match status {
        _ if status == good => Ok(response),
        200..=299 => Err(CallFailure::NotInflux),
        401 | 403 => Err(CallFailure::Unauthorized),
        _ => {
            let body = response
                .body_mut()
                .with_config()
                .limit(limits::FAILURE_BODY_BYTES_MAX)
                .read_to_vec()
                .unwrap_or_default();
            let text = match json::parse(body.clone().into()) {
                Err(WireError::Refused(error)) => error,
                _ => String::from_utf8_lossy(&body).trim().to_owned(),
            };
            Err(CallFailure::Status(status, text.chars().take(limits::FAILURE_TEXT_CHARS_MAX).collect()))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use fluxgate_dataplane::topology::BackendId;

    use super::*;

    /// A client of a server that gives one answer.
    pub fn answered(head: &str, body: &str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            _ = stream.read(&mut [0; 4096]);
            stream.write_all(text.as_bytes()).unwrap();
        });
        let backend = Backend {
            id: BackendId(0),
            name: "b".into(),
            url,
            circle: 0,
            index: 0,
            username: String::new(),
            password: String::new(),
            write_only: false,
            catalog: None,
            leaving: false,
        };
        Client::new(&backend, &Trust::default())
    }

    /// The fields of a recorded answer, as they follow a status.
    pub fn recorded_fields(recorded: &serde_json::Value) -> String {
        let fields = recorded["fields"].as_object().unwrap().iter();
        fields.map(|(name, value)| format!("\r\n{name}: {}", value.as_str().unwrap())).collect()
    }

    #[test]
    fn recorded_pings_of_servers_say_who_is_good_and_of_which_version() {
        for recorded in crate::golden::servers("ping") {
            let head = format!("{} x{}", recorded["status"], recorded_fields(&recorded));
            let said = answered(&head, recorded["body"].as_str().unwrap()).ping(Duration::from_secs(5));
            assert_eq!(said.is_ok(), recorded["good"], "{recorded}: {said:?}");
            let version = said.ok().flatten().map(|version| version.to_string());
            assert_eq!(version.as_deref(), recorded["version"].as_str(), "{recorded}");
        }
    }

    #[test]
    fn an_address_that_accepts_is_chosen_and_kept() {
        let servers = ["127.0.0.1:0", "127.0.0.1:0"].map(|addr| std::net::TcpListener::bind(addr).unwrap());
        let [a, b] = servers.each_ref().map(|server| server.local_addr().unwrap());
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (addrs, present, want) in [
            (vec![], None, None),
            (vec![dead], Some(a), Some(dead)),
            (vec![dead, a, b], None, Some(a)),
            (vec![a, b], Some(b), Some(b)),
            (vec![a, dead], Some(dead), Some(a)),
            (vec![b, dead], Some(a), Some(b)),
        ] {
            assert_eq!(choose(addrs.clone(), present), want, "{addrs:?} {present:?}");
        }
    }

    #[test]
    fn only_what_influxdb_answers_is_good() {
        let (second, page) = (Duration::from_secs(1), "<html>Down for maintenance</html>");
        let version = "X-Influxdb-Version: 1.8.10";
        let ping = |head: &str| answered(head, "").ping(second);
        assert_eq!(ping("204 No Content"), Ok(None));
        for status in ["200 OK", "204 No Content"] {
            assert_eq!(ping(&format!("{status}\r\n{version}")), Ok(InfluxVersion::read("1.8.10")));
        }
        let write = |head: &str| answered(head, "").write("db", "rp", b"m v=1", second);
        assert_eq!(write("204 No Content"), Ok(()));
        assert!(answered("200 OK", r#"{"results":[{"statement_id":0}]}"#).query("q", second).is_ok());
        for head in ["200 OK", "202 Accepted", "201 Created"] {
            assert_eq!(answered(head, page).ping(second), Err(CallFailure::NotInflux), "{head}");
            let head = format!("{head}\r\n{version}");
            assert_eq!(write(&head), Err(CallFailure::NotInflux), "{head}");
            assert_eq!(answered(&head, page).query("q", second), Err(CallFailure::NotInflux), "{head}");
        }
        for body in ["{}", r#"{"status":"ok"}"#, "[]"] {
            assert_eq!(answered("200 OK", body).query("q", second), Err(CallFailure::NotInflux), "{body}");
        }
        let queued = answered("202 Accepted", r#"{"results":[{"statement_id":0}]}"#);
        assert_eq!(queued.query("CREATE DATABASE d", second), Err(CallFailure::NotInflux));
    }

    /// The text of any other server may be a secret of the network that the proxy stands in.
    #[test]
    fn of_a_server_outside_the_circles_no_text_is_shown() {
        for (status, body) in [
            ("500 No", "secret"),
            ("404 Not Found", r#"{"error":"secret"}"#),
            ("200 OK", r#"{"error":"secret"}"#),
            ("200 OK", r#"{"results":[{"error":"secret"}]}"#),
            ("400 Bad Request", r#"{"error":"secret"}"#),
        ] {
            for shows in [true, false] {
                let client = answered(status, body);
                let client = if shows { client } else { client.without_texts() };
                let said = client.query("SHOW DATABASES", Duration::from_secs(5));
                assert_eq!(format!("{said:?}").contains("secret"), shows, "{status} {body}: {said:?}");
            }
        }
    }
}
