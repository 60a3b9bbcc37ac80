//! Requests to `/api/v2/write`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::{Influx, json_of as body};

#[test]
fn points_arrive_in_every_unit_policy_and_encoding() {
    let influx = Influx::start(&[]);
    for (n, (target, time)) in [
        ("bucket=db&org=whoever", 1_700_000_000_000_000_001_i64),
        ("bucket=db&precision=ns", 1_700_000_000_000_000_002),
        ("bucket=db&precision=us", 1_700_000_000_000_003),
        ("bucket=db&precision=ms", 1_700_000_000_004),
        ("bucket=db&precision=s&orgID=0123456789abcdef", 1_700_000_005),
        ("bucket=db%2Fautogen", 1_700_000_000_000_000_006),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = influx.post(&format!("/api/v2/write?{target}"), &[], format!("m v={n}i {time}").as_bytes());
        assert_eq!((reply.status, reply.header("X-Fluxgate-Ack")), (204, Some("disk")), "{target}: {}", reply.text());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"m v=6i 1700000007").unwrap();
    let target = "/api/v2/write?bucket=db&precision=s&consistency=all";
    let reply = influx.post(target, &["Content-Encoding: gzip"], &packed.finish().unwrap());
    assert_eq!((reply.status, reply.header("X-Fluxgate-Ack")), (204, Some("circles=1/1")), "{}", reply.text());
    let reply = influx.post("/api/v2/write?bucket=db/week", &[], b"kept v=1i 1700000000000000000");
    assert_eq!(reply.status, 204);
    let want = json!([
        ["2023-11-14T22:13:20.000000001Z", 0],
        ["2023-11-14T22:13:20.000000002Z", 1],
        ["2023-11-14T22:13:20.000000006Z", 5],
        ["2023-11-14T22:13:20.000003Z", 2],
        ["2023-11-14T22:13:20.004Z", 3],
        ["2023-11-14T22:13:25Z", 4],
        ["2023-11-14T22:13:27Z", 6],
    ]);
    assert_eq!(influx.stored("m"), want);
    assert_eq!(influx.stored("week.kept"), json!([["2023-11-14T22:13:20Z", 1]]));
    assert_eq!(influx.stored("autogen.kept"), Value::Null);
}

#[test]
fn refusals_have_the_codes_of_version_2() {
    let influx = Influx::start(&[("max_body_bytes", 1000.into()), ("db_list", json!(["db", "absent"]))]);
    let (point, long) = ("m v=1i 1", format!("m v=1i 1{}", " ".repeat(1000)));
    let is_corrupt: &[&str] = &["Content-Encoding: gzip"];
    // The format of errors is not the client's choice.
    let wants_csv: &[&str] = &["Accept: text/csv"];
    for (target, headers, lines, status, code, message) in [
        ("", &[][..], point, 404, "not found", r#"bucket not found: "" (use database or database/retention-policy)"#),
        (
            "bucket=db/",
            &[],
            point,
            404,
            "not found",
            r#"bucket not found: "db/" (use database or database/retention-policy)"#,
        ),
        ("bucket=absent", wants_csv, point, 404, "not found", r#"database not found: "absent""#),
        ("bucket=db/month", &[], point, 404, "not found", "retention policy not found: month"),
        ("bucket=other", &[], point, 400, "invalid", "database forbidden: other"),
        ("bucket=db&precision=n", &[], point, 400, "invalid", r#"invalid precision "n" (use ns, us, ms or s)"#),
        ("bucket=db", is_corrupt, point, 400, "invalid", "unexpected EOF"),
        ("bucket=db", &[], &long, 413, "request too large", "Request Entity Too Large"),
        ("bucket=db&consistency=two", &[], point, 400, "invalid", "invalid consistency level"),
    ] {
        let reply = influx.post(&format!("/api/v2/write?{target}"), headers, lines.as_bytes());
        assert_eq!(reply.status, status, "{target} {}", reply.text());
        assert_eq!(body(&reply), json!({"code": code, "message": message, "error": message}), "{target}");
        assert_eq!(reply.header("X-Influxdb-Error"), Some(message), "{target}");
    }
    let mut client = fluxgate::lab::client::Client::connect(influx.proxy.addr()).unwrap();
    let reply = client.request("GET", "/api/v2/write?bucket=db", &[], b"").unwrap();
    assert_eq!((reply.status, &body(&reply)["code"]), (405, &"method not allowed".into()));
    for path in ["/api/v2/write", "/api/v2/query"] {
        let reply = client.request("OPTIONS", path, &["Origin: http://a.b"], b"").unwrap();
        let allowed = reply.header("Access-Control-Allow-Origin");
        assert_eq!((reply.status, allowed), (200, Some("http://a.b")), "{path}");
    }
    assert_eq!(client.get("/api/v2/ping").unwrap().status, 204);
    assert_eq!(influx.stored("m"), Value::Null, "nothing of what is refused is stored");
}

#[test]
fn good_lines_of_a_partly_bad_body_are_kept_and_the_first_bad_one_is_named() {
    let influx = Influx::start(&[]);
    let lines = b"m v=1i 1\n\nbroken\nm v=2i 2\nm v= 3\n";
    let reply = influx.post("/api/v2/write?bucket=db", &[], lines);
    let message = "partial write: unable to parse 'broken': missing fields\nunable to parse 'm v= 3': missing field \
                   value dropped=0";
    let want = json!({"code": "invalid", "message": message, "line": 3, "error": message});
    assert_eq!((reply.status, body(&reply)), (400, want));
    assert_eq!(
        influx.stored("m"),
        json!([["1970-01-01T00:00:00.000000001Z", 1], ["1970-01-01T00:00:00.000000002Z", 2]])
    );
    let reply = influx.post("/api/v2/write?bucket=db", &[], b"broken");
    assert_eq!((reply.status, &body(&reply)["line"]), (400, &1.into()));

    // Another type than before: what the server refuses is told to a request that waits for it.
    let reply = influx.post("/api/v2/write?bucket=db&consistency=all", &[], b"m v=\"x\" 3");
    let told = body(&reply);
    assert_eq!((reply.status, &told["code"]), (422, &"unprocessable entity".into()), "{told}");
    assert!(told["message"].as_str().unwrap().starts_with("partial write: field type conflict: "), "{told}");
}

#[test]
fn the_user_may_come_as_a_token_too() {
    let influx = Influx::start(&[("username", "admin".into()), ("password", "s3cr&t".into())]);
    let target = "/api/v2/write?bucket=db";
    for headers in ["Authorization: Token admin:s3cr&t", "Authorization: Basic YWRtaW46czNjciZ0"] {
        assert_eq!(influx.post(target, &[headers], b"m v=1i 1").status, 204, "{headers}");
    }
    assert_eq!(influx.post(&format!("{target}&u=admin&p=s3cr%26t"), &[], b"m v=1i 1").status, 204);
    for headers in [&[][..], &["Authorization: Token admin:wrong"], &["Authorization: Bearer s3cr&t"]] {
        let reply = influx.post(target, headers, b"m v=2i 2");
        let message = "authentication failed";
        let want = json!({"code": "unauthorized", "message": message, "error": message});
        assert_eq!((reply.status, body(&reply)), (401, want), "{headers:?}");
    }
}
