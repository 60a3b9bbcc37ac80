//! Circles and backends as files say them, and the exact sentence for each that cannot be.

use std::path::Path;

use super::config_test::{EXAMPLE, json, ok, refusal};
use super::parse;

#[test]
fn backend_addresses() {
    for (url, good) in [
        ("http://127.0.0.1:8086", true),
        ("http://influx-1.example.com:8086", true),
        ("http://influx_1", true),
        ("http://[::1]:8086", true),
        ("http://[::1]", true),
        ("http://h:65535", true),
        ("http://h:65536", false),
        ("http://h:0", false),
        ("http://h:", false),
        ("http://h:8086/", true),
        ("HTTP://h:8086", true),
        ("Https://h:8086/", true),
        ("http://h:8086//", false),
        ("http://h:8086/influx", false),
        ("http://h?u=x", false),
        ("http://", false),
        ("http://:8086", false),
        ("http://[::1", false),
        ("http://[x]:1", false),
        ("http://::1:8086", false),
        ("http://a b:1", false),
        ("h:8086", false),
        ("udp://h:8086", false),
        ("http://u:p@h:8086", false),
        ("https://h:8086", true),
        ("https://[::1]:8086", true),
        ("https://u:p@h:8086", false),
        ("https://h:8086/", true),
        ("https://h/", true),
        ("http:///", false),
    ] {
        let text = json("").replace("http://h:1", url).replace("],\n", "]");
        let read = parse(Path::new("f.json"), &text);
        assert_eq!(read.is_ok(), good, "{url}");
        if let Ok(config) = read {
            let plain = &config.data.topology.backends[0].url;
            assert!(plain.starts_with("http") && !plain.ends_with('/') && url.len() - plain.len() <= 1, "{plain}");
            // There the text itself decides where data lies.
            let text = json(r#""hash_key": "url""#).replace("http://h:1", url);
            assert_eq!(parse(Path::new("f.json"), &text).is_ok(), plain == url, "{url}");
        }
    }
}

#[test]
fn refusals_of_circles_and_backends_point_at_the_one_meant() {
    for (change, to, want) in [
        (
            "\"url\": \"http://127.0.0.1:8088\"",
            "\"ulr\": \"http://127.0.0.1:8088\"",
            "p.json:25: unknown key circles[1].backends[0].ulr; the nearest known key is url",
        ),
        (
            "influxdb-2-2",
            "influxdb-1-1",
            "p.json:30: circles[1].backends[1].name is \"influxdb-1-1\", which another backend has too; \
             names are unique over all circles",
        ),
        (
            "influxdb-2-2",
            "a/b",
            "p.json:30: circles[1].backends[1].name must be usable as a file name: at most 200 bytes, \
             without \"/\", and neither \".\" nor \"..\"",
        ),
        ("\"influxdb-2-2\"", "\"\"", "p.json:30: circles[1].backends[1] has no name"),
        ("\"name\": \"influxdb-1-2\",", "", "p.json:14: circles[0].backends[1] has no name"),
        ("\"url\": \"http://127.0.0.1:8087\",", "", "p.json:13: circles[0].backends[1] has no url"),
        (
            "http://127.0.0.1:8089",
            "127.0.0.1:8089",
            "p.json:31: circles[1].backends[1].url must be http://host:port or https://host:port, with nothing \
             behind the port",
        ),
        (
            "http://127.0.0.1:8089",
            "http://127.0.0.1:808999",
            "p.json:31: circles[1].backends[1].url must have a port from 1 to 65535",
        ),
        (
            "http://127.0.0.1:8089",
            "http://u:pw@127.0.0.1:8089",
            "p.json:31: circles[1].backends[1].url must be http://host:port or https://host:port; \
             user and password belong in the keys username and password",
        ),
        ("\"circles\"", "\"circle\"", "p.json:2: unknown key circle; the nearest known key is circles"),
    ] {
        assert!(EXAMPLE.contains(change), "{change}");
        assert_eq!(refusal("p.json", &EXAMPLE.replace(change, to)), want);
    }
    for (text, want) in [
        ("{}", "p.json: circles is missing or empty; fluxgate needs at least one circle with one backend"),
        (
            "{\n\"circles\": []}",
            "p.json:2: circles is missing or empty; fluxgate needs at least one circle with one backend",
        ),
        ("{\"circles\":\n[{\"name\": \"c\"}]}", "p.json:2: circles[0] has no backends; a circle needs at least one"),
        (
            "{\"circles\":\n[{\"name\": \"c\",\n\"backends\": []}]}",
            "p.json:3: circles[0] has no backends; a circle needs at least one",
        ),
        ("{\"circles\": {}}", "p.json:1: circles[0] has no backends; a circle needs at least one"),
        ("{\"circles\": [7]}", "p.json:1: circles[0] must be a table of keys, not a number"),
        ("[]", "p.json: the file must be a table of keys, not a list"),
        ("", "p.json:1: this is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{} {}", "p.json:1: this is not JSON: trailing characters at line 1 column 4"),
        ("{\n\"a\" 1}", "p.json:2: this is not JSON: expected `:` at line 2 column 5"),
    ] {
        assert_eq!(refusal("p.json", text), want, "{text}");
    }
    let many = (0..1025).map(|i| format!(r#"{{"name": "b{i}", "url": "http://h:1"}}"#)).collect::<Vec<_>>().join(",");
    assert_eq!(
        refusal("p.json", &format!(r#"{{"circles": [{{"name": "c", "backends": [{many}]}}]}}"#)),
        "p.json:1: circles[0].backends[1024] is one too many; there may be 1024"
    );
    let circle = |i| format!(r#"{{"name": "c{i}", "backends": [{{"name": "b{i}", "url": "http://h:1"}}]}}"#);
    let circles = |n| format!(r#"{{"circles": [{}]}}"#, (0..n).map(circle).collect::<Vec<_>>().join(","));
    ok("p.json", &circles(64));
    assert_eq!(refusal("p.json", &circles(65)), "p.json:1: circles[64] is one too many; there may be 64");
}

#[test]
fn a_leaving_backend_is_known_and_one_must_stay() {
    let text = |leaving| {
        format!(
            r#"{{"circles": [{{"name": "c", "backends": [{{"name": "a", "url": "http://h:1", "leaving": true}},
            {{"name": "b", "url": "http://h:2", "leaving": {leaving}}}]}}]}}"#
        )
    };
    let topology = ok("p.json", &text(false)).data.topology;
    assert_eq!(topology.backends.iter().map(|backend| backend.leaving).collect::<Vec<_>>(), [true, false]);
    assert_eq!(
        refusal("p.json", &text(true)),
        "p.json:1: every backend of circles[0] is leaving; a circle needs at least one that stays"
    );
}
