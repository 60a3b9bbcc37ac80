//! Tests printed statements, and what a printer can get wrong.

use super::ast::{Expr, Field, Op, Select, Statement};
use super::fuzz;
use super::{ErrorKind, Params, parse};

fn printed(text: &str) -> String {
    let statements = parse(text, &Params::default()).unwrap_or_else(|e| panic!("{text}: {e}"));
    statements.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn statements_are_written_in_full() {
    for (text, want) in [
        ("select usage from cpu", r#"SELECT "usage" FROM "cpu""#),
        (
            "select mean(x) as m, -y*2 into rp.:measurement from db..m, /a\\/b/ where host =~ /x/ and time > now()-90m \
             group by time(1m,-5s),* fill(previous) order by desc limit 1 offset 2 slimit 3 soffset 4 tz('UTC')",
            concat!(
                r#"SELECT mean("x") AS "m", -"y" * 2 INTO "rp".:MEASUREMENT FROM "db".."m", /a\/b/ "#,
                r#"WHERE "host" =~ /x/ AND "time" > now() - 90m GROUP BY time(1m, -5s), * fill(previous) "#,
                r#"ORDER BY DESC LIMIT 1 OFFSET 2 SLIMIT 3 SOFFSET 4 tz('UTC')"#,
            ),
        ),
        (
            "select x from (select y from a.b.c) order by time",
            r#"SELECT "x" FROM (SELECT "y" FROM "a"."b"."c") ORDER BY "time" ASC"#,
        ),
        (
            "select distinct x, distinct(x), count(DISTINCT x) from m",
            r#"SELECT DISTINCT "x", distinct("x"), count(DISTINCT "x") FROM "m""#,
        ),
        ("select a.b::float, *::tag from m", r#"SELECT "a"."b"::float, *::tag FROM "m""#),
        (r#"select "weird name"(x), "select"(y) from m"#, r#"SELECT "weird name"("x"), "select"("y") FROM "m""#),
        (r#"select -"distinct"(x) from m"#, r#"SELECT -"distinct"("x") FROM "m""#),
        ("select x into \"\" from m", r#"SELECT "x" INTO "" FROM "m""#),
        ("select +x from m", r#"SELECT (1 * "x") FROM "m""#),
        (
            "select x from m where t > - 1 and u > -1.5 and v > -1h and w > 18446744073709551615",
            r#"SELECT "x" FROM "m" WHERE "t" > -1 AND "u" > -1.5 AND "v" > -1h AND "w" > 18446744073709551615"#,
        ),
        (
            r#"select "a\"b\\\nc" from m where s = 'it\'s "x"'"#,
            r#"SELECT "a\"b\\\nc" FROM "m" WHERE "s" = 'it\'s "x"'"#,
        ),
        ("explain analyze select x from m", r#"EXPLAIN ANALYZE SELECT "x" FROM "m""#),
        (
            "show measurements on d with measurement = /c/ limit 5",
            r#"SHOW MEASUREMENTS ON "d" WITH MEASUREMENT =~ /c/ LIMIT 5"#,
        ),
        (
            "show tag values from m with key in (a, \"b c\") where h = 'x'",
            r#"SHOW TAG VALUES FROM "m" WITH KEY IN ("a", "b c") WHERE "h" = 'x'"#,
        ),
        ("show series exact cardinality on d group by h", r#"SHOW SERIES EXACT CARDINALITY ON "d" GROUP BY "h""#),
        ("show stats for 'x'; show shard groups", "SHOW STATS FOR 'x'; SHOW SHARD GROUPS"),
        (
            "create database d with duration inf replication 1 shard duration 1h name n",
            r#"CREATE DATABASE "d" WITH DURATION INF REPLICATION 1 SHARD DURATION 1h NAME "n""#,
        ),
        (
            "create retention policy r on d duration 0s replication 2 shard duration 0s default",
            r#"CREATE RETENTION POLICY "r" ON "d" DURATION INF REPLICATION 2 SHARD DURATION 0s DEFAULT"#,
        ),
        (
            "alter retention policy default on d shard duration 2h",
            r#"ALTER RETENTION POLICY "default" ON "d" SHARD DURATION 2h"#,
        ),
        ("delete from a, /b/ where time < 0", r#"DELETE FROM "a", /b/ WHERE "time" < 0"#),
        ("drop series where h = 'x'", r#"DROP SERIES WHERE "h" = 'x'"#),
        (
            "create user u with password 'secret' with all privileges",
            r#"CREATE USER "u" WITH PASSWORD [REDACTED] WITH ALL PRIVILEGES"#,
        ),
        ("set password for u = 'secret'", r#"SET PASSWORD FOR "u" = [REDACTED]"#),
        ("grant all to u; revoke read on d from u", r#"GRANT ALL PRIVILEGES TO "u"; REVOKE READ ON "d" FROM "u""#),
        (
            "create continuous query c on d resample every 30m \
             begin select mean(x) into y from m group by time(1h) end",
            concat!(
                r#"CREATE CONTINUOUS QUERY "c" ON "d" RESAMPLE EVERY 30m "#,
                r#"BEGIN SELECT mean("x") INTO "y" FROM "m" GROUP BY time(1h) END"#,
            ),
        ),
        ("kill query 7 on h", r#"KILL QUERY 7 ON "h""#),
        (";; -- nothing\n;", ""),
    ] {
        assert_eq!(printed(text), want);
    }
}

#[test]
fn a_name_cannot_leave_its_quotes() {
    for (name, want) in [
        ("db1", r#""db1""#),
        ("", r#""""#),
        ("中文", r#""中文""#),
        (r#"a"; DROP DATABASE "b"#, r#""a\"; DROP DATABASE \"b""#),
        (r"ends with \", r#""ends with \\""#),
        (r#"\""#, r#""\\\"""#),
        ("two\nlines", r#""two\nlines""#),
    ] {
        assert_eq!(super::print::name(name), want);
        assert_eq!(printed(&format!("drop database {want}")), format!("DROP DATABASE {want}"));
    }
}

fn variable(name: &str) -> Box<Expr> {
    Box::new(Expr::Variable { parts: vec![name.into()], of: None })
}

fn binary(op: Op, left: Box<Expr>, right: Box<Expr>) -> Box<Expr> {
    Box::new(Expr::Binary { op, left, right })
}

#[test]
fn trees_without_parentheses_get_those_they_need() {
    let (a, b, c) = (|| variable("a"), || variable("b"), || variable("c"));
    for (tree, want) in [
        (binary(Op::Mul, binary(Op::Add, a(), b()), c()), r#"("a" + "b") * "c""#),
        (binary(Op::Add, binary(Op::Mul, a(), b()), c()), r#""a" * "b" + "c""#),
        (binary(Op::Sub, a(), binary(Op::Sub, b(), c())), r#""a" - ("b" - "c")"#),
        (binary(Op::Sub, binary(Op::Sub, a(), b()), c()), r#""a" - "b" - "c""#),
        (binary(Op::And, binary(Op::Or, a(), b()), c()), r#"("a" OR "b") AND "c""#),
        (binary(Op::Sub, a(), Box::new(Expr::Integer(-1))), r#""a" - -1"#),
        (Box::new(Expr::Negative(binary(Op::Mul, a(), b()))), r#"-("a" * "b")"#),
        (Box::new(Expr::Negative(Box::new(Expr::Integer(-1)))), "-(-1)"),
    ] {
        assert_eq!(tree.to_string(), want);
    }
}

#[test]
fn precedence_is_influxdbs() {
    for (text, want) in [
        ("a + b * c", Op::Add),
        ("a * b + c", Op::Add),
        ("a or b and c", Op::Or),
        ("a and b or c", Op::Or),
        ("a = b + c", Op::Eq),
        ("a & b | c", Op::BitOr),
        ("a and b = c and d", Op::And),
        ("a - b + c", Op::Add),
    ] {
        let statements = parse(&format!("select x from m where {text}"), &Params::default()).unwrap();
        let Statement::Select(select) = &statements[0] else { panic!("{text}") };
        let Some(Expr::Binary { op, .. }) = &select.condition else { panic!("{text}") };
        assert_eq!(*op, want, "{text}");
    }
}

#[test]
fn bound_values_are_printed_as_literals() {
    let params = r#"{"s":"a'b; drop database p","i":-1,"f":2.0,"b":true,
        "m":{"identifier":"a\"b"},"r":{"regex":"a/b"},"d":{"duration":"1h"}}"#;
    let params = Params::from_json(params).unwrap();
    for (text, want) in [
        ("select $m from $r where s = $s", r#"SELECT "a\"b" FROM /a\/b/ WHERE "s" = 'a\'b; drop database p'"#),
        (
            "select $m(x) from m where f =~ $r and b = $b",
            r#"SELECT "a\"b"("x") FROM "m" WHERE "f" =~ /a\/b/ AND "b" = true"#,
        ),
        ("select x - $i, x * -$f from m group by time($d)", r#"SELECT "x" - -1, "x" * -2. FROM "m" GROUP BY time(1h)"#),
    ] {
        let statements = parse(text, &params).unwrap();
        assert_eq!(statements.iter().map(ToString::to_string).collect::<String>(), want);
    }
}

#[test]
fn bound_values_beyond_text_keep_their_meaning() {
    let params = r#"{"s":"a\rb'\u0000","m":{"identifier":"\ra\"\u0000"},"r":{"regex":"a\r/\\d\""},
        "e":{"regex":"a\\/b\r"}}"#;
    let params = Params::from_json(params).unwrap();
    for text in [
        "select $m(x), $m from $m where s = $s and $m =~ $r",
        "select x / y, $m / 2 from $r, $m, $r",
        "select $r, mean($r), x from $r where h !~ $r and i =~ $r group by $r, $r",
        r"select x from m where h =~ $e and i =~ /a\\/b/ and s = $s",
        r#"select x from rp./x"y/, d../x'y/, d.rp./x"y/, d.rp./.*from/ where s = $s"#,
        r#"select x from rp./.*from/, d../from"/ where s = $s"#,
        r#"select x / 1. / "/" from (select 2 / x from /'/) where x / y > 1. / 2 and (x) / 2 > 1 and s = $s"#,
        r#"show tag values from rp./from"/ with key =~ /'/ where s = $s"#,
    ] {
        fuzz::keeps_its_meaning(text, &parse(text, &params).unwrap());
    }
}

/// InfluxDB accepts these values, so no backend may get them unparsed.
#[test]
fn bound_values_that_no_text_can_express_are_refused_as_ours() {
    let params = r#"{"n":{"regex":"a\nb"},"r":{"regex":"a\\\\"},"d":{"duration":"-1h"}}"#;
    let params = Params::from_json(params).unwrap();
    for text in
        ["select x from $n", "select x from $r", "select x from m where $r = s", "create database d with duration $d"]
    {
        let error = parse(text, &params).unwrap_err();
        assert!(error.ours() && matches!(error.kind, ErrorKind::Unsafe(_)), "{text}: {error}");
    }
}

#[test]
fn a_select_that_was_built_is_printed_too() {
    let field = Field { expr: *variable("x"), alias: None };
    let select = Select { fields: vec![field], ..Select::default() };
    assert_eq!(select.to_string(), r#"SELECT "x""#);
}
