//! Promise: a log line is one line, whatever clients send.

use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::ProxyConfig;
use fluxgate::lab::stand_in::StandIn;

#[test]
fn no_request_makes_a_log_line_of_its_own() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let config = ProxyConfig::new(&[vec![backend.url()]]).set("query_tracing", true).set("write_tracing", true);
    let proxy = start(&config);
    let mut client = Client::connect(proxy.addr()).unwrap();
    let forged = "%0A%0D%C2%85%E2%80%A8%1B2026-01-01T00:00:00.000Z%20ERROR%20forged";
    for target in [
        format!("/query?q=SELECT+1{forged}&db=a{forged}&rp=b{forged}"),
        format!("/query?q=SELECT+1{forged}&db=db&async=true"),
        format!("/query?q=CREATE+DATABASE+%22c{forged}%22"),
        format!("/write?db=db&rp=b{forged}"),
        format!("/write?db=a{forged}"),
        format!("/rebalance{forged}?circle_id={forged}&operation={forged}"),
    ] {
        client.request("POST", &target, &[&format!("User-Agent: {forged}")], b"m n=1i 1\n").unwrap();
    }
    let log = proxy.stderr();
    assert!(log.contains("forged"), "{log}");
    let harmful = |line: &str| line.starts_with("2026-01-01T") || line.contains(|c: char| c.is_control());
    assert!(!log.split('\n').any(harmful), "{log}");
}
