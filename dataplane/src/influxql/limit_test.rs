//! Tests the limits: no text makes the parser, or code that walks its trees, overflow the stack.

use super::ast::{Expr, Statement};
use super::parse::parse_within;
use super::{Depth, ErrorKind, Params, parse, visit};
use crate::limits::{
    QUERY_BYTES_MAX, QUERY_DEEP_EXPR_HEIGHT_MAX, QUERY_DEEP_NESTING_MAX, QUERY_DEEP_STACK_BYTES, QUERY_EXPR_HEIGHT_MAX,
    QUERY_NESTING_MAX,
};
use crate::placement::{Placement, PlacementSettings};
use crate::routing::access;
use crate::routing::route::{Route, route};
use crate::topology::Topology;

/// Half of a thread's usual stack, for builds without optimization, whose frames are the largest.
const STACK_BYTES: usize = 1024 * 1024;

/// Parses the text and runs everything that recurses over the tree.
fn survives(text: &str) -> Result<(), ErrorKind> {
    let text = text.to_owned();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let statements = parse(&text, &Params::default()).map_err(|e| {
            assert!(e.ours(), "{e}");
            e.kind
        })?;
        let mut copy = statements.clone();
        assert_eq!(copy, statements);
        assert!(!format!("{statements:?}").is_empty());
        assert!(!statements[0].to_string().is_empty());
        if let Statement::Select(select) = &mut copy[0] {
            let (mut read, mut changed) = (0, 0);
            visit::exprs(select, &mut |_| read += 1);
            visit::exprs_mut(select, &mut |expr| {
                changed += 1;
                if let Expr::Variable { parts, .. } = expr {
                    parts.push("x".into());
                }
            });
            assert_eq!(read, changed);
        }
        Ok(())
    });
    thread.unwrap().join().unwrap()
}

#[test]
fn chains_of_operators_are_bounded() {
    let chain = |operators: usize| format!("select x from m where a{}", " or a".repeat(operators));
    assert_eq!(survives(&chain(QUERY_EXPR_HEIGHT_MAX - 1)), Ok(()));
    assert!(matches!(survives(&chain(QUERY_EXPR_HEIGHT_MAX)), Err(ErrorKind::TooDeep(_))));
    assert!(matches!(survives(&chain(100_000)), Err(ErrorKind::TooDeep(_))));
}

#[test]
fn chains_inside_each_other_count_together() {
    let mut expr = "a".to_owned();
    for _ in 0..QUERY_NESTING_MAX - 2 {
        expr = format!("({expr}){}", "+a".repeat(100));
    }
    assert!(matches!(survives(&format!("select {expr} from m")), Err(ErrorKind::TooDeep(_))));
}

type Nest = fn(usize) -> String;

fn nests() -> [Nest; 5] {
    [
        |depth| format!("select {}a{} from m", "(".repeat(depth), ")".repeat(depth)),
        |depth| format!("select {}a{} from m", "-(".repeat(depth), ")".repeat(depth)),
        |depth| format!("select {}a{} from m", "f(1,".repeat(depth), ")".repeat(depth)),
        |depth| format!("select x from {}m{}", "(select x from ".repeat(depth), ")".repeat(depth)),
        |depth| format!("select x from m where {}a{}", "a + (1 * ".repeat(depth), ")".repeat(depth)),
    ]
}

#[test]
fn nesting_is_bounded() {
    for nest in nests() {
        assert_eq!(survives(&nest(QUERY_NESTING_MAX - 1)), Ok(()), "{}", nest(1));
        assert!(matches!(survives(&nest(QUERY_NESTING_MAX + 1)), Err(ErrorKind::TooDeep(_))), "{}", nest(1));
        assert!(matches!(survives(&nest(30_000)), Err(ErrorKind::TooDeep(_))), "{}", nest(1));
    }
}

#[test]
fn the_deepest_tree_of_all_fits() {
    let chain = "+a".repeat(QUERY_EXPR_HEIGHT_MAX - 2 * QUERY_NESTING_MAX);
    let depth = QUERY_NESTING_MAX / 2 - 1;
    let expr = format!("{}a{chain}{}", "(".repeat(depth), ")".repeat(depth));
    let text = format!("select {expr} from (").repeat(depth);
    assert_eq!(survives(&format!("{text}select {expr} from m{}", ")".repeat(depth))), Ok(()));
}

#[test]
fn a_text_that_is_too_long_is_refused() {
    let text = format!("show databases{}", " ".repeat(QUERY_BYTES_MAX));
    assert!(parse(&text, &Params::default()).unwrap_err().ours());
}

#[test]
fn time_grows_with_the_length_only() {
    let items = |count: usize| format!("select {} from m", vec!["a"; count].join(","));
    let quotes = |count: usize| format!("select '{}' from m", "\\'".repeat(count));
    let slashes = |count: usize| format!("select /{}/ from m", "\\/".repeat(count));
    let comments = |count: usize| format!("show {}databases", "--\n/**/ ".repeat(count));
    let open = |count: usize| "/* ".repeat(count);
    let regexes = |count: usize| format!("select x from m where a =~ /{}/", r"\Qa".repeat(count));
    // Half a second each if the time is linear, hours if not.
    for text in [items(400_000), quotes(400_000), slashes(400_000), comments(100_000), open(300_000), regexes(300_000)]
    {
        assert!(text.len() <= QUERY_BYTES_MAX);
        let _ = parse(&text, &Params::default());
    }
}

/// Half of what such queries get, and everything that is done there.
#[test]
fn the_deepest_trees_of_one_backend_fit_their_stack() {
    let (topology, nests) = (Topology::of_sizes(&[2, 2]), nests());
    let placement = Placement::new(&topology, &PlacementSettings::default());
    let decide = |text: &str| {
        let work = || {
            let statements = parse_within(Depth::DEEP, text, &Params::default()).map_err(|error| error.kind)?;
            access::check(&statements, "d", |_| true).unwrap();
            Ok(route(&statements, "d", &topology, &placement))
        };
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(QUERY_DEEP_STACK_BYTES / 2);
            builder.spawn_scoped(scope, work).unwrap().join().unwrap()
        })
    };
    for nest in nests {
        let alone = decide(&nest(QUERY_DEEP_NESTING_MAX - 1));
        assert!(matches!(alone, Ok(Route::Alone(_))), "{} {alone:?}", nest(1));
        let more = decide(&nest(QUERY_DEEP_NESTING_MAX + 1));
        assert!(matches!(more, Err(ErrorKind::TooDeep(_))), "{} {more:?}", nest(1));
    }
    let chain = |operators: usize| format!("select x from m where a{}", " or a".repeat(operators));
    assert!(decide(&chain(QUERY_DEEP_EXPR_HEIGHT_MAX - 1)).is_ok());
    let (outer, ends) = ("select x from (".repeat(QUERY_DEEP_NESTING_MAX - 2), ")".repeat(QUERY_DEEP_NESTING_MAX - 2));
    assert!(decide(&format!("{outer}{}{ends}", chain(QUERY_DEEP_EXPR_HEIGHT_MAX - 1))).is_ok());
    assert!(decide(&chain(QUERY_DEEP_EXPR_HEIGHT_MAX)).is_err());
}
