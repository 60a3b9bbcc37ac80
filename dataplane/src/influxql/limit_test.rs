//! Tests the limits: no text makes the parser, or code that walks its trees, overflow the stack.

use super::ast::{Expr, Statement};
use super::{ErrorKind, Params, parse, visit};
use crate::limits::{QUERY_BYTES_MAX, QUERY_EXPR_HEIGHT_MAX, QUERY_NESTING_MAX};

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
    assert!(matches!(survives(&chain(QUERY_EXPR_HEIGHT_MAX)), Err(ErrorKind::Beyond(_))));
    assert!(matches!(survives(&chain(100_000)), Err(ErrorKind::Beyond(_))));
}

#[test]
fn chains_inside_each_other_count_together() {
    let mut expr = "a".to_owned();
    for _ in 0..QUERY_NESTING_MAX - 2 {
        expr = format!("({expr}){}", "+a".repeat(100));
    }
    assert!(matches!(survives(&format!("select {expr} from m")), Err(ErrorKind::Beyond(_))));
}

#[test]
fn nesting_is_bounded() {
    type Nest = fn(usize) -> String;
    let nests: [Nest; 5] = [
        |depth| format!("select {}a{} from m", "(".repeat(depth), ")".repeat(depth)),
        |depth| format!("select {}a{} from m", "-(".repeat(depth), ")".repeat(depth)),
        |depth| format!("select {}a{} from m", "f(1,".repeat(depth), ")".repeat(depth)),
        |depth| format!("select x from {}m{}", "(select x from ".repeat(depth), ")".repeat(depth)),
        |depth| format!("select x from m where {}a{}", "a + (1 * ".repeat(depth), ")".repeat(depth)),
    ];
    for nest in nests {
        assert_eq!(survives(&nest(QUERY_NESTING_MAX - 1)), Ok(()), "{}", nest(1));
        assert!(matches!(survives(&nest(QUERY_NESTING_MAX + 1)), Err(ErrorKind::Beyond(_))), "{}", nest(1));
        assert!(matches!(survives(&nest(30_000)), Err(ErrorKind::Beyond(_))), "{}", nest(1));
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
