//! Random trees: a printed tree is parsed as the same tree.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::ast::*;
use super::{Params, ParseError, parse, print, unbind, visit};

/// Names and strings: any text.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        Just("time".to_owned()),
        Just("select".to_owned()),
        Just("fill".to_owned()),
        "[ -~\n\r\0\té\u{2028}\u{feff}\u{b}/'\"\\\\]{0,8}",
    ]
}

fn non_empty() -> impl Strategy<Value = String> {
    text().prop_filter("a name", |text| !text.is_empty())
}

fn regex() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("cpu"),
        Just("/"),
        Just(r"\."),
        Just(r"\/"),
        Just("\""),
        Just("from"),
        Just("\r"),
        Just(r"\\d"),
        Just("[^/'\"]"),
        Just("(a|b)"),
        Just(".*"),
        Just("x+?"),
        Just("é")
    ];
    vec(piece, 0..5).prop_map(|pieces| pieces.concat()).prop_filter("as Go has it", |text| !text.starts_with('*'))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![Just("1.".to_owned()), Just(".5".to_owned()), "-?[0-9]{1,20}\\.[0-9]{0,20}"]
}

fn variable() -> impl Strategy<Value = Expr> {
    let of = prop_oneof![
        Just(DataType::Float),
        Just(DataType::Integer),
        Just(DataType::Unsigned),
        Just(DataType::String),
        Just(DataType::Boolean),
        Just(DataType::Tag),
        Just(DataType::AnyField),
    ];
    (vec(text(), 1..=3), option::of(of)).prop_map(|(parts, of)| Expr::Variable { parts, of })
}

fn leaf() -> impl Strategy<Value = Expr> {
    prop_oneof![
        4 => variable(),
        1 => Just(Expr::Wildcard(None)),
        1 => Just(Expr::Wildcard(Some(FieldOrTag::Field))),
        1 => Just(Expr::Wildcard(Some(FieldOrTag::Tag))),
        1 => text().prop_map(Expr::String),
        2 => any::<i64>().prop_map(Expr::Integer),
        1 => Just(Expr::Integer(i64::MIN)),
        1 => (i64::MAX as u64 + 1..).prop_map(Expr::Unsigned),
        1 => number().prop_map(Expr::Number),
        1 => (i64::MIN + 1..).prop_map(Expr::Duration),
        1 => (-5000_i64..5000).prop_map(|seconds| Expr::Duration(seconds * 1_000_000_000)),
        1 => any::<bool>().prop_map(Expr::Boolean),
        1 => text().prop_map(Expr::Distinct),
    ]
}

const ARITHMETIC: [Op; 8] = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Mod, Op::BitAnd, Op::BitOr, Op::BitXor];
const CONDITIONS: [Op; 8] = [Op::And, Op::Or, Op::Eq, Op::NotEq, Op::Lt, Op::LtEq, Op::Gt, Op::GtEq];

fn expr(ops: Vec<Op>, leaf: impl Strategy<Value = Expr> + 'static) -> impl Strategy<Value = Expr> {
    leaf.prop_recursive(5, 24, 3, move |inner| {
        let op = prop::sample::select(ops.clone());
        let arg = prop_oneof![3 => inner.clone(), 1 => regex().prop_map(Expr::Regex)];
        prop_oneof![
            4 => (op, inner.clone(), inner.clone()).prop_map(|(op, left, right)| {
                Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
            }),
            1 => inner.clone().prop_map(|inner| Expr::Paren(Box::new(inner))),
            1 => inner.prop_map(|inner| Expr::Negative(Box::new(inner))),
            1 => (prop_oneof![text(), Just("mean".to_owned()), Just("distinct".to_owned())], vec(arg, 0..3))
                .prop_map(|(name, args)| Expr::Call { name, args }),
        ]
    })
}

fn field() -> impl Strategy<Value = Field> {
    let expr = prop_oneof![3 => expr(ARITHMETIC.to_vec(), leaf()), 1 => regex().prop_map(Expr::Regex)];
    (expr, option::of(non_empty())).prop_map(|(expr, alias)| Field { expr, alias })
}

fn condition() -> impl Strategy<Value = Expr> {
    let op = prop_oneof![Just(Op::EqRegex), Just(Op::NotEqRegex)];
    let matches = (op, variable(), regex()).prop_map(|(op, left, regex)| {
        let right = Box::new(Expr::Regex(regex));
        Expr::Binary { op, left: Box::new(left), right }
    });
    let leaf = prop_oneof![2 => leaf(), 1 => matches];
    expr([ARITHMETIC, CONDITIONS].concat(), leaf)
}

fn dimensions() -> impl Strategy<Value = Vec<Expr>> {
    vec(prop_oneof![3 => expr(ARITHMETIC.to_vec(), leaf()), 1 => regex().prop_map(Expr::Regex)], 0..3)
}

fn name() -> impl Strategy<Value = Name> {
    // No parameter for a regular expression may follow a point.
    let regex = regex().prop_map(|text| text.replace('\r', ""));
    prop_oneof![3 => text().prop_map(Name::Text), 1 => regex.prop_map(Name::Regex)]
}

fn measurement(name: impl Strategy<Value = Name>) -> impl Strategy<Value = Measurement> {
    (option::of(non_empty()), option::of(non_empty()), name).prop_map(|(db, rp, name)| Measurement { db, rp, name })
}

fn target() -> impl Strategy<Value = Measurement> {
    measurement(prop_oneof![non_empty().prop_map(Name::Text), Just(Name::Same)])
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        Just(Fill::Null),
        Just(Fill::None),
        Just(Fill::Previous),
        Just(Fill::Linear),
        any::<i64>().prop_map(|value| Fill::Value(value.to_string())),
        number().prop_map(Fill::Value),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    (any::<bool>(), option::of(Just("time".to_owned()))).prop_map(|(descending, field)| Order { descending, field })
}

fn count() -> impl Strategy<Value = Option<u64>> {
    option::of(prop_oneof![0_u64..10, Just(i64::MAX as u64)])
}

fn counts() -> impl Strategy<Value = [Option<u64>; 4]> {
    [count(), count(), count(), count()]
}

fn select() -> impl Strategy<Value = Select> {
    let measurements = || vec(measurement(name()).prop_map(Source::Measurement), 1..3);
    let select = |sources: BoxedStrategy<Vec<Source>>| {
        let head = (vec(field(), 1..3), option::of(target()), sources, option::of(condition()), dimensions());
        let tail = (option::of(fill()), option::of(order()), counts(), option::of(text()));
        (head, tail).prop_map(|((fields, into, sources, condition, dimensions), (fill, order, counts, tz))| {
            let [limit, offset, slimit, soffset] = counts;
            Select { fields, into, sources, condition, dimensions, fill, order, limit, offset, slimit, soffset, tz }
        })
    };
    select(measurements().boxed()).prop_recursive(2, 4, 2, move |inner| {
        let subquery = inner.prop_map(|inner| Source::Subquery(Box::new(inner)));
        let source = prop_oneof![subquery, measurement(name()).prop_map(Source::Measurement)];
        select(vec(source, 1..3).boxed()).boxed()
    })
}

fn with_key() -> impl Strategy<Value = WithKey> {
    prop_oneof![
        text().prop_map(WithKey::Eq),
        text().prop_map(WithKey::NotEq),
        regex().prop_map(WithKey::EqRegex),
        regex().prop_map(WithKey::NotEqRegex),
        vec(text(), 1..3).prop_map(WithKey::In),
    ]
}

fn show() -> impl Strategy<Value = Show> {
    let what = (0..10, any::<bool>()).prop_map(|(kind, exact)| match kind {
        0 => ShowKind::Measurements,
        1 => ShowKind::Series,
        2 => ShowKind::TagKeys,
        3 => ShowKind::TagValues,
        4 => ShowKind::FieldKeys,
        5 => ShowKind::SeriesCardinality { exact },
        6 => ShowKind::MeasurementCardinality { exact },
        7 => ShowKind::TagKeyCardinality { exact },
        8 => ShowKind::TagValuesCardinality { exact },
        _ => ShowKind::FieldKeyCardinality { exact },
    });
    let head = (what, option::of(non_empty()), vec(measurement(name()).prop_map(Source::Measurement), 0..3));
    let with = (option::of(name()), with_key());
    (head, with, option::of(condition()), dimensions(), option::of(order()), counts()).prop_map(
        |((what, db, sources), (with_measurement, with_key), condition, dimensions, order, counts)| {
            let [limit, offset, slimit, soffset] = counts;
            let mut show = Show {
                what,
                db,
                sources,
                with_measurement,
                with_key: Some(with_key),
                condition,
                dimensions,
                order,
                limit,
                offset,
                slimit,
                soffset,
            };
            // Each kind keeps only the clauses it has.
            let plain = matches!(
                what,
                ShowKind::Measurements
                    | ShowKind::Series
                    | ShowKind::TagKeys
                    | ShowKind::TagValues
                    | ShowKind::FieldKeys
            );
            if what == ShowKind::Measurements {
                show.sources.clear();
            } else {
                show.with_measurement = None;
            }
            if !matches!(what, ShowKind::TagValues | ShowKind::TagValuesCardinality { .. }) {
                show.with_key = None;
            }
            if what == ShowKind::FieldKeys {
                show.condition = None;
            }
            if plain {
                show.dimensions.clear();
            } else {
                show.order = None;
            }
            if what != ShowKind::TagKeys {
                (show.slimit, show.soffset) = (None, None);
            }
            show
        },
    )
}

fn policy() -> impl Strategy<Value = (RetentionPolicy, bool)> {
    let options = (0..=i64::MAX, 1..=i32::MAX as u64, option::of(0..=i64::MAX), any::<bool>());
    ((text(), text()), options, any::<bool>()).prop_map(|((name, db), options, create)| {
        let (duration, replication, shard_duration, default) = options;
        let (duration, replication) = (Some(duration), Some(replication));
        (RetentionPolicy { name, db, duration, replication, shard_duration, default }, create)
    })
}

fn statement() -> impl Strategy<Value = Statement> {
    let removed = || {
        (vec(name(), 1..3), option::of(condition())).prop_map(|(names, condition)| {
            let source = |name| Source::Measurement(Measurement { db: None, rp: None, name });
            (names.into_iter().map(source).collect::<Vec<_>>(), condition)
        })
    };
    let duration = || option::of(prop_oneof![Just(0), 0..=i64::MAX]);
    let options = (duration(), option::of(1..=i32::MAX as u64), duration(), option::of(text())).prop_map(
        |(duration, replication, shard_duration, name)| {
            let options = DatabaseOptions { duration, replication, shard_duration, name };
            (options != DatabaseOptions::default()).then_some(options)
        },
    );
    let server = (0..5, option::of(non_empty())).prop_map(|(what, module)| match what {
        0 => Statement::ShowServer { what: ServerFact::Shards, module: None },
        1 => Statement::ShowServer { what: ServerFact::ShardGroups, module: None },
        2 => Statement::ShowServer { what: ServerFact::Queries, module: None },
        3 => Statement::ShowServer { what: ServerFact::Stats, module },
        _ => Statement::ShowServer { what: ServerFact::Diagnostics, module },
    });
    prop_oneof![
        8 => select().prop_map(|select| Statement::Select(Box::new(select))),
        1 => (any::<bool>(), select())
            .prop_map(|(analyze, select)| Statement::Explain { analyze, select: Box::new(select) }),
        4 => show().prop_map(|show| Statement::Show(Box::new(show))),
        1 => server,
        1 => option::of(non_empty()).prop_map(|db| Statement::ShowRetentionPolicies { db }),
        1 => (text(), options).prop_map(|(name, options)| Statement::CreateDatabase { name, options }),
        1 => text().prop_map(|name| Statement::DropDatabase { name }),
        1 => policy().prop_map(|(policy, create)| match create {
            true => Statement::CreateRetentionPolicy(policy),
            false => Statement::AlterRetentionPolicy(policy),
        }),
        1 => (text(), text()).prop_map(|(name, db)| Statement::DropRetentionPolicy { name, db }),
        1 => removed().prop_map(|(sources, condition)| Statement::Delete { sources, condition }),
        1 => removed().prop_map(|(sources, condition)| Statement::DropSeries { sources, condition }),
        1 => text().prop_map(|name| Statement::DropMeasurement { name }),
    ]
}

/// Drops parentheses that do not change the tree; the printer adds some.
fn drop_parens(statement: &mut Statement) {
    let unwrap = &mut |expr: &mut Expr| {
        while let Expr::Paren(inner) = expr {
            *expr = std::mem::replace(inner, Expr::Boolean(false));
        }
    };
    match statement {
        Statement::Select(select) | Statement::Explain { select, .. } => visit::exprs_mut(select, unwrap),
        Statement::Show(show) => {
            show.condition.iter_mut().for_each(|condition| visit::walk_mut(condition, unwrap));
            show.dimensions.iter_mut().for_each(|dimension| visit::walk_mut(dimension, unwrap));
        }
        Statement::Delete { condition, .. } | Statement::DropSeries { condition, .. } => {
            condition.iter_mut().for_each(|condition| visit::walk_mut(condition, unwrap));
        }
        _ => {}
    }
}

/// Reads a printed text as a backend does.
fn read_back(printed: &str) -> Result<Vec<Statement>, ParseError> {
    let (sent, params) = unbind(printed);
    let params = params.map(|params| Params::from_json(&params).unwrap()).unwrap_or_default();
    parse(&sent, &params)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_is_read_as_the_same_tree(mut tree in statement()) {
        let text = tree.to_string();
        let read = read_back(&text);
        prop_assert!(read.is_ok(), "{:?}: {text}", read);
        let mut read = read.unwrap();
        prop_assert_eq!(read.len(), 1, "{}", text);
        super::fuzz::keeps_its_meaning(&text, &read);
        drop_parens(&mut tree);
        drop_parens(&mut read[0]);
        prop_assert_eq!(&read[0], &tree, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n\ré\0]{0,40}") {
        super::fuzz::fuzz(text.as_bytes());
    }

    /// Keywords reach deeper into the parser than letters.
    #[test]
    fn any_words_are_read_or_refused(words in vec(prop::sample::select(WORDS), 0..24)) {
        super::fuzz::fuzz(words.concat().as_bytes());
    }

    #[test]
    fn a_quoted_text_is_one_token(text in text()) {
        let select = format!("select {} from m where s = {}", print::name(&text), print::string(&text));
        let select = read_back(&select);
        let Ok([Statement::Select(select)]) = select.as_deref() else { panic!("{select:?}") };
        prop_assert_eq!(&select.fields[0].expr, &Expr::Variable { parts: vec![text.clone()], of: None });
        let Some(Expr::Binary { right, .. }) = &select.condition else { panic!("{select:?}") };
        prop_assert_eq!(&**right, &Expr::String(text));
    }
}

const WORDS: &[&str] = &[
    " ",
    " ",
    " ",
    " ",
    ",",
    ", ",
    ".",
    "..",
    ":",
    "::",
    ";",
    "(",
    ")",
    "/",
    "/x/",
    "/*",
    "*/",
    "--",
    "\n",
    "\r\n",
    "'",
    "'a'",
    "\"",
    "\"b\"",
    "\\",
    "$p",
    "1",
    "1.5",
    ".5",
    "1h",
    "1h30m",
    "18446744073709551615",
    "=",
    "!=",
    "=~ ",
    "!~",
    "<",
    ">=",
    "+",
    "-",
    "*",
    "%",
    "and ",
    " or ",
    "select ",
    "select x ",
    " from ",
    "from m ",
    " where ",
    " group by ",
    " time(",
    "fill(",
    "fill(0)",
    " order by ",
    "time",
    " desc",
    " limit ",
    " tz('UTC')",
    " into ",
    " as ",
    "distinct ",
    "show ",
    "tag ",
    "keys ",
    "values ",
    "with key ",
    "in ",
    "cardinality ",
    "exact ",
    "on ",
    "a",
    "b",
    "::tag",
    "::float",
    "true",
    "explain ",
    "delete ",
    "drop series ",
    ":measurement",
];
