//! Requests to `/api/v3/write_lp`.

use serde_json::{Value, json};

use crate::{Influx, json_of};

const PATH: &str = "/api/v3/write_lp";

#[test]
fn points_arrive_in_every_unit() {
    let influx = Influx::start(&[]);
    for (n, (params, time)) in [
        ("", 1_700_000_000_000_000_001_i64),
        ("&precision=nanosecond", 1_700_000_000_000_000_002),
        ("&precision=us", 1_700_000_000_000_003),
        ("&precision=microsecond", 1_700_000_000_000_004),
        ("&precision=millisecond&no_sync=true", 1_700_000_000_005),
        ("&precision=second&accept_partial=false", 1_700_000_006),
        ("&precision=s", 7),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = influx.post(&format!("{PATH}?db=db{params}"), &[], format!("m v={n}i {time}").as_bytes());
        assert_eq!((reply.status, reply.header("X-Fluxgate-Ack")), (204, Some("disk")), "{params}: {}", reply.text());
    }
    let want = json!([
        ["1970-01-01T00:00:07Z", 6],
        ["2023-11-14T22:13:20.000000001Z", 0],
        ["2023-11-14T22:13:20.000000002Z", 1],
        ["2023-11-14T22:13:20.000003Z", 2],
        ["2023-11-14T22:13:20.000004Z", 3],
        ["2023-11-14T22:13:20.005Z", 4],
        ["2023-11-14T22:13:26Z", 5],
    ]);
    assert_eq!(influx.stored("m"), want);
}

/// One point in several units: the last value counts, whichever unit it has.
#[test]
fn each_timestamp_tells_its_unit_and_the_order_of_lines_stays() {
    let influx = Influx::start(&[]);
    let lines = "a v=1i 1700000001\na v=2i 1700000002000 \nb v=1i 1700000003000000\na v=3i 1700000001000000000\n\
                 a v=4i 1700000001\na v=5i 1700000002000000\na v=6i -1700000001\nnow v=1i\n";
    assert_eq!(influx.post(&format!("{PATH}?db=db&precision=auto"), &[], lines.as_bytes()).status, 204);
    let want = json!([["1916-02-18T01:46:39Z", 6], ["2023-11-14T22:13:21Z", 4], ["2023-11-14T22:13:22Z", 5]]);
    assert_eq!(influx.stored("a"), want);
    assert_eq!(influx.stored("b"), json!([["2023-11-14T22:13:23Z", 1]]));
    let now = influx.stored("now")[0][0].as_str().unwrap().to_owned();
    assert!(now.as_str() > "2025", "the clock, in nanoseconds: {now}");
}

#[test]
fn good_lines_are_kept_unless_all_or_none_are_wanted() {
    let influx = Influx::start(&[]);
    let lines = b"m v=1i 1\nbroken\nm v=2i 2\nm v= 3\n";
    let first = json!({"original_line": "broken", "line_number": 2, "error_message": "missing fields"});
    let second = json!({"original_line": "m v= 3", "line_number": 4, "error_message": "missing field value"});
    let reply = influx.post(&format!("{PATH}?db=db&accept_partial=false"), &[], lines);
    let want = json!({"error": "parsing failed for write_lp endpoint", "data": first});
    assert_eq!((reply.status, json_of(&reply)), (400, want));
    assert_eq!(influx.stored("m"), Value::Null, "not one line is stored");

    let reply = influx.post(&format!("{PATH}?db=db&precision=second"), &[], lines);
    let want = json!({"error": "partial write of line protocol occurred", "data": [first, second]});
    assert_eq!((reply.status, json_of(&reply)), (400, want));
    assert_eq!(influx.stored("m"), json!([["1970-01-01T00:00:01Z", 1], ["1970-01-01T00:00:02Z", 2]]));
}

/// A body that is not complete in the first buffer, and one that is never as a whole in memory.
#[test]
fn all_or_none_holds_for_long_bodies_too() {
    let influx = Influx::start(&[("workers", 1.into())]);
    let body = |bytes: usize, last: &str| format!("{}{last}", "m v=1i 1\n".repeat(bytes / 9));
    let target = format!("{PATH}?db=db&accept_partial=false&precision=second");
    let reply = influx.post_chunked(&target, body(1_000_000, "broken").as_bytes());
    assert_eq!((reply.status, &json_of(&reply)["data"]["line_number"]), (400, &111_112.into()));
    let reply = influx.post_chunked(&target, body(5_000_000, "").as_bytes());
    let error = json!({"error": "too large for accept_partial=false: at most 4194304 bytes, inflated"});
    assert_eq!((reply.status, json_of(&reply)), (413, error));
    assert_eq!(influx.stored("m"), Value::Null);
    assert_eq!(influx.post_chunked(&target, body(1_000_000, "").as_bytes()).status, 204);
    assert_eq!(influx.stored("m"), json!([["1970-01-01T00:00:01Z", 1]]));
}

#[test]
fn refusals_are_in_the_form_of_version_3() {
    let influx = Influx::start(&[("username", "admin".into()), ("password", "s3cr&t".into())]);
    for (params, error) in [
        ("db=absent", r#"database not found: "absent""#),
        ("", "database not found"),
        ("db=db&precision=h", r#"invalid precision "h" (use auto, nanosecond, microsecond, millisecond or second)"#),
        ("db=db&accept_partial=1", r#"invalid accept_partial "1" (use true or false)"#),
        ("db=db&no_sync=yes", r#"invalid no_sync "yes" (use true or false)"#),
    ] {
        let reply = influx.post(&format!("{PATH}?{params}"), &["Authorization: Bearer admin:s3cr&t"], b"m v=1i 1");
        assert_eq!(json_of(&reply), json!({"error": error}), "{params}");
        assert_eq!(reply.status, if params == "db=absent" { 404 } else { 400 }, "{params}");
    }
    for (authorization, status) in [
        ("Authorization: Token admin:s3cr&t", 204),
        ("Authorization: Basic YWRtaW46czNjciZ0", 204),
        ("Authorization: Bearer admin:s3cr&t", 204),
        ("Authorization: Bearer admin:wrong", 401),
        ("X-Nothing: x", 401),
    ] {
        assert_eq!(influx.post(&format!("{PATH}?db=db"), &[authorization], b"m v=1i 1").status, status);
    }
    let reply = influx.post("/write?db=db", &["Authorization: Bearer admin:s3cr&t"], b"m v=1i 1");
    assert_eq!(reply.status, 401, "that is version 3's alone");
}
