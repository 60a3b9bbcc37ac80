//! One recorded request, sent now, and how its answer differs from the recorded one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::golden;
use crate::servers::Servers;

/// One answer, read from a connection of its own.
#[derive(Debug, PartialEq)]
pub struct ProxyAnswer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub fn send(addr: SocketAddr, request: &Value) -> ProxyAnswer {
    let body = golden::bytes(&request["body"]);
    let body = String::from_utf8(body.clone())
        .map_or(body, |text| text.replace("<100000 x>", &"x".repeat(100_000)).into_bytes());
    let (method, target) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    let end = got.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request}"));
    let head = String::from_utf8_lossy(&got[..end]).into_owned();
    let body = &got[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned()));
    ProxyAnswer { status, headers: headers.collect(), body: body.to_vec() }
}

/// The differences between what is answered now and what is recorded.
pub fn differences(servers: &Servers, record: &Value, got: &ProxyAnswer) -> Vec<String> {
    let want = &record["response"];
    let mut found = Vec::new();
    if want["status"] != got.status {
        found.push(format!("status {}, recorded {}", got.status, want["status"]));
    }
    for pair in want["headers"].as_array().into_iter().flatten() {
        let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let here = got.headers.get(name).map(String::as_str);
        match name {
            // That of the backends.
            "X-Influxdb-Version" if here == Some("1.6.7") => {}
            "X-Influxdb-Build" if here == Some("fluxgate") => {}
            "Content-Length" | "Transfer-Encoding" => {}
            _ if here == Some(value) => {}
            _ => found.push(format!("{name}: {here:?}, recorded {value}")),
        }
    }
    if want["body_head"].get("base64").is_some() {
        // A profile: no two are alike.
        return found;
    }
    let body = if want["body"].is_null() { &want["body_head"] } else { &want["body"] };
    let body = with_our_version(servers.here(golden::bytes(body)));
    let told = got.headers.get("Content-Length").is_none_or(|length| *length == got.body.len().to_string());
    if got.body != body || !(told || record["request"]["method"] == "HEAD") {
        found.push(format!(
            "body {:?}, recorded {:?}",
            got.body.escape_ascii().to_string(),
            body.escape_ascii().to_string()
        ));
    }
    found
}

/// `/health` of 2.5 tells the version of the proxy.
fn with_our_version(body: Vec<u8>) -> Vec<u8> {
    let Ok(text) = String::from_utf8(body.clone()) else { return body };
    let named = |version: &str| format!("version\": \"{version}\"");
    let text = text.replace(&named("2.5.12"), &named(env!("CARGO_PKG_VERSION")));
    let named = |version: &str| format!("version\":\"{version}\"");
    text.replace(&named("2.5.12"), &named(env!("CARGO_PKG_VERSION"))).into_bytes()
}
