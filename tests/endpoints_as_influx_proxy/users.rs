//! Promise: where a user is configured every path but `/ping` asks for it, `/encrypt`, `/decrypt` and profiles too,
//! takes it as `u` and `p`, as Basic credentials or as a token, and refuses any other; where none is configured nobody
//! is asked.

use fluxgate::lab::proxy::{Proxy, ProxyConfig};
use fluxgate::lab::stand_in::StandIn;
use serde_json::{Value, json};

use crate::answers::{ProxyAnswer, send};
use crate::support;

/// Method, target, and the status for whoever is let in. What would begin a migration has a parameter that is wrong:
/// users come first.
const REQUESTS: &[(&str, &str, u16)] = &[
    ("GET", "/query?q=SHOW+DATABASES", 200),
    ("POST", "/query?q=SHOW+DATABASES", 200),
    ("POST", "/write?db=db1", 204),
    ("POST", "/api/v2/query", 400),
    ("POST", "/api/v2/write?bucket=db1", 204),
    ("POST", "/api/v3/write_lp?db=db1", 204),
    ("GET", "/health", 200),
    ("GET", "/ready", 200),
    ("GET", "/replica?db=db1&meas=cpu1", 200),
    ("GET", "/encrypt?msg=admin", 200),
    ("GET", "/decrypt?key=consistentcipher&msg=YgvEyuPZlDYAH8sGDkC!Ag", 200),
    ("GET", "/migrate/state", 200),
    ("POST", "/migrate/state", 400),
    ("GET", "/migrate/stats?circle_id=0&type=rebalance", 200),
    ("POST", "/rebalance?circle_id=9", 400),
    ("POST", "/recovery?from_circle_id=9", 400),
    ("POST", "/resync?cpus=x", 400),
    ("POST", "/clear?circle_id=9", 400),
    ("GET", "/transfer/state", 200),
    ("POST", "/transfer/state", 400),
    ("GET", "/transfer/stats?circle_id=0&type=rebalance", 200),
    ("POST", "/cleanup?circle_id=9", 400),
    ("GET", "/migrate/jobs", 200),
    ("DELETE", "/migrate/jobs/9", 404),
    ("GET", "/ledger", 200),
    ("GET", "/debug/pprof", 301),
    ("GET", "/debug/pprof/", 200),
    ("GET", "/debug/pprof/cmdline", 200),
    ("GET", "/debug/pprof/goroutine", 200),
    ("GET", "/debug/pprof/heap", 200),
];

// admin:s3cr&t, admin:wrong, wrong:s3cr&t
const BASIC: &str = "Basic YWRtaW46czNjciZ0";
const WRONG_PASSWORD: &str = "Basic YWRtaW46d3Jvbmc=";
const WRONG_USER: &str = "Basic d3Jvbmc6czNjciZ0";

/// Parameters, the Authorization header, and whether they are the user's.
const CREDENTIALS: &[(&str, &str, bool)] = &[
    ("", "", false),
    ("u=admin&p=s3cr%26t", "", true),
    ("u=admin&p=wrong", "", false),
    ("u=wrong&p=s3cr%26t", "", false),
    ("u=admin", "", false),
    ("p=s3cr%26t", "", false),
    ("u=ADMIN&p=s3cr%26t", "", false),
    ("", BASIC, true),
    ("", WRONG_PASSWORD, false),
    ("", WRONG_USER, false),
    ("", "Basic !!", false),
    ("", "Token admin:s3cr&t", true),
    ("", "Token admin:wrong", false),
    ("", "Bearer s3cr&t", false),
    // One right user is enough, as in influx-proxy.
    ("u=a&p=b", BASIC, true),
    ("u=admin&p=s3cr%26t", WRONG_PASSWORD, true),
];

fn ask(proxy: &Proxy, method: &str, target: &str, params: &str, authorization: &str) -> ProxyAnswer {
    let joint = if params.is_empty() {
        ""
    } else if target.contains('?') {
        "&"
    } else {
        "?"
    };
    let mut request = json!({"method": method, "path": format!("{target}{joint}{params}")});
    if target.contains("/write") {
        request["body"] = "m v=1 1".into();
    }
    if !authorization.is_empty() {
        request["headers"] = json!({"Authorization": authorization});
    }
    send(proxy.addr(), &request)
}

#[test]
fn every_path_but_ping_asks_for_the_user() {
    let backends = [StandIn::with_databases(&["db1"]).unwrap(), StandIn::with_databases(&["db1"]).unwrap()];
    let config = ProxyConfig::new(&backends.each_ref().map(|backend| vec![backend.url()]));
    let open = support::start(&config);
    let guarded = support::start(&config.set("username", "admin").set("password", "s3cr&t"));
    let mut wrong = Vec::new();
    for &(method, target, status) in REQUESTS {
        for &(params, authorization, is_user) in CREDENTIALS {
            let got = ask(&guarded, method, target, params, authorization);
            let text = String::from_utf8_lossy(&got.body);
            // A departure from influx-proxy, and as InfluxDB: a 401 says which scheme is asked for.
            let asked = got.headers.get("WWW-Authenticate").map(String::as_str) == Some("Basic realm=\"InfluxDB\"");
            let says_so = asked && text.contains("authentication failed");
            if got.status != if is_user { status } else { 401 } || says_so == is_user {
                wrong.push(format!("{method} {target} with {params:?} {authorization:?}: {} {text}", got.status));
            }
            let got = ask(&open, method, target, params, authorization);
            if got.status != status {
                wrong.push(format!("open: {method} {target} with {params:?} {authorization:?}: {}", got.status));
            }
        }
    }
    for &(params, authorization, _) in CREDENTIALS {
        for proxy in [&open, &guarded] {
            assert_eq!(ask(proxy, "GET", "/ping", params, authorization).status, 204, "{params} {authorization}");
        }
        // An unknown path is 404 with and without a user.
        assert_eq!(ask(&guarded, "GET", "/nope", params, authorization).status, 404);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A configured user without a password is asked for, too.
#[test]
fn the_cipher_is_open_only_while_no_user_is_configured() {
    let backend = StandIn::with_databases(&["db1"]).unwrap();
    let config = || ProxyConfig::new(&[vec![backend.url()]]);
    let passwords: [(&[(&str, Value)], bool); 3] = [
        (&[("username", "".into()), ("password", "".into())], true),
        (&[("username", "admin".into()), ("password", "".into())], false),
        (&[("username", "admin".into()), ("password", "s3cr&t".into())], false),
    ];
    for (keys, is_open) in passwords {
        let proxy = support::start(&config().set_all(keys.iter().cloned()));
        for (target, plain) in [
            ("/encrypt?msg=admin", "YgvEyuPZlDYAH8sGDkC!Ag\n"),
            ("/decrypt?key=consistentcipher&msg=YgvEyuPZlDYAH8sGDkC!Ag", "admin\n"),
        ] {
            let got = ask(&proxy, "GET", target, "", "");
            let want = if is_open { (200, plain) } else { (401, "authentication failed\n") };
            assert_eq!((got.status, &*String::from_utf8_lossy(&got.body)), want, "{target} {keys:?}");
        }
    }
}
