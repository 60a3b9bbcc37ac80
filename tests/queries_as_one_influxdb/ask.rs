//! One request to a `/query`, and what was answered.

use std::net::SocketAddr;
use std::time::Duration;

use fluxgate::lab::client::Client;

/// How often a request is sent again when the server closed an idle connection.
const ATTEMPTS: usize = 3;

/// A request, byte for byte the same for both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// `Name: value`.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

/// What is compared of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedAnswer {
    pub status: u16,
    pub content_type: String,
    /// `X-Influxdb-Error`, and what 405 allows.
    pub headers: Vec<(&'static str, String)>,
    /// Inflated.
    pub body: Vec<u8>,
}

impl ComparedAnswer {
    /// The body, cut to what can be read in a report.
    pub fn short(&self) -> String {
        const HEAD: usize = 900;
        let text = String::from_utf8_lossy(&self.body);
        let mut end = text.len().min(HEAD);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = if end < text.len() { format!("... ({} bytes)", self.body.len()) } else { String::new() };
        format!("{} {} {:?} {}{cut}", self.status, self.content_type, self.headers, &text[..end])
    }
}

/// A connection to one side.
pub struct Side {
    addr: SocketAddr,
    client: Option<Client>,
}

impl Side {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, client: None }
    }

    /// Sends it and waits for the answer. Panics when there is none: a promise of both sides.
    pub fn ask(&mut self, request: &Request) -> ComparedAnswer {
        let headers: Vec<&str> = request.headers.iter().map(String::as_str).collect();
        for attempt in 1.. {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => Client::connect(self.addr).unwrap_or_else(|e| panic!("{}: {e}", self.addr)),
            };
            let answer = client.request(&request.method, &request.target, &headers, &request.body);
            match answer {
                Ok(reply) => {
                    if !reply.closes() {
                        self.client = Some(client);
                    }
                    let header = |name| reply.header(name).map(str::to_owned);
                    let kept = ["X-Influxdb-Error", "Allow"];
                    let body = match header("Content-Encoding").as_deref() {
                        Some("gzip") => inflated(&reply.body),
                        _ => reply.body.clone(),
                    };
                    return ComparedAnswer {
                        status: reply.status,
                        content_type: header("Content-Type").unwrap_or_default(),
                        headers: kept.iter().filter_map(|name| Some((*name, header(name)?))).collect(),
                        body,
                    };
                }
                Err(e) if attempt == ATTEMPTS => panic!("{} did not answer {request:?}: {e}", self.addr),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        unreachable!("the last attempt returns or panics")
    }
}

fn inflated(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(body), &mut plain).expect("gzip");
    plain
}
