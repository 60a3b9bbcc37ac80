//! The HTTP client for a running proxy's migrations.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use fluxgate_control::endpoint::order;
use serde::Deserialize;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::args::{Order, ProxyArgs};
use crate::limits::{MIGRATE_ANSWER_BYTES_MAX, MIGRATE_ANSWER_TIMEOUT};
use crate::tls;

/// Environment variable with the password; unlike an argument, it is not in the list of processes.
const PASSWORD_VARIABLE: &str = "FLUXGATE_PASSWORD";

/// A migration, as `/migrate/jobs` tells it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Job {
    pub id: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub state: String,
    pub doing: String,
    pub percent: f64,
    pub rows: u64,
    pub bytes: u64,
    /// A proxy of an older version does not tell it.
    #[serde(default)]
    pub rows_expired: u64,
    pub bytes_per_second: u64,
    pub eta_seconds: Option<u64>,
    /// Seconds since 1970.
    pub started: u64,
    pub ended: Option<u64>,
    pub tasks: Tasks,
    pub errors: Vec<String>,
    pub errors_left_out: u64,
    pub circle_id: Option<usize>,
    pub from_circle_id: Option<usize>,
    pub to_circle_id: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Tasks {
    pub total: u64,
    pub done: u64,
    pub failed: u64,
}

impl Job {
    pub fn is_over(&self) -> bool {
        matches!(&self.state[..], "done" | "failed" | "cancelled")
    }
}

/// What `/migrate/state` tells.
#[derive(Deserialize)]
struct MigrationState {
    circles: Vec<Circle>,
}

#[derive(Deserialize)]
struct Circle {
    circle_id: usize,
    circle_name: String,
}

/// A number goes before a name that looks like one.
fn number_of(circles: &[Circle], wanted: &str) -> Result<String, String> {
    let by_number = circles.iter().find(|circle| wanted.parse() == Ok(circle.circle_id));
    let found = by_number.or_else(|| circles.iter().find(|circle| circle.circle_name == wanted));
    found.map(|circle| circle.circle_id.to_string()).ok_or_else(|| {
        let all = circles.iter().map(|circle| format!("{} ({})", circle.circle_id, circle.circle_name));
        format!("there is no circle {wanted}; the proxy has {}", all.collect::<Vec<_>>().join(", "))
    })
}

/// `migration 3 (rebalance of circle 0)`.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {} ({}", self.id, self.kind)?;
        match (self.circle_id, self.from_circle_id, self.to_circle_id) {
            (Some(circle), ..) => write!(f, " of circle {circle})"),
            (None, Some(from), Some(to)) => write!(f, " from circle {from} to {to})"),
            _ => f.write_str(")"),
        }
    }
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub enum RemoteError {
    /// The proxy cannot be reached, perhaps only for now.
    Away(String),
    /// The proxy refuses the request.
    Refused(String),
}

impl RemoteError {
    pub fn into_sentence(self) -> String {
        match self {
            Self::Away(sentence) | Self::Refused(sentence) => sentence,
        }
    }
}

pub struct Remote {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Remote {
    /// # Errors
    /// One sentence, about `--ca-file` or the system's authorities, or a password without a user.
    pub fn new(args: &ProxyArgs) -> Result<Self, String> {
        if args.password.is_some() && args.user.is_none() {
            return Err("--password requires --user".to_owned());
        }
        let roots = roots(args)?.iter().map(|root| Certificate::from_der(root).to_owned()).collect::<Vec<_>>();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::from(roots))
            .disable_verification(args.insecure)
            .build();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(MIGRATE_ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // An HTTP proxy from the environment is meant for the internet, not for our own servers.
            .proxy(None)
            .tls_config(tls)
            .build();
        let password = match &args.password {
            Some(password) => password.0.clone(),
            None => std::env::var(PASSWORD_VARIABLE).unwrap_or_default(),
        };
        let authorization = args.user.as_ref().map(|user| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
        });
        Ok(Self { agent: config.into(), url: args.url.clone(), authorization })
    }

    /// The number of a circle that is given by number or name.
    ///
    /// # Errors
    /// One sentence: there is none, and which there are; or the proxy cannot be asked.
    pub fn circle(&self, wanted: &str) -> Result<String, String> {
        let (_, text) = self.ask("GET", "/migrate/state", "", 200).map_err(RemoteError::into_sentence)?;
        let state: MigrationState =
            serde_json::from_str(&text).map_err(|e| format!("{} does not answer like fluxgate: {e}", self.url))?;
        number_of(&state.circles, wanted)
    }

    pub fn jobs(&self) -> Result<Vec<Job>, RemoteError> {
        let (_, text) = self.ask("GET", "/migrate/jobs", "", 200)?;
        serde_json::from_str(&text)
            .map_err(|e| RemoteError::Refused(format!("{} does not answer like fluxgate: {e}", self.url)))
    }

    pub fn job(&self, id: u64) -> Result<Job, RemoteError> {
        let found = self.jobs()?.into_iter().find(|job| job.id == id);
        found.ok_or_else(|| RemoteError::Refused(format!("{} has no migration {id}", self.url)))
    }

    /// Begins a migration; returns its number.
    pub fn begin(&self, order: &Order) -> Result<u64, RemoteError> {
        let (head, text) = self.ask("POST", &order.target, &order.body, 202)?;
        let id = head.headers().get(order::MIGRATION).and_then(|id| id.to_str().ok()?.parse().ok());
        // As in influx-proxy, the answer is 202 even if another migration is in the way.
        id.ok_or_else(|| RemoteError::Refused(format!("the migration did not start: {}", text.trim_end())))
    }

    /// `pause`, `resume` or `cancel`.
    pub fn steer(&self, id: u64, word: &str) -> Result<(), RemoteError> {
        let (method, rest) = if word == "cancel" { ("DELETE", String::new()) } else { ("POST", format!("/{word}")) };
        self.ask(method, &format!("/migrate/jobs/{id}{rest}"), "", 202).map(drop)
    }

    fn ask(&self, method: &str, target: &str, body: &str, want: u16) -> Result<(Response<()>, String), RemoteError> {
        let away = |e: ureq::Error| RemoteError::Away(format!("{} does not answer: {e}", self.url));
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let answer = if method == "POST" {
            let request = request.header("Content-Type", "application/json").body(body.to_owned());
            self.agent.run(request.map_err(|e| RemoteError::Refused(format!("{}: {e}", self.url)))?)
        } else {
            self.agent.run(request.body(()).map_err(|e| RemoteError::Refused(format!("{}: {e}", self.url)))?)
        };
        let (head, body) = answer.map_err(away)?.into_parts();
        let text = body.into_with_config().limit(MIGRATE_ANSWER_BYTES_MAX).read_to_string().map_err(away)?;
        match head.status.as_u16() {
            status if status == want => Ok((Response::from_parts(head, ()), text)),
            401 => Err(RemoteError::Refused(format!(
                "{} requires a user: set --user, and --password or the environment variable {PASSWORD_VARIABLE}",
                self.url
            ))),
            status @ (502 | 503) if method == "GET" => Err(RemoteError::Away(format!("{}: {status}", self.url))),
            status => Err(RemoteError::Refused(format!("{}: {status}: {}", self.url, text.trim_end()))),
        }
    }
}

/// The authorities to trust for the proxy's certificate.
fn roots(args: &ProxyArgs) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    if !tls::is_https(&args.url) || args.insecure {
        return Ok(Vec::new());
    }
    tls::authorities(args.ca_file.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_by_number_and_by_name() {
        let circle = |circle_id: usize, name: &str| Circle { circle_id, circle_name: name.to_owned() };
        let circles = [circle(0, "east"), circle(1, "west"), circle(2, "0")];
        for (wanted, number) in [("0", "0"), ("1", "1"), ("west", "1"), ("2", "2")] {
            assert_eq!(number_of(&circles, wanted), Ok(number.to_owned()), "{wanted}");
        }
        let refused = number_of(&circles, "9").unwrap_err();
        assert_eq!(refused, "there is no circle 9; the proxy has 0 (east), 1 (west), 2 (0)");
        assert!(number_of(&circles, "East").is_err());
    }
}
