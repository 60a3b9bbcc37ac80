//! Tests of rewriting: statements before and after.

use std::collections::BTreeMap;

use fluxgate_dataplane::influxql::ast::{DataType, Select, Statement};
use fluxgate_dataplane::influxql::{Params, parse};

use super::rewrite::rewrite;
use super::types::KnownColumns;

fn select(text: &str) -> Select {
    match parse(text, &Params::default()).unwrap_or_else(|e| panic!("{text}: {e}")).pop() {
        Some(Statement::Select(select)) => *select,
        other => panic!("{other:?}"),
    }
}

/// A float, an integer, a string, a boolean, a field and tag with one name, and tags.
fn known() -> KnownColumns {
    let fields = [
        ("usage", DataType::Float),
        ("idle", DataType::Integer),
        ("s", DataType::String),
        ("b", DataType::Boolean),
        ("both", DataType::Integer),
    ];
    KnownColumns {
        fields: BTreeMap::from(fields.map(|(name, of)| (name.to_owned(), Some(of)))),
        tags: ["both", "host", "region"].map(str::to_owned).into(),
    }
}

/// Rewrites with the same known columns for each FROM with measurements, and compares the printed statement.
#[track_caller]
fn becomes(given: &str, wanted: &str) {
    let mut levels = Vec::new();
    fluxgate_dataplane::influxql::visit::selects(&select(given), &mut |inner| {
        let reads =
            inner.sources.iter().any(|s| matches!(s, fluxgate_dataplane::influxql::ast::Source::Measurement(_)));
        levels.push(if reads { known() } else { KnownColumns::default() });
    });
    let rewritten = rewrite(&select(given), &levels, &|_, types| Some(types[0])).unwrap();
    assert_eq!(rewritten.to_string(), select(wanted).to_string(), "{given}");
}

#[test]
fn wildcards_are_written_out_sorted_and_typed() {
    becomes(
        "select * from m",
        "select b::boolean, both::integer, both::tag, host::tag, idle::integer, region::tag, s::string, usage::float \
         from m",
    );
    becomes(
        "select * from m group by host, both",
        "select b::boolean, both::integer, idle::integer, region::tag, s::string, usage::float from m group by host, \
         both",
    );
    becomes("select *::tag from m", "select both::tag, host::tag, region::tag from m");
    becomes(
        "select *::field from m",
        "select b::boolean, both::integer, idle::integer, s::string, usage::float from m",
    );
    becomes("select usage from m group by *", "select usage::float from m group by both, host, region");
    becomes(
        "select *::field from m group by *",
        "select b::boolean, both::integer, idle::integer, s::string, usage::float from m group by both, host, region",
    );
    becomes("select /^(us|re)/ from m", "select region::tag, usage::float from m");
    becomes("select /^(us|re)/ from m group by /^re/", "select usage::float from m group by region");
    becomes("select usage from m group by /none/", "select usage::float from m");
    becomes("select usage, /us/ from m", "select usage::float, usage::float from m");
}

#[test]
fn functions_of_wildcards_take_the_types_they_accept() {
    becomes(
        "select mean(*) from m",
        "select mean(both::integer) as mean_both, mean(idle::integer) as mean_idle, mean(usage::float) as mean_usage \
         from m",
    );
    becomes(
        "select MAX(*) as k from m",
        "select MAX(b::boolean) as k_b, MAX(both::integer) as k_both, MAX(idle::integer) as k_idle, MAX(usage::float) \
         as k_usage from m",
    );
    becomes("select count(/^s$|host/) from m", "select count(s::string) as count_s from m");
    becomes("select count(distinct(/^s$/)) from m", "select count(distinct(s::string)) as count_s from m");
    becomes(
        "select derivative(mean(/us/), 1s) from m group by time(1m)",
        "select derivative(mean(usage::float), 1s) as derivative_usage from m group by time(1m)",
    );
    becomes("select mean(/^s$/) from m", r"select mean(/[^\x00-\x{10FFFF}]/) from m");
    becomes("select /none/ from m", r"select /[^\x00-\x{10FFFF}]/ from m");
    becomes("select mean(*::tag) from m", "select mean(*::tag) from m");
}

#[test]
fn names_get_their_types_everywhere() {
    becomes(
        "select usage + idle as u, top(usage, host, 2), unknown from m where both > 3 and host = 'a' and time > 5 and \
         s =~ /x/",
        "select usage::float + idle::integer as u, top(usage::float, host::tag, 2), unknown from m \
         where both::integer > 3 and host::tag = 'a' and time > 5 and s::string =~ /x/",
    );
    becomes("select both::tag, both::field, host::field from m", "select both::tag, both::integer, host::field from m");
    becomes("select distinct usage from m", "select distinct(usage::float) from m");
    becomes("select count(distinct usage) from m", "select count(distinct(usage::float)) from m");
    becomes("select -usage from m", "select -usage::float from m");
    becomes("select usage from m group by host", "select usage::float from m group by host");
    becomes("select usage::integer from m", "select usage::integer from m");
}

#[test]
fn an_outer_wildcard_sees_the_columns_of_its_subquery() {
    becomes(
        "select * from (select mean(usage), max(idle) as k, host from m group by region)",
        "select host::tag, k::integer, mean::float, region::tag \
         from (select mean(usage::float), max(idle::integer) as k, host::tag from m group by region)",
    );
    becomes(
        "select sum(*) from (select idle / idle, usage * idle, s, -idle as n, count(s) as c from m)",
        "select sum(c::integer) as sum_c, sum(idle_idle::integer) as sum_idle_idle, sum(n::integer) as sum_n, \
         sum(usage_idle::float) as sum_usage_idle \
         from (select idle::integer / idle::integer, usage::float * idle::integer, s::string, -idle::integer as n, \
         count(s::string) as c from m)",
    );
    becomes(
        "select region, top, host, b from (select top(usage, host, 2) from m group by region)",
        "select region::tag, top::float, host::tag, b from (select top(usage::float, host::tag, 2) from m group by \
         region)",
    );
    becomes(
        "select *, mean, y from (select /none/, mean(/none/), usage as y from m)",
        concat!(
            r"select y::float, mean, y::float ",
            r"from (select /[^\x00-\x{10FFFF}]/, mean(/[^\x00-\x{10FFFF}]/), usage::float as y from m)"
        ),
    );
    becomes(
        "select mean(x) from (select x from (select usage as x from m))",
        "select mean(x::float) from (select x::float from (select usage::float as x from m))",
    );
    becomes(
        "select * from (select b as both from m), (select s as x from m)",
        "select both::boolean, x::string from (select b::boolean as both from m), (select s::string as x from m)",
    );
    becomes(
        "select usage from m, (select s as usage from m)",
        "select usage::float from m, (select s::string as usage from m)",
    );
}

#[test]
fn an_unknown_pattern_is_an_error() {
    assert!(rewrite(&select(r"select /\123/ from m"), &[known()], &|_, _| None).is_err());
}
