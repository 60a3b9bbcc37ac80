//! Request heads: which are accepted, which are refused, and that the result does not depend on how the bytes arrive.

use super::*;
use crate::http::fuzz::fuzz_head;
use proptest::prelude::*;

const TELEGRAF: &str = "POST /write?db=telegraf&precision=ns HTTP/1.1\r\n\
    Host: influx.example:8086\r\nUser-Agent: Telegraf/1.30\r\n\
    Content-Length: 172\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n\r\n";

fn head(text: &str) -> Head {
    match parse(text.as_bytes()) {
        Ok(Status::Complete(head)) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// A request of HTTP/1.1 with these fields.
fn with(fields: &str) -> String {
    format!("POST /write?db=x HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[test]
fn a_write_of_telegraf_is_read() {
    let buf = TELEGRAF.as_bytes();
    let head = head(TELEGRAF);
    assert_eq!((head.method, head.minor, head.keep_alive), (Method::Post, 1, true));
    assert_eq!((head.path(buf), head.query(buf)), (&b"/write"[..], &b"db=telegraf&precision=ns"[..]));
    assert_eq!((head.body, head.gzip, head.expect_continue), (BodyKind::Length(172), true, false));
    assert_eq!(head.content_type.unwrap().of(buf), b"text/plain; charset=utf-8");
    assert_eq!(head.user_agent.unwrap().of(buf), b"Telegraf/1.30");
    assert_eq!(head.accept_encoding.unwrap().of(buf), b"gzip");
    assert_eq!((head.authorization, head.origin, head.accept), (None, None, None));
    assert_eq!(head.head_len, buf.len());
}

#[test]
fn of_repeated_fields_the_first_counts() {
    let text = with(
        "X-Request-Id: a\r\nx-request-id: b\r\nRequest-Id:  c \r\nContent-Encoding: x\r\nContent-Encoding: gzip\r\n",
    );
    let head = head(&text);
    assert_eq!(head.x_request_id.unwrap().of(text.as_bytes()), b"a");
    assert_eq!(head.request_id.unwrap().of(text.as_bytes()), b"c");
    assert!(!head.gzip);
}

#[test]
fn only_the_exact_word_means_gzip() {
    for (value, gzip) in [("gzip", true), ("GZIP", false), ("x-gzip", false), ("gzip, gzip", false), ("", false)] {
        assert_eq!(head(&with(&format!("Content-Encoding: {value}\r\n"))).gzip, gzip, "{value}");
    }
}

#[test]
fn targets_come_in_three_forms() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/a%20b?", "/a%20b", ""),
        ("/a?b?c", "/a", "b?c"),
        ("*", "*", ""),
        ("http://h:80/write?db=x", "/write", "db=x"),
        ("HTTPS://h", "/", ""),
        ("http://h?q=1", "/", "q=1"),
        ("//write", "//write", ""),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = head(&text);
        assert_eq!((head.path(text.as_bytes()), head.query(text.as_bytes())), (path.as_bytes(), query.as_bytes()));
    }
    for target in ["write", "h:80", "ftp://h/", "http:///x", "http://"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(parse(text.as_bytes()), Err(HeadError::Target), "{target}");
    }
}

#[test]
fn connections_are_kept_as_both_versions_say() {
    for (version, fields, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: TE, Close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        assert_eq!(head(&text).keep_alive, keep, "{text}");
    }
    assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
}

#[test]
fn a_client_is_told_to_continue_only_where_it_waits_for_that() {
    for (fields, wanted) in [
        ("Expect: 100-Continue\r\nContent-Length: 1\r\n", true),
        ("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("Expect: 100-continue\r\n", false),
        ("Content-Length: 1\r\n", false),
    ] {
        assert_eq!(head(&with(fields)).expect_continue, wanted, "{fields}");
    }
    assert!(!head("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expect_continue);
}

#[test]
fn the_head_of_a_query_may_be_long() {
    let get = |target: &str, len: usize| {
        let (start, end) = (format!("GET {target}"), " HTTP/1.1\r\nHost: h\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
    };
    let whole = get("/query?q=", QUERY_HEAD_BYTES_MAX);
    let parsed = head(&whole);
    assert_eq!(parsed.head_len, QUERY_HEAD_BYTES_MAX);
    assert!(parsed.query(whole.as_bytes()).ends_with(b"xxx"));
    assert_eq!(parse(&whole.as_bytes()[..QUERY_HEAD_BYTES_MAX - 1]), Ok(Status::Partial));
    assert_eq!(parse(get("/query?q=", QUERY_HEAD_BYTES_MAX + 1).as_bytes()), Err(HeadError::QueryTooLong));
    for target in ["/write?q=", "/query/x?q=", "/queryx?"] {
        assert_eq!(parse(get(target, HEAD_BYTES_MAX + 1).as_bytes()), Err(HeadError::TooLong), "{target}");
    }
}

#[test]
fn an_end_is_not_overlooked_wherever_the_bytes_were_cut() {
    for text in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n", "GET / HTTP/1.1\nA: b\n\r\n"] {
        for cut in 1..text.len() {
            assert!(may_end(text.as_bytes(), cut), "{text:?} {cut}");
            assert!(!may_end(&text.as_bytes()[..text.len() - 1], cut.min(text.len() - 1)), "{text:?} {cut}");
        }
    }
}

#[test]
fn bodies_whose_end_is_in_doubt_are_refused() {
    use HeadError::*;
    for (fields, error) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", LengthTwice),
        ("Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 4\r\n", LengthTwice),
        ("Content-Length: 5, 5\r\n", Length),
        ("Content-Length: +5\r\n", Length),
        ("Content-Length: -5\r\n", Length),
        ("Content-Length: 0x5\r\n", Length),
        ("Content-Length: 5 5\r\n", Length),
        ("Content-Length:\r\n", Length),
        ("Content-Length: 18446744073709551616\r\n", Length),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndChunked),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndChunked),
        ("Transfer-Encoding: gzip, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: identity\r\n", TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", TransferEncoding),
        ("Transfer-Encoding: \x0bchunked\r\n", Malformed),
        ("Transfer-Encoding : chunked\r\n", Malformed),
        ("Transfer-Encoding\r\n : chunked\r\n", Malformed),
        ("A: b\r\n Transfer-Encoding: chunked\r\n", Malformed),
        ("A: b\r\n\tfolded\r\n", Malformed),
        ("A: b\rContent-Length: 5\r\n", Malformed),
        ("A: b\0\r\n", Malformed),
        (": b\r\n", Malformed),
        ("A\r\n", Malformed),
        ("Expect: 200-ok\r\n", Expectation),
        ("Host: other\r\n", Host),
    ] {
        assert_eq!(parse(with(fields).as_bytes()), Err(error), "{fields:?}");
    }
    assert_eq!(parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(TransferEncoding));
    assert_eq!(head(&with("Content-Length: 18446744073709551615\r\n")).body, BodyKind::Length(u64::MAX));
    assert_eq!(head(&with("transfer-encoding:CHUNKED\r\n")).body, BodyKind::Chunked);
    assert_eq!(head(&with("")).body, BodyKind::None);
}

#[test]
fn other_versions_and_nonsense_are_told_apart() {
    for (text, status) in [
        ("GET /\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\n\r\n", 505),
        ("GET / HTTP/3\r\n\r\n", 505),
        ("GET / FTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1 x\r\n\r\n", 400),
        ("GET /\u{1} HTTP/1.1\r\n\r\n", 400),
        ("G{T / HTTP/1.1\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}", 400),
        (" GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let error = parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.status(), status, "{text:?}: {}", error.text());
    }
}

#[test]
fn a_head_is_bounded_in_bytes_and_fields() {
    let filled = |len: usize| {
        let frame = with("A: \r\n").len();
        with(&format!("A: {}\r\n", "b".repeat(len - frame)))
    };
    assert_eq!(head(&filled(HEAD_BYTES_MAX)).head_len, HEAD_BYTES_MAX);
    let over = filled(HEAD_BYTES_MAX + 1);
    assert_eq!(parse(over.as_bytes()), Err(HeadError::TooLong));
    assert_eq!(parse(&over.as_bytes()[..HEAD_BYTES_MAX]), Err(HeadError::TooLong));
    assert_eq!(parse(&over.as_bytes()[..HEAD_BYTES_MAX - 1]), Ok(Status::Partial));
    assert_eq!(head(&with(&"A: b\r\n".repeat(HEADERS_MAX - 1))).head_len, with("").len() + 6 * (HEADERS_MAX - 1));
    assert_eq!(parse(with(&"A: b\r\n".repeat(HEADERS_MAX)).as_bytes()), Err(HeadError::TooManyFields));
}

#[test]
fn every_part_of_a_head_is_partial_and_what_follows_is_not_read() {
    for cut in 0..TELEGRAF.len() {
        assert_eq!(parse(&TELEGRAF.as_bytes()[..cut]), Ok(Status::Partial), "cut at {cut}");
    }
    let followed = [TELEGRAF.as_bytes(), b"\0\r\n\xff"].concat();
    assert_eq!(parse(&followed), parse(TELEGRAF.as_bytes()));
}

#[test]
fn a_space_before_the_method_is_nonsense_however_much_has_arrived() {
    let text = b" GET /ping HTTP/1.0\r\n\r\n";
    for len in 1..text.len() {
        assert_eq!(parse(&text[..len]), Err(HeadError::Malformed), "{len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_break_no_promise(data: Vec<u8>) {
        fuzz_head(&data);
    }

    #[test]
    fn near_heads_break_no_promise(at: proptest::sample::Index, with: Vec<u8>, cut in 0usize..12) {
        let mut text = TELEGRAF.as_bytes().to_vec();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with);
        fuzz_head(&text);
    }

    #[test]
    fn odd_heads_break_no_promise(
        text in concat!(
            "(GET|POST|PRI|x) [/*a-z:?]{0,9}( HTTP/[012]\\.?[0-9]?)?\r?\n",
            "([A-Za-z-]{0,5}:? ?[a-z0-9\t\r]{0,4}\r?\n){0,3}\r?\n?",
        )
    ) {
        fuzz_head(text.as_bytes());
    }
}
