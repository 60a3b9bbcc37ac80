//! Promises for any bytes, tested on random bodies and on valid lines with small errors.

use proptest::prelude::*;

use super::fuzz::{agrees_with_naive, keeps_its_meaning, scan_whole, survives_cuts};
use super::{Item, Reason, Scanner};
use crate::limits;
use crate::precision::Precision;

/// Pieces that combine in all the ways on which parsers differ.
const PIECES: &[&str] = &[
    "m",
    "cpu",
    "a",
    "b",
    "host",
    ",",
    ",",
    " ",
    " ",
    "=",
    "=",
    "\"",
    "\"",
    "\\",
    "\\",
    "\n",
    "\n",
    "\t",
    "\0",
    "#",
    "1",
    "1.5",
    "-",
    "i",
    "e",
    "t",
    "true",
    "\r",
    "é",
    "\u{1}",
    ",a=1",
    " v=1",
    "v=\"x\"",
    ",b=\"",
    "\\\"",
    "\\\\",
    " 5",
    " 1600000000000000000\n",
    "c\\ d",
    "C:\\x",
    "\\=",
    "m,t=a\\,b k\\ l=\"x\\\"y\" 7\n",
    "m v=1 5\n",
    "m,a=b v=1",
    "m v=\"a b\"\n",
    "9223372036854775807",
    " v=t,w=-1.5e3 9\n",
];

const GOOD: &str = "cpu,host=host-001,dc=dc3,rack=r07 usage_user=12.25,usage_idle=-3,n=17i 1600000000000000000\n\
                    disk,path=/var\\ log,dev=sda used=1i,free=t,note=\"a \\\"b\\\",\nc\" 1600000000000000001\n\
                    net v=1e5\nlog,é=ü text=\"\" 5 \n# note\n  mem used=5i,free=9223372036854775807i\n";

fn body_of_pieces() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

fn mutated_good_lines() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), prop::sample::select(PIECES), 0..3usize);
    (prop::collection::vec(edit, 1..5), 1..4usize).prop_map(|(edits, times)| {
        let mut body = GOOD.repeat(times).into_bytes();
        for (index, piece, drop) in edits {
            let at = index.index(body.len());
            let end = body.len().min(at + drop);
            body.splice(at..end, piece.bytes());
        }
        body
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => body_of_pieces(),
        4 => mutated_good_lines(),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

fn any_precision() -> impl Strategy<Value = Precision> {
    prop::sample::select(&Precision::ALL[..])
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn fast_form_equals_naive_form(body in any_body(), precision in any_precision()) {
        agrees_with_naive(&body, precision);
    }

    #[test]
    fn lines_mean_the_same_once_sent_on(body in any_body(), precision in any_precision()) {
        keeps_its_meaning(&body, precision);
    }

    #[test]
    fn two_cuts_change_nothing(
        body in any_body(),
        precision in any_precision(),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let (a, b) = (a.index(body.len() + 1), b.index(body.len() + 1));
        survives_cuts(&body, precision, &[a.min(b), a.max(b)]);
    }
}

#[test]
fn every_single_cut_changes_nothing() {
    let odd = [
        "m v=\"x\"\\\n",
        " a=\"b v=1 \n garbage",
        "m v=1 5\\\nx",
        "# \\\nm v=1\n",
        "m\\ n v=\"\n\" 5\n\n",
        "m v=1\\\\\n5",
    ];
    for body in odd.iter().copied().chain([GOOD]) {
        for cut in 0..=body.len() {
            survives_cuts(body.as_bytes(), Precision::Nanosecond, &[cut]);
        }
    }
}

#[test]
fn bytes_arriving_one_by_one_change_nothing() {
    survives_cuts(GOOD.as_bytes(), Precision::Second, &(0..=GOOD.len()).collect::<Vec<_>>());
}

#[test]
fn window_edges_change_nothing() {
    // Every offset of a line within an indexed window.
    for shift in 0..130 {
        let mut body = format!("m v={} 5\n", "1".repeat(4000 + shift - 100)).into_bytes();
        for i in 0..60 {
            body.extend_from_slice(format!("m,a={i} v={i}.5,w={i}i {i}\n").as_bytes());
        }
        agrees_with_naive(&body, Precision::Nanosecond);
    }
}

#[test]
fn too_long_line_is_refused_and_the_next_one_is_not() {
    let f = |line: &str, end: &str, want_refused: bool| {
        let body = format!("{line}\nm v=1 5{end}");
        let items = scan_whole(body.as_bytes(), Precision::Nanosecond);
        let refused =
            items.iter().any(|item| matches!(item, Item::Refused(refused) if refused.reason == Reason::LineTooLong));
        assert_eq!(refused, want_refused);
        assert!(matches!(items.last(), Some(Item::Line(_))));
        agrees_with_naive(body.as_bytes(), Precision::Nanosecond);
        let near = limits::LINE_BYTES_MAX;
        for cut in [near - 1, near, near + 1, near + 2, near + 3, near + 4, near + 5] {
            let cut = cut.min(body.len());
            survives_cuts(body.as_bytes(), Precision::Nanosecond, &[cut / 2, cut]);
        }
    };
    let string = |bytes: usize| format!("m v=\"{}\"", "x".repeat(bytes - 6));
    f(&string(limits::LINE_BYTES_MAX), "\n", false);
    f(&string(limits::LINE_BYTES_MAX + 1), "\n", true);
    f(&string(limits::LINE_BYTES_MAX + 2), "", true);
    f(&format!("  m v=\"\n{}\"", "\\\"".repeat(limits::LINE_BYTES_MAX)), "\n", true);
    f(&format!(" #{}", "x".repeat(limits::LINE_BYTES_MAX)), "\n", false);
    f(&" ".repeat(limits::LINE_BYTES_MAX + 9), "", true);
}

#[test]
fn what_is_carried_over_is_bounded() {
    let mut scanner = Scanner::new(Precision::Nanosecond);
    let mut carried = b"m v=\"".to_vec();
    let mut refused = 0;
    for _ in 0..40 {
        carried.extend_from_slice(&[b'\\'; 32 * 1024 + 1]);
        let done = scanner.scan(&carried, false, |item| refused += usize::from(matches!(item, Item::Refused(_))));
        carried.drain(..done);
        assert!(carried.len() <= limits::LINE_BYTES_MAX + 2);
    }
    assert_eq!(refused, 1, "one line, told once");
}

#[test]
fn many_tags_are_compared_all_with_all() {
    let f = |tags: usize, duplicate: bool, want: Option<Reason>| {
        let mut body = "m".to_owned();
        for i in 0..tags {
            body.push_str(&format!(",a_rather_long_key_{}=1", (i * 7919) % 10007));
        }
        if duplicate {
            body.push_str(",a_rather_long_key_7919=2");
        }
        body.push_str(" v=1 5\n");
        agrees_with_naive(body.as_bytes(), Precision::Nanosecond);
        let got = match scan_whole(body.as_bytes(), Precision::Nanosecond)[..] {
            [Item::Refused(refused)] => Some(refused.reason),
            _ => None,
        };
        assert_eq!(got, want, "{tags} tags");
    };
    for tags in [2, 15, 16, 17, 31, 32, 33, 101, 300] {
        f(tags, false, None);
        f(tags, true, Some(Reason::DuplicateTags));
    }
    for tags in [100, 200, 400, 800, 1600] {
        f(tags, false, Some(Reason::TagCount { tags: tags as u32 }));
    }
}
